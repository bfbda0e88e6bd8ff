//===- DeviceProgram.cpp - A step of a GPU as a table ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Codegen/DeviceProgram.h"

#include "DeviceKernel.h"
#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/abi/version.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <array>

using namespace mlir;
using namespace mlir::kvrm;

SmallVector<LLVM::LLVMFuncOp> kvrm::getDeviceKernels(gpu::GPUModuleOp device) {
  SmallVector<LLVM::LLVMFuncOp> kernels;
  for (auto func : device.getOps<LLVM::LLVMFuncOp>())
    if (func->hasAttr(KVRMDialect::getDeviceKernelAttrName()))
      kernels.push_back(func);
  return kernels;
}

namespace {

/// What a launch binds its kernel's tensors to.
struct Operands {
  Value query, output, key, value;
};

class ProgramWriter {
public:
  ProgramWriter(func::FuncOp step, gpu::GPUModuleOp device, bool overlaps)
      : step(step), kernels(getDeviceKernels(device)), overlaps(overlaps) {}

  FailureOr<DeviceProgram> run();

private:
  LogicalResult findTensors();
  LogicalResult write(Operation &op);
  LogicalResult writeAppend(LaunchOp op);
  LogicalResult writeAttention(LaunchOp op);
  LogicalResult add(Operation *op, StringRef kernel, uint16_t schedules,
                    kvrm_grid_rule rule, std::array<int64_t, 3> grid,
                    int64_t layer, const Operands &operands,
                    bool isProgrammatic);
  int64_t indexOf(StringRef name) const;
  std::string serialize() const;

  func::FuncOp step;
  SmallVector<LLVM::LLVMFuncOp> kernels;
  bool overlaps;
  int64_t layers = 1;
  DenseMap<Value, uint16_t> numbers; ///< of tensors
  SmallVector<ProgramTensor> tensors;
  std::vector<kvrm_program_command> commands;
  std::vector<kvrm_program_arg> args;
};

} // namespace

int64_t ProgramWriter::indexOf(StringRef name) const {
  const auto *found = llvm::find_if(
      kernels, [&](LLVM::LLVMFuncOp func) { return func.getName() == name; });
  return found == kernels.end() ? -1 : found - kernels.begin();
}

/// Numbers the step's inputs, then what it returns.
LogicalResult ProgramWriter::findTensors() {
  auto number = [&](Value value, const Twine &name) -> LogicalResult {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    if (!type || !type.hasStaticShape() || type.getRank() < 1)
      return step.emitError(name + " is no tensor of static shape");
    numbers[value] = static_cast<uint16_t>(tensors.size());
    tensors.push_back({name.str(), type.getNumElements() / type.getDimSize(0) *
                                       type.getElementTypeBitWidth() / 8});
    return success();
  };
  int64_t inputs = 0, outputs = 0;
  for (BlockArgument argument : step.getArguments())
    if (!isa<SessionType>(argument.getType()) &&
        failed(number(argument, "input" + Twine(inputs++))))
      return failure();
  for (Value value : step.getBody().front().getTerminator()->getOperands()) {
    if (numbers.contains(value))
      return step.emitError("returns an input or one result twice");
    if (failed(number(value, "output" + Twine(outputs++))))
      return failure();
  }
  return success();
}

LogicalResult ProgramWriter::add(Operation *op, StringRef kernel,
                                 uint16_t schedules, kvrm_grid_rule rule,
                                 std::array<int64_t, 3> grid, int64_t layer,
                                 const Operands &operands,
                                 bool isProgrammatic) {
  int64_t index = indexOf(kernel);
  if (index < 0)
    return op->emitOpError("runs a kernel that is not lowered: ") << kernel;
  kvrm_program_command command{};
  command.kind = KVRM_COMMAND_KERNEL;
  // What comes right after the commit waits until it has ended.
  if (isProgrammatic && overlaps && commands.size() > 1)
    command.flags = KVRM_COMMAND_PROGRAMMATIC;
  command.schedules = schedules;
  command.grid_rule = static_cast<uint16_t>(rule);
  command.kernel = static_cast<uint32_t>(index);
  for (size_t i = 0; i < grid.size(); ++i)
    command.grid[i] = static_cast<uint32_t>(grid[i]);
  command.first_arg = static_cast<uint32_t>(args.size());
  command.args = KVRM_DEVICE_ARGS;
  commands.push_back(command);

  const std::pair<size_t, Value> bound[] = {
      {offsetof(kvrm_device_args, q), operands.query},
      {offsetof(kvrm_device_args, out), operands.output},
      {offsetof(kvrm_device_args, k), operands.key},
      {offsetof(kvrm_device_args, v), operands.value}};
  for (size_t field = 0; field < KVRM_DEVICE_ARGS; ++field) {
    kvrm_program_arg arg{};
    arg.base = static_cast<uint16_t>(
        kvrm_device_arg_base(static_cast<int32_t>(field)));
    if (arg.base == KVRM_BASE_K_POOL || arg.base == KVRM_BASE_V_POOL)
      arg.index = static_cast<uint16_t>(layer);
    for (auto [offset, value] : bound)
      if (offset / sizeof(uint64_t) == field && value) {
        auto found = numbers.find(value);
        if (found == numbers.end())
          return op->emitOpError("takes or makes a tensor that is neither an "
                                 "input nor a result of its step");
        arg.index = found->second;
      }
    args.push_back(arg);
  }
  return success();
}

LogicalResult ProgramWriter::writeAppend(LaunchOp op) {
  int64_t queries = op.getDescriptor().getType().getQueries();
  return add(op, deviceKernelName(op.getKernel(), DeviceRole::Append),
             KVRM_RUN_ALL, KVRM_GRID_ROWS, {1, queries, 1}, op.getLayer(),
             {.query = {},
              .output = {},
              .key = op.getInputs()[0],
              .value = op.getInputs()[1]},
             /*isProgrammatic=*/true);
}

LogicalResult ProgramWriter::writeAttention(LaunchOp op) {
  StringRef name = op.getKernel();
  auto kernel =
      SymbolTable::lookupNearestSymbolFrom<KernelOp>(op, op.getKernelAttr());
  if (!kernel)
    return op.emitOpError("runs a kernel that is no tile program any more");
  int64_t layer = op.getLayer();
  int64_t outputs = kernel.getPool().getKvHeads() *
                    llvm::divideCeil(kernel.getDescriptorType().getQueries(),
                                     kernel.getTile().getQ());
  Operands operands{.query = op.getInputs()[0],
                    .output = op.getResult(0),
                    .key = {},
                    .value = {}};
  if (failed(add(op, deviceKernelName(name, DeviceRole::AttendWorkqueue),
                 KVRM_RUN_WORKQUEUE, KVRM_GRID_SHARES, {1, 1, 1}, layer,
                 operands, true)) ||
      failed(add(op, deviceKernelName(name, DeviceRole::AttendCluster),
                 KVRM_RUN_CLUSTER, KVRM_GRID_CLUSTERS, {outputs, 1, 1}, layer,
                 operands, true)))
    return failure();
  // Staged kernels wait for nothing by themselves.
  std::string staged = (name + kStagedSuffix).str();
  if (indexOf(deviceKernelName(staged, DeviceRole::Stage)) < 0)
    return success();
  for (DeviceRole role : {DeviceRole::Stage, DeviceRole::AttendWorkqueueStaged})
    if (failed(add(op, deviceKernelName(staged, role), KVRM_RUN_STAGED,
                   KVRM_GRID_SHARES, {1, 1, 1}, layer, operands, false)))
      return failure();
  return success();
}

LogicalResult ProgramWriter::write(Operation &op) {
  if (auto commit = dyn_cast<CommitOp>(op)) {
    layers = commit.getSession().getType().getPool().getLayers();
    // One descriptor is a few hundred words: four blocks apply them.
    return add(&op, deviceKernelName({}, DeviceRole::Commit), KVRM_RUN_ALL,
               KVRM_GRID_FIXED, {4, 1, 1}, /*layer=*/0, {}, false);
  }
  if (auto launch = dyn_cast<LaunchOp>(op))
    return launch.isAttention() ? writeAttention(launch) : writeAppend(launch);
  bool isUnusedField = isa<PositionsOp, CountsOp>(op) && op.use_empty();
  if (isUnusedField || isa<StageOp, tensor::EmptyOp, func::ReturnOp>(op))
    return success();
  return op.emitOpError("is left in a step and has no command of a program");
}

std::string ProgramWriter::serialize() const {
  kvrm_program_header header{};
  header.magic = KVRM_PROGRAM_MAGIC;
  header.abi_version = KVRM_ABI_VERSION;
  header.commands = static_cast<uint32_t>(commands.size());
  header.args = static_cast<uint32_t>(args.size());
  header.tensors = static_cast<uint32_t>(tensors.size());
  header.layers = static_cast<uint32_t>(layers);
  std::string bytes(reinterpret_cast<const char *>(&header), sizeof(header));
  bytes.append(reinterpret_cast<const char *>(commands.data()),
               commands.size() * sizeof(kvrm_program_command));
  bytes.append(reinterpret_cast<const char *>(args.data()),
               args.size() * sizeof(kvrm_program_arg));
  return bytes;
}

FailureOr<DeviceProgram> ProgramWriter::run() {
  if (failed(findTensors()))
    return failure();
  for (Operation &op : step.getBody().front())
    if (failed(write(op)))
      return failure();
  if (commands.empty())
    return step.emitError("has no command of a program");
  return DeviceProgram{serialize(), std::move(tensors)};
}

FailureOr<DeviceProgram> kvrm::writeDeviceProgram(func::FuncOp step,
                                                  gpu::GPUModuleOp device,
                                                  bool overlaps) {
  return ProgramWriter(step, device, overlaps).run();
}
