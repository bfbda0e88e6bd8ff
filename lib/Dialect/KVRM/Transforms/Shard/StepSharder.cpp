//===- StepSharder.cpp - One step as each of several ranks has it ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepSharder.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Transforms/RegionUtils.h"

#include <numeric>

using namespace mlir;
using namespace mlir::kvrm;

static bool isWeight(Value value) {
  return value.getDefiningOp<ml_program::GlobalLoadConstOp>() != nullptr;
}

static int64_t sumOf(ArrayRef<int64_t> parts) {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0});
}

static RankedTensorType tensorOf(Value value) {
  return dyn_cast<RankedTensorType>(value.getType());
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

RankedTensorType StepSharder::ofRank(Type type, int64_t dim) const {
  auto tensor = cast<RankedTensorType>(type);
  SmallVector<int64_t> shape(tensor.getShape());
  shape[dim] = ofRank(shape[dim]);
  return tensor.clone(shape);
}

bool StepSharder::divides(ArrayRef<int64_t> parts) const {
  return !parts.empty() &&
         llvm::all_of(parts, [&](int64_t part) { return part % ranks == 0; });
}

/// Records that `value`, whose type is whole, is split from here on.
void StepSharder::split(Value value, int64_t dim, ArrayRef<int64_t> parts) {
  value.setType(ofRank(value.getType(), dim));
  splits[value] = {dim, SmallVector<int64_t>(parts)};
}

/// Puts `value`, which is of a rank already, in the place of an op's result.
void StepSharder::replace(Operation *op, Value value, const Split &split) {
  splits[value] = split;
  op->getResult(0).replaceAllUsesWith(value);
  op->erase();
}

/// Null for what holds more than one value.
Value StepSharder::initOfRank(Value init, int64_t dim) {
  auto fill = init.getDefiningOp<linalg::FillOp>();
  if (!fill && !init.getDefiningOp<tensor::EmptyOp>())
    return {};
  RankedTensorType type = ofRank(init.getType(), dim);
  Value empty =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  return fill ? linalg::FillOp::create(b, fill.getInputs()[0], empty)
                    .getResult(0)
              : empty;
}

/// Makes one value of what each rank has a sum of.
void StepSharder::reduce(Value partial) {
  b.setInsertionPointAfter(partial.getDefiningOp());
  auto type = cast<RankedTensorType>(partial.getType());
  Value init =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  auto all = AllReduceOp::create(b, TypeRange{type}, partial, init);
  partial.replaceAllUsesExcept(all.getResult(), all);
  ++numReduced;
}

/// The whole of a value that is one part, in the order of its elements.
FailureOr<Value> StepSharder::gather(Value value, Operation *user) {
  if (Value known = gathered.lookup(value))
    return known;
  const Split split = splits.at(value);
  if (split.parts.size() != 1)
    return user->emitOpError("reads all of what ")
           << ranks << " ranks have in " << split.parts.size()
           << " parts; only one part can be put together again";
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<int64_t> apart(type.getShape());
  apart.insert(apart.begin(), ranks);
  Type element = type.getElementType();
  Value init = tensor::EmptyOp::create(b, apart, element);
  Value all = AllGatherOp::create(b, TypeRange{type.clone(apart)}, value, init)
                  .getResult();
  SmallVector<int64_t> whole(type.getShape());
  whole[split.dim] *= ranks;
  auto rank = static_cast<unsigned>(whole.size());
  Value joined =
      linalg::GenericOp::create(
          b, TypeRange{type.clone(whole)}, ValueRange{},
          ValueRange{tensor::EmptyOp::create(b, whole, element)},
          ArrayRef{b.getMultiDimIdentityMap(rank)},
          SmallVector<utils::IteratorType>(rank, utils::IteratorType::parallel),
          [&](OpBuilder &nested, Location loc, ValueRange) {
            ImplicitLocOpBuilder inner(loc, nested);
            Value width = arith::ConstantIndexOp::create(
                inner, type.getDimSize(split.dim));
            SmallVector<Value> index(1);
            for (unsigned dim = 0; dim < rank; ++dim)
              index.push_back(linalg::IndexOp::create(inner, dim));
            Value &along = index[static_cast<size_t>(split.dim) + 1];
            index[0] = arith::DivUIOp::create(inner, along, width);
            along = arith::RemUIOp::create(inner, along, width);
            linalg::YieldOp::create(
                inner,
                tensor::ExtractOp::create(inner, all, index).getResult());
          })
          .getResult(0);
  ++numGathered;
  gathered[value] = joined;
  return joined;
}

LogicalResult StepSharder::gatherOperands(Operation *op) {
  llvm::SetVector<Value> used(op->getOperands().begin(),
                              op->getOperands().end());
  getUsedValuesDefinedAbove(op->getRegions(), used);
  for (Value value : used) {
    if (isWeight(value) && !splitOf(value))
      wholeWeights.insert(value);
    if (!splitOf(value))
      continue;
    FailureOr<Value> whole = gather(value, op);
    if (failed(whole))
      return failure();
    value.replaceUsesWithIf(
        *whole, [&](OpOperand &use) { return op->isAncestor(use.getOwner()); });
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// `[layers, slots, kv_heads, capacity, head_dim]`.
static constexpr int64_t kCacheHeads = 2;
/// `[rows, queries, heads, head_dim]`.
static constexpr int64_t kHeads = 2;

bool StepSharder::isCache(Value value) const {
  auto attention = value.getDefiningOp<CachedAttentionOp>();
  if (attention)
    return value != attention.getOutput();
  return isa<BlockArgument>(value) && splitOf(value);
}

/// Ranks have some KV heads of each cache, to begin with.
LogicalResult StepSharder::splitCaches() {
  WalkResult walked = step.walk([&](CachedAttentionOp op) {
    int64_t kvHeads = tensorOf(op.getKeyCache()).getDimSize(kCacheHeads);
    for (Value cache : {op.getKeyCache(), op.getValueCache()}) {
      if (!isa<BlockArgument>(cache) || splitOf(cache))
        continue;
      if (kvHeads % ranks != 0) {
        op.emitOpError("has ") << kvHeads << " KV heads, which " << ranks
                               << " ranks do not divide";
        return WalkResult::interrupt();
      }
      split(cache, kCacheHeads, {kvHeads});
    }
    return WalkResult::advance();
  });
  return failure(walked.wasInterrupted());
}

LogicalResult StepSharder::shardAttention(CachedAttentionOp op) {
  for (Value heads : {op.getQuery(), op.getKey(), op.getValue()}) {
    const Split *split = splitOf(heads);
    if (!split || split->dim != kHeads || split->parts.size() != 1)
      return op.emitOpError("is of ranks that each have all of ")
             << heads.getType() << ", which must be split by heads";
  }
  for (Value cache : {op.getKeyCache(), op.getValueCache()})
    if (!splitOf(cache))
      return op.emitOpError("takes a cache that is neither an argument of its "
                            "step nor what another attention left");
  const Split query = splits.at(op.getQuery());
  const Split cache = splits.at(op.getKeyCache());
  split(op.getOutput(), query.dim, query.parts);
  split(op.getNewKeyCache(), cache.dim, cache.parts);
  split(op.getNewValueCache(), cache.dim, cache.parts);
  return success();
}

/// Each rank returns its caches, and all else whole.
LogicalResult StepSharder::shardReturn(func::ReturnOp op) {
  for (OpOperand &operand : op->getOpOperands()) {
    Value value = operand.get();
    if (!splitOf(value) || isCache(value))
      continue;
    FailureOr<Value> whole = gather(value, op);
    if (failed(whole))
      return failure();
    operand.set(*whole);
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

/// The parts that [begin, begin + size) is, exactly; none if it cuts one.
static SmallVector<int64_t> partsIn(ArrayRef<int64_t> parts, int64_t begin,
                                    int64_t size) {
  SmallVector<int64_t> inside;
  int64_t at = 0;
  for (int64_t part : parts) {
    if (at >= begin && at + part <= begin + size)
      inside.push_back(part);
    at += part;
  }
  int64_t found = sumOf(inside);
  at = 0;
  for (int64_t part : parts) {
    if (at == begin)
      return found == size ? inside : SmallVector<int64_t>();
    at += part;
  }
  return {};
}

template <typename OpT> static bool isPlainSlice(OpT op, Type narrow) {
  auto isStatic = [](ArrayRef<int64_t> values) {
    return llvm::none_of(values, ShapedType::isDynamic);
  };
  return isStatic(op.getStaticOffsets()) && isStatic(op.getStaticSizes()) &&
         llvm::all_of(op.getStaticStrides(),
                      [](int64_t s) { return s == 1; }) &&
         cast<RankedTensorType>(narrow).getShape() ==
             ArrayRef(op.getStaticSizes());
}

static SmallVector<OpFoldResult> attributesOf(Builder &b,
                                              ArrayRef<int64_t> values) {
  return llvm::map_to_vector(
      values, [&](int64_t v) { return OpFoldResult(b.getIndexAttr(v)); });
}

LogicalResult StepSharder::shardSlice(tensor::ExtractSliceOp op) {
  const Split *source = splitOf(op.getSource());
  if (!source || !isPlainSlice(op, op.getType()))
    return gatherOperands(op);
  SmallVector<int64_t> offsets(op.getStaticOffsets()),
      sizes(op.getStaticSizes());
  auto dim = static_cast<size_t>(source->dim);
  SmallVector<int64_t> parts = partsIn(source->parts, offsets[dim], sizes[dim]);
  if (parts.empty())
    return gatherOperands(op);
  offsets[dim] = ofRank(offsets[dim]);
  sizes[dim] = ofRank(sizes[dim]);
  Value narrow = tensor::ExtractSliceOp::create(
      b, op.getSource(), attributesOf(b, offsets), attributesOf(b, sizes),
      op.getMixedStrides());
  replace(op, narrow, {source->dim, parts});
  return success();
}

/// Rows of one tensor among those of another, each row split alike.
LogicalResult StepSharder::shardInsertion(tensor::InsertSliceOp op) {
  const Split *source = splitOf(op.getSource());
  const Split *into = splitOf(op.getDest());
  if (!source ||
      !isPlainSlice(op, op.getSourceType().clone(op.getStaticSizes())))
    return gatherOperands(op);
  const Split split = *source;
  auto dim = static_cast<size_t>(split.dim);
  SmallVector<int64_t> sizes(op.getStaticSizes());
  if (op.getSourceType().getRank() != op.getDestType().getRank() ||
      op.getStaticOffsets()[dim] != 0 || sizes[dim] != sumOf(split.parts) ||
      (into && !(*into == split)))
    return gatherOperands(op);
  Value dest = into ? op.getDest() : initOfRank(op.getDest(), split.dim);
  if (!dest)
    return gatherOperands(op);
  sizes[dim] = ofRank(sizes[dim]);
  Value joined = tensor::InsertSliceOp::create(
      b, op.getSource(), dest, op.getMixedOffsets(), attributesOf(b, sizes),
      op.getMixedStrides());
  replace(op, joined, split);
  return success();
}

/// The dimension of `group` that comes first in memory: the first not of 1.
static int64_t outermost(ArrayRef<int64_t> group, ArrayRef<int64_t> shape) {
  for (int64_t dim : group)
    if (shape[dim] != 1)
      return dim;
  return group.front();
}

LogicalResult StepSharder::shardExpansion(tensor::ExpandShapeOp op) {
  const Split *source = splitOf(op.getSrc());
  if (!source)
    return success();
  ReassociationIndices group =
      op.getReassociationIndices()[static_cast<size_t>(source->dim)];
  ArrayRef<int64_t> shape = op.getResultType().getShape();
  int64_t dim = outermost(group, shape);
  if (source->parts.size() != 1 || shape[dim] % ranks != 0)
    return gatherOperands(op);
  Value expanded =
      tensor::ExpandShapeOp::create(b, ofRank(op.getResultType(), dim),
                                    op.getSrc(), op.getReassociationIndices());
  replace(op, expanded, {dim, {shape[dim]}});
  return success();
}

LogicalResult StepSharder::shardCollapse(tensor::CollapseShapeOp op) {
  const Split *source = splitOf(op.getSrc());
  if (!source)
    return success();
  // A rank has its part of what was split, whose size matters below.
  SmallVector<int64_t> whole(op.getSrcType().getShape());
  whole[static_cast<size_t>(source->dim)] = sumOf(source->parts);
  for (auto [index, group] : llvm::enumerate(op.getReassociationIndices())) {
    if (!llvm::is_contained(group, source->dim))
      continue;
    if (outermost(group, whole) != source->dim)
      break;
    int64_t inner = 1;
    for (int64_t dim : group)
      inner *= dim == source->dim ? 1 : whole[static_cast<size_t>(dim)];
    SmallVector<int64_t> parts = source->parts;
    for (int64_t &part : parts)
      part *= inner;
    auto dim = static_cast<int64_t>(index);
    Value collapsed = tensor::CollapseShapeOp::create(
        b, ofRank(op.getResultType(), dim), op.getSrc(),
        op.getReassociationIndices());
    replace(op, collapsed, {dim, parts});
    return success();
  }
  return gatherOperands(op);
}

//===----------------------------------------------------------------------===//
// Linalg
//===----------------------------------------------------------------------===//

/// The dimension of an operand that `loop` alone runs along; none if it has
/// nothing to do with the operand, failure if it has otherwise.
static FailureOr<std::optional<int64_t>> dimAlong(AffineMap map,
                                                  unsigned loop) {
  std::optional<int64_t> found;
  for (auto [dim, expr] : llvm::enumerate(map.getResults())) {
    if (!expr.isFunctionOfDim(loop))
      continue;
    if (!isa<AffineDimExpr>(expr) || found)
      return failure();
    found = static_cast<int64_t>(dim);
  }
  return found;
}

/// Whether a reduction adds up f32 from zero, so that sums of parts add up.
static bool isSumFromZero(linalg::LinalgOp op) {
  if (op.getNumDpsInits() != 1)
    return false;
  auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  BlockArgument running = op.getRegionOutputArgs()[0];
  auto sum = op.getBlock()
                 ->getTerminator()
                 ->getOperand(0)
                 .getDefiningOp<arith::AddFOp>();
  return fill && matchPattern(fill.getInputs()[0], m_AnyZeroFloat()) && sum &&
         sum.getType().isF32() && running.hasOneUse() &&
         llvm::is_contained(sum->getOperands(), Value(running)) &&
         sum->hasOneUse();
}

/// The sizes of the column ranges of a product that slices take apart, behind
/// whatever elementwise op alone uses it.
static SmallVector<int64_t> columnParts(Value product) {
  int64_t width = tensorOf(product).getDimSize(1);
  llvm::SmallDenseSet<int64_t> cuts = {0, width};
  for (Value value = product; value;) {
    bool isSliced = false;
    for (Operation *user : value.getUsers())
      if (auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
          slice && isPlainSlice(slice, slice.getType())) {
        isSliced = true;
        cuts.insert(slice.getStaticOffsets()[1]);
        cuts.insert(slice.getStaticOffsets()[1] + slice.getStaticSizes()[1]);
      }
    auto next = value.hasOneUse()
                    ? dyn_cast<linalg::GenericOp>(*value.getUsers().begin())
                    : linalg::GenericOp();
    if (isSliced || !next || next->getNumResults() != 1 ||
        cast<ShapedType>(next.getResult(0).getType()).getShape() !=
            tensorOf(product).getShape())
      break;
    value = next.getResult(0);
  }
  SmallVector<int64_t> sorted(cuts.begin(), cuts.end()), parts;
  llvm::sort(sorted);
  for (auto [begin, end] : llvm::zip(sorted, ArrayRef(sorted).drop_front()))
    parts.push_back(end - begin);
  return parts;
}

std::optional<StepSharder::Cut> StepSharder::cutOfColumns(linalg::LinalgOp op) {
  if (!isa<linalg::MatmulTransposeBOp>(op.getOperation()) ||
      !isWeight(op.getDpsInputs()[1]))
    return std::nullopt;
  Cut cut;
  cut.loop = 1;
  cut.parts = columnParts(op->getResult(0));
  return divides(cut.parts) ? std::optional(cut) : std::nullopt;
}

std::optional<StepSharder::Cut>
StepSharder::cutOfOperands(linalg::LinalgOp op) {
  std::optional<Cut> cut;
  for (OpOperand *operand : op.getDpsInputOperands()) {
    const Split *split = splitOf(operand->get());
    if (!split)
      continue;
    auto along =
        dyn_cast<AffineDimExpr>(op.getMatchingIndexingMap(operand).getResult(
            static_cast<unsigned>(split->dim)));
    if (!along || (cut && (cut->loop != along.getPosition() ||
                           cut->parts != split->parts)))
      return std::nullopt;
    cut = {along.getPosition(), split->parts, {}};
  }
  return cut;
}

/// Whether a rank can read its part of an input.
bool StepSharder::takesPart(linalg::LinalgOp op, OpOperand &input, Cut &cut) {
  FailureOr<std::optional<int64_t>> dim =
      dimAlong(op.getMatchingIndexingMap(&input), cut.loop);
  if (failed(dim))
    return false;
  const Split *split = splitOf(input.get());
  if (!dim->has_value())
    return !split;
  if (split)
    return *split == Split{**dim, cut.parts};
  if (!isWeight(input.get()) || wholeWeights.contains(input.get()) ||
      tensorOf(input.get()).getDimSize(**dim) != sumOf(cut.parts))
    return false;
  cut.weights.push_back({input.get(), **dim});
  return true;
}

bool StepSharder::takesInit(linalg::LinalgOp op, OpOperand &init,
                            const Cut &cut) {
  if (splitOf(init.get()))
    return false;
  FailureOr<std::optional<int64_t>> dim =
      dimAlong(op.getMatchingIndexingMap(&init), cut.loop);
  bool isSplat = init.get().getDefiningOp<linalg::FillOp>() ||
                 init.get().getDefiningOp<tensor::EmptyOp>();
  return succeeded(dim) && (!dim->has_value() || isSplat);
}

/// Whether the body means the same when the cut loop counts from 0 on each
/// rank: it may only index what is cut alike.
bool StepSharder::indexesParts(linalg::LinalgOp op, const Cut &cut) {
  auto isAlong = [&](Value index) {
    auto own = index.getDefiningOp<linalg::IndexOp>();
    return own && own.getDim() == cut.loop;
  };
  WalkResult walked = op->walk([&](Operation *nested) {
    if (auto extract = dyn_cast<tensor::ExtractOp>(nested)) {
      const Split *split = splitOf(extract.getTensor());
      for (auto [dim, index] : llvm::enumerate(extract.getIndices())) {
        bool isSplit = split && split->dim == static_cast<int64_t>(dim);
        if (isSplit && split->parts != cut.parts)
          return WalkResult::interrupt();
        if (isAlong(index) != isSplit)
          return WalkResult::interrupt();
      }
      return WalkResult::advance();
    }
    // Nothing else may know how far the loop is, or take a split value whole.
    bool isOpaque = nested != op.getOperation() &&
                    llvm::any_of(nested->getOperands(), [&](Value operand) {
                      return isAlong(operand) || splitOf(operand);
                    });
    return isOpaque ? WalkResult::interrupt() : WalkResult::advance();
  });
  return !walked.wasInterrupted();
}

std::optional<StepSharder::Cut> StepSharder::chooseCut(linalg::LinalgOp op) {
  bool isSplit = llvm::any_of(op->getOperands(),
                              [&](Value value) { return splitOf(value); });
  std::optional<Cut> cut = isSplit ? cutOfOperands(op) : cutOfColumns(op);
  if (!cut)
    return std::nullopt;
  bool isReduction =
      op.getIteratorTypesArray()[cut->loop] == utils::IteratorType::reduction;
  if (isReduction && !isSumFromZero(op))
    return std::nullopt;
  for (OpOperand *input : op.getDpsInputOperands())
    if (!takesPart(op, *input, *cut))
      return std::nullopt;
  for (OpOperand &init : op.getDpsInitsMutable())
    if (!takesInit(op, init, *cut))
      return std::nullopt;
  if (!indexesParts(op, *cut))
    return std::nullopt;
  return cut;
}

LogicalResult StepSharder::apply(linalg::LinalgOp op, const Cut &cut) {
  for (auto [weight, dim] : cut.weights)
    if (!splitOf(weight))
      split(weight, dim, cut.parts);
  if (op.getIteratorTypesArray()[cut.loop] == utils::IteratorType::reduction) {
    reduce(op->getResult(0));
    return success();
  }
  for (OpOperand &init : op.getDpsInitsMutable()) {
    std::optional<int64_t> dim =
        *dimAlong(op.getMatchingIndexingMap(&init), cut.loop);
    if (!dim)
      return op.emitOpError("has a result that does not say which rank's it "
                            "is");
    init.set(initOfRank(init.get(), *dim));
    split(op.getTiedOpResult(&init), *dim, cut.parts);
  }
  return success();
}

LogicalResult StepSharder::shardLinalg(linalg::LinalgOp op) {
  std::optional<Cut> cut = chooseCut(op);
  if (!cut)
    return gatherOperands(op);
  for (Value value : op.getDpsInputs())
    if (isWeight(value) && !splitOf(value) &&
        llvm::none_of(cut->weights,
                      [&](const auto &each) { return each.first == value; }))
      wholeWeights.insert(value);
  return apply(op, *cut);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

LogicalResult StepSharder::shard(Operation &op) {
  b.setInsertionPoint(&op);
  b.setLoc(op.getLoc());
  if (auto attention = dyn_cast<CachedAttentionOp>(op))
    return shardAttention(attention);
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op))
    return shardSlice(slice);
  if (auto insertion = dyn_cast<tensor::InsertSliceOp>(op))
    return shardInsertion(insertion);
  if (auto expansion = dyn_cast<tensor::ExpandShapeOp>(op))
    return shardExpansion(expansion);
  if (auto collapse = dyn_cast<tensor::CollapseShapeOp>(op))
    return shardCollapse(collapse);
  if (auto structured = dyn_cast<linalg::LinalgOp>(op))
    return shardLinalg(structured);
  if (auto ret = dyn_cast<func::ReturnOp>(op))
    return shardReturn(ret);
  return gatherOperands(&op);
}

LogicalResult StepSharder::run() {
  if (!step.getBody().hasOneBlock())
    return step.emitOpError("has control flow; a step has one block");
  if (failed(splitCaches()))
    return failure();
  Block &body = step.getBody().front();
  for (Operation &op : llvm::make_early_inc_range(body))
    if (failed(shard(op)))
      return failure();
  // Inits of whole results.
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(body)))
    if (isOpTriviallyDead(&op))
      op.erase();
  step.setFunctionType(b.getFunctionType(
      body.getArgumentTypes(), body.getTerminator()->getOperandTypes()));
  return success();
}
