//===- StepAnalysis.cpp - A decode step over static caches ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepAnalysis.h"

#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/DenseSet.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

bool mlir::kvrm::raise::isRemovable(Operation *op) {
  if (op->hasTrait<OpTrait::IsTerminator>())
    return false;
  WalkResult walked = op->walk([&](Operation *nested) {
    bool isHarmless = nested->hasTrait<OpTrait::HasRecursiveMemoryEffects>();
    if (isa<cf::AssertOp>(nested))
      isHarmless = nested != op;
    else if (auto effects = dyn_cast<MemoryEffectOpInterface>(nested))
      isHarmless |= effects.hasNoEffect();
    return isHarmless ? WalkResult::advance() : WalkResult::interrupt();
  });
  return !walked.wasInterrupted();
}

namespace {

/// One analysis of a function, under one assumption about its arguments.
class StepAnalyser {
public:
  StepAnalyser(func::FuncOp func, PointEvaluator::Assumption assumption)
      : func(func), pool(std::make_unique<ExprPool>()),
        evaluator(*pool, assumption), matcher(evaluator, func),
        position(dyn_cast_or_null<BlockArgument>(assumption.argument)),
        last(assumption.range.high) {}

  /// The first cache that a contraction sums the tokens of.
  std::optional<CacheRead> findCandidate();
  FailureOr<RaisableStep> run();
  void explainNothingFound();

private:
  void explainNoResult();
  LogicalResult matchLayers();
  LogicalResult checkAgreement();
  LogicalResult checkPosition();
  LogicalResult numberLayers();
  LogicalResult checkReturned();
  LogicalResult checkReturned(const AttentionLayer &layer, BlockArgument cache,
                              const CacheDims &dims, const Expr *written);
  std::optional<unsigned> findResult(const AttentionLayer &layer,
                                     BlockArgument cache, const CacheDims &dims,
                                     const Expr *written);
  LogicalResult checkOrderOfResults();
  LogicalResult checkUnattended();
  LogicalResult checkReaders();
  SmallVector<const Expr *> pointOf(const AttentionLayer &layer,
                                    BlockArgument cache, const CacheDims &dims);
  Operation *terminator() { return func.getBody().front().getTerminator(); }
  LogicalResult refuse(Operation *op, const Twine &reason);

  func::FuncOp func;
  std::unique_ptr<ExprPool> pool;
  PointEvaluator evaluator;
  AttentionMatcher matcher;
  /// Of which it was assumed that it is at most `last`.
  BlockArgument position;
  int64_t last;
  RaisableStep step;
  /// The result that returns an argument.
  llvm::DenseMap<BlockArgument, unsigned> resultOf;
};

} // namespace

/// Whether the last contraction of attention may be this op.
static bool mayBeAttention(Operation &op) {
  if (auto linalgOp = dyn_cast<linalg::LinalgOp>(op))
    return linalgOp.getNumReductionLoops() != 0;
  return isFusedAttention(&op);
}

static bool mayBeCache(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && tensor.hasStaticShape() && tensor.getRank() >= 3 &&
         isa<FloatType>(tensor.getElementType());
}

LogicalResult StepAnalyser::refuse(Operation *op, const Twine &reason) {
  op->emitRemark("not raised: ") << reason;
  return failure();
}

std::optional<CacheRead> StepAnalyser::findCandidate() {
  for (Operation &op : func.getBody().front())
    if (mayBeAttention(op))
      if (std::optional<CacheRead> read = matcher.findCandidate(&op))
        return read;
  return std::nullopt;
}

/// Says of a function that takes and returns what may be caches what was seen
/// of one of them; a selection is the likeliest to be one that was written.
void StepAnalyser::explainNothingFound() {
  const Expr *shown = nullptr;
  size_t result = 0;
  for (auto [number, value] : llvm::enumerate(terminator()->getOperands())) {
    if (!mayBeCache(value.getType()) ||
        !llvm::is_contained(func.getArgumentTypes(), value.getType()))
      continue;
    SmallVector<const Expr *> index;
    for (int64_t size : cast<RankedTensorType>(value.getType()).getShape())
      index.push_back(pool->symbol(size, ("i" + Twine(index.size())).str()));
    const Expr *seen = evaluator.head(evaluator.at(value, index));
    if (shown && !seen->is(ExprKind::Select))
      continue;
    shown = seen;
    result = number;
    if (seen->is(ExprKind::Select))
      break;
  }
  if (!shown) {
    explainNoResult();
    return;
  }
  func.emitRemark("not raised: no attention over a cache that a token was "
                  "written to; result ")
      << result << " is " << toString(shown)
      << (evaluator.isExhausted() ? " (the graph was too deep to follow)" : "");
}

/// Says of an exported function that takes what may be a cache and returns
/// nothing like it that somebody else would have to write it.
void StepAnalyser::explainNoResult() {
  for (BlockArgument argument : func.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!func.isPublic() || !mayBeCache(argument.getType()) ||
        type.getRank() < 4)
      continue;
    func.emitRemark("not raised: argument ")
        << argument.getArgNumber()
        << " may be a cache, but is not returned with a token written";
    return;
  }
}

LogicalResult StepAnalyser::matchLayers() {
  bool isRefused = false;
  for (Operation &op : func.getBody().front()) {
    if (!mayBeAttention(op) || !matcher.findCandidate(&op))
      continue;
    FailureOr<AttentionLayer> layer = matcher.match(&op);
    if (failed(layer)) {
      isRefused = true;
      (void)refuse(&op, matcher.getRefusal().reason);
      continue;
    }
    step.layers.push_back(*layer);
  }
  if (evaluator.isExhausted())
    return refuse(func, "the graph was too large or too deep to follow");
  return failure(isRefused || step.layers.empty());
}

LogicalResult StepAnalyser::checkAgreement() {
  const AttentionLayer &first = step.layers.front();
  Type element = getElementTypeOrSelf(first.keyCache.getType());
  for (const AttentionLayer &layer : step.layers) {
    // Symbols are shared by extent, so the same position is the same pointer.
    if (layer.position != first.position)
      return refuse(layer.op, "is at " + toString(layer.position) +
                                  ", the first layer at " +
                                  toString(first.position));
    if (layer.rows != first.rows || layer.kvHeads != first.kvHeads ||
        layer.capacity != first.capacity || layer.headDim != first.headDim)
      return refuse(layer.op, "has caches of another shape than the first");
    for (const Expr *expr : {layer.query, layer.key, layer.value}) {
      while (expr->is(ExprKind::Round))
        expr = expr->operand(0);
      Type type = getElementTypeOrSelf(expr->tensor.getType());
      if (!type.isF32() && !type.isF16() && !type.isBF16())
        return refuse(layer.op, "queries, keys or values are neither f32, f16 "
                                "nor bf16");
    }
    for (BlockArgument cache : {layer.keyCache, layer.valueCache})
      if (getElementTypeOrSelf(cache.getType()) != element)
        return refuse(layer.op, "has a cache of another element than the "
                                "first");
    for (const Expr *expr : {layer.query, layer.key, layer.value})
      while (expr) {
        Value tensor = expr->tensor;
        if (tensor && tensor.getParentBlock() != &func.getBody().front())
          return refuse(layer.op, "takes what a nested region computes");
        expr = expr->is(ExprKind::Round) ? expr->operand(0) : nullptr;
      }
  }
  return success();
}

/// The position is an argument: an element a row, or one for all of them.
LogicalResult StepAnalyser::checkPosition() {
  const AttentionLayer &first = step.layers.front();
  auto argument = cast<BlockArgument>(first.position->tensor);
  if (argument != position)
    return refuse(first.op, "the position is " + toString(first.position) +
                                ", which another layer does not write at");
  // Less was assumed for another cache than holds for this one.
  if (first.capacity - 1 != last)
    return refuse(first.op, "the cache has " + Twine(first.capacity) +
                                " tokens, the first that was found has " +
                                Twine(last + 1));
  Type type = argument.getType(), element = getElementTypeOrSelf(type);
  int64_t count = 1;
  if (auto tensor = dyn_cast<RankedTensorType>(type)) {
    if (!tensor.hasStaticShape())
      return refuse(first.op, "how many positions there are is not known");
    count = tensor.getNumElements();
  }
  if (!element.isSignlessInteger(32) && !element.isSignlessInteger(64) &&
      !element.isIndex())
    return refuse(func, "positions are neither i32 nor i64 nor index");
  bool isPerRow = false;
  for (const Expr *at : first.position->operands) {
    if (at == first.row && !at->is(ExprKind::Integer) && !isPerRow)
      isPerRow = true;
    else if (!at->isNumber(0))
      return refuse(first.op,
                    "the position of a row is " + toString(first.position));
  }
  if (count != (isPerRow ? first.rows : 1))
    return refuse(first.op, "the argument of positions has " + Twine(count) +
                                " elements");
  step.position = argument;
  step.hasCommonPosition = !isPerRow && first.rows > 1;
  return success();
}

/// Each cache, or each layer of one, belongs to one attention.
LogicalResult StepAnalyser::numberLayers() {
  llvm::DenseSet<std::pair<BlockArgument, int64_t>> used;
  llvm::DenseMap<BlockArgument, int64_t> layersOf;
  bool isStacked = true;
  for (const AttentionLayer &layer : step.layers) {
    for (auto [cache, dims] : {std::pair(layer.keyCache, layer.keyDims),
                               std::pair(layer.valueCache, layer.valueDims)}) {
      if (!used.insert({cache, dims.layerIndex}).second)
        return refuse(layer.op, "shares argument " +
                                    Twine(cache.getArgNumber()) +
                                    " with another layer");
      ++layersOf[cache];
      step.cacheArguments.set(cache.getArgNumber());
    }
    isStacked &= layer.keyDims.layer && layer.valueDims.layer &&
                 layer.keyDims.layerIndex == layer.valueDims.layerIndex &&
                 layer.keyCache == step.layers.front().keyCache &&
                 layer.valueCache == step.layers.front().valueCache;
  }
  for (auto [number, layer] : llvm::enumerate(step.layers)) {
    for (auto [cache, dims] : {std::pair(layer.keyCache, layer.keyDims),
                               std::pair(layer.valueCache, layer.valueDims)}) {
      int64_t layers =
          dims.layer
              ? cast<RankedTensorType>(cache.getType()).getDimSize(*dims.layer)
              : 1;
      if (layersOf[cache] != layers)
        return refuse(layer.op, "argument " + Twine(cache.getArgNumber()) +
                                    " has " + Twine(layers) + " layers, " +
                                    Twine(layersOf[cache]) +
                                    " of them with an attention");
    }
    step.layerNumbers.push_back(isStacked ? layer.keyDims.layerIndex
                                          : static_cast<int64_t>(number));
  }
  for (const AttentionLayer &layer : step.layers)
    for (const AttentionLayer &other : step.layers)
      if (layer.keyCache == other.valueCache)
        return refuse(layer.op, "argument " +
                                    Twine(layer.keyCache.getArgNumber()) +
                                    " holds keys and values");
  return success();
}

/// The point (row, KV head, token, column) of a layer of a cache.
SmallVector<const Expr *> StepAnalyser::pointOf(const AttentionLayer &layer,
                                                BlockArgument cache,
                                                const CacheDims &dims) {
  SmallVector<const Expr *> index(
      cast<RankedTensorType>(cache.getType()).getRank(), pool->integer(0));
  auto set = [&](std::optional<unsigned> dim, const Expr *expr) {
    if (dim)
      index[*dim] = expr;
  };
  set(dims.layer, pool->integer(dims.layerIndex));
  set(dims.row, layer.row);
  set(dims.head, layer.kvHead);
  set(dims.token, matcher.symbol("s", layer.capacity));
  set(dims.column, layer.column);
  return index;
}

std::optional<unsigned> StepAnalyser::findResult(const AttentionLayer &layer,
                                                 BlockArgument cache,
                                                 const CacheDims &dims,
                                                 const Expr *written) {
  SmallVector<const Expr *> index = pointOf(layer, cache, dims);
  std::optional<unsigned> found;
  for (auto [number, value] : llvm::enumerate(terminator()->getOperands())) {
    if (value.getType() != cache.getType())
      continue;
    std::optional<CacheRead> read =
        matcher.readUnrounded(evaluator.at(value, index));
    if (!read || read->cache != cache)
      continue;
    bool isSame = ArrayRef(read->index) == ArrayRef(index) &&
                  evaluator.same(read->position, layer.position) &&
                  evaluator.same(read->written, written);
    if (isSame && !found)
      found = number;
  }
  return found;
}

LogicalResult StepAnalyser::checkReturned(const AttentionLayer &layer,
                                          BlockArgument cache,
                                          const CacheDims &dims,
                                          const Expr *written) {
  std::optional<unsigned> result = findResult(layer, cache, dims, written);
  std::string name = "argument " + std::to_string(cache.getArgNumber());
  if (!result)
    return refuse(layer.op,
                  name + " is not returned as this attention reads it");
  auto [known, isNew] = resultOf.try_emplace(cache, *result);
  if (!isNew && known->second != *result)
    return refuse(layer.op, name + " is returned in parts");
  step.cacheResults.set(*result);
  return success();
}

LogicalResult StepAnalyser::checkReturned() {
  for (const AttentionLayer &layer : step.layers)
    if (failed(
            checkReturned(layer, layer.keyCache, layer.keyDims, layer.key)) ||
        failed(checkReturned(layer, layer.valueCache, layer.valueDims,
                             layer.value)))
      return failure();
  return success();
}

/// Who calls the step passes the caches on by their order.
LogicalResult StepAnalyser::checkOrderOfResults() {
  std::optional<unsigned> last;
  for (unsigned argument : step.cacheArguments.set_bits()) {
    unsigned result = resultOf.lookup(func.getArgument(argument));
    if (last && result < *last)
      return refuse(func, "caches are returned in another order than they are "
                          "taken in: argument " +
                              Twine(argument) + " is result " + Twine(result));
    last = result;
  }
  if (step.cacheResults.count() != step.cacheArguments.count())
    return refuse(func, "two caches are one result");
  return success();
}

/// A cache that is written but not attended to would be left behind.
LogicalResult StepAnalyser::checkUnattended() {
  for (auto [number, value] : llvm::enumerate(terminator()->getOperands())) {
    if (step.cacheResults.test(number) || !mayBeCache(value.getType()))
      continue;
    SmallVector<const Expr *> index;
    for (int64_t size : cast<RankedTensorType>(value.getType()).getShape())
      index.push_back(pool->symbol(size, "i"));
    if (std::optional<CacheRead> read =
            matcher.readCache(evaluator.at(value, index)))
      return refuse(func, "result " + Twine(number) + " is argument " +
                              Twine(read->cache.getArgNumber()) +
                              " with a token written, which no attention that "
                              "was recognised reads");
  }
  return success();
}

/// The op to name for a use of a cache: the first that does not just move it.
static Operation *
firstReader(Value cache, const llvm::DenseMap<Value, Operation *> &liveUser) {
  Operation *reader = liveUser.lookup(cache);
  while (isa<tensor::TensorDialect>(reader->getDialect()) ||
         reader->getName().getStringRef().ends_with(".scatter") ||
         isa<linalg::TransposeOp, linalg::BroadcastOp>(reader)) {
    Operation *next = nullptr;
    for (Value result : reader->getResults())
      if (Operation *user = liveUser.lookup(result))
        next = user;
    if (!next)
      break;
    reader = next;
  }
  return reader;
}

/// What is needed when the outputs of attention come from elsewhere must not
/// need a cache.
LogicalResult StepAnalyser::checkReaders() {
  llvm::DenseMap<Value, Operation *> liveUser;
  SmallVector<Value> todo;
  auto use = [&](Value value, Operation *user) {
    if (liveUser.try_emplace(value, user).second)
      todo.push_back(value);
  };
  for (auto [number, value] : llvm::enumerate(terminator()->getOperands()))
    if (!step.cacheResults.test(number))
      use(value, terminator());
  llvm::DenseSet<Value> outputs;
  for (const AttentionLayer &layer : step.layers) {
    outputs.insert(layer.op->getResult(0));
    for (const Expr *expr : {layer.query, layer.key, layer.value}) {
      while (expr->is(ExprKind::Round))
        expr = expr->operand(0);
      use(expr->tensor, layer.op);
    }
  }
  auto useOperands = [&](Operation *op) {
    op->walk([&](Operation *nested) {
      for (Value operand : nested->getOperands())
        use(operand, op);
    });
  };
  for (Operation &op : func.getBody().front().without_terminator())
    if (!isRemovable(&op))
      useOperands(&op);
  while (!todo.empty()) {
    Value value = todo.pop_back_val();
    auto argument = dyn_cast<BlockArgument>(value);
    if (argument && argument.getOwner() == &func.getBody().front() &&
        step.cacheArguments.test(argument.getArgNumber()))
      return refuse(firstReader(value, liveUser),
                    "something other than attention needs argument " +
                        Twine(argument.getArgNumber()) + ", which is a cache");
    if (!argument && !outputs.contains(value))
      useOperands(value.getDefiningOp());
  }
  return success();
}

FailureOr<RaisableStep> StepAnalyser::run() {
  step.cacheArguments.resize(func.getNumArguments());
  step.cacheResults.resize(func.getNumResults());
  if (failed(matchLayers()) || failed(checkAgreement()) ||
      failed(checkPosition()) || failed(numberLayers()) ||
      failed(checkReturned()) || failed(checkOrderOfResults()) ||
      failed(checkUnattended()) || failed(checkReaders()))
    return failure();
  if (evaluator.isExhausted())
    return refuse(func, "the graph was too large or too deep to follow");
  step.pool = std::move(pool);
  return std::move(step);
}

FailureOr<RaisableStep>
mlir::kvrm::raise::analyseStep(func::FuncOp func, ArrayRef<Value> causalMasks) {
  // First, which argument is the position? Indices of a cache are small.
  PointEvaluator::Assumption small;
  small.range = {0, 1 << 20};
  small.trustsClamps = true;
  StepAnalyser scout(func, small);
  std::optional<CacheRead> read = scout.findCandidate();
  if (!read) {
    scout.explainNothingFound();
    return failure();
  }
  // Then the proof, which assumes that this argument is within the capacity.
  PointEvaluator::Assumption inCapacity;
  inCapacity.range = {0, read->size(read->tokenDim) - 1};
  if (read->position->is(ExprKind::Element)) {
    inCapacity.argument = read->position->tensor;
    inCapacity.causalMasks = llvm::to_vector(causalMasks);
  } else {
    inCapacity.range = {};
  }
  StepAnalyser analyser(func, inCapacity);
  if (!analyser.findCandidate()) {
    analyser.explainNothingFound();
    return failure();
  }
  return analyser.run();
}
