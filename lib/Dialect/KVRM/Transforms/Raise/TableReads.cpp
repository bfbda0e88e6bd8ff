//===- TableReads.cpp - Rows of tables that a step reads ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A frontend asserts that an index is inside its table, or leaves it to its
// users. A package is run with any token of its vocabulary, up to its capacity:
// each has to have its row.
//
//===----------------------------------------------------------------------===//

#include "TableReads.h"

#include "PointEvaluator.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/SmallPtrSet.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

namespace {
class TableReads {
public:
  TableReads(BlockArgument argument, int64_t count, StringRef what)
      : argument(argument), count(count), what(what),
        evaluator(pool, assume(argument, count)) {}

  LogicalResult check(linalg::GenericOp op);
  LogicalResult check(tensor::ExtractSliceOp op);

private:
  static PointEvaluator::Assumption assume(Value argument, int64_t count) {
    PointEvaluator::Assumption assumption;
    assumption.argument = argument;
    assumption.range = {0, count - 1};
    return assumption;
  }
  void visit(const Expr *expr, function_ref<void(const Expr *)> each);
  bool isOfArgument(const Expr *expr);
  LogicalResult check(Operation *op, const Expr *index, int64_t last,
                      int64_t rows);

  BlockArgument argument;
  int64_t count;
  StringRef what;
  ExprPool pool;
  PointEvaluator evaluator;
};
} // namespace

/// Each expression in `expr` once.
void TableReads::visit(const Expr *expr,
                       function_ref<void(const Expr *)> each) {
  llvm::SmallPtrSet<const Expr *, 32> seen;
  SmallVector<const Expr *> left{expr};
  while (!left.empty()) {
    const Expr *next = left.pop_back_val();
    if (!seen.insert(next).second)
      continue;
    each(next);
    llvm::append_range(left, next->operands);
  }
}

bool TableReads::isOfArgument(const Expr *expr) {
  bool found = false;
  visit(expr, [&](const Expr *part) {
    found |= part->is(ExprKind::Element) && part->tensor == argument;
  });
  return found;
}

/// Whether `index` is in [0, last].
LogicalResult TableReads::check(Operation *op, const Expr *index, int64_t last,
                                int64_t rows) {
  if (index->range.within({0, last}) || !isOfArgument(index))
    return success();
  return op->emitError("reads row ")
         << toString(index) << " of a table of " << rows << ", and " << what
         << " are below " << count;
}

LogicalResult TableReads::check(linalg::GenericOp op) {
  SmallVector<tensor::ExtractOp> reads(
      op.getBody()->getOps<tensor::ExtractOp>());
  if (reads.empty())
    return success();
  for (OpResult result : op.getResults()) {
    auto type = dyn_cast<RankedTensorType>(result.getType());
    if (!type || !type.hasStaticShape())
      continue;
    SmallVector<const Expr *> point;
    for (int64_t size : type.getShape())
      point.push_back(pool.symbol(size, "i"));
    LogicalResult found = success();
    visit(evaluator.step(evaluator.at(result, point)), [&](const Expr *part) {
      const auto *read = llvm::find_if(reads, [&](tensor::ExtractOp extract) {
        return part->is(ExprKind::Element) &&
               part->tensor == extract.getTensor();
      });
      if (read == reads.end() || failed(found))
        return;
      for (auto [index, size] : llvm::zip_equal(
               part->operands,
               cast<RankedTensorType>(part->tensor.getType()).getShape()))
        if (succeeded(found) && !ShapedType::isDynamic(size))
          found = check(*read, index, size - 1, size);
    });
    if (failed(found))
      return failure();
  }
  return success();
}

LogicalResult TableReads::check(tensor::ExtractSliceOp op) {
  for (auto [offset, size, rows] :
       llvm::zip_equal(op.getMixedOffsets(), op.getStaticSizes(),
                       op.getSourceType().getShape()))
    if (auto value = dyn_cast<Value>(offset);
        value && !ShapedType::isDynamic(size) && !ShapedType::isDynamic(rows))
      if (failed(check(op, evaluator.scalar(value), rows - size, rows)))
        return failure();
  return success();
}

LogicalResult mlir::kvrm::raise::checkTableReads(func::FuncOp func,
                                                 BlockArgument argument,
                                                 int64_t count,
                                                 StringRef what) {
  TableReads reads(argument, count, what);
  for (auto op : func.getOps<linalg::GenericOp>())
    if (failed(reads.check(op)))
      return failure();
  for (auto op : func.getOps<tensor::ExtractSliceOp>())
    if (failed(reads.check(op)))
      return failure();
  return success();
}
