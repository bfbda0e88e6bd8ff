//===- ConvertKVRMToRuntime.cpp - Steps to calls of the C ABI -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Conversion/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/StepBuffers.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/runtime/abi/host.h"

#include "mlir/Conversion/LLVMCommon/MemRefBuilder.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Interfaces/ViewLikeInterface.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_CONVERTKVRMTORUNTIMEPASS
#include "kvrm/Conversion/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Where a buffer lies: a constant distance from something that the step is
/// given.
struct Address {
  Value base;
  int64_t offset = 0;
};

/// Converts one step. Every buffer in it is an argument, a view of one, or an
/// allocation that the arena holds, all of static shape.
class StepConversion {
public:
  StepConversion(func::FuncOp func, SymbolTable &symbols)
      : func(func), symbols(symbols), b(func.getLoc(), func) {}

  LogicalResult run();
  int64_t arenaBytes() const { return arena; }

private:
  Type pointerType() { return LLVM::LLVMPointerType::get(b.getContext()); }
  Value i64(int64_t value) {
    return arith::ConstantOp::create(b, b.getI64IntegerAttr(value));
  }
  Value i32(int64_t value) {
    return arith::ConstantOp::create(
        b, b.getI32IntegerAttr(static_cast<int32_t>(value)));
  }
  Value offsetBy(Value base, int64_t offset) {
    if (offset == 0)
      return base;
    return LLVM::GEPOp::create(b, pointerType(), b.getI8Type(), base,
                               ArrayRef<LLVM::GEPArg>{i64(offset)});
  }
  Value loadPointer(Value base, int64_t offset) {
    return LLVM::LoadOp::create(b, pointerType(), offsetBy(base, offset));
  }
  /// Calls a member of kvrm_host_api.
  void callApi(int64_t member, ValueRange operands);
  Value functionPointer(StringRef name, ArrayRef<Type> inputs);

  LogicalResult bindArguments(Value args);
  LogicalResult convert(Operation &op);
  FailureOr<Value> pointerTo(Value buffer, Operation *user);
  LogicalResult convertDispatch(DispatchOp op);
  LogicalResult convertLaunch(LaunchOp op);
  template <typename OpT>
  LogicalResult convertCollective(OpT op, int64_t member);
  func::FuncOp trampolineFor(func::FuncOp callee);

  func::FuncOp func;
  SymbolTable &symbols;
  ImplicitLocOpBuilder b;
  DenseMap<Value, Address> addresses; ///< of what buffers are views of
  Value api, session, arenaBase;
  SmallVector<Value> descriptors; ///< of the batches
  Value context; ///< pointers that a dispatch hands to its tasks
  int64_t arena = 0;
};

/// Most buffers of one dispatch.
constexpr int64_t kMaxDispatchBuffers = 32;

} // namespace

void StepConversion::callApi(int64_t member, ValueRange operands) {
  Value callee = loadPointer(api, member);
  SmallVector<Type> inputs(operands.getTypes());
  auto type = LLVM::LLVMFunctionType::get(
      LLVM::LLVMVoidType::get(b.getContext()), inputs);
  SmallVector<Value> all = {callee};
  llvm::append_range(all, operands);
  LLVM::CallOp::create(b, type, all);
}

Value StepConversion::functionPointer(StringRef name, ArrayRef<Type> inputs) {
  Value constant =
      func::ConstantOp::create(b, b.getFunctionType(inputs, {}), name);
  return UnrealizedConversionCastOp::create(b, pointerType(), constant)
      .getResult(0);
}

/// Finds each argument in kvrm_step_args.
LogicalResult StepConversion::bindArguments(Value args) {
  api = loadPointer(args, offsetof(kvrm_step_args, api));
  session = loadPointer(args, offsetof(kvrm_step_args, session));
  arenaBase = loadPointer(args, offsetof(kvrm_step_args, arena));
  static const std::pair<ArgumentRole, size_t> fields[] = {
      {ArgumentRole::Weights, offsetof(kvrm_step_args, weights)},
      {ArgumentRole::Logits, offsetof(kvrm_step_args, logits)},
      {ArgumentRole::Positions, offsetof(kvrm_step_args, positions)},
      {ArgumentRole::Counts, offsetof(kvrm_step_args, counts)},
      {ArgumentRole::Slots, offsetof(kvrm_step_args, slots)},
      {ArgumentRole::KeyCache, offsetof(kvrm_step_args, k_cache)},
      {ArgumentRole::ValueCache, offsetof(kvrm_step_args, v_cache)}};
  // A member that has one for each batch.
  auto loadOfBatch = [&](size_t member, size_t batch) {
    return loadPointer(args, member + batch * sizeof(void *));
  };
  for (size_t batch = 0; batch < getBatches(func).size(); ++batch)
    descriptors.push_back(
        loadOfBatch(offsetof(kvrm_step_args, descriptors), batch));
  for (BlockArgument arg : func.getArguments()) {
    if (isa<SessionType>(arg.getType()))
      continue;
    std::optional<ArgumentRole> role =
        getArgumentRole(func, arg.getArgNumber());
    if (role == ArgumentRole::Tokens) {
      unsigned batch = getBatchOfTokens(func, arg.getArgNumber());
      addresses[arg] = {loadOfBatch(offsetof(kvrm_step_args, tokens), batch)};
      continue;
    }
    const auto *field = llvm::find_if(
        fields, [&](const auto &candidate) { return role == candidate.first; });
    if (field == std::end(fields))
      return func.emitError("argument ")
             << arg.getArgNumber() << " has no role that the runtime knows; "
             << "run kvrm-bufferize-step first";
    addresses[arg] = {loadPointer(args, field->second), 0};
  }
  return success();
}

/// The address of a buffer's first element.
FailureOr<Value> StepConversion::pointerTo(Value buffer, Operation *user) {
  FailureOr<BufferPlace> place = findBuffer(buffer, user);
  if (failed(place))
    return failure();
  auto root = addresses.find(place->root);
  if (root == addresses.end())
    return user->emitOpError("uses a buffer that is not there yet");
  return offsetBy(root->second.base, root->second.offset + place->offset);
}

/// tasks(context, begin, end): loads the buffers' addresses and calls `callee`.
func::FuncOp StepConversion::trampolineFor(func::FuncOp callee) {
  std::string name = (callee.getSymName() + "_tasks").str();
  if (auto known = symbols.lookup<func::FuncOp>(name))
    return known;
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointAfter(callee);
  auto trampoline = func::FuncOp::create(
      b, name,
      b.getFunctionType({pointerType(), b.getI64Type(), b.getI64Type()}, {}));
  trampoline.setPrivate();
  symbols.insert(trampoline);
  Block *entry = trampoline.addEntryBlock();
  b.setInsertionPointToStart(entry);
  SmallVector<Value> operands;
  for (Value bound : entry->getArguments().drop_front())
    operands.push_back(arith::IndexCastOp::create(b, b.getIndexType(), bound));
  for (unsigned i = 2; i < callee.getNumArguments(); ++i)
    operands.push_back(loadPointer(entry->getArgument(0), (i - 2) * 8));
  func::CallOp::create(b, callee, operands);
  func::ReturnOp::create(b);
  return trampoline;
}

LogicalResult StepConversion::convertDispatch(DispatchOp op) {
  auto callee = symbols.lookup<func::FuncOp>(op.getCallee());
  if (!callee)
    return op.emitOpError("calls a function that is not in the module");
  SmallVector<Value> pointers;
  for (Value buffer : op->getOperands()) {
    FailureOr<Value> pointer = pointerTo(buffer, op);
    if (failed(pointer))
      return failure();
    pointers.push_back(*pointer);
  }
  if (op.getSerial()) {
    SmallVector<Value> operands = {
        arith::ConstantIndexOp::create(b, 0),
        arith::ConstantIndexOp::create(b, op.getTasks())};
    llvm::append_range(operands, pointers);
    func::CallOp::create(b, callee, operands);
    return success();
  }
  if (static_cast<int64_t>(pointers.size()) > kMaxDispatchBuffers)
    return op.emitOpError("passes ")
           << pointers.size() << " buffers, more than " << kMaxDispatchBuffers;
  for (auto [i, pointer] : llvm::enumerate(pointers))
    LLVM::StoreOp::create(b, pointer, offsetBy(context, i * 8));
  func::FuncOp trampoline = trampolineFor(callee);
  Value function =
      functionPointer(trampoline.getSymName(), trampoline.getArgumentTypes());
  callApi(offsetof(kvrm_host_api, parallel),
          {session, function, context, i64(op.getTasks())});
  return success();
}

LogicalResult StepConversion::convertLaunch(LaunchOp op) {
  auto kernel = symbols.lookup<func::FuncOp>(op.getKernel());
  if (!kernel)
    return op.emitOpError("runs a kernel that is not lowered for a target");
  Value function =
      functionPointer(kernel.getSymName(), kernel.getArgumentTypes());
  SmallVector<Value> operands = {session, i32(getBatch(op.getDescriptor())),
                                 i32(op.getLayer()), function};
  for (Value buffer : llvm::concat<Value>(op.getInputs(), op.getOutputs())) {
    FailureOr<Value> pointer = pointerTo(buffer, op);
    if (failed(pointer))
      return failure();
    operands.push_back(*pointer);
  }
  callApi(op.isAttention() ? offsetof(kvrm_host_api, attend)
                           : offsetof(kvrm_host_api, append),
          operands);
  return success();
}

template <typename OpT>
LogicalResult StepConversion::convertCollective(OpT op, int64_t member) {
  if (!isa<MemRefType>(op.getInput().getType()))
    return op.emitOpError("is not on buffers; run kvrm-bufferize-step first");
  if (!getElementTypeOrSelf(op.getInput()).isF32())
    return op.emitOpError("is of ") << getElementTypeOrSelf(op.getInput())
                                    << ", and the host's are of f32";
  FailureOr<Value> input = pointerTo(op.getInput(), op);
  FailureOr<Value> output = pointerTo(op.getOutput(), op);
  if (failed(input) || failed(output))
    return failure();
  callApi(member, {session, *input, *output, i64(op.getElements())});
  return success();
}

LogicalResult StepConversion::convert(Operation &op) {
  b.setLoc(op.getLoc());
  if (isa<CommitOp>(op)) {
    callApi(offsetof(kvrm_host_api, commit), {session});
    return success();
  }
  if (auto stage = dyn_cast<StageOp>(op)) {
    callApi(offsetof(kvrm_host_api, stage),
            {session, i32(getBatch(stage.getDescriptor())),
             i32(static_cast<int64_t>(stage.getTransport()))});
    return success();
  }
  if (isa<PositionsOp, CountsOp>(op)) {
    if (!isa<MemRefType>(op.getResult(0).getType()))
      return op.emitOpError("is not on buffers; run kvrm-bufferize-step first");
    Value descriptor = op.getOperand(0);
    auto type = cast<DescriptorType>(descriptor.getType());
    kvrm_descriptor_layout layout = kvrm_descriptor_layout_of(
        {static_cast<int32_t>(type.getRows()),
         static_cast<int32_t>(type.getQueries()),
         static_cast<int32_t>(type.getPages()), 0, 0, 0, 0, 0});
    int64_t field = isa<PositionsOp>(op) ? offsetof(kvrm_row, position)
                                         : offsetof(kvrm_row, count);
    addresses[op.getResult(0)] = {descriptors[getBatch(descriptor)],
                                  layout.rows + field};
    return success();
  }
  if (auto dispatch = dyn_cast<DispatchOp>(op))
    return convertDispatch(dispatch);
  if (auto launch = dyn_cast<LaunchOp>(op))
    return convertLaunch(launch);
  if (auto reduce = dyn_cast<AllReduceOp>(op))
    return convertCollective(reduce, offsetof(kvrm_host_api, all_reduce));
  if (auto gather = dyn_cast<AllGatherOp>(op))
    return convertCollective(gather, offsetof(kvrm_host_api, all_gather));
  if (isa<memref::AllocOp, memref::DeallocOp, ViewLikeOpInterface,
          func::ReturnOp>(op) ||
      op.hasTrait<OpTrait::ConstantLike>())
    return success();
  return op.emitOpError("is left in a step and has no counterpart in the "
                        "runtime");
}

LogicalResult StepConversion::run() {
  if (failed(verifyTokens(func)))
    return failure();
  Block &body = func.getBody().front();
  // Plan before anything changes: positions count from the block's start.
  SmallVector<Value> buffers;
  for (Operation &op : body)
    if (isa<memref::AllocOp>(op))
      buffers.push_back(op.getResult(0));
  FailureOr<ArenaPlan> plan = planArena(body, buffers);
  if (failed(plan))
    return failure();
  arena = plan->bytes;

  std::string name = ("kvrm_" + func.getSymName()).str();
  if (symbols.lookup(name))
    return func.emitError("a symbol '") << name << "' exists already";
  auto step =
      func::FuncOp::create(b, name, b.getFunctionType({pointerType()}, {}));
  symbols.insert(step);
  b.setInsertionPointToStart(step.addEntryBlock());
  if (failed(bindArguments(step.getArgument(0))))
    return failure();
  for (auto [buffer, offset] : llvm::zip_equal(buffers, plan->offsets))
    addresses[buffer] = {arenaBase, offset};
  context = LLVM::AllocaOp::create(b, pointerType(), pointerType(),
                                   i64(kMaxDispatchBuffers));
  for (Operation &op : body)
    if (failed(convert(op)))
      return failure();
  func::ReturnOp::create(b);
  // What the runtime's planner has to know stays with the step.
  for (NamedAttribute attr : func->getDiscardableAttrs())
    if (attr.getName() != KVRMDialect::getStepAttrName())
      step->setAttr(attr.getName(), attr.getValue());
  step->setAttr(KVRMDialect::getArenaBytesAttrName(),
                b.getI64IntegerAttr(arena));
  func.erase();
  return success();
}

/// Outlined functions take bare addresses: buffers of static shape and no
/// offset need nothing more.
static LogicalResult takeBarePointers(func::FuncOp func,
                                      const LLVMTypeConverter &converter) {
  SmallVector<Type> inputs(func.getArgumentTypes());
  if (llvm::none_of(inputs, llvm::IsaPred<MemRefType>))
    return success();
  Block &entry = func.getBody().front();
  auto b = ImplicitLocOpBuilder::atBlockBegin(func.getLoc(), &entry);
  Type pointer = LLVM::LLVMPointerType::get(func.getContext());
  for (auto [i, type] : llvm::enumerate(inputs)) {
    auto buffer = dyn_cast<MemRefType>(type);
    if (!buffer)
      continue;
    if (!converter.canConvertToBarePtr(buffer))
      return func.emitError("argument ")
             << i << " is " << buffer << ", which is not a bare address";
    BlockArgument arg = entry.getArgument(i);
    arg.setType(pointer);
    auto memrefDescriptor = MemRefDescriptor::fromStaticShape(
        b, func.getLoc(), converter, buffer, arg);
    auto cast = UnrealizedConversionCastOp::create(
        b, buffer, static_cast<Value>(memrefDescriptor));
    arg.replaceUsesWithIf(cast.getResult(0), [&](OpOperand &use) {
      return !isa<LLVM::InsertValueOp>(use.getOwner());
    });
    type = pointer;
  }
  func.setFunctionType(
      FunctionType::get(func.getContext(), inputs, func.getResultTypes()));
  return success();
}

namespace {
class ConvertKVRMToRuntimePass
    : public kvrm::impl::ConvertKVRMToRuntimePassBase<
          ConvertKVRMToRuntimePass> {
public:
  using ConvertKVRMToRuntimePassBase::ConvertKVRMToRuntimePassBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> steps = getSteps(getOperation());
    SymbolTableCollection tables;
    SymbolUserMap users(tables, getOperation());
    SmallVector<ml_program::GlobalOp> weights;
    for (auto global : getOperation().getOps<ml_program::GlobalOp>())
      if (global->hasAttr(KVRMDialect::getWeightAttrName()))
        weights.push_back(global);
    for (ml_program::GlobalOp weight : weights)
      if (failed(verifyUnused(weight, users)))
        return signalPassFailure();
    if (failed(convertCallees(steps, tables, users)))
      return signalPassFailure();
    SymbolTable &symbols = tables.getSymbolTable(getOperation());
    for (func::FuncOp func : steps) {
      StepConversion conversion(func, symbols);
      if (failed(conversion.run()))
        return signalPassFailure();
      arenaBytes += conversion.arenaBytes();
    }
    for (ml_program::GlobalOp weight : weights)
      symbols.erase(weight);
  }

private:
  /// Bufferized steps load no weight, so that nothing of them is left.
  static LogicalResult verifyUnused(ml_program::GlobalOp weight,
                                    const SymbolUserMap &users) {
    if (users.useEmpty(weight))
      return success();
    InFlightDiagnostic diag =
        users.getUsers(weight).front()->emitOpError("uses the weight '@")
        << weight.getSymName() << "', which a converted module no longer has";
    diag.attachNote(weight.getLoc()) << "defined here";
    return diag;
  }

  /// The functions that steps dispatch take bare addresses from here on.
  LogicalResult convertCallees(ArrayRef<func::FuncOp> steps,
                               SymbolTableCollection &tables,
                               const SymbolUserMap &users) {
    llvm::SetVector<func::FuncOp> callees;
    SymbolTable &symbols = tables.getSymbolTable(getOperation());
    for (func::FuncOp step : steps)
      step.walk([&](DispatchOp op) {
        if (auto callee = symbols.lookup<func::FuncOp>(op.getCallee()))
          callees.insert(callee);
      });
    LLVMTypeConverter converter(&getContext());
    for (func::FuncOp callee : callees) {
      if (callee.isExternal())
        return callee.emitError("is dispatched by a step and has no body");
      if (failed(verifyUsedBySteps(callee, users)) ||
          failed(takeBarePointers(callee, converter)))
        return failure();
    }
    return success();
  }
};
} // namespace
