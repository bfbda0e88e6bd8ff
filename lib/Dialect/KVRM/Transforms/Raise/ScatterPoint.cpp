//===- ScatterPoint.cpp - What a scatter leaves at a point ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A scatter writes each of its updates to where a column of indices says. Seen
// from a point of the result: which update, if any, was written here? Columns
// that are functions of the update's number alone (an arange of rows, of heads)
// tell which it must be, and the others become the condition that it was. A
// scatter whose columns do not tell apart all updates is not resolved.
//
//===----------------------------------------------------------------------===//

#include "PointEvaluator.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

namespace {

/// What the frontends' scatters have in common.
struct ScatterForm {
  Value updates, indices, old;
  /// The dim of `old` that each column of indices is a place in.
  SmallVector<int64_t> columns;
  /// Dims of `updates` that number the updates; the others are the window.
  SmallVector<int64_t> batch;
  /// The dim of `indices` along which its columns lie, or its rank.
  int64_t vectorDim = 0;
  /// Pairs of a dim of `old` and a dim of `indices` that run together.
  SmallVector<std::pair<int64_t, int64_t>> together;
  /// Dims of `old` that no column is a place in, and no window runs along: all
  /// updates are at their first index.
  SmallVector<int64_t> first;
  /// Pairs of a dim of `old` and a dim of `updates` that is in the window.
  SmallVector<std::pair<int64_t, int64_t>> window;

  int64_t size(Value tensor, int64_t dim) const {
    return cast<RankedTensorType>(tensor.getType()).getDimSize(dim);
  }
  int64_t rank(Value tensor) const {
    return cast<RankedTensorType>(tensor.getType()).getRank();
  }
};

/// An equation `place` == `column`, where `place` is an index of the result.
struct Equation {
  const Expr *place;
  const Expr *column;
};

/// A number n as (n / weight) % count.
struct Digit {
  int64_t weight, count;
  const Expr *place;
};

} // namespace

/// Whether the region leaves the update, argument `update`, as it is.
static bool keepsUpdate(Operation *op, unsigned update) {
  if (op->getNumRegions() != 1 || !op->getRegion(0).hasOneBlock())
    return false;
  Block &block = op->getRegion(0).front();
  if (block.empty() || block.getNumArguments() != 2)
    return false;
  Operation &yield = block.back();
  return yield.getNumOperands() == 1 &&
         yield.getOperand(0) == block.getArgument(update);
}

/// The list of numbers that stands behind `name = [` in an attribute's text.
static FailureOr<SmallVector<int64_t>> listIn(StringRef text, StringRef name) {
  SmallVector<int64_t> numbers;
  size_t begin = text.find((name + " = [").str());
  while (begin != StringRef::npos && begin != 0 &&
         (llvm::isAlnum(text[begin - 1]) || text[begin - 1] == '_'))
    begin = text.find((name + " = [").str(), begin + 1);
  if (begin == StringRef::npos)
    return numbers;
  StringRef list = text.drop_front(begin).split('[').second.split(']').first;
  SmallVector<StringRef> parts;
  list.split(parts, ',', -1, /*KeepEmpty=*/false);
  for (StringRef part : parts)
    if (part.trim().getAsInteger(10, numbers.emplace_back()))
      return failure();
  return numbers;
}

/// tm_tensor.scatter and iree_linalg_ext.scatter: updates, indices, old.
static FailureOr<ScatterForm> formOfDimensionMap(Operation *op) {
  auto map = op->getAttrOfType<DenseI64ArrayAttr>("dimension_map");
  if (!map || !keepsUpdate(op, 0))
    return failure();
  ScatterForm form;
  form.updates = op->getOperand(0);
  form.indices = op->getOperand(1);
  form.old = op->getOperand(2);
  form.columns.assign(map.asArrayRef().begin(), map.asArrayRef().end());
  int64_t indexRank = form.rank(form.indices);
  // A single column need not have a dim of its own.
  form.vectorDim =
      indexRank == 1 && form.columns.size() == 1 ? indexRank : indexRank - 1;
  for (int64_t dim = 0; dim < form.vectorDim; ++dim)
    form.batch.push_back(dim);
  SmallVector<int64_t> kept;
  for (int64_t dim = 0; dim < form.rank(form.old); ++dim)
    if (!llvm::is_contained(form.columns, dim))
      kept.push_back(dim);
  // Dims of the window that are indexed stand first, and have one element.
  int64_t first = form.rank(form.updates) - static_cast<int64_t>(kept.size());
  if (first < form.vectorDim)
    return failure();
  for (int64_t dim = form.vectorDim; dim < first; ++dim)
    if (form.size(form.updates, dim) != 1)
      return failure();
  for (auto [at, dim] : llvm::enumerate(kept))
    form.window.emplace_back(dim, first + static_cast<int64_t>(at));
  return form;
}

/// stablehlo.scatter: old, indices, updates.
static FailureOr<ScatterForm> formOfStableHLO(Operation *op) {
  Attribute numbers = op->getAttr("scatter_dimension_numbers");
  if (!numbers || !keepsUpdate(op, 1))
    return failure();
  std::string text;
  llvm::raw_string_ostream(text) << numbers;
  ScatterForm form;
  form.old = op->getOperand(0);
  form.indices = op->getOperand(1);
  form.updates = op->getOperand(2);
  auto window = listIn(text, "update_window_dims");
  auto inserted = listIn(text, "inserted_window_dims");
  auto batching = listIn(text, "input_batching_dims");
  auto indexBatching = listIn(text, "scatter_indices_batching_dims");
  auto columns = listIn(text, "scatter_dims_to_operand_dims");
  if (failed(window) || failed(inserted) || failed(batching) ||
      failed(indexBatching) || failed(columns) ||
      batching->size() != indexBatching->size())
    return failure();
  StringRef vectorDim = StringRef(text).split("index_vector_dim = ").second;
  if (vectorDim.consumeInteger(10, form.vectorDim))
    form.vectorDim = 0;
  form.columns = *columns;
  for (int64_t dim = 0; dim < form.rank(form.updates); ++dim)
    if (!llvm::is_contained(*window, dim))
      form.batch.push_back(dim);
  for (auto [old, index] : llvm::zip_equal(*batching, *indexBatching))
    form.together.emplace_back(old, index);
  for (int64_t dim : *inserted)
    if (!llvm::is_contained(form.columns, dim))
      form.first.push_back(dim);
  size_t next = 0;
  for (int64_t dim = 0; dim < form.rank(form.old); ++dim) {
    if (llvm::is_contained(*inserted, dim) ||
        llvm::is_contained(*batching, dim))
      continue;
    if (next == window->size())
      return failure();
    form.window.emplace_back(dim, (*window)[next++]);
  }
  return form;
}

static FailureOr<ScatterForm> formOf(Operation *op) {
  bool isStatic = llvm::all_of(op->getOperandTypes(), [](Type type) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    return tensor && tensor.hasStaticShape();
  });
  // All of them write to one tensor and give what became of it.
  unsigned old = op->getName().getStringRef() == "stablehlo.scatter" ? 0 : 2;
  if (!isStatic || op->getNumOperands() != 3 || op->getNumResults() != 1 ||
      op->getResult(0).getType() != op->getOperand(old).getType())
    return failure();
  StringRef name = op->getName().getStringRef();
  if (name == "stablehlo.scatter")
    return formOfStableHLO(op);
  if (name == "tm_tensor.scatter" || name == "iree_linalg_ext.scatter")
    return formOfDimensionMap(op);
  return failure();
}

/// `expr` as a digit of `symbol`.
static std::optional<Digit> digitOf(const Expr *expr, const Expr *symbol) {
  int64_t extent = symbol->range.high + 1;
  if (expr == symbol)
    return Digit{1, extent, nullptr};
  if (expr->is(ExprKind::FloorDiv) && expr->operand(0) == symbol)
    return Digit{expr->number, expr->range.high + 1, nullptr};
  if (!expr->is(ExprKind::Mod))
    return std::nullopt;
  const Expr *inner = expr->operand(0);
  if (inner == symbol)
    return Digit{1, expr->number, nullptr};
  if (inner->is(ExprKind::FloorDiv) && inner->operand(0) == symbol)
    return Digit{inner->number, expr->number, nullptr};
  return std::nullopt;
}

/// `symbol` from equations whose columns are all its digits.
static const Expr *solveByDigits(ExprPool &pool, const Expr *symbol,
                                 ArrayRef<Equation> equations) {
  SmallVector<Digit> digits;
  for (const Equation &equation : equations) {
    std::optional<Digit> digit = digitOf(equation.column, symbol);
    if (!digit)
      continue;
    // Where the digit has no such value, nothing is written.
    if (!equation.place->range.within({0, digit->count - 1}))
      continue;
    digit->place = equation.place;
    digits.push_back(*digit);
  }
  llvm::sort(digits, [](const Digit &lhs, const Digit &rhs) {
    return lhs.weight < rhs.weight;
  });
  int64_t known = 1;
  const Expr *solution = pool.integer(0);
  for (const Digit &digit : digits) {
    if (digit.weight != known)
      continue;
    solution = pool.add(solution, digit.place, digit.weight);
    known *= digit.count;
  }
  return known == symbol->range.high + 1 ? solution : nullptr;
}

/// `symbol` from an equation with column = weight * symbol + rest, where the
/// rest is less than the weight.
static const Expr *solveByWeight(ExprPool &pool, const Expr *symbol,
                                 ArrayRef<Equation> equations) {
  for (const Equation &equation : equations) {
    if (!equation.column->is(ExprKind::Linear))
      continue;
    for (auto [atom, weight] : llvm::zip_equal(equation.column->operands,
                                               equation.column->coefficients)) {
      if (atom != symbol || weight <= 1)
        continue;
      const Expr *rest = pool.add(equation.column, symbol, -weight);
      int64_t last = weight * (symbol->range.high + 1) - 1;
      if (rest->range.within({0, weight - 1}) &&
          equation.place->range.within({0, last}))
        return pool.floorDiv(equation.place, weight);
    }
  }
  return nullptr;
}

/// The dialects that are read here verify nothing.
static bool isConsistent(const ScatterForm &form) {
  int64_t oldRank = form.rank(form.old), indexRank = form.rank(form.indices);
  auto isDim = [](int64_t dim, int64_t rank) { return dim >= 0 && dim < rank; };
  if (form.vectorDim < 0 || form.vectorDim > indexRank)
    return false;
  bool hasVector = form.vectorDim < indexRank;
  auto columns = static_cast<int64_t>(form.columns.size());
  if (columns != (hasVector ? form.size(form.indices, form.vectorDim) : 1) ||
      static_cast<int64_t>(form.batch.size()) !=
          indexRank - (hasVector ? 1 : 0))
    return false;
  return llvm::all_of(form.columns,
                      [&](int64_t dim) { return isDim(dim, oldRank); }) &&
         llvm::all_of(form.batch,
                      [&](int64_t dim) {
                        return isDim(dim, form.rank(form.updates));
                      }) &&
         llvm::all_of(form.first,
                      [&](int64_t dim) { return isDim(dim, oldRank); }) &&
         llvm::all_of(form.together,
                      [&](auto pair) {
                        return isDim(pair.first, oldRank) &&
                               isDim(pair.second, indexRank) &&
                               pair.second != form.vectorDim;
                      }) &&
         llvm::all_of(form.window, [&](auto pair) {
           return isDim(pair.second, form.rank(form.updates)) &&
                  !llvm::is_contained(form.batch, pair.second);
         });
}

const Expr *PointEvaluator::defineScatter(Operation *op, Index index) {
  FailureOr<ScatterForm> form = formOf(op);
  if (failed(form) || !isConsistent(*form))
    return nullptr;
  int64_t indexRank = form->rank(form->indices);

  // A symbol for each dim that numbers updates, and the columns at it.
  SmallVector<const Expr *> update(form->rank(form->updates), nullptr);
  SmallVector<const Expr *> indexPoint(indexRank, nullptr);
  SmallVector<const Expr *> symbols;
  int64_t next = 0;
  for (int64_t dim = 0; dim < indexRank; ++dim) {
    if (dim == form->vectorDim)
      continue;
    int64_t extent = form->size(form->updates, form->batch[next]);
    if (form->size(form->indices, dim) != extent)
      return nullptr;
    indexPoint[dim] = update[form->batch[next++]] = pool.symbol(extent, "u");
    if (extent != 1)
      symbols.push_back(indexPoint[dim]);
  }
  SmallVector<Equation> equations;
  for (auto [column, dim] : llvm::enumerate(form->columns)) {
    if (form->vectorDim < indexRank)
      indexPoint[form->vectorDim] = pool.integer(column);
    equations.push_back({index[dim], at(form->indices, indexPoint)});
  }
  for (auto [old, dim] : form->together)
    equations.push_back({index[old], indexPoint[dim]});
  for (int64_t dim : form->first)
    equations.push_back({index[dim], pool.integer(0)});

  Substitution solution;
  for (const Expr *symbol : symbols) {
    const Expr *solved = solveByDigits(pool, symbol, equations);
    if (!solved)
      solved = solveByWeight(pool, symbol, equations);
    if (!solved)
      return nullptr;
    solution[symbol] = solved;
  }

  // A window begins where its column says, if there is one.
  for (auto [old, dim] : form->window) {
    const Expr *begin = pool.integer(0);
    auto *column = llvm::find(form->columns, old);
    bool isIndexed = column != form->columns.end();
    Equation *equation =
        isIndexed ? &equations[column - form->columns.begin()] : nullptr;
    if (isIndexed)
      begin = substitute(equation->column, solution);
    if (form->size(form->updates, dim) == form->size(form->old, old)) {
      if (!begin->isNumber(0))
        return nullptr;
      update[dim] = index[old];
      if (equation)
        equation->place = equation->column;
      continue;
    }
    if (!isIndexed || form->size(form->updates, dim) != 1)
      return nullptr;
    update[dim] = pool.integer(0);
  }
  const Expr *isWritten = pool.truth(true);
  for (const Equation &equation : equations)
    isWritten = pool.conjunction(
        isWritten, pool.equal(substitute(equation.place, solution),
                              substitute(equation.column, solution)));
  for (const Expr *&at : update)
    at = at ? substitute(at, solution) : pool.integer(0);
  const Expr *old = at(form->old, index);
  if (isWritten->isNumber(0))
    return old;
  return pool.select(isWritten, at(form->updates, update), old);
}
