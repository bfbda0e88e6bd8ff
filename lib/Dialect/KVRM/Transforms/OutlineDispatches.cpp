//===- OutlineDispatches.cpp - The dense part as functions --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Linalg/Utils/Utils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/ViewLikeInterface.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/TypeSwitch.h"

#include <algorithm>

namespace mlir::kvrm {
#define GEN_PASS_DEF_OUTLINEDISPATCHESPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// The buffer that `value` is a view of.
static Value rootOf(Value value) {
  while (Operation *op = value.getDefiningOp()) {
    auto view = dyn_cast<ViewLikeOpInterface>(op);
    if (!view)
      break;
    // Views of the block of weights are read-only and disjoint from all else.
    if (isa<memref::ViewOp>(op))
      break;
    value = view.getViewSource();
  }
  return value;
}

/// `type` as a function sees it: the caller adds the offset to the pointer.
static MemRefType withoutOffset(MemRefType type) {
  auto [strides, offset] = type.getStridesAndOffset();
  auto contiguous = MemRefType::get(type.getShape(), type.getElementType());
  if (strides == contiguous.getStridesAndOffset().first)
    return contiguous;
  return MemRefType::get(
      type.getShape(), type.getElementType(),
      StridedLayoutAttr::get(type.getContext(), /*offset=*/0, strides));
}

/// Whether a range of the outermost loop reads and writes ranges of buffers:
/// loop and buffers then run in the same direction, without wrapping round.
static bool stepsForwards(AffineExpr expr) {
  bool forwards = true;
  expr.walk([&](AffineExpr nested) {
    auto factor = dyn_cast<AffineBinaryOpExpr>(nested);
    if (!factor || factor.getKind() == AffineExprKind::Add)
      return;
    auto constant = dyn_cast<AffineConstantExpr>(factor.getRHS());
    forwards &= factor.getKind() == AffineExprKind::Mul && constant &&
                constant.getValue() > 0;
  });
  return forwards;
}

namespace {

/// An op of the dense part, with the fill of its output, if that is just
/// before it: both then run on a task's share alone.
struct DensePart {
  linalg::FillOp fill;
  DestinationStyleOpInterface op;

  /// Buffers that it uses, outputs last, and constants.
  SmallVector<Value> inputs, outputs, constants;

  /// Whether a step dispatches `op`.
  static bool isDense(Operation *op) {
    return isa<linalg::LinalgOp, QuantizeRowsOp, BlockProductOp>(op);
  }
  LogicalResult verify();
  LogicalResult collectUses();
  /// Iterations of all its loops, those that tasks share first.
  SmallVector<int64_t> getLoopRanges();
  /// What a profile shows.
  StringRef getName();
};

class OutlineDispatchesPass
    : public kvrm::impl::OutlineDispatchesPassBase<OutlineDispatchesPass> {
public:
  using OutlineDispatchesPassBase::OutlineDispatchesPassBase;
  void runOnOperation() override;

private:
  LogicalResult outlineStep(func::FuncOp step);
  LogicalResult outline(DensePart part);
  func::FuncOp insertUnlessKnown(OwningOpRef<func::FuncOp> candidate,
                                 StringRef name);

  /// Functions made, by type and attributes of their arguments.
  DenseMap<std::pair<Type, Attribute>, SmallVector<func::FuncOp>> functions;
  SymbolTable *symbols = nullptr;
};

} // namespace

SmallVector<int64_t> DensePart::getLoopRanges() {
  auto shapeOf = [](Value value) {
    return cast<ShapedType>(value.getType()).getShape();
  };
  if (auto generic = dyn_cast<linalg::LinalgOp>(*op))
    return generic.getStaticLoopRanges();
  if (auto quantize = dyn_cast<QuantizeRowsOp>(*op))
    return llvm::to_vector(shapeOf(quantize.getInput()));
  auto product = cast<BlockProductOp>(*op);
  SmallVector<int64_t> ranges(shapeOf(product.getWeight()));
  ranges.push_back(product.getRows());
  return ranges;
}

StringRef DensePart::getName() {
  if (isa<QuantizeRowsOp>(*op))
    return "quantize_rows";
  auto generic = dyn_cast<linalg::LinalgOp>(*op);
  if (!generic)
    return "block_product";
  if (generic.getNumReductionLoops() == 0)
    return "elementwise";
  return generic.getNumDpsInputs() > 1 ? "contraction" : "reduction";
}

LogicalResult DensePart::verify() {
  SmallVector<int64_t> ranges = getLoopRanges();
  if (ranges.empty() || llvm::any_of(ranges, ShapedType::isDynamic))
    return op->emitOpError("in a step must have static loops");
  auto generic = dyn_cast<linalg::LinalgOp>(*op);
  if (!generic)
    return success();
  if (generic.getIteratorTypesArray().front() != utils::IteratorType::parallel)
    return op->emitOpError("in a step must have a parallel outermost loop");
  for (AffineMap map : generic.getIndexingMapsArray())
    for (AffineExpr expr : map.getResults())
      if (expr.isFunctionOfDim(0) && !stepsForwards(expr))
        return op->emitOpError("in a step must step forwards through its "
                               "buffers, unlike ")
               << AffineMapAttr::get(map);
  return success();
}

/// Buffers become arguments, constants are copied.
LogicalResult DensePart::collectUses() {
  llvm::SetVector<Value> used;
  if (fill)
    used.insert(fill.getInputs().front());
  used.insert(op->operand_begin(), op->operand_end());
  getUsedValuesDefinedAbove(op->getRegions(), used);
  for (Value value : used) {
    if (isa<MemRefType>(value.getType())) {
      bool isWritten = llvm::is_contained(op.getDpsInits(), value);
      (isWritten ? outputs : inputs).push_back(value);
    } else if (matchPattern(value, m_Constant())) {
      constants.push_back(value);
    } else {
      return op->emitOpError("uses a value that is neither a buffer nor a "
                             "constant");
    }
  }
  return success();
}

/// Elements [begin, begin + size) of dimension `dim` of a buffer, and all of
/// the others.
static Value sliceOf(ImplicitLocOpBuilder &b, Value buffer, unsigned dim,
                     OpFoldResult begin, OpFoldResult size) {
  SmallVector<OpFoldResult> offsets, sizes,
      strides(cast<MemRefType>(buffer.getType()).getRank(), b.getIndexAttr(1));
  for (int64_t extent : cast<MemRefType>(buffer.getType()).getShape()) {
    offsets.push_back(b.getIndexAttr(0));
    sizes.push_back(b.getIndexAttr(extent));
  }
  offsets[dim] = begin;
  sizes[dim] = size;
  return memref::SubViewOp::create(b, buffer, offsets, sizes, strides);
}

/// The operands of iterations [begin, begin + count) of the outermost loop.
static SmallVector<Value> shareOperands(ImplicitLocOpBuilder &b,
                                        linalg::LinalgOp op, Value begin,
                                        Value count) {
  SmallVector<OpFoldResult> sizes(op.getNumLoops(), b.getIndexAttr(0)),
      bounds = getAsIndexOpFoldResult(b.getContext(), op.getStaticLoopRanges());
  sizes.front() = count;
  return linalg::makeTiledShapes(b, op.getLoc(), op, op->getOperands(),
                                 {OpFoldResult(begin)}, sizes, bounds,
                                 /*omitPartialTileCheck=*/true);
}

static SmallVector<Value> shareOperands(ImplicitLocOpBuilder &b,
                                        QuantizeRowsOp op, Value begin,
                                        Value count) {
  return {sliceOf(b, op.getInput(), 0, begin, count),
          sliceOf(b, op.getOutput(), 0, begin, count)};
}

static SmallVector<Value> shareOperands(ImplicitLocOpBuilder &b,
                                        BlockProductOp op, Value begin,
                                        Value count) {
  Value panel =
      arith::ConstantIndexOp::create(b, static_cast<int64_t>(op.getPanel()));
  Value column = arith::MulIOp::create(b, begin, panel);
  Value columns = arith::MulIOp::create(b, count, panel);
  return {op.getInput(), sliceOf(b, op.getWeight(), 0, begin, count),
          sliceOf(b, op.getOutput(), 1, column, columns)};
}

/// Clones `op` to run iterations [begin, end) of its outermost loop: the same
/// op on the parts of its buffers that they touch.
static void cloneShare(ImplicitLocOpBuilder &b, DensePart &part,
                       IRMapping &mapping, Value begin, Value end) {
  Value count = arith::SubIOp::create(b, end, begin);
  Operation *whole = b.clone(*part.op, mapping);
  SmallVector<Value> operands =
      llvm::TypeSwitch<Operation *, SmallVector<Value>>(whole)
          .Case<linalg::LinalgOp, QuantizeRowsOp, BlockProductOp>(
              [&](auto op) { return shareOperands(b, op, begin, count); });
  if (part.fill) {
    Value value = mapping.lookup(part.fill.getInputs().front());
    linalg::FillOp::create(b, part.fill.getLoc(), value, operands.back());
  }
  Operation *share = clone(b, whole, {}, operands);
  if (auto generic = dyn_cast<linalg::LinalgOp>(share)) {
    SmallVector<OpFoldResult> offsets(generic.getNumLoops(), b.getIndexAttr(0));
    offsets.front() = begin;
    linalg::offsetIndices(b, generic, offsets);
  }
  whole->erase();
}

/// An equal function that is there already, or else the candidate.
func::FuncOp
OutlineDispatchesPass::insertUnlessKnown(OwningOpRef<func::FuncOp> candidate,
                                         StringRef name) {
  SmallVector<func::FuncOp> &alike =
      functions[{candidate->getFunctionType(), candidate->getArgAttrsAttr()}];
  for (func::FuncOp known : alike)
    if (OperationEquivalence::isRegionEquivalentTo(
            &known.getBody(), &candidate->getBody(),
            OperationEquivalence::IgnoreLocations))
      return known;
  func::FuncOp function = candidate.release();
  function.setSymName(name);
  symbols->insert(function);
  alike.push_back(function);
  ++numFunctions;
  return function;
}

LogicalResult OutlineDispatchesPass::outline(DensePart part) {
  if (failed(part.verify()) || failed(part.collectUses()))
    return failure();
  DestinationStyleOpInterface op = part.op;
  SmallVector<Value> buffers =
      llvm::to_vector(llvm::concat<Value>(part.inputs, part.outputs));

  // Build the function beside the module, and keep it if it is new.
  ImplicitLocOpBuilder b(op->getLoc(), &getContext());
  SmallVector<Type> inputs(2, b.getIndexType());
  for (Value buffer : buffers)
    inputs.push_back(withoutOffset(cast<MemRefType>(buffer.getType())));
  OwningOpRef<func::FuncOp> func = func::FuncOp::create(
      b.getLoc(), "candidate", b.getFunctionType(inputs, {}));
  func->setPrivate();
  Block *entry = func->addEntryBlock();
  b.setInsertionPointToStart(entry);
  IRMapping mapping;
  mapping.map(buffers, entry->getArguments().drop_front(2));
  for (Value constant : part.constants)
    mapping.map(constant, b.clone(*constant.getDefiningOp())->getResult(0));
  cloneShare(b, part, mapping, entry->getArgument(0), entry->getArgument(1));
  func::ReturnOp::create(b);
  // A buffer that nothing else here can reach lets loops be vectorised.
  for (auto [i, buffer] : llvm::enumerate(buffers))
    if (llvm::count_if(buffers, [&](Value other) {
          return rootOf(other) == rootOf(buffer);
        }) == 1)
      func->setArgAttr(i + 2, LLVM::LLVMDialect::getNoAliasAttrName(),
                       b.getUnitAttr());
  func::FuncOp function = insertUnlessKnown(std::move(func), part.getName());

  b.setInsertionPoint(op);
  SmallVector<int64_t> ranges = part.getLoopRanges();
  int64_t work = 1;
  for (int64_t range : ranges)
    work *= range;
  bool serial = ranges.front() == 1 || work < parallelWork;
  DispatchOp::create(b, TypeRange{}, function.getSymName(), ranges.front(),
                     part.inputs, part.outputs, serial);
  if (part.fill)
    part.fill.erase();
  op.erase();
  ++numOutlined;
  return success();
}

/// Whether nothing between two ops of a block touches memory.
static bool followsAtOnce(Operation *first, Operation *second) {
  for (Operation *op = first->getNextNode(); op; op = op->getNextNode()) {
    if (op == second)
      return true;
    if (!isa<memref::AllocOp>(op) && !isMemoryEffectFree(op))
      return false;
  }
  return false;
}

/// Whether `fill` starts the output of `op`, and the tasks of `op` write parts
/// of it that do not overlap and that no other task reads.
static bool startsOutputOf(linalg::FillOp fill,
                           DestinationStyleOpInterface op) {
  Value out = fill.getOutputs().front();
  if (op.getNumDpsInits() != 1 || op.getDpsInits()[0] != out ||
      !followsAtOnce(fill, op))
    return false;
  auto generic = dyn_cast<linalg::LinalgOp>(*op);
  if (generic && !generic.getMatchingIndexingMap(op.getDpsInitOperand(0))
                      .isFunctionOfDim(0))
    return false;
  llvm::SetVector<Value> read;
  for (Value input : op->getOperands().drop_back())
    read.insert(input);
  getUsedValuesDefinedAbove(op->getRegions(), read);
  return llvm::none_of(
      read, [&](Value value) { return rootOf(value) == rootOf(out); });
}

LogicalResult OutlineDispatchesPass::outlineStep(func::FuncOp step) {
  SmallVector<DestinationStyleOpInterface> ops;
  for (auto op : step.getBody().front().getOps<DestinationStyleOpInterface>()) {
    if (!DensePart::isDense(op))
      continue;
    if (!op.hasPureBufferSemantics())
      return op->emitOpError(
          "is not on buffers; run kvrm-bufferize-step first");
    ops.push_back(op);
  }
  for (size_t i = 0; i < ops.size(); ++i) {
    DensePart part;
    part.op = ops[i];
    auto fill = dyn_cast<linalg::FillOp>(ops[i].getOperation());
    if (fill && i + 1 < ops.size() && startsOutputOf(fill, ops[i + 1])) {
      part.fill = fill;
      part.op = ops[++i];
    }
    if (failed(outline(std::move(part))))
      return failure();
  }
  return success();
}

void OutlineDispatchesPass::runOnOperation() {
  functions.clear();
  SymbolTable table(getOperation());
  symbols = &table;
  for (func::FuncOp step : getSteps(getOperation()))
    if (failed(outlineStep(step)))
      return signalPassFailure();
}
