//===- AttentionMatcher.cpp - Attention over a static cache ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionMatcher.h"

#include "llvm/ADT/STLExtras.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm::raise;

LogicalResult AttentionMatcher::refuse(const Twine &reason) {
  // The first obligation that failed is the one to tell.
  if (refusal.reason.empty())
    refusal.reason = reason.str();
  return failure();
}

LogicalResult AttentionMatcher::refuse(const Twine &reason, const Expr *seen) {
  return refuse(reason + ": " + toString(evaluator.head(seen)));
}

const Expr *AttentionMatcher::symbol(StringRef name, int64_t extent) {
  const Expr *&known = symbols[{name, extent}];
  if (!known)
    known = pool.symbol(extent, name);
  return known;
}

const Expr *AttentionMatcher::strip(const Expr *expr) {
  for (expr = evaluator.head(expr); expr->is(ExprKind::Round);
       expr = evaluator.head(expr->operand(0)))
    roundedTo.insert(expr->key);
  return expr;
}

//===----------------------------------------------------------------------===//
// Caches
//===----------------------------------------------------------------------===//

/// Whether an integer is read from somewhere and is no index.
static bool isData(const Expr *expr) {
  switch (expr->kind) {
  case ExprKind::Element:
  case ExprKind::Apply:
  case ExprKind::Select:
    return true;
  case ExprKind::Linear:
    return llvm::all_of(expr->operands, isData);
  default:
    return false;
  }
}

std::optional<CacheRead> AttentionMatcher::readAt(const Expr *isWritten,
                                                  const Expr *written,
                                                  const Expr *old) {
  if (!isWritten->is(ExprKind::EqZero))
    return std::nullopt;
  old = strip(old);
  auto cache = old->is(ExprKind::Element) ? dyn_cast<BlockArgument>(old->tensor)
                                          : BlockArgument();
  if (!cache || cache.getOwner() != &func.getBody().front())
    return std::nullopt;
  auto type = dyn_cast<RankedTensorType>(cache.getType());
  if (!type || !type.hasStaticShape() || llvm::is_contained(type.getShape(), 0))
    return std::nullopt;
  CacheRead read;
  read.cache = cache;
  read.index = llvm::to_vector(old->operands);
  read.written = written;
  // token - position == 0, or position - token == 0.
  const Expr *difference = isWritten->operand(0);
  for (auto [dim, at] : llvm::enumerate(read.index)) {
    for (int64_t sign : {-1, 1}) {
      const Expr *position = pool.add(at, difference, sign);
      if (at->is(ExprKind::Integer) || !isData(position))
        continue;
      read.tokenDim = dim;
      read.position = position;
      return read;
    }
  }
  return std::nullopt;
}

/// old * (1 - hot) + hot * written
std::optional<CacheRead> AttentionMatcher::readOneHot(const Expr *expr) {
  using Pair = std::pair<unsigned, unsigned>;
  constexpr Pair orders[] = {{0, 1}, {1, 0}};
  for (auto [kept, added] : orders) {
    const Expr *left = strip(expr->operand(kept));
    const Expr *right = strip(expr->operand(added));
    if (!left->isApply("arith.mulf") || !right->isApply("arith.mulf"))
      continue;
    for (auto [old, cold] : orders) {
      const Expr *rest = strip(left->operand(cold));
      if (!rest->isApply("arith.subf") ||
          evaluator.constant(rest->operand(0)) != 1.0)
        continue;
      const Expr *hot = strip(rest->operand(1));
      if (!hot->is(ExprKind::ToReal))
        continue;
      for (auto [factor, written] : orders) {
        if (strip(right->operand(factor)) != hot)
          continue;
        if (auto read = readAt(hot->operand(0), right->operand(written),
                               left->operand(old)))
          return read;
      }
    }
  }
  return std::nullopt;
}

std::optional<CacheRead> AttentionMatcher::readCache(const Expr *expr) {
  expr = strip(expr);
  if (expr->is(ExprKind::Select))
    return readAt(expr->operand(0), expr->operand(1), expr->operand(2));
  if (expr->isApply("arith.addf")) {
    std::optional<CacheRead> read = readOneHot(expr);
    layer.isOneHot |= read.has_value();
    return read;
  }
  return std::nullopt;
}

std::optional<CacheRead> AttentionMatcher::readUnrounded(const Expr *expr) {
  roundedTo.clear();
  std::optional<CacheRead> read = readCache(expr);
  if (!read)
    return std::nullopt;
  Type element = getElementTypeOrSelf(read->cache.getType());
  for (const void *key : roundedTo) {
    Type type = Type::getFromOpaquePointer(key);
    if (type != element && !type.isF32() && !type.isF64())
      return std::nullopt;
  }
  return read;
}

std::optional<AttentionMatcher::Candidate>
AttentionMatcher::candidateOf(Operation *op) {
  if (op->getNumResults() != 1)
    return std::nullopt;
  Candidate candidate;
  candidate.output = op->getResult(0);
  auto type = dyn_cast<RankedTensorType>(candidate.output.getType());
  if (!type || !type.hasStaticShape() ||
      !isa<FloatType>(type.getElementType()) ||
      llvm::is_contained(type.getShape(), 0))
    return std::nullopt;
  for (auto [dim, size] : llvm::enumerate(type.getShape()))
    candidate.index.push_back(pool.symbol(size, ("o" + Twine(dim)).str()));
  candidate.sum =
      evaluator.step(evaluator.at(candidate.output, candidate.index));
  if (!candidate.sum->is(ExprKind::Reduce) ||
      candidate.sum->reduction != Reduction::Sum)
    return std::nullopt;
  const Expr *product = candidate.sum->operand(0);
  if (!product->isApply("arith.mulf"))
    return std::nullopt;
  for (unsigned operand : {0, 1}) {
    std::optional<CacheRead> read = readCache(product->operand(operand));
    if (!read)
      continue;
    for (const Expr *summed : candidate.sum->symbols()) {
      if (!dependsOn(read->index[read->tokenDim], summed))
        continue;
      candidate.cacheOperand = operand;
      candidate.values = *read;
      return candidate;
    }
  }
  return std::nullopt;
}

std::optional<CacheRead> AttentionMatcher::findCandidate(Operation *op) {
  std::optional<Candidate> candidate = candidateOf(op);
  return candidate ? std::optional(candidate->values) : std::nullopt;
}

/// Which dim is what, if each index is that of a row, a head, a token or a
/// column, and each of these is there once.
std::optional<CacheDims> AttentionMatcher::dimsOf(const CacheRead &read,
                                                  const Expr *column) {
  CacheDims dims;
  auto claim = [&](std::optional<unsigned> &dim, unsigned at, int64_t extent) {
    if (dim || read.size(at) != extent)
      return false;
    dim = at;
    return true;
  };
  SmallVector<unsigned> units;
  for (auto [dim, at] : llvm::enumerate(read.index)) {
    bool isClaimed = true;
    if (at == token) {
      isClaimed = claim(dims.token, dim, layer.capacity);
    } else if (at == column) {
      isClaimed = claim(dims.column, dim, layer.headDim);
    } else if (at->isNumber(0) && read.size(dim) == 1) {
      units.push_back(dim);
    } else if (at->is(ExprKind::Integer)) {
      isClaimed = claim(dims.layer, dim, read.size(dim));
      dims.layerIndex = at->number;
    } else if (at == layer.row) {
      isClaimed = claim(dims.row, dim, layer.rows);
    } else if (at == kvHeadOfHead) {
      isClaimed = claim(dims.head, dim, layer.kvHeads);
    } else {
      return std::nullopt;
    }
    if (!isClaimed)
      return std::nullopt;
  }
  bool isComplete = dims.token == read.tokenDim && dims.column &&
                    (dims.row || layer.rows == 1) &&
                    (dims.head || layer.kvHeads == 1);
  return isComplete ? std::optional(dims) : std::nullopt;
}

//===----------------------------------------------------------------------===//
// The shape of the output, and values
//===----------------------------------------------------------------------===//

FailureOr<AttentionLayer> AttentionMatcher::match(Operation *op) {
  refusal = {op, ""};
  std::optional<Candidate> candidate = candidateOf(op);
  if (!candidate)
    return refuse("is no contraction over a cache's tokens");
  layer = AttentionLayer();
  layer.op = op;
  if (failed(matchShape(*candidate)))
    return failure();
  return layer;
}

/// Finds which dims of cache and output are rows and heads.
LogicalResult AttentionMatcher::matchShape(const Candidate &candidate) {
  const CacheRead &read = candidate.values;
  const Expr *product = candidate.sum->operand(0);
  const Expr *probability = product->operand(1 - candidate.cacheOperand);
  auto outputShape =
      cast<RankedTensorType>(candidate.output.getType()).getShape();
  layer.capacity = read.size(read.tokenDim);

  // Values have columns, probabilities have none.
  std::optional<unsigned> columnDim;
  for (auto [dim, at] : llvm::enumerate(candidate.index)) {
    const auto *inCache = llvm::find(read.index, at);
    if (at->is(ExprKind::Integer) || inCache == read.index.end() ||
        dependsOn(probability, at))
      continue;
    if (columnDim)
      return refuse("has two dims that values alone have");
    layer.outputColumn = dim;
    columnDim = inCache - read.index.begin();
  }
  if (!columnDim)
    return refuse("has no dim for the columns of values");
  layer.headDim = outputShape[layer.outputColumn];

  // What is left of the cache: a layer, a row and a head, in this order.
  SmallVector<unsigned> rest;
  for (auto [dim, at] : llvm::enumerate(read.index))
    if (dim != *columnDim && dim != read.tokenDim &&
        !(at->is(ExprKind::Integer) && read.size(dim) > 1))
      rest.push_back(dim);
  while (rest.size() > 2) {
    auto *unit =
        llvm::find_if(rest, [&](unsigned dim) { return read.size(dim) == 1; });
    if (unit == rest.end())
      return refuse("the cache has more dims than a layer, rows, heads, tokens "
                    "and columns");
    rest.erase(unit);
  }
  std::optional<unsigned> first, second;
  if (rest.size() == 2)
    first = rest[0];
  if (!rest.empty())
    second = rest.back();
  auto isRow = [&](std::optional<unsigned> dim) {
    return dim && anyPart(read.position, [&](const Expr *part) {
             return part == read.index[*dim] && !part->is(ExprKind::Integer);
           });
  };
  if (isRow(second) && !isRow(first))
    return tryShape(candidate, second, first);
  AttentionLayer empty = layer;
  if (succeeded(tryShape(candidate, first, second)))
    return success();
  // Heads before rows tell apart from rows before heads by the head map alone.
  if (!first || isRow(first))
    return failure();
  layer = empty;
  return tryShape(candidate, second, first);
}

LogicalResult AttentionMatcher::tryShape(const Candidate &candidate,
                                         std::optional<unsigned> rowDim,
                                         std::optional<unsigned> headDim) {
  const CacheRead &read = candidate.values;
  auto shape = cast<RankedTensorType>(candidate.output.getType()).getShape();
  layer.rows = rowDim ? read.size(*rowDim) : 1;
  layer.kvHeads = headDim ? read.size(*headDim) : 1;
  int64_t points = ShapedType::getNumElements(shape) / layer.headDim;
  layer.heads = points / layer.rows;
  if (points % layer.rows != 0 || layer.heads % layer.kvHeads != 0)
    return refuse("has " + Twine(points) + " query heads for " +
                  Twine(layer.rows) + " rows of " + Twine(layer.kvHeads) +
                  " KV heads");

  // The dims that the row is made of come first.
  layer.outputOrder.clear();
  for (bool isOfRow : {true, false})
    for (auto [dim, at] : llvm::enumerate(candidate.index))
      if (dim != layer.outputColumn &&
          isOfRow == (rowDim && !at->is(ExprKind::Integer) &&
                      dependsOn(read.index[*rowDim], at)))
        layer.outputOrder.push_back(dim);

  layer.row = symbol("b", layer.rows);
  layer.head = symbol("h", layer.heads);
  layer.kvHead = symbol("g", layer.kvHeads);
  layer.column = symbol("d", layer.headDim);
  kvHeadOfHead = pool.floorDiv(layer.head, layer.heads / layer.kvHeads);
  SmallVector<const Expr *> index(shape.size(), layer.column);
  const Expr *rest = pool.add(layer.head, layer.row, layer.heads);
  for (unsigned dim : llvm::reverse(layer.outputOrder)) {
    index[dim] = pool.mod(rest, shape[dim]);
    rest = pool.floorDiv(rest, shape[dim]);
  }

  Candidate at = candidate;
  at.sum = evaluator.step(evaluator.at(candidate.output, index));
  at.index = index;
  return matchValues(at);
}

LogicalResult AttentionMatcher::matchValues(const Candidate &candidate) {
  const Expr *sum = candidate.sum;
  if (!sum->is(ExprKind::Reduce) || sum->symbols().size() != 1 ||
      evaluator.constant(sum->operand(1)) != 0.0)
    return refuse("sums over more than the tokens of a cache", sum);
  roundedTo.clear();
  comparedScores.clear();
  mask = pool.truth(true);
  maskFactor = layer.scale = 1;
  token = sum->symbols().front();
  if (token->range.high + 1 != layer.capacity)
    return refuse("sums over " + Twine(token->range.high + 1) +
                  " tokens of a cache of " + Twine(layer.capacity));
  const Expr *product = sum->operand(0);
  std::optional<CacheRead> read =
      readCache(product->operand(candidate.cacheOperand));
  if (!read)
    return refuse("values are not those of a cache that a token was written to",
                  product->operand(candidate.cacheOperand));
  values = *read;
  std::optional<CacheDims> dims = dimsOf(values, layer.column);
  if (!dims)
    return refuse("query heads do not share KV heads in order: values are " +
                  toString(pool.element(values.cache, values.index,
                                        /*isInteger=*/false, {})));
  layer.valueDims = *dims;
  layer.valueCache = values.cache;
  if (failed(matchProbability(product->operand(1 - candidate.cacheOperand))) ||
      failed(matchWritten(values, layer.column, layer.value, "value")) ||
      failed(matchRounding()))
    return failure();
  return success();
}

/// Whether the index of an element is arithmetic on `symbols`, which loops over
/// them can follow: not read from somewhere, nor clamped. The remainder of a
/// negative number is not what their ops give.
static bool isIndexedBy(const Expr *element, ArrayRef<const Expr *> symbols) {
  return llvm::none_of(element->operands, [&](const Expr *at) {
    return anyPart(at, [&](const Expr *part) {
      switch (part->kind) {
      case ExprKind::Integer:
      case ExprKind::Linear:
      case ExprKind::FloorDiv:
        return false;
      case ExprKind::Mod:
        return part->operand(0)->range.low < 0;
      default:
        return !llvm::is_contained(symbols, part);
      }
    });
  });
}

/// Whether the query heads of a group see one thing written, `written`, where
/// each of them was found to read `seen`.
bool AttentionMatcher::isOfGroup(const Expr *written, const Expr *seen,
                                 const Expr *column) {
  PointEvaluator::Substitution map;
  map[layer.column] = column;
  if (!layer.kvHead->is(ExprKind::Integer))
    map[layer.kvHead] = kvHeadOfHead;
  return evaluator.same(evaluator.substitute(written, map), seen);
}

/// What is written, at (row, kvHead, column).
LogicalResult AttentionMatcher::matchWritten(const CacheRead &read,
                                             const Expr *column,
                                             const Expr *&written,
                                             StringRef what) {
  if (dependsOn(read.written, token))
    return refuse("the " + what +
                      " that is written depends on the token's "
                      "place",
                  read.written);
  PointEvaluator::Substitution map;
  map[layer.head] = pool.scale(layer.kvHead, layer.heads / layer.kvHeads);
  map[column] = layer.column;
  if (layer.head->is(ExprKind::Integer))
    map.erase(layer.head);
  written = evaluator.substitute(read.written, map);
  if (!isOfGroup(written, read.written, column))
    return refuse("the " + what +
                      " that is written is another for each query head",
                  read.written);
  // The cache rounds by itself.
  const Expr *rounded = written;
  Type element = getElementTypeOrSelf(read.cache.getType());
  if (rounded->is(ExprKind::Round) &&
      rounded->key == element.getAsOpaquePointer())
    rounded = rounded->operand(0);
  if (!rounded->is(ExprKind::Element))
    return refuse("the " + what +
                      " that is written is not an element of a "
                      "tensor",
                  written);
  if (!isIndexedBy(rounded, {layer.row, layer.kvHead, layer.column}))
    return refuse("the " + what +
                      " that is written is not indexed by row, "
                      "head and column alone",
                  written);
  return success();
}

//===----------------------------------------------------------------------===//
// Softmax
//===----------------------------------------------------------------------===//

/// select(row has no token, 0, p): the row has the token that was just written,
/// so this is p, if what the condition compares are the scores.
const Expr *AttentionMatcher::skipDeadRows(const Expr *probability) {
  const double minusInfinity = -std::numeric_limits<double>::infinity();
  const Expr *expr = strip(probability);
  while (expr->is(ExprKind::Select)) {
    const Expr *condition = expr->operand(0);
    if (evaluator.constant(expr->operand(1)) != 0.0)
      break;
    if (condition->is(ExprKind::Reduce) &&
        condition->reduction == Reduction::All &&
        condition->operand(1)->isNumber(1) &&
        condition->symbols().size() == 1) {
      const Expr *compared = condition->operand(0);
      const Expr *over = condition->symbols().front();
      if (over->range.high + 1 != layer.capacity ||
          !compared->isApply("arith.cmpf oeq") ||
          evaluator.constant(compared->operand(1)) != minusInfinity)
        break;
      comparedScores.push_back(
          evaluator.substitute(compared->operand(0), over, token));
    } else if (condition->isApply("arith.cmpf uno") ||
               condition->isApply("arith.cmpf une")) {
      if (!evaluator.same(condition->operand(0), condition->operand(1)) ||
          !evaluator.same(strip(condition->operand(0)),
                          strip(expr->operand(2))))
        break;
    } else {
      break;
    }
    expr = strip(expr->operand(2));
  }
  return expr;
}

/// n / d, or n * (1 / d).
const Expr *AttentionMatcher::denominatorOf(const Expr *quotient,
                                            const Expr *&numerator) {
  if (quotient->isApply("arith.divf")) {
    numerator = strip(quotient->operand(0));
    return strip(quotient->operand(1));
  }
  if (!quotient->isApply("arith.mulf"))
    return nullptr;
  for (unsigned side : {0, 1}) {
    const Expr *inverse = strip(quotient->operand(side));
    if (!inverse->isApply("arith.divf") ||
        evaluator.constant(inverse->operand(0)) != 1.0)
      continue;
    numerator = strip(quotient->operand(1 - side));
    return strip(inverse->operand(1));
  }
  return nullptr;
}

/// Whether `sum` is that of `numerator` over all tokens.
bool AttentionMatcher::sumsSame(const Expr *sum, const Expr *numerator) {
  if (!sum->is(ExprKind::Reduce) || sum->reduction != Reduction::Sum ||
      sum->symbols().size() != 1 || evaluator.constant(sum->operand(1)) != 0.0)
    return false;
  const Expr *over = sum->symbols().front();
  if (over->range.high + 1 != layer.capacity)
    return false;
  return evaluator.same(
      strip(evaluator.substitute(sum->operand(0), over, token)), numerator);
}

LogicalResult AttentionMatcher::matchProbability(const Expr *probability) {
  const Expr *quotient = skipDeadRows(probability);
  const Expr *numerator = nullptr;
  const Expr *denominator = denominatorOf(quotient, numerator);
  if (!denominator || !numerator->isApply("math.exp"))
    return refuse("what values are weighted with is no softmax", quotient);
  if (!sumsSame(denominator, numerator))
    return refuse("the softmax divides by another sum than that of its "
                  "exponentials over all tokens",
                  denominator);
  const Expr *exponent = strip(numerator->operand(0));
  const Expr *scores = exponent;
  if (exponent->isApply("arith.subf")) {
    if (dependsOn(exponent->operand(1), token))
      return refuse("what is subtracted from the scores depends on the token",
                    exponent->operand(1));
    scores = exponent->operand(0);
  }
  for (const Expr *compared : comparedScores)
    if (!evaluator.same(strip(compared), strip(scores)))
      return refuse("a select of the softmax depends on more than its scores",
                    compared);
  return matchScores(scores);
}

//===----------------------------------------------------------------------===//
// Mask and scores
//===----------------------------------------------------------------------===//

/// Whether exp of it is 0 beside that of any score, as far as one may ask.
bool AttentionMatcher::isMaskValue(const Expr *expr) {
  constexpr double largest = -1e4;
  std::optional<double> value = evaluator.constant(expr);
  if (!value || !(*value * maskFactor <= largest))
    return false;
  layer.hasFiniteMask |= !std::isinf(*value);
  return true;
}

const Expr *AttentionMatcher::maskTerm(const Expr *term) {
  term = strip(term);
  if (evaluator.constant(term) == 0.0)
    return pool.truth(true);
  if (term->is(ExprKind::Select)) {
    if (evaluator.constant(term->operand(1)) == 0.0 &&
        isMaskValue(term->operand(2)))
      return term->operand(0);
    if (evaluator.constant(term->operand(2)) == 0.0 &&
        isMaskValue(term->operand(1)))
      return pool.negate(term->operand(0));
    return nullptr;
  }
  // A large negative number times a truth value, or times 1 less one. Infinity
  // times 0 would be no number, where a token is seen.
  if (!term->isApply("arith.mulf"))
    return nullptr;
  for (unsigned side : {0, 1}) {
    if (!isMaskValue(term->operand(side)) ||
        std::isinf(*evaluator.constant(term->operand(side))))
      continue;
    const Expr *factor = strip(term->operand(1 - side));
    bool isInverse = factor->isApply("arith.subf") &&
                     evaluator.constant(factor->operand(0)) == 1.0;
    if (isInverse)
      factor = strip(factor->operand(1));
    if (!factor->is(ExprKind::ToReal) ||
        !factor->operand(0)->range.within({0, 1}))
      continue;
    return isInverse ? factor->operand(0) : pool.negate(factor->operand(0));
  }
  return nullptr;
}

/// `number` * `rest` or `rest` / number.
bool AttentionMatcher::splitConstant(const Expr *expr, double &number,
                                     const Expr *&rest) {
  if (expr->isApply("arith.mulf")) {
    for (unsigned side : {0, 1}) {
      if (std::optional<double> value =
              evaluator.constant(expr->operand(side))) {
        number = *value;
        rest = expr->operand(1 - side);
        return true;
      }
    }
  }
  if (!expr->isApply("arith.divf"))
    return false;
  std::optional<double> value = evaluator.constant(expr->operand(1));
  if (!value || *value == 0)
    return false;
  number = 1 / *value;
  rest = expr->operand(0);
  return true;
}

LogicalResult AttentionMatcher::matchScores(const Expr *scores) {
  while (true) {
    scores = strip(scores);
    double number = 1;
    const Expr *rest = nullptr;
    if (scores->is(ExprKind::Reduce))
      return matchProduct(scores);
    if (scores->is(ExprKind::Select)) {
      const Expr *condition = scores->operand(0);
      if (isMaskValue(scores->operand(2))) {
        mask = pool.conjunction(mask, condition);
        scores = scores->operand(1);
      } else if (isMaskValue(scores->operand(1))) {
        mask = pool.conjunction(mask, pool.negate(condition));
        scores = scores->operand(2);
      } else {
        return refuse("scores are selected by something that is no mask",
                      scores);
      }
      continue;
    }
    if (scores->isApply("arith.addf")) {
      const Expr *left = maskTerm(scores->operand(0));
      const Expr *right = left ? nullptr : maskTerm(scores->operand(1));
      if (!left && !right)
        return refuse("something that is no mask is added to the scores",
                      scores);
      mask = pool.conjunction(mask, left ? left : right);
      scores = scores->operand(left ? 1 : 0);
      continue;
    }
    if (!splitConstant(scores, number, rest))
      return refuse("scores are no scaled product of queries and keys", scores);
    if (!(number > 0))
      return refuse("scores are scaled by a factor that is not positive",
                    scores);
    layer.scale *= number;
    maskFactor *= number;
    scores = rest;
  }
}

/// Takes constant factors off, down to an element of a tensor.
AttentionMatcher::Scaled AttentionMatcher::peelScale(const Expr *expr) {
  Scaled scaled{1, expr};
  while (true) {
    // What is rounded stays so, unless there is a factor below.
    const Expr *seen = evaluator.head(scaled.value);
    SmallVector<const void *> rounded;
    while (seen->is(ExprKind::Round)) {
      rounded.push_back(seen->key);
      seen = evaluator.head(seen->operand(0));
    }
    double number = 1;
    const Expr *rest = nullptr;
    if (!splitConstant(seen, number, rest) ||
        (!rest->is(ExprKind::Element) && !rest->is(ExprKind::Select)))
      return scaled;
    roundedTo.insert(rounded.begin(), rounded.end());
    scaled.number *= number;
    scaled.value = rest;
  }
}

LogicalResult AttentionMatcher::matchProduct(const Expr *product) {
  if (product->reduction != Reduction::Sum || product->symbols().size() != 1 ||
      evaluator.constant(product->operand(1)) != 0.0 ||
      !product->operand(0)->isApply("arith.mulf"))
    return refuse("scores are no product of queries and keys", product);
  const Expr *column = product->symbols().front();
  if (column->range.high + 1 != layer.headDim)
    return refuse("queries and keys have " + Twine(column->range.high + 1) +
                  " columns, values have " + Twine(layer.headDim));
  Scaled factors[] = {peelScale(product->operand(0)->operand(0)),
                      peelScale(product->operand(0)->operand(1))};
  std::optional<CacheRead> keys;
  unsigned query = 0;
  for (unsigned side : {0, 1}) {
    if (keys)
      break;
    keys = readCache(factors[side].value);
    query = 1 - side;
  }
  if (!keys)
    return refuse("no keys of a cache that a token was written to: " +
                  toString(evaluator.head(factors[0].value)) + " and " +
                  toString(evaluator.head(factors[1].value)));
  layer.scale *= factors[0].number * factors[1].number;
  // As a float, which the op has.
  auto scale = static_cast<float>(layer.scale);
  if (!(scale > 0) || std::isinf(scale))
    return refuse("scores are scaled by a factor that is not positive",
                  product);

  std::optional<CacheDims> dims = dimsOf(*keys, column);
  if (!dims)
    return refuse("keys are not those of the values' row, head and token: " +
                  toString(pool.element(keys->cache, keys->index,
                                        /*isInteger=*/false, {})));
  layer.keyDims = *dims;
  layer.keyCache = keys->cache;
  if (layer.keyCache == layer.valueCache)
    return refuse("keys and values are of one cache");

  const Expr *value = factors[query].value;
  if (!value->is(ExprKind::Element) || dependsOn(value, token))
    return refuse("queries are not elements of a tensor, or depend on the "
                  "token",
                  value);
  layer.query = evaluator.substitute(value, column, layer.column);
  if (!isIndexedBy(layer.query, {layer.row, layer.head, layer.column}))
    return refuse("queries are not indexed by row, head and column alone",
                  layer.query);
  if (failed(matchPosition(*keys)) ||
      failed(matchWritten(*keys, column, layer.key, "key")))
    return failure();
  return matchMask();
}

LogicalResult AttentionMatcher::matchPosition(const CacheRead &keys) {
  if (!evaluator.same(keys.position, values.position))
    return refuse("keys are written at " + toString(keys.position) +
                  ", values at " + toString(values.position));
  const Expr *position = layer.position = keys.position;
  auto argument = position->is(ExprKind::Element)
                      ? dyn_cast<BlockArgument>(position->tensor)
                      : BlockArgument();
  if (!argument || argument.getOwner() != &func.getBody().front())
    return refuse("the position is not an element of an argument", position);
  return success();
}

LogicalResult AttentionMatcher::matchMask() {
  const Expr *causal = pool.lessOrEqual(token, layer.position);
  bool isCausal = false;
  for (const Expr *part : conjuncts(mask)) {
    isCausal |= part == causal;
    if (part != causal && !part->isNumber(1))
      return refuse(
          "the mask is not token <= position (" + toString(causal) + ")", part);
  }
  if (!isCausal)
    return refuse("no mask hides the tokens behind the position");
  return success();
}

/// Rounding to what queries or caches are made of is the model's own precision,
/// which the op may exceed. Rounding to less is something that it does not do.
LogicalResult AttentionMatcher::matchRounding() {
  Type query = getElementTypeOrSelf(layer.query->tensor.getType());
  Type cache = getElementTypeOrSelf(layer.keyCache.getType());
  for (const void *key : roundedTo) {
    Type type = Type::getFromOpaquePointer(key);
    if (type.isF32() || type.isF64() || type == query || type == cache)
      continue;
    std::string text;
    llvm::raw_string_ostream(text) << type;
    return refuse("something between queries and output is rounded to " + text);
  }
  return success();
}
