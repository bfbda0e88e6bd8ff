//===- PointEvaluator.h - What a tensor holds at a point --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Pulls an element of a tensor, at an index of symbols, back to an expression.
// What only moves data falls away, whatever op it is spelled with. Integers and
// truth values are followed to the function's arguments at once; real numbers
// stop at the op that computes them, and `step` takes one op at a time, so that
// nobody looks at more of a decoder than is asked for.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_POINTEVALUATOR_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_POINTEVALUATOR_H

#include "ScalarExpr.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "llvm/ADT/DenseMap.h"

namespace mlir::kvrm::raise {

class ConstantTable;

class PointEvaluator {
public:
  using Index = ArrayRef<const Expr *>;
  using Substitution = llvm::SmallDenseMap<const Expr *, const Expr *, 4>;

  /// What is assumed of elements of integer arguments of the function.
  struct Assumption {
    /// The one argument that it holds for; without one, it holds for all.
    Value argument;
    IntRange range;
    /// Take the limits of clamps for granted, which is not sound: to find out
    /// which argument the position is.
    bool trustsClamps = false;
    /// Arguments that mask the tokens behind `argument`, the position: their
    /// last dim is the token.
    SmallVector<Value> causalMasks;
  };

  PointEvaluator(ExprPool &pool, Assumption assumption);
  ~PointEvaluator();

  /// `tensor` at `index`: a number, or the element of the tensor where it is
  /// computed. Integers are followed further, to what they are computed from.
  const Expr *at(Value tensor, Index index);
  /// A scalar of the function.
  const Expr *scalar(Value value);
  /// What the op that defines an element makes it of; itself if that is not
  /// known.
  const Expr *step(const Expr *element);
  /// Takes steps until there is something other than an element to see.
  const Expr *head(const Expr *expr);
  /// The number that `expr` is, if it is one whatever the arguments are.
  std::optional<double> constant(const Expr *expr);

  const Expr *substitute(const Expr *expr, const Substitution &map);
  const Expr *substitute(const Expr *expr, const Expr *from, const Expr *to) {
    Substitution map;
    map[from] = to;
    return substitute(expr, map);
  }
  /// Whether both are known to be the same value.
  bool same(const Expr *lhs, const Expr *rhs);

  /// Whether a limit on the work was met; what was not found then may be there.
  bool isExhausted() const { return exhausted; }
  ExprPool &exprs() { return pool; }

private:
  /// The loops of a linalg op at one point of a result.
  struct LoopPoint {
    SmallVector<const Expr *> loops;
    SmallVector<const Expr *> reduced;
  };
  using Scalars = llvm::SmallDenseMap<Value, const Expr *, 16>;

  const Expr *resolve(const Expr *element);
  /// An element of a mask that is known by assumption.
  const Expr *defineMask(Value mask, Index index);
  /// One op back from an element, or null.
  const Expr *define(const Expr *element);
  const Expr *defineTensorOp(Operation *op, Index index, Value tensor);
  const Expr *defineConstant(Value tensor, Index index);
  const Expr *offsetOf(OpFoldResult offset);
  const Expr *defineConcat(Operation *op, Index index);
  const Expr *defineInsertSlice(Operation *op, Index index);
  const Expr *defineLinalg(linalg::LinalgOp op, unsigned result, Index index);
  const Expr *defineSoftmax(linalg::SoftmaxOp op, Index index);
  /// A fused attention, written out.
  const Expr *defineAttention(Operation *op, Index index);
  const Expr *modifiedScore(Block &body, const Expr *score);
  const Expr *defineScatter(Operation *op, Index index);
  const Expr *defineReduction(linalg::LinalgOp op, unsigned result, Index index,
                              const LoopPoint &point);

  FailureOr<LoopPoint> loopsAt(linalg::LinalgOp op, unsigned result,
                               Index index);
  const Expr *operandAt(OpOperand &operand, linalg::LinalgOp op,
                        const LoopPoint &point);
  const Expr *affine(AffineExpr expr, Index dims);

  /// The operands of the terminator of a block of scalars.
  SmallVector<const Expr *> evaluateBlock(Block &block, Scalars &scalars,
                                          Index loops);
  const Expr *evaluateScalarOp(Operation *op, Scalars &scalars, Index loops,
                               unsigned result = 0);
  const Expr *lookUp(Value value, Scalars &scalars);
  const Expr *integerOp(Operation *op, Index operands);
  const Expr *compareIntegers(Operation *op, Index operands);
  const Expr *compareReals(Operation *op, Index operands);
  const Expr *minOrMax(Operation *op, Index operands);
  const Expr *opaque(Operation *op, Index operands, unsigned result = 0);
  /// `value` if the machine's type holds it, else an opaque result of `op`.
  const Expr *unlessItWraps(Operation *op, Index operands, const Expr *value);
  std::optional<double> fold(const Expr *expr);
  bool sameParts(const Expr *lhs, const Expr *rhs);

  /// Deep enough for any index that people write, and far from the stack's end.
  static constexpr unsigned maxDepth = 400, maxExprs = 1u << 20;

  ExprPool &pool;
  Assumption assumption;
  llvm::DenseMap<const Expr *, const Expr *> resolved, steps;
  llvm::DenseMap<const Expr *, std::optional<double>> constants;
  llvm::DenseMap<Value, const Expr *> functionScalars;
  llvm::DenseMap<Value, std::unique_ptr<ConstantTable>> tables;
  unsigned depth = 0, compared = 0, folding = 0;
  bool exhausted = false;
};

/// The range of the machine's type.
IntRange rangeOfType(Type type);

/// tm_tensor.attention and iree_linalg_ext.attention.
bool isFusedAttention(Operation *op);

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_POINTEVALUATOR_H
