//===- DeviceKernel.cpp - One generated GPU kernel ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DeviceKernel.h"

using namespace mlir;
using namespace mlir::kvrm;

FailureOr<DeviceOptions> kvrm::readDeviceOptions(Location loc, StringRef arch) {
  DeviceOptions options;
  StringRef digits = arch;
  if (!digits.consume_front("sm_") || digits.getAsInteger(10, options.sm) ||
      (options.sm != 80 && options.sm != 90)) {
    emitError(loc) << "arch: '" << arch << "' is not sm_80 or sm_90";
    return failure();
  }
  return options;
}

void kvrm::waitForInputs(DeviceBuilder &b, const DeviceOptions &options) {
  if (!options.isHopper())
    return;
  b.launchDependents();
  b.waitForPrerequisites();
}

static LLVM::LLVMFuncOp createKernel(gpu::GPUModuleOp module, Location loc,
                                     StringRef name, ArrayRef<Type> parameters,
                                     DeviceKernelAttr launch,
                                     int64_t blocksPerSM) {
  OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
  MLIRContext *context = builder.getContext();
  auto op = LLVM::LLVMFuncOp::create(
      builder, loc, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context),
                                  parameters));
  op->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(),
              builder.getUnitAttr());
  op->setAttr(NVVM::NVVMDialect::getMaxntidAttrName(),
              builder.getDenseI32ArrayAttr(
                  {static_cast<int32_t>(launch.getThreads()), 1, 1}));
  op->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
              builder.getI32IntegerAttr(static_cast<int32_t>(blocksPerSM)));
  op->setAttr(KVRMDialect::getDeviceKernelAttrName(), launch);
  return op;
}

DeviceKernel::DeviceKernel(gpu::GPUModuleOp module, Location loc,
                           StringRef name, ArrayRef<Type> parameters,
                           DeviceKernelAttr launch, int64_t blocksPerSM)
    : module(module), function(createKernel(module, loc, name, parameters,
                                            launch, blocksPerSM)),
      b(loc, function) {}

static Type globalPointer(MLIRContext *context) {
  return LLVM::LLVMPointerType::get(context, 1);
}

/// The fields of kvrm_device_args.
static SmallVector<Type> deviceArgTypes(MLIRContext *context) {
  SmallVector<Type> types(KVRM_DEVICE_ARGS, globalPointer(context));
  for (size_t offset : {offsetof(kvrm_device_args, head_stride),
                        offsetof(kvrm_device_args, pages_per_slot)})
    types[offset / 8] = IntegerType::get(context, 64);
  return types;
}

DeviceKernel::DeviceKernel(gpu::GPUModuleOp module, Location loc,
                           StringRef name, DeviceRole role, int64_t threads,
                           int64_t sharedBytes, const DeviceOptions &options)
    : DeviceKernel(
          module, loc, name, deviceArgTypes(loc.getContext()),
          DeviceKernelAttr::get(loc.getContext(), role, threads, sharedBytes),
          options.blocksPerSM) {}

static SmallVector<Type> pointerTypes(MLIRContext *context, int64_t pointers,
                                      bool appends) {
  SmallVector<Type> types(pointers, globalPointer(context));
  for (int32_t i = 0; appends && i < KVRM_APPEND_ARGS; ++i) {
    int32_t base = kvrm_append_arg_base(i);
    bool isNumber =
        base == KVRM_BASE_HEAD_STRIDE || base == KVRM_BASE_PAGES_PER_SLOT;
    types.push_back(isNumber ? Type(IntegerType::get(context, 64))
                             : globalPointer(context));
  }
  return types;
}

DeviceKernel::DeviceKernel(gpu::GPUModuleOp module, Location loc,
                           StringRef name, int64_t pointers, int64_t threads,
                           int64_t sharedBytes, DeviceRole role, bool appends)
    : DeviceKernel(
          module, loc, name, pointerTypes(loc.getContext(), pointers, appends),
          DeviceKernelAttr::get(loc.getContext(), role, threads, sharedBytes),
          /*blocksPerSM=*/1) {}

Value DeviceKernel::appendArgument(kvrm_program_base base) {
  int32_t position = 0;
  while (kvrm_append_arg_base(position) != base) {
    ++position;
    assert(position < KVRM_APPEND_ARGS && "no argument of kernels that append");
  }
  return function.getArgument(
      function.getNumArguments() -
      static_cast<unsigned>(KVRM_APPEND_ARGS - position));
}

std::string kvrm::deviceKernelName(StringRef kernel, DeviceRole role) {
  switch (role) {
  case DeviceRole::Commit:
    return "commit";
  case DeviceRole::Append:
    return kernel.str();
  case DeviceRole::AttendWorkqueue:
  case DeviceRole::AttendWorkqueueStaged:
    return (kernel + "_workqueue").str();
  case DeviceRole::AttendCluster:
    return (kernel + "_cluster").str();
  case DeviceRole::AttendPrompt:
    return (kernel + "_prompt").str();
  case DeviceRole::Stage:
    return (kernel + "_stage").str();
  case DeviceRole::Dense:
    return kernel.str();
  case DeviceRole::Sample:
    return "sample";
  case DeviceRole::Collapse:
    return "collapse";
  }
  llvm_unreachable("a role has a name");
}

Value DeviceKernel::sharedMemory() {
  constexpr StringRef name = "dynamic_shared";
  auto type = LLVM::LLVMArrayType::get(b.getI8Type(), 0);
  if (!module.lookupSymbol(name)) {
    OpBuilder builder = OpBuilder::atBlockBegin(module.getBody());
    LLVM::GlobalOp::create(builder, b.getLoc(), type, /*isConstant=*/false,
                           LLVM::Linkage::External, name, Attribute(),
                           /*alignment=*/1024, /*addrSpace=*/3);
  }
  Value address = LLVM::AddressOfOp::create(
      b, LLVM::LLVMPointerType::get(b.getContext(), 3), name);
  return LLVM::PtrToIntOp::create(b, b.getI32Type(), address);
}
