//===- DeviceProgram.cpp - A step of a GPU as a table ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Codegen/DeviceProgram.h"

#include "DenseKernels.h"
#include "DeviceKernel.h"
#include "kvrm/Dialect/KVRM/Utils/StepBuffers.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/abi/version.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/ViewLikeInterface.h"

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

/// A command before its arguments are known.
struct Launch {
  std::string kernel;
  uint16_t schedules = KVRM_RUN_ALL;
  kvrm_grid_rule rule = KVRM_GRID_FIXED;
  std::array<int64_t, 3> grid = {1, 1, 1};
  bool isProgrammatic = true;
};

class ProgramWriter {
public:
  ProgramWriter(func::FuncOp step, gpu::GPUModuleOp device, bool overlaps)
      : step(step), kernels(getDeviceKernels(device)), overlaps(overlaps),
        batches(getBatches(step)) {}

  FailureOr<DeviceProgram> run();

private:
  LogicalResult findTensors();
  LogicalResult placeBuffers();
  LogicalResult write(Operation &op);
  LogicalResult writeCommit(CommitOp op);
  LogicalResult writeAppend(LaunchOp op);
  LogicalResult writeAttention(LaunchOp op);
  LogicalResult writeDense(DeviceDispatchOp op);
  LogicalResult writeSample(SampleOp op);
  LogicalResult writeProduct(DeviceProductOp op);
  template <typename OpT>
  LogicalResult writeCollective(OpT op, kvrm_command_kind kind);
  void numberMailboxes();
  LogicalResult writeMailboxKernel(AllReduceOp op);
  std::optional<std::array<kvrm_program_arg, 2>> additionBehind(AllReduceOp op);
  template <typename OpT>
  LogicalResult writeDenseKernel(OpT op,
                                 std::optional<int64_t> appends = std::nullopt);
  LogicalResult begin(Operation *op, const Launch &launch, int64_t arguments);
  LogicalResult add(Operation *op, const Launch &launch, unsigned batch,
                    int64_t layer, const Operands &operands);
  FailureOr<kvrm_program_arg> argumentFor(Value value, Operation *op);
  FailureOr<kvrm_program_arg> argumentForBuffer(Value value, Operation *op);
  int64_t indexOf(StringRef name) const;
  std::string serialize() const;

  func::FuncOp step;
  SmallVector<LLVM::LLVMFuncOp> kernels;
  bool overlaps;
  SmallVector<DescriptorType> batches;
  int64_t layers = 1;
  DenseMap<Value, uint16_t> numbers; ///< of tensors
  SmallVector<ProgramTensor> tensors;
  DenseMap<Value, int64_t> arenaOffsets; ///< of allocations
  int64_t arenaBytes = 0;
  std::vector<kvrm_program_command> commands;
  int64_t launches = 0; ///< commands that are no products
  std::vector<kvrm_program_arg> args;
  /// Of sums that a kernel stands in for.
  DenseMap<Operation *, uint16_t> mailboxes;
};

} // namespace

int64_t ProgramWriter::indexOf(StringRef name) const {
  const auto *found = llvm::find_if(
      kernels, [&](LLVM::LLVMFuncOp func) { return func.getName() == name; });
  return found == kernels.end() ? -1 : found - kernels.begin();
}

//===----------------------------------------------------------------------===//
// Where values lie
//===----------------------------------------------------------------------===//

/// Numbers the inputs of a step on tensors, then what it returns.
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
    if (isa<TensorType>(argument.getType()) &&
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

/// Gives each allocation of a bufferized step its place in the arena.
LogicalResult ProgramWriter::placeBuffers() {
  Block &body = step.getBody().front();
  SmallVector<Value> buffers;
  for (memref::AllocOp op : body.getOps<memref::AllocOp>())
    buffers.push_back(op);
  FailureOr<ArenaPlan> plan = planArena(body, buffers);
  if (failed(plan))
    return failure();
  for (auto [buffer, offset] : llvm::zip_equal(buffers, plan->offsets))
    arenaOffsets[buffer] = offset;
  arenaBytes = plan->bytes;
  return success();
}

/// The base that an argument of a bufferized step is; none for what no command
/// can reach.
static std::optional<kvrm_program_base> baseOf(ArgumentRole role) {
  switch (role) {
  case ArgumentRole::Tokens:
    return KVRM_BASE_TOKENS;
  case ArgumentRole::Logits:
    return KVRM_BASE_LOGITS;
  case ArgumentRole::Weights:
    return KVRM_BASE_WEIGHTS;
  default:
    return std::nullopt;
  }
}

FailureOr<kvrm_program_arg> ProgramWriter::argumentForBuffer(Value value,
                                                             Operation *op) {
  FailureOr<BufferPlace> place = findBuffer(value, op);
  if (failed(place))
    return failure();
  kvrm_program_arg arg{};
  arg.offset = place->offset;
  arg.bytes = getExtentBytes(cast<MemRefType>(value.getType()));
  if (auto argument = dyn_cast<BlockArgument>(place->root)) {
    std::optional<ArgumentRole> role =
        getArgumentRole(step, argument.getArgNumber());
    std::optional<kvrm_program_base> base = role ? baseOf(*role) : std::nullopt;
    if (!base)
      return op->emitOpError("uses argument ")
             << argument.getArgNumber() << " of its step, which no command of "
             << "a program can reach";
    arg.base = static_cast<uint16_t>(*base);
    if (*base == KVRM_BASE_WEIGHTS)
      return arg;
    if (*base == KVRM_BASE_TOKENS)
      arg.index = static_cast<uint16_t>(
          getBatchOfTokens(step, argument.getArgNumber()));
    if (place->offset != 0)
      return op->emitOpError("uses a part of the tokens or of the logits; a "
                             "program has them whole");
    arg.bytes = 0;
    return arg;
  }
  auto offset = arenaOffsets.find(place->root);
  if (offset != arenaOffsets.end()) {
    arg.base = KVRM_BASE_ARENA;
    arg.offset += offset->second;
    return arg;
  }
  // A field of the rows.
  Operation *field = place->root.getDefiningOp();
  arg.base = KVRM_BASE_ROWS;
  arg.index = static_cast<uint16_t>(getBatch(field->getOperand(0)));
  arg.offset = isa<PositionsOp>(field) ? offsetof(kvrm_row, position)
                                       : offsetof(kvrm_row, count);
  arg.bytes = 0;
  return arg;
}

FailureOr<kvrm_program_arg> ProgramWriter::argumentFor(Value value,
                                                       Operation *op) {
  if (isa<MemRefType>(value.getType()))
    return argumentForBuffer(value, op);
  auto found = numbers.find(value);
  if (found == numbers.end())
    return op->emitOpError("takes or makes a tensor that is neither an input "
                           "nor a result of its step");
  kvrm_program_arg arg{};
  arg.base = KVRM_BASE_TENSOR;
  arg.index = found->second;
  return arg;
}

//===----------------------------------------------------------------------===//
// Commands
//===----------------------------------------------------------------------===//

/// Adds a command, whose `arguments` follow.
LogicalResult ProgramWriter::begin(Operation *op, const Launch &launch,
                                   int64_t arguments) {
  int64_t index = indexOf(launch.kernel);
  if (index < 0)
    return op->emitOpError("runs a kernel that is not lowered: ")
           << launch.kernel;
  kvrm_program_command command{};
  command.kind = KVRM_COMMAND_KERNEL;
  // What comes right after the commits waits until they have ended.
  if (launch.isProgrammatic && overlaps &&
      launches > static_cast<int64_t>(batches.size()))
    command.flags = KVRM_COMMAND_PROGRAMMATIC;
  command.schedules = launch.schedules;
  command.grid_rule = static_cast<uint16_t>(launch.rule);
  command.kernel = static_cast<uint32_t>(index);
  for (size_t i = 0; i < launch.grid.size(); ++i)
    command.grid[i] = static_cast<uint32_t>(launch.grid[i]);
  command.first_arg = static_cast<uint32_t>(args.size());
  command.args = static_cast<uint32_t>(arguments);
  commands.push_back(command);
  ++launches;
  return success();
}

/// Adds a command whose kernel takes kvrm_device_args, for one batch.
LogicalResult ProgramWriter::add(Operation *op, const Launch &launch,
                                 unsigned batch, int64_t layer,
                                 const Operands &operands) {
  if (failed(begin(op, launch, KVRM_DEVICE_ARGS)))
    return failure();
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
    else if (kvrm_base_has_batch(arg.base))
      arg.index = static_cast<uint16_t>(batch);
    // What a kernel does not read has an address all the same.
    if (arg.base == KVRM_BASE_TENSOR && tensors.empty()) {
      arg.base = KVRM_BASE_ARENA;
      arg.bytes = 1;
    }
    for (auto [offset, value] : bound)
      if (offset / sizeof(uint64_t) == field && value) {
        FailureOr<kvrm_program_arg> found = argumentFor(value, op);
        if (failed(found))
          return failure();
        arg = *found;
      }
    args.push_back(arg);
  }
  return success();
}

LogicalResult ProgramWriter::writeAppend(LaunchOp op) {
  int64_t queries = op.getDescriptor().getType().getQueries();
  Launch launch{deviceKernelName(op.getKernel(), DeviceRole::Append),
                KVRM_RUN_ALL,
                KVRM_GRID_ROWS,
                {1, queries, 1}};
  return add(op, launch, getBatch(op.getDescriptor()), op.getLayer(),
             {.query = {},
              .output = {},
              .key = op.getInputs()[0],
              .value = op.getInputs()[1]});
}

LogicalResult ProgramWriter::writeAttention(LaunchOp op) {
  StringRef name = op.getKernel();
  auto kernel =
      SymbolTable::lookupNearestSymbolFrom<KernelOp>(op, op.getKernelAttr());
  if (!kernel)
    return op.emitOpError("runs a kernel that is no tile program any more");
  unsigned batch = getBatch(op.getDescriptor());
  int64_t layer = op.getLayer();
  int64_t outputs = kernel.getPool().getKvHeads() *
                    llvm::divideCeil(kernel.getDescriptorType().getQueries(),
                                     kernel.getTile().getQ());
  Operands operands{.query = op.getInputs()[0],
                    .output = op->getNumResults() ? op.getResult(0)
                                                  : op.getOutputs()[0],
                    .key = {},
                    .value = {}};
  if (isPromptKernel(kernel))
    return add(op,
               {deviceKernelName(name, DeviceRole::AttendPrompt),
                KVRM_RUN_WORKQUEUE,
                KVRM_GRID_ROWS,
                {outputs, 1, 1}},
               batch, layer, operands);
  Launch workqueue{deviceKernelName(name, DeviceRole::AttendWorkqueue),
                   KVRM_RUN_WORKQUEUE, KVRM_GRID_SHARES};
  Launch cluster{deviceKernelName(name, DeviceRole::AttendCluster),
                 KVRM_RUN_CLUSTER,
                 KVRM_GRID_CLUSTERS,
                 {outputs, 1, 1}};
  if (failed(add(op, workqueue, batch, layer, operands)))
    return failure();
  // A step of several batches is run in one way only: not all of them have
  // another.
  if (batches.size() > 1)
    return success();
  if (failed(add(op, cluster, batch, layer, operands)))
    return failure();
  // Staged kernels wait for nothing by themselves.
  std::string staged = (name + kStagedSuffix).str();
  if (indexOf(deviceKernelName(staged, DeviceRole::Stage)) < 0)
    return success();
  for (DeviceRole role : {DeviceRole::Stage, DeviceRole::AttendWorkqueueStaged})
    if (failed(add(op,
                   {deviceKernelName(staged, role),
                    KVRM_RUN_STAGED,
                    KVRM_GRID_SHARES,
                    {1, 1, 1},
                    /*isProgrammatic=*/false},
                   batch, layer, operands)))
      return failure();
  return success();
}

LogicalResult ProgramWriter::writeDense(DeviceDispatchOp op) {
  return writeDenseKernel(op, op.getAppends());
}

static uint16_t productTypeOf(DeviceProductOp op) {
  bool isBF16 = getElementTypeOrSelf(op.getInput()).isBF16();
  if (getElementTypeOrSelf(op.getOutput()).isF32())
    return isBF16 ? KVRM_PRODUCT_BF16_F32 : KVRM_PRODUCT_F16_F32;
  return isBF16 ? KVRM_PRODUCT_BF16 : KVRM_PRODUCT_F16;
}

/// Whether a product's command may have such arguments: out, in, weight, which
/// may be unpacked, addend.
static bool isForProduct(ArrayRef<kvrm_program_arg> args) {
  for (auto [i, arg] : llvm::enumerate(args)) {
    bool isThere = arg.base == KVRM_BASE_ARENA ||
                   (i == 2 && arg.base == KVRM_BASE_WEIGHTS) ||
                   (i == 0 && arg.base == KVRM_BASE_LOGITS);
    if (!isThere || arg.offset % KVRM_PRODUCT_ALIGNMENT != 0)
      return false;
  }
  return true;
}

/// The product, and then the kernel that stands in for it. The kernel alone, if
/// the product is not where a command can have it.
LogicalResult ProgramWriter::writeProduct(DeviceProductOp op) {
  SmallVector<Value> buffers = {op.getOutput(), op.getInput(), op.getWeight()};
  if (op.getAddend())
    buffers.push_back(op.getAddend());
  SmallVector<kvrm_program_arg> found;
  for (Value buffer : buffers) {
    FailureOr<kvrm_program_arg> arg = argumentFor(buffer, op);
    if (failed(arg))
      return failure();
    found.push_back(*arg);
  }
  auto output = cast<MemRefType>(op.getOutput().getType());
  const std::array<int64_t, 3> sizes = {
      output.getDimSize(0), output.getDimSize(1),
      cast<MemRefType>(op.getInput().getType()).getDimSize(1)};
  auto isSmall = [](int64_t size) { return size <= KVRM_MAX_PRODUCT_SIZE; };
  if (!isForProduct(found) || !llvm::all_of(sizes, isSmall))
    return writeDenseKernel(op);
  kvrm_program_command command{};
  command.kind = KVRM_COMMAND_PRODUCT;
  command.schedules = KVRM_RUN_ALL;
  command.grid_rule = productTypeOf(op);
  command.kernel = 1;
  llvm::copy(sizes, command.grid);
  command.first_arg = static_cast<uint32_t>(args.size());
  command.args = static_cast<uint32_t>(found.size());
  commands.push_back(command);
  args.insert(args.end(), found.begin(), found.end());
  return writeDenseKernel(op);
}

/// What a kernel that appends to the pages of `layer` takes behind its buffers.
/// Only steps of one batch have such.
static SmallVector<kvrm_program_arg> appendArguments(int64_t layer) {
  SmallVector<kvrm_program_arg> args;
  for (int32_t i = 0; i < KVRM_APPEND_ARGS; ++i) {
    kvrm_program_arg arg{};
    arg.base = static_cast<uint16_t>(kvrm_append_arg_base(i));
    if (arg.base == KVRM_BASE_K_POOL || arg.base == KVRM_BASE_V_POOL)
      arg.index = static_cast<uint16_t>(layer);
    args.push_back(arg);
  }
  return args;
}

/// The launch of the kernel that an op names, with all its buffers.
template <typename OpT>
LogicalResult ProgramWriter::writeDenseKernel(OpT op,
                                              std::optional<int64_t> appends) {
  Launch launch;
  launch.kernel = op.getKernel().getLeafReference().str();
  llvm::copy(op.getGrid(), launch.grid.begin());
  if (op.getPerProcessor())
    launch.rule = KVRM_GRID_PROCESSORS;
  SmallVector<kvrm_program_arg> found;
  for (Value buffer : op->getOperands()) {
    FailureOr<kvrm_program_arg> arg = argumentFor(buffer, op);
    if (failed(arg))
      return failure();
    found.push_back(*arg);
  }
  if (appends)
    llvm::append_range(found, appendArguments(*appends));
  auto count = static_cast<int64_t>(found.size());
  if (count > KVRM_MAX_COMMAND_ARGS)
    return op.emitOpError("passes ")
           << count << " arguments, more than " << KVRM_MAX_COMMAND_ARGS;
  // With a weight that the step has just made it starts when all ahead has
  // ended, as a library's does (docs/gpu-dense.md).
  if constexpr (std::is_same_v<OpT, DeviceProductOp>)
    launch.isProgrammatic = !isMadeByStep(op.getWeight(), op);
  if (failed(begin(op, launch, count)))
    return failure();
  args.insert(args.end(), found.begin(), found.end());
  return success();
}

LogicalResult ProgramWriter::writeSample(SampleOp op) {
  FailureOr<kvrm_program_arg> logits = argumentFor(op.getLogits(), op);
  if (failed(logits))
    return failure();
  if (logits->base != KVRM_BASE_LOGITS)
    return op.emitOpError("samples what is not the logits of its step");
  Launch launch{deviceKernelName({}, DeviceRole::Sample), KVRM_RUN_ALL,
                KVRM_GRID_ROWS};
  int32_t count = 0;
  while (kvrm_sample_arg_base(count) >= 0)
    ++count;
  int64_t vocabulary = cast<MemRefType>(op.getLogits().getType()).getDimSize(1);
  int64_t firstRow = 0;
  for (auto [batch, type] : llvm::enumerate(batches)) {
    if (failed(begin(op, launch, count)))
      return failure();
    for (int32_t i = 0; i < count; ++i) {
      kvrm_program_arg arg{};
      arg.base = static_cast<uint16_t>(kvrm_sample_arg_base(i));
      if (kvrm_base_has_batch(arg.base))
        arg.index = static_cast<uint16_t>(batch);
      else if (arg.base == KVRM_BASE_LOGITS)
        arg.offset =
            firstRow * vocabulary * static_cast<int64_t>(sizeof(float));
      else
        arg.offset = firstRow * static_cast<int64_t>(sizeof(int32_t));
      args.push_back(arg);
    }
    firstRow += type.getRows();
  }
  return success();
}

/// What the ranks of a step do together.
template <typename OpT>
LogicalResult ProgramWriter::writeCollective(OpT op, kvrm_command_kind kind) {
  kvrm_program_command command{};
  command.kind = static_cast<uint16_t>(kind);
  command.schedules = KVRM_RUN_ALL;
  Type element = getElementTypeOrSelf(op.getInput());
  command.grid_rule = element.isF32()   ? KVRM_COLLECTIVE_F32
                      : element.isF16() ? KVRM_COLLECTIVE_F16
                                        : KVRM_COLLECTIVE_BF16;
  if (op.getElements() > KVRM_MAX_COLLECTIVE_ELEMENTS)
    return op.emitOpError("is of ")
           << op.getElements() << " elements, more than "
           << int64_t{KVRM_MAX_COLLECTIVE_ELEMENTS};
  command.grid[0] = static_cast<uint32_t>(op.getElements());
  command.first_arg = static_cast<uint32_t>(args.size());
  for (Value buffer : {op.getOutput(), op.getInput()}) {
    FailureOr<kvrm_program_arg> arg = argumentFor(buffer, op);
    if (failed(arg))
      return failure();
    bool isOutput = buffer == op.getOutput();
    if (arg->base != KVRM_BASE_ARENA &&
        !(isOutput && arg->base == KVRM_BASE_LOGITS))
      return op.emitOpError("has an operand that is neither in the arena nor "
                            "the logits, which are written alone");
    args.push_back(*arg);
  }
  command.args = 2;
  command.kernel = mailboxes.contains(op) ? 1 : 0;
  commands.push_back(command);
  return success();
}

/// Gives the sums that have a kernel their mailboxes, as KVRM_BASE_PEERS wants
/// them. One alone would follow itself.
void ProgramWriter::numberMailboxes() {
  int64_t ranks = getRanks(step->getParentOfType<ModuleOp>());
  SmallVector<AllReduceOp> sums;
  step.walk([&](AllReduceOp op) {
    std::optional<std::string> name = reduceKernelName(op, ranks);
    if (name && indexOf(*name) >= 0)
      sums.push_back(op);
  });
  if (sums.size() < 2)
    return;
  for (auto [i, op] : llvm::enumerate(sums))
    mailboxes[op] = i % 2;
  if (sums.size() % 2)
    mailboxes[sums.back()] = 2;
}

/// What the next command writes and what it adds, if all that it does is to add
/// the sum to something, and a kernel can do both at once: a thread then writes
/// what no other reads.
std::optional<std::array<kvrm_program_arg, 2>>
ProgramWriter::additionBehind(AllReduceOp op) {
  auto mailbox = mailboxes.find(op);
  if (!op->hasAttr(kAddedAttrName) || mailbox == mailboxes.end())
    return std::nullopt;
  auto add = dyn_cast_or_null<DeviceDispatchOp>(nextAccess(op));
  if (!add || add.getInputs().size() != 2 || add.getOutputs().size() != 1)
    return std::nullopt;
  bool isFirst = add.getInputs()[0] == op.getOutput();
  if (!isFirst && add.getInputs()[1] != op.getOutput())
    return std::nullopt;
  FailureOr<kvrm_program_arg> out = argumentFor(add.getOutputs()[0], add);
  FailureOr<kvrm_program_arg> addend =
      argumentFor(add.getInputs()[isFirst ? 1 : 0], add);
  FailureOr<kvrm_program_arg> in = argumentFor(op.getInput(), op);
  if (failed(out) || failed(addend) || failed(in) ||
      out->base != KVRM_BASE_ARENA || addend->base != KVRM_BASE_ARENA)
    return std::nullopt;
  bool isApart = out->offset >= in->offset + in->bytes ||
                 in->offset >= out->offset + out->bytes;
  if (!isApart && out->offset != in->offset)
    return std::nullopt;
  return std::array{*out, *addend};
}

/// What stands in for a sum whose command is just written, and if it can, for
/// the addition behind it.
LogicalResult ProgramWriter::writeMailboxKernel(AllReduceOp op) {
  auto found = mailboxes.find(op);
  if (found == mailboxes.end())
    return success();
  std::optional<std::array<kvrm_program_arg, 2>> addition = additionBehind(op);
  commands.back().grid[1] = addition ? 1 : 0;
  Launch launch;
  launch.kernel =
      *reduceKernelName(op, getRanks(step->getParentOfType<ModuleOp>()));
  if (addition)
    launch.kernel += kAddSuffix;
  launch.grid = reduceKernelGrid(op);
  const kvrm_program_arg out = args[args.size() - 2], in = args.back();
  kvrm_program_arg peers{};
  peers.base = KVRM_BASE_PEERS;
  peers.index = found->second;
  if (failed(begin(op, launch, addition ? 4 : 3)))
    return failure();
  args.insert(args.end(), {addition ? addition->front() : out, in, peers});
  if (addition)
    args.push_back(addition->back());
  return success();
}

/// Ops that only name what others use.
static bool isNaming(Operation &op) {
  return isa<StageOp, tensor::EmptyOp, memref::AllocOp, memref::DeallocOp,
             ViewLikeOpInterface, func::ReturnOp>(op) ||
         op.hasTrait<OpTrait::ConstantLike>();
}

LogicalResult ProgramWriter::writeCommit(CommitOp op) {
  layers = op.getSession().getType().getPool().getLayers();
  // One descriptor is a few hundred words: four blocks apply them.
  const Launch launch{deviceKernelName({}, DeviceRole::Commit),
                      KVRM_RUN_ALL,
                      KVRM_GRID_FIXED,
                      {4, 1, 1},
                      /*isProgrammatic=*/false};
  for (unsigned batch = 0; batch < batches.size(); ++batch)
    if (failed(add(op, launch, batch, /*layer=*/0, {})))
      return failure();
  return success();
}

LogicalResult ProgramWriter::write(Operation &op) {
  if (auto commit = dyn_cast<CommitOp>(op))
    return writeCommit(commit);
  if (auto launch = dyn_cast<LaunchOp>(op))
    return launch.isAttention() ? writeAttention(launch) : writeAppend(launch);
  if (auto dispatch = dyn_cast<DeviceDispatchOp>(op))
    return writeDense(dispatch);
  if (auto sample = dyn_cast<SampleOp>(op))
    return writeSample(sample);
  if (auto product = dyn_cast<DeviceProductOp>(op))
    return writeProduct(product);
  if (auto reduce = dyn_cast<AllReduceOp>(op))
    return failure(failed(writeCollective(reduce, KVRM_COMMAND_ALL_REDUCE)) ||
                   failed(writeMailboxKernel(reduce)));
  if (auto gather = dyn_cast<AllGatherOp>(op))
    return writeCollective(gather, KVRM_COMMAND_ALL_GATHER);
  bool isField = isa<PositionsOp, CountsOp>(op) &&
                 (op.use_empty() || isa<MemRefType>(op.getResult(0).getType()));
  if (isField || isNaming(op))
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
  header.batches = static_cast<uint32_t>(batches.size());
  header.ranks =
      static_cast<uint32_t>(getRanks(step->getParentOfType<ModuleOp>()));
  std::string bytes(reinterpret_cast<const char *>(&header), sizeof(header));
  bytes.append(reinterpret_cast<const char *>(commands.data()),
               commands.size() * sizeof(kvrm_program_command));
  bytes.append(reinterpret_cast<const char *>(args.data()),
               args.size() * sizeof(kvrm_program_arg));
  return bytes;
}

FailureOr<DeviceProgram> ProgramWriter::run() {
  if (failed(verifyTokens(step)) || failed(findTensors()) ||
      failed(placeBuffers()))
    return failure();
  numberMailboxes();
  for (Operation &op : step.getBody().front())
    if (failed(write(op)))
      return failure();
  if (commands.empty())
    return step.emitError("has no command of a program");
  return DeviceProgram{serialize(), std::move(tensors), arenaBytes};
}

FailureOr<DeviceProgram> kvrm::writeDeviceProgram(func::FuncOp step,
                                                  gpu::GPUModuleOp device,
                                                  bool overlaps) {
  return ProgramWriter(step, device, overlaps).run();
}
