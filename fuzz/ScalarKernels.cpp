//===- ScalarKernels.cpp - Ops on scalars, by name ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ScalarKernels.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/TypeUtilities.h"
#include "llvm/ADT/StringMap.h"

#include <cmath>

using namespace mlir;
using namespace fuzz;

int64_t fuzz::wrap(int64_t value, unsigned width) {
  if (width >= 64)
    return value;
  if (width == 1)
    return value & 1;
  return llvm::SignExtend64(static_cast<uint64_t>(value), width);
}

static uint64_t asUnsigned(int64_t value, unsigned width) {
  return width >= 64 ? static_cast<uint64_t>(value)
                     : static_cast<uint64_t>(value) &
                           llvm::maskTrailingOnes<uint64_t>(width);
}

/// As signed, a bit is 0 or -1.
static int64_t asSigned(int64_t value, unsigned width) {
  return width == 1 ? -value : value;
}

static Scalar real(double value) {
  Scalar scalar;
  scalar.real = value;
  return scalar;
}

static Scalar integer(const KernelInfo &info, uint64_t value) {
  Scalar scalar;
  scalar.integer = wrap(static_cast<int64_t>(value), info.width);
  return scalar;
}

static Scalar rounded(const KernelInfo &info, double value) {
  if (!info.rounding)
    return real(value);
  llvm::APFloat number(value);
  bool losesInfo = false;
  number.convert(*info.rounding, llvm::APFloat::rmNearestTiesToEven,
                 &losesInfo);
  number.convert(llvm::APFloat::IEEEdouble(),
                 llvm::APFloat::rmNearestTiesToEven, &losesInfo);
  return real(number.convertToDouble());
}

//===----------------------------------------------------------------------===//
// Comparisons
//===----------------------------------------------------------------------===//

static Scalar compareIntegers(const KernelInfo &info, const Scalar *x, bool &) {
  uint64_t leftBits = asUnsigned(x[0].integer, info.fromWidth);
  uint64_t rightBits = asUnsigned(x[1].integer, info.fromWidth);
  int64_t left = asSigned(x[0].integer, info.fromWidth);
  int64_t right = asSigned(x[1].integer, info.fromWidth);
  auto truth = [&]() -> bool {
    using Predicate = arith::CmpIPredicate;
    switch (static_cast<Predicate>(info.predicate)) {
    case Predicate::eq:
      return left == right;
    case Predicate::ne:
      return left != right;
    case Predicate::slt:
      return left < right;
    case Predicate::sle:
      return left <= right;
    case Predicate::sgt:
      return left > right;
    case Predicate::sge:
      return left >= right;
    case Predicate::ult:
      return leftBits < rightBits;
    case Predicate::ule:
      return leftBits <= rightBits;
    case Predicate::ugt:
      return leftBits > rightBits;
    case Predicate::uge:
      return leftBits >= rightBits;
    }
    return false;
  };
  return integer(info, truth() ? 1 : 0);
}

static Scalar compareReals(const KernelInfo &info, const Scalar *x, bool &) {
  double left = x[0].real, right = x[1].real;
  // Bits of a predicate: equal, greater, less, unordered.
  using Predicate = arith::CmpFPredicate;
  bool isUnordered = std::isnan(left) || std::isnan(right);
  auto truth = [&]() -> bool {
    switch (static_cast<Predicate>(info.predicate)) {
    case Predicate::AlwaysFalse:
      return false;
    case Predicate::OEQ:
      return left == right;
    case Predicate::OGT:
      return left > right;
    case Predicate::OGE:
      return left >= right;
    case Predicate::OLT:
      return left < right;
    case Predicate::OLE:
      return left <= right;
    case Predicate::ONE:
      return !isUnordered && left != right;
    case Predicate::ORD:
      return !isUnordered;
    case Predicate::UEQ:
      return isUnordered || left == right;
    case Predicate::UGT:
      return isUnordered || left > right;
    case Predicate::UGE:
      return isUnordered || left >= right;
    case Predicate::ULT:
      return isUnordered || left < right;
    case Predicate::ULE:
      return isUnordered || left <= right;
    case Predicate::UNE:
      return isUnordered || left != right;
    case Predicate::UNO:
      return isUnordered;
    case Predicate::AlwaysTrue:
      return true;
    }
    return false;
  };
  return integer(info, truth() ? 1 : 0);
}

//===----------------------------------------------------------------------===//
// Integers
//===----------------------------------------------------------------------===//

/// Two operands as signed numbers, and which result; 0 where there is none.
template <int64_t (*compute)(int64_t, int64_t)>
static Scalar divide(const KernelInfo &info, const Scalar *x, bool &isDefined) {
  int64_t left = asSigned(x[0].integer, info.fromWidth);
  int64_t right = asSigned(x[1].integer, info.fromWidth);
  bool overflows = right == -1 && left == llvm::minIntN(info.fromWidth);
  isDefined &= right != 0 && !overflows;
  return integer(info, right == 0 || overflows ? 0 : compute(left, right));
}

template <uint64_t (*compute)(uint64_t, uint64_t)>
static Scalar divideUnsigned(const KernelInfo &info, const Scalar *x,
                             bool &isDefined) {
  uint64_t left = asUnsigned(x[0].integer, info.fromWidth);
  uint64_t right = asUnsigned(x[1].integer, info.fromWidth);
  isDefined &= right != 0;
  return integer(info, right == 0 ? 0 : compute(left, right));
}

static int64_t quotient(int64_t left, int64_t right) { return left / right; }
static int64_t remainderOf(int64_t left, int64_t right) { return left % right; }
static int64_t floorQuotient(int64_t left, int64_t right) {
  return left / right - (left % right != 0 && (left < 0) != (right < 0));
}
static int64_t ceilQuotient(int64_t left, int64_t right) {
  return left / right + (left % right != 0 && (left < 0) == (right < 0));
}
static uint64_t quotientBits(uint64_t left, uint64_t right) {
  return left / right;
}
static uint64_t remainderBits(uint64_t left, uint64_t right) {
  return left % right;
}
static uint64_t ceilQuotientBits(uint64_t left, uint64_t right) {
  return left / right + (left % right != 0);
}

template <bool isLeft, bool isArithmetic>
static Scalar shift(const KernelInfo &info, const Scalar *x, bool &isDefined) {
  uint64_t count = asUnsigned(x[1].integer, info.width);
  isDefined &= count < info.width;
  if (count >= info.width)
    return integer(info, 0);
  if (isLeft)
    return integer(info, static_cast<uint64_t>(x[0].integer) << count);
  if (isArithmetic)
    return integer(info, asSigned(x[0].integer, info.width) >> count);
  return integer(info, asUnsigned(x[0].integer, info.width) >> count);
}

/// What a real number is as an integer; undefined where it is none of the type.
template <bool isSigned>
static Scalar toInteger(const KernelInfo &info, const Scalar *x,
                        bool &isDefined) {
  double whole = std::trunc(x[0].real);
  double low = isSigned ? -std::ldexp(1, static_cast<int>(info.width) - 1) : 0;
  double high = std::ldexp(1, static_cast<int>(info.width) - isSigned);
  if (!(whole >= low && whole < high)) {
    isDefined = false;
    return integer(info, 0);
  }
  return integer(info, isSigned
                           ? static_cast<uint64_t>(static_cast<int64_t>(whole))
                           : static_cast<uint64_t>(whole));
}

//===----------------------------------------------------------------------===//
// The table
//===----------------------------------------------------------------------===//

#define REAL(expression)                                                       \
  [](const KernelInfo &, const Scalar *x, bool &) {                            \
    const double a = x[0].real, b = x[1].real;                                 \
    (void)a, (void)b;                                                          \
    return real(expression);                                                   \
  }
#define BITS(expression)                                                       \
  [](const KernelInfo &info, const Scalar *x, bool &) {                        \
    const auto a = static_cast<uint64_t>(x[0].integer);                        \
    const auto b = static_cast<uint64_t>(x[1].integer);                        \
    return integer(info, expression);                                          \
  }
#define SIGNED(expression)                                                     \
  [](const KernelInfo &info, const Scalar *x, bool &) {                        \
    const int64_t a = asSigned(x[0].integer, info.width);                      \
    const int64_t b = asSigned(x[1].integer, info.width);                      \
    return integer(info, expression);                                          \
  }
#define UNSIGNED(expression)                                                   \
  [](const KernelInfo &info, const Scalar *x, bool &) {                        \
    const uint64_t a = asUnsigned(x[0].integer, info.width);                   \
    const uint64_t b = asUnsigned(x[1].integer, info.width);                   \
    return integer(info, expression);                                          \
  }

static double maximum(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b);
}
static double minimum(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? NAN : std::fmin(a, b);
}

static const llvm::StringMap<Kernel> &kernels() {
  static const llvm::StringMap<Kernel> table = {
      {"arith.addf", REAL(a + b)},
      {"arith.subf", REAL(a - b)},
      {"arith.mulf", REAL(a * b)},
      {"arith.divf", REAL(a / b)},
      {"arith.remf", REAL(std::fmod(a, b))},
      {"arith.negf", REAL(-a)},
      {"arith.maximumf", REAL(maximum(a, b))},
      {"arith.minimumf", REAL(minimum(a, b))},
      {"arith.maxnumf", REAL(std::fmax(a, b))},
      {"arith.minnumf", REAL(std::fmin(a, b))},
      {"arith.extf", REAL(a)},
      {"math.absf", REAL(std::fabs(a))},
      {"math.ceil", REAL(std::ceil(a))},
      {"math.floor", REAL(std::floor(a))},
      {"math.cos", REAL(std::cos(a))},
      {"math.sin", REAL(std::sin(a))},
      {"math.erf", REAL(std::erf(a))},
      {"math.exp", REAL(std::exp(a))},
      {"math.exp2", REAL(std::exp2(a))},
      {"math.expm1", REAL(std::expm1(a))},
      {"math.log", REAL(std::log(a))},
      {"math.log1p", REAL(std::log1p(a))},
      {"math.powf", REAL(std::pow(a, b))},
      {"math.rsqrt", REAL(1 / std::sqrt(a))},
      {"math.sqrt", REAL(std::sqrt(a))},
      {"math.tanh", REAL(std::tanh(a))},
      {"math.fpowi",
       [](const KernelInfo &, const Scalar *x, bool &) {
         return real(std::pow(x[0].real, static_cast<double>(x[1].integer)));
       }},
      {"arith.truncf", [](const KernelInfo &info, const Scalar *x,
                          bool &) { return rounded(info, x[0].real); }},
      {"arith.sitofp",
       [](const KernelInfo &info, const Scalar *x, bool &) {
         return rounded(
             info, static_cast<double>(asSigned(x[0].integer, info.fromWidth)));
       }},
      {"arith.uitofp",
       [](const KernelInfo &info, const Scalar *x, bool &) {
         return rounded(info, static_cast<double>(
                                  asUnsigned(x[0].integer, info.fromWidth)));
       }},
      {"arith.fptosi", toInteger<true>},
      {"arith.fptoui", toInteger<false>},
      {"arith.addi", BITS(a + b)},
      {"arith.subi", BITS(a - b)},
      {"arith.muli", BITS(a * b)},
      {"arith.andi", BITS(a & b)},
      {"arith.ori", BITS(a | b)},
      {"arith.xori", BITS(a ^ b)},
      {"arith.minsi", SIGNED(std::min(a, b))},
      {"arith.maxsi", SIGNED(std::max(a, b))},
      {"arith.minui", UNSIGNED(std::min(a, b))},
      {"arith.maxui", UNSIGNED(std::max(a, b))},
      {"arith.divsi", divide<quotient>},
      {"arith.remsi", divide<remainderOf>},
      {"arith.floordivsi", divide<floorQuotient>},
      {"arith.ceildivsi", divide<ceilQuotient>},
      {"arith.divui", divideUnsigned<quotientBits>},
      {"arith.remui", divideUnsigned<remainderBits>},
      {"arith.ceildivui", divideUnsigned<ceilQuotientBits>},
      {"arith.shli", shift<true, false>},
      {"arith.shrsi", shift<false, true>},
      {"arith.shrui", shift<false, false>},
      {"arith.trunci", BITS((void(b), a))},
      {"arith.extsi",
       [](const KernelInfo &info, const Scalar *x, bool &) {
         return integer(info, asSigned(x[0].integer, info.fromWidth));
       }},
      {"arith.index_cast",
       [](const KernelInfo &info, const Scalar *x, bool &) {
         return integer(info, asSigned(x[0].integer, info.fromWidth));
       }},
      {"arith.extui",
       [](const KernelInfo &info, const Scalar *x, bool &) {
         return integer(info, asUnsigned(x[0].integer, info.fromWidth));
       }},
      {"arith.index_castui",
       [](const KernelInfo &info, const Scalar *x, bool &) {
         return integer(info, asUnsigned(x[0].integer, info.fromWidth));
       }},
      {"arith.select", [](const KernelInfo &, const Scalar *x,
                          bool &) { return x[0].integer ? x[1] : x[2]; }},
      {"arith.cmpi", compareIntegers},
      {"arith.cmpf", compareReals},
  };
  return table;
}

Kernel fuzz::kernelOf(Operation &op) {
  return op.getNumResults() == 1 ? kernels().lookup(op.getName().getStringRef())
                                 : nullptr;
}

static unsigned widthOf(Type type) {
  auto integer = dyn_cast<IntegerType>(getElementTypeOrSelf(type));
  return integer ? integer.getWidth() : 64;
}

KernelInfo fuzz::infoOf(Operation &op, unsigned precision) {
  KernelInfo info;
  info.width = widthOf(op.getResult(0).getType());
  if (op.getNumOperands() > 0)
    info.fromWidth = widthOf(op.getOperand(0).getType());
  if (auto compare = dyn_cast<arith::CmpIOp>(op))
    info.predicate = static_cast<uint64_t>(compare.getPredicate());
  if (auto compare = dyn_cast<arith::CmpFOp>(op))
    info.predicate = static_cast<uint64_t>(compare.getPredicate());
  auto type = dyn_cast<FloatType>(getElementTypeOrSelf(op.getResult(0)));
  // What a constant is rounded to is a constant.
  bool isConstant = op.getNumOperands() == 1 &&
                    op.getOperand(0).getDefiningOp<arith::ConstantOp>();
  if (type && (isConstant || type.getFPMantissaWidth() < precision))
    info.rounding = &type.getFloatSemantics();
  return info;
}
