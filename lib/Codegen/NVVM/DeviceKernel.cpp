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

DeviceKernel::DeviceKernel(gpu::GPUModuleOp module, Location loc,
                           StringRef name, DeviceRole role, int64_t threads,
                           int64_t sharedBytes, const DeviceOptions &options)
    : module(module), function([&] {
        OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
        MLIRContext *context = builder.getContext();
        Type pointer = LLVM::LLVMPointerType::get(context, 1);
        constexpr size_t count = sizeof(kvrm_device_args) / 8;
        SmallVector<Type> parameters(count, pointer);
        for (size_t offset : {offsetof(kvrm_device_args, head_stride),
                              offsetof(kvrm_device_args, pages_per_slot)})
          parameters[offset / 8] = builder.getI64Type();
        auto op = LLVM::LLVMFuncOp::create(
            builder, loc, name,
            LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context),
                                        parameters));
        op->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(),
                    builder.getUnitAttr());
        op->setAttr(NVVM::NVVMDialect::getMaxntidAttrName(),
                    builder.getDenseI32ArrayAttr(
                        {static_cast<int32_t>(threads), 1, 1}));
        op->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
                    builder.getI32IntegerAttr(
                        static_cast<int32_t>(options.blocksPerSM)));
        op->setAttr(KVRMDialect::getDeviceKernelAttrName(),
                    DeviceKernelAttr::get(context, role, threads, sharedBytes));
        return op;
      }()),
      b(loc, function) {}

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
  case DeviceRole::Stage:
    return (kernel + "_stage").str();
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
