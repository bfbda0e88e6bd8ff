//===- ScalarExpr.h - Elements of tensors as expressions --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One element of a tensor, written down as an expression over elements of other
// tensors. An integer expression denotes the number that the machine's value
// has, read as signed, and its constructors never write down a number that the
// machine would wrap: what may wrap stays an opaque `Apply`. Truth values are
// integers of [0, 1]. A real expression denotes a real number; where the graph
// rounds, there is a `Round`.
//
// Expressions are unique in their pool: equal ones are one pointer.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_SCALAREXPR_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_SCALAREXPR_H

#include "mlir/IR/Value.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/FoldingSet.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/Allocator.h"

#include <cstdint>
#include <limits>

namespace mlir::kvrm::raise {

enum class ExprKind : uint8_t {
  Integer,  ///< `number`
  Real,     ///< `real`
  Symbol,   ///< An index that runs over [0, range.high]; `number` tells which.
  Unknown,  ///< A value that nothing is known of; `number` tells which.
  Linear,   ///< sum of coefficients * operands, + `number`
  FloorDiv, ///< operand / `number`, rounded down
  Mod,      ///< operand - `number` * FloorDiv
  Element,  ///< `tensor` at the operands, which are integers
  ToReal,   ///< An integer as a real number.
  Round,    ///< A real number rounded to `type`.
  EqZero,   ///< operand == 0
  LeZero,   ///< operand <= 0
  Not,
  And,
  Select, ///< operands: condition, value if true, value if false
  Apply,  ///< `name` of the operands: an op without side effects
  Reduce, ///< `reduction` over symbols; operands: body, initial value, symbols
};

enum class Reduction : uint8_t { Sum, Max, All };

/// Both ends belong to the range. The ends of int64_t stand for infinity.
struct IntRange {
  int64_t low = std::numeric_limits<int64_t>::min();
  int64_t high = std::numeric_limits<int64_t>::max();

  bool within(IntRange other) const {
    return low >= other.low && high <= other.high;
  }
  bool isOne(int64_t value) const { return low == value && high == value; }
};

/// What an integer or an index of so many bits holds, read as signed.
IntRange rangeOfWidth(unsigned width);

class Expr : public llvm::FoldingSetNode {
public:
  ExprKind kind;
  Reduction reduction = Reduction::Sum;
  bool isInteger = true;
  /// In the order of creation: makes terms of sums an ordered list.
  unsigned id = 0;
  IntRange range;
  int64_t number = 0;
  double real = 0;
  Value tensor;
  /// Identity of an `Apply`, or the type of a `Round`.
  const void *key = nullptr;
  StringRef name;
  ArrayRef<const Expr *> operands;
  ArrayRef<int64_t> coefficients;

  // NOLINTNEXTLINE(readability-identifier-naming): FoldingSet calls it so
  void Profile(llvm::FoldingSetNodeID &node) const;

  bool is(ExprKind other) const { return kind == other; }
  bool isNumber(int64_t value) const {
    return kind == ExprKind::Integer && number == value;
  }
  bool isApply(StringRef op) const {
    return kind == ExprKind::Apply && name == op;
  }
  const Expr *operand(unsigned index) const { return operands[index]; }
  /// Of a `Reduce`.
  ArrayRef<const Expr *> symbols() const { return operands.drop_front(2); }
};

/// Makes expressions, in a form that equal meanings mostly share.
class ExprPool {
public:
  const Expr *integer(int64_t value);
  const Expr *truth(bool value) { return integer(value ? 1 : 0); }
  const Expr *real(double value);
  /// A new index of [0, extent); the number 0 if there is but one.
  const Expr *symbol(int64_t extent, StringRef name);
  const Expr *unknown(bool isInteger, IntRange range = {});

  const Expr *add(const Expr *lhs, const Expr *rhs, int64_t factor = 1);
  const Expr *scale(const Expr *value, int64_t factor);
  const Expr *subtract(const Expr *lhs, const Expr *rhs) {
    return add(lhs, rhs, -1);
  }
  const Expr *floorDiv(const Expr *value, int64_t divisor);
  const Expr *mod(const Expr *value, int64_t divisor);

  const Expr *element(Value tensor, ArrayRef<const Expr *> index,
                      bool isInteger, IntRange range);
  const Expr *toReal(const Expr *value);
  /// `real` rounded to `type`, unless it is known to be of that type.
  const Expr *round(const Expr *value, Type type);

  const Expr *equal(const Expr *lhs, const Expr *rhs);
  const Expr *lessOrEqual(const Expr *lhs, const Expr *rhs);
  const Expr *negate(const Expr *condition);
  const Expr *conjunction(const Expr *lhs, const Expr *rhs);
  const Expr *disjunction(const Expr *lhs, const Expr *rhs);
  const Expr *select(const Expr *condition, const Expr *ifTrue,
                     const Expr *ifFalse);
  /// `key` tells ops of one name apart, by their attributes.
  const Expr *apply(StringRef name, const void *key,
                    ArrayRef<const Expr *> operands, bool isInteger,
                    IntRange range = {});
  const Expr *reduce(Reduction reduction, const Expr *body, const Expr *initial,
                     ArrayRef<const Expr *> symbols);

  unsigned size() const { return numExprs; }

private:
  struct Term {
    const Expr *atom;
    int64_t coefficient;
  };
  struct Sum {
    SmallVector<Term> terms;
    int64_t constant = 0;
  };

  const Expr *unique(Expr prototype);
  const Expr *equalToZero(const Expr *value);
  const Expr *atMostZero(const Expr *value);
  static Sum sumOf(const Expr *value);
  static IntRange rangeOf(const Sum &sum);
  const Expr *linear(Sum sum);
  /// Puts x / n * n and x % n together where both are terms.
  bool joinDigits(Sum &sum);
  /// Splits a sum into what `divisor` divides and the rest.
  static void splitMultiples(const Sum &sum, int64_t divisor, Sum &multiples,
                             Sum &rest);
  /// For a sum k * t + rest with 0 <= rest < k and k a divisor of `divisor`:
  /// gives t, rest and k.
  bool splitByCoefficient(const Sum &sum, int64_t divisor, Sum &quotient,
                          Sum &rest, int64_t &coefficient);
  ArrayRef<const Expr *> copy(ArrayRef<const Expr *> exprs);

  llvm::FoldingSet<Expr> uniqued;
  llvm::BumpPtrAllocator allocator;
  unsigned numExprs = 0;
  int64_t nextSymbol = 0;
};

/// Whether `condition` holds for an expression that `root` is made of. Stops at
/// elements of tensors: their indices are part of `root`, not their values.
bool anyPart(const Expr *root,
             llvm::function_ref<bool(const Expr *)> condition);
bool dependsOn(const Expr *root, const Expr *symbol);

/// The conditions that `condition` is the conjunction of.
SmallVector<const Expr *> conjuncts(const Expr *condition);

/// As a remark quotes it: cut off where it gets long.
std::string toString(const Expr *expr);

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_SCALAREXPR_H
