//===- ScalarExpr.cpp - Elements of tensors as expressions ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ScalarExpr.h"

#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/TypeUtilities.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"

#include <numeric>

using namespace mlir;
using namespace mlir::kvrm::raise;

static constexpr int64_t lowest = std::numeric_limits<int64_t>::min();
static constexpr int64_t highest = std::numeric_limits<int64_t>::max();

static int64_t saturatingAdd(int64_t lhs, int64_t rhs) {
  int64_t result = 0;
  if (!llvm::AddOverflow(lhs, rhs, result))
    return result;
  return lhs < 0 ? lowest : highest;
}

static int64_t saturatingMultiply(int64_t lhs, int64_t rhs) {
  int64_t result = 0;
  if (!llvm::MulOverflow(lhs, rhs, result))
    return result;
  return (lhs < 0) == (rhs < 0) ? highest : lowest;
}

static int64_t floorDivide(int64_t value, int64_t divisor) {
  return value / divisor - (value % divisor < 0 ? 1 : 0);
}

static bool isInfinite(int64_t bound) {
  return bound == lowest || bound == highest;
}

static IntRange divideRange(IntRange range, int64_t divisor) {
  auto divide = [&](int64_t bound) {
    return isInfinite(bound) ? bound : floorDivide(bound, divisor);
  };
  return {divide(range.low), divide(range.high)};
}

IntRange mlir::kvrm::raise::rangeOfWidth(unsigned width) {
  if (width >= 64)
    return {};
  // A truth value is 0 or 1, whatever its one bit is as a signed number.
  if (width <= 1)
    return {0, 1};
  return {llvm::minIntN(width), llvm::maxIntN(width)};
}

void Expr::Profile(llvm::FoldingSetNodeID &node) const {
  node.AddInteger(static_cast<unsigned>(kind));
  node.AddInteger(static_cast<unsigned>(reduction));
  node.AddBoolean(isInteger);
  node.AddInteger(number);
  node.AddInteger(llvm::bit_cast<uint64_t>(real));
  node.AddPointer(tensor.getAsOpaquePointer());
  node.AddPointer(key);
  node.AddString(kind == ExprKind::Apply ? name : StringRef());
  for (const Expr *operand : operands)
    node.AddPointer(operand);
  for (int64_t coefficient : coefficients)
    node.AddInteger(coefficient);
}

ArrayRef<const Expr *> ExprPool::copy(ArrayRef<const Expr *> exprs) {
  return exprs.copy(allocator);
}

const Expr *ExprPool::unique(Expr prototype) {
  llvm::FoldingSetNodeID node;
  prototype.Profile(node);
  void *position = nullptr;
  if (const Expr *known = uniqued.FindNodeOrInsertPos(node, position))
    return known;
  prototype.operands = copy(prototype.operands);
  prototype.coefficients = prototype.coefficients.copy(allocator);
  prototype.name = prototype.name.copy(allocator);
  prototype.id = numExprs++;
  Expr *made = new (allocator) Expr(prototype);
  uniqued.InsertNode(made, position);
  return made;
}

//===----------------------------------------------------------------------===//
// Leaves
//===----------------------------------------------------------------------===//

const Expr *ExprPool::integer(int64_t value) {
  Expr expr;
  expr.kind = ExprKind::Integer;
  expr.number = value;
  expr.range = {value, value};
  return unique(expr);
}

const Expr *ExprPool::real(double value) {
  Expr expr;
  expr.kind = ExprKind::Real;
  expr.isInteger = false;
  expr.real = value;
  return unique(expr);
}

const Expr *ExprPool::symbol(int64_t extent, StringRef name) {
  if (extent == 1)
    return integer(0);
  Expr expr;
  expr.kind = ExprKind::Symbol;
  expr.number = nextSymbol++;
  expr.name = name;
  expr.range = {0, extent - 1};
  return unique(expr);
}

const Expr *ExprPool::unknown(bool isInteger, IntRange range) {
  Expr expr;
  expr.kind = ExprKind::Unknown;
  expr.isInteger = isInteger;
  expr.number = nextSymbol++;
  expr.range = range;
  return unique(expr);
}

const Expr *ExprPool::element(Value tensor, ArrayRef<const Expr *> index,
                              bool isInteger, IntRange range) {
  Expr expr;
  expr.kind = ExprKind::Element;
  expr.isInteger = isInteger;
  expr.tensor = tensor;
  expr.operands = index;
  expr.range = range;
  return unique(expr);
}

//===----------------------------------------------------------------------===//
// Sums
//===----------------------------------------------------------------------===//

ExprPool::Sum ExprPool::sumOf(const Expr *value) {
  Sum sum;
  if (value->is(ExprKind::Integer)) {
    sum.constant = value->number;
  } else if (value->is(ExprKind::Linear)) {
    sum.constant = value->number;
    for (auto [atom, coefficient] :
         llvm::zip_equal(value->operands, value->coefficients))
      sum.terms.push_back({atom, coefficient});
  } else {
    sum.terms.push_back({value, 1});
  }
  return sum;
}

IntRange ExprPool::rangeOf(const Sum &sum) {
  IntRange range{sum.constant, sum.constant};
  for (const Term &term : sum.terms) {
    int64_t atLow = saturatingMultiply(term.atom->range.low, term.coefficient);
    int64_t atHigh =
        saturatingMultiply(term.atom->range.high, term.coefficient);
    range.low = saturatingAdd(range.low, std::min(atLow, atHigh));
    range.high = saturatingAdd(range.high, std::max(atLow, atHigh));
  }
  return range;
}

bool ExprPool::joinDigits(Sum &sum) {
  for (Term &low : sum.terms) {
    if (!low.atom->is(ExprKind::Mod))
      continue;
    int64_t divisor = low.atom->number, wanted = 0;
    const Expr *value = low.atom->operand(0);
    if (llvm::MulOverflow(low.coefficient, divisor, wanted))
      continue;
    const Expr *quotient = floorDiv(value, divisor);
    auto *high = llvm::find_if(sum.terms, [&](const Term &term) {
      return term.atom == quotient && term.coefficient == wanted;
    });
    if (high == sum.terms.end())
      continue;
    Sum rest = sumOf(scale(value, low.coefficient));
    sum.terms.erase(high);
    llvm::erase_if(sum.terms, [&](const Term &term) {
      return term.atom->is(ExprKind::Mod) && term.atom->operand(0) == value &&
             term.atom->number == divisor;
    });
    sum.terms.append(rest.terms);
    sum.constant = saturatingAdd(sum.constant, rest.constant);
    return true;
  }
  return false;
}

const Expr *ExprPool::linear(Sum sum) {
  do {
    llvm::sort(sum.terms, [](const Term &lhs, const Term &rhs) {
      return lhs.atom->id < rhs.atom->id;
    });
    SmallVector<Term> merged;
    for (const Term &term : sum.terms) {
      if (merged.empty() || merged.back().atom != term.atom) {
        merged.push_back(term);
        continue;
      }
      int64_t &coefficient = merged.back().coefficient;
      if (llvm::AddOverflow(coefficient, term.coefficient, coefficient))
        return unknown(/*isInteger=*/true);
    }
    llvm::erase_if(merged,
                   [](const Term &term) { return term.coefficient == 0; });
    sum.terms = std::move(merged);
  } while (joinDigits(sum));

  if (isInfinite(sum.constant))
    return unknown(/*isInteger=*/true);
  if (sum.terms.empty())
    return integer(sum.constant);
  if (sum.terms.size() == 1 && sum.constant == 0 &&
      sum.terms.front().coefficient == 1)
    return sum.terms.front().atom;
  SmallVector<const Expr *> atoms;
  SmallVector<int64_t> coefficients;
  for (const Term &term : sum.terms) {
    atoms.push_back(term.atom);
    coefficients.push_back(term.coefficient);
  }
  Expr expr;
  expr.kind = ExprKind::Linear;
  expr.number = sum.constant;
  expr.operands = atoms;
  expr.coefficients = coefficients;
  expr.range = rangeOf(sum);
  return unique(expr);
}

const Expr *ExprPool::add(const Expr *lhs, const Expr *rhs, int64_t factor) {
  Sum sum = sumOf(lhs), other = sumOf(rhs);
  int64_t constant = 0;
  if (llvm::MulOverflow(other.constant, factor, constant) ||
      llvm::AddOverflow(sum.constant, constant, sum.constant))
    return unknown(/*isInteger=*/true);
  for (Term term : other.terms) {
    if (llvm::MulOverflow(term.coefficient, factor, term.coefficient))
      return unknown(/*isInteger=*/true);
    sum.terms.push_back(term);
  }
  return linear(std::move(sum));
}

const Expr *ExprPool::scale(const Expr *value, int64_t factor) {
  return add(integer(0), value, factor);
}

void ExprPool::splitMultiples(const Sum &sum, int64_t divisor, Sum &multiples,
                              Sum &rest) {
  for (const Term &term : sum.terms) {
    if (term.coefficient % divisor == 0)
      multiples.terms.push_back({term.atom, term.coefficient / divisor});
    else
      rest.terms.push_back(term);
  }
  multiples.constant = floorDivide(sum.constant, divisor);
  rest.constant = sum.constant - multiples.constant * divisor;
}

bool ExprPool::splitByCoefficient(const Sum &sum, int64_t divisor,
                                  Sum &quotient, Sum &rest,
                                  int64_t &coefficient) {
  for (const Term &candidate : sum.terms) {
    coefficient = candidate.coefficient;
    if (coefficient <= 1 || divisor % coefficient != 0)
      continue;
    quotient = rest = Sum();
    splitMultiples(sum, coefficient, quotient, rest);
    if (rangeOf(rest).within({0, coefficient - 1}))
      return true;
  }
  return false;
}

const Expr *ExprPool::floorDiv(const Expr *value, int64_t divisor) {
  if (divisor == 1)
    return value;
  Sum multiples, rest;
  splitMultiples(sumOf(value), divisor, multiples, rest);
  const Expr *whole = linear(std::move(multiples));
  IntRange range = rangeOf(rest);
  if (range.within({0, divisor - 1}))
    return whole;
  Sum quotient, small;
  int64_t coefficient = 0;
  if (splitByCoefficient(rest, divisor, quotient, small, coefficient))
    return add(whole, floorDiv(linear(quotient), divisor / coefficient));
  const Expr *part = linear(std::move(rest));
  if (part->is(ExprKind::FloorDiv) && part->number <= highest / divisor)
    return add(whole, floorDiv(part->operand(0), part->number * divisor));
  if (part->is(ExprKind::Mod) && part->number % divisor == 0)
    return add(whole, mod(floorDiv(part->operand(0), divisor),
                          part->number / divisor));
  Expr expr;
  expr.kind = ExprKind::FloorDiv;
  expr.number = divisor;
  expr.operands = part;
  expr.range = divideRange(range, divisor);
  return add(whole, unique(expr));
}

const Expr *ExprPool::mod(const Expr *value, int64_t divisor) {
  if (divisor == 1)
    return integer(0);
  Sum multiples, rest;
  splitMultiples(sumOf(value), divisor, multiples, rest);
  if (rangeOf(rest).within({0, divisor - 1}))
    return linear(std::move(rest));
  Sum quotient, small;
  int64_t coefficient = 0;
  if (splitByCoefficient(rest, divisor, quotient, small, coefficient))
    return add(linear(small), mod(linear(quotient), divisor / coefficient),
               coefficient);
  const Expr *part = linear(std::move(rest));
  if (part->is(ExprKind::Mod) && part->number % divisor == 0)
    return mod(part->operand(0), divisor);
  Expr expr;
  expr.kind = ExprKind::Mod;
  expr.number = divisor;
  expr.operands = part;
  expr.range = {0, divisor - 1};
  return unique(expr);
}

//===----------------------------------------------------------------------===//
// Conditions
//===----------------------------------------------------------------------===//

const Expr *ExprPool::equalToZero(const Expr *value) {
  if (value->range.isOne(0))
    return truth(true);
  if (value->range.low > 0 || value->range.high < 0)
    return truth(false);
  // A truth value, or one less another number, is 0 when it is false, or true.
  if (value->range.within({0, 1}))
    return negate(value);
  if (value->range.within({-1, 0}))
    return add(integer(1), value);
  if (value->is(ExprKind::Linear) && value->coefficients.front() < 0)
    value = scale(value, -1);
  Expr expr;
  expr.kind = ExprKind::EqZero;
  expr.operands = value;
  expr.range = {0, 1};
  return unique(expr);
}

const Expr *ExprPool::atMostZero(const Expr *value) {
  if (value->range.high <= 0)
    return truth(true);
  if (value->range.low > 0)
    return truth(false);
  if (value->range.within({0, 1}))
    return negate(value);
  Sum sum = sumOf(value);
  int64_t divisor = 0;
  for (const Term &term : sum.terms)
    divisor = std::gcd(divisor, term.coefficient);
  if (divisor > 1) {
    Sum multiples, rest;
    splitMultiples(sum, divisor, multiples, rest);
    // d * t + r <= 0 with 0 <= r < d is t <= 0 if r = 0, and t < 0 else.
    if (rest.constant != 0)
      multiples.constant += 1;
    return atMostZero(linear(std::move(multiples)));
  }
  Expr expr;
  expr.kind = ExprKind::LeZero;
  expr.operands = value;
  expr.range = {0, 1};
  return unique(expr);
}

const Expr *ExprPool::equal(const Expr *lhs, const Expr *rhs) {
  return equalToZero(subtract(lhs, rhs));
}

const Expr *ExprPool::lessOrEqual(const Expr *lhs, const Expr *rhs) {
  return atMostZero(subtract(lhs, rhs));
}

const Expr *ExprPool::negate(const Expr *condition) {
  if (condition->is(ExprKind::Integer))
    return truth(condition->number == 0);
  if (condition->is(ExprKind::Not))
    return condition->operand(0);
  if (condition->is(ExprKind::LeZero))
    return atMostZero(subtract(integer(1), condition->operand(0)));
  Expr expr;
  expr.kind = ExprKind::Not;
  expr.operands = condition;
  expr.range = {0, 1};
  return unique(expr);
}

SmallVector<const Expr *> mlir::kvrm::raise::conjuncts(const Expr *condition) {
  if (condition->is(ExprKind::And))
    return llvm::to_vector(condition->operands);
  return {condition};
}

const Expr *ExprPool::conjunction(const Expr *lhs, const Expr *rhs) {
  SmallVector<const Expr *> parts = conjuncts(lhs);
  parts.append(conjuncts(rhs));
  if (llvm::any_of(parts, [](const Expr *part) { return part->isNumber(0); }))
    return truth(false);
  llvm::erase_if(parts, [](const Expr *part) { return part->isNumber(1); });
  llvm::sort(parts, [](const Expr *left, const Expr *right) {
    return left->id < right->id;
  });
  parts.erase(llvm::unique(parts), parts.end());
  if (parts.empty())
    return truth(true);
  if (parts.size() == 1)
    return parts.front();
  Expr expr;
  expr.kind = ExprKind::And;
  expr.operands = parts;
  expr.range = {0, 1};
  return unique(expr);
}

const Expr *ExprPool::disjunction(const Expr *lhs, const Expr *rhs) {
  return negate(conjunction(negate(lhs), negate(rhs)));
}

static bool isTruth(const Expr *expr) {
  return expr->isInteger && expr->range.within({0, 1});
}

const Expr *ExprPool::select(const Expr *condition, const Expr *ifTrue,
                             const Expr *ifFalse) {
  if (condition->is(ExprKind::Integer))
    return condition->number ? ifTrue : ifFalse;
  if (ifTrue == ifFalse)
    return ifTrue;
  if (condition->is(ExprKind::Not))
    return select(condition->operand(0), ifFalse, ifTrue);
  if (isTruth(ifTrue) && isTruth(ifFalse)) {
    // Only where a side is a constant: else the condition would stand twice.
    if (ifTrue->is(ExprKind::Integer))
      return ifTrue->number ? disjunction(condition, ifFalse)
                            : conjunction(negate(condition), ifFalse);
    if (ifFalse->is(ExprKind::Integer))
      return ifFalse->number ? disjunction(negate(condition), ifTrue)
                             : conjunction(condition, ifTrue);
  }
  Expr expr;
  expr.kind = ExprKind::Select;
  expr.isInteger = ifTrue->isInteger;
  const Expr *operands[] = {condition, ifTrue, ifFalse};
  expr.operands = operands;
  expr.range = {std::min(ifTrue->range.low, ifFalse->range.low),
                std::max(ifTrue->range.high, ifFalse->range.high)};
  return unique(expr);
}

//===----------------------------------------------------------------------===//
// Ops
//===----------------------------------------------------------------------===//

const Expr *ExprPool::toReal(const Expr *value) {
  // Every integer up to 2^53 is a double.
  constexpr int64_t exact = int64_t{1} << 53;
  if (value->is(ExprKind::Integer) && value->range.within({-exact, exact}))
    return real(static_cast<double>(value->number));
  Expr expr;
  expr.kind = ExprKind::ToReal;
  expr.isInteger = false;
  expr.operands = value;
  return unique(expr);
}

const Expr *ExprPool::round(const Expr *value, Type type) {
  const llvm::fltSemantics &semantics =
      cast<FloatType>(type).getFloatSemantics();
  if (value->is(ExprKind::Real)) {
    llvm::APFloat rounded(value->real);
    bool losesInfo = false;
    rounded.convert(semantics, llvm::APFloat::rmNearestTiesToEven, &losesInfo);
    rounded.convert(llvm::APFloat::IEEEdouble(),
                    llvm::APFloat::rmNearestTiesToEven, &losesInfo);
    return real(rounded.convertToDouble());
  }
  // 0 and 1 are numbers of every type.
  if (value->is(ExprKind::ToReal) && isTruth(value->operand(0)))
    return value;
  if (value->is(ExprKind::Element) &&
      getElementTypeOrSelf(value->tensor) == type)
    return value;
  if (value->is(ExprKind::Round) && value->key == type.getAsOpaquePointer())
    return value;
  Expr expr;
  expr.kind = ExprKind::Round;
  expr.isInteger = false;
  expr.key = type.getAsOpaquePointer();
  expr.operands = value;
  return unique(expr);
}

const Expr *ExprPool::apply(StringRef name, const void *key,
                            ArrayRef<const Expr *> operands, bool isInteger,
                            IntRange range) {
  Expr expr;
  expr.kind = ExprKind::Apply;
  expr.isInteger = isInteger;
  expr.name = name;
  expr.key = key;
  expr.operands = operands;
  expr.range = range;
  return unique(expr);
}

const Expr *ExprPool::reduce(Reduction reduction, const Expr *body,
                             const Expr *initial,
                             ArrayRef<const Expr *> symbols) {
  SmallVector<const Expr *> operands = {body, initial};
  operands.append(symbols.begin(), symbols.end());
  Expr expr;
  expr.kind = ExprKind::Reduce;
  expr.reduction = reduction;
  expr.isInteger = body->isInteger;
  expr.operands = operands;
  expr.range = reduction == Reduction::All ? IntRange{0, 1} : IntRange{};
  return unique(expr);
}

//===----------------------------------------------------------------------===//
// Looking at expressions
//===----------------------------------------------------------------------===//

bool mlir::kvrm::raise::anyPart(
    const Expr *root, llvm::function_ref<bool(const Expr *)> condition) {
  llvm::DenseSet<const Expr *> seen;
  SmallVector<const Expr *> todo = {root};
  while (!todo.empty()) {
    const Expr *expr = todo.pop_back_val();
    if (!seen.insert(expr).second)
      continue;
    if (condition(expr))
      return true;
    todo.append(expr->operands.begin(), expr->operands.end());
  }
  return false;
}

bool mlir::kvrm::raise::dependsOn(const Expr *root, const Expr *symbol) {
  return anyPart(root, [&](const Expr *part) { return part == symbol; });
}

namespace {
/// Writes an expression, and stops when there is enough of it to read.
class Printer {
public:
  explicit Printer(llvm::raw_ostream &os) : os(os) {}

  void print(const Expr *expr);

private:
  void printTensor(Value tensor);
  void printSum(const Expr *expr);
  void printList(StringRef begin, ArrayRef<const Expr *> exprs, StringRef sep,
                 StringRef end);
  /// Gives up on the depth too: expressions share parts, their text does not.
  static constexpr unsigned maxLength = 240, maxDepth = 12;
  llvm::raw_ostream &os;
  unsigned depth = 0;
};
} // namespace

void Printer::printTensor(Value tensor) {
  if (auto argument = dyn_cast<BlockArgument>(tensor))
    os << "arg" << argument.getArgNumber();
  else
    os << tensor.getDefiningOp()->getName();
}

void Printer::printList(StringRef begin, ArrayRef<const Expr *> exprs,
                        StringRef sep, StringRef end) {
  os << begin;
  llvm::interleave(exprs, os, [&](const Expr *expr) { print(expr); }, sep);
  os << end;
}

void Printer::printSum(const Expr *expr) {
  bool isFirst = true;
  for (auto [atom, coefficient] :
       llvm::zip_equal(expr->operands, expr->coefficients)) {
    if (coefficient < 0 || !isFirst)
      os << (coefficient < 0 ? "-" : "+");
    isFirst = false;
    if (coefficient != 1 && coefficient != -1)
      os << (coefficient < 0 ? -coefficient : coefficient) << "*";
    print(atom);
  }
  if (expr->number != 0)
    os << (expr->number < 0 ? "" : "+") << expr->number;
}

static StringRef nameOf(Reduction reduction) {
  switch (reduction) {
  case Reduction::Sum:
    return "sum(";
  case Reduction::Max:
    return "max(";
  case Reduction::All:
    return "all(";
  }
  llvm_unreachable("a reduction that is none");
}

void Printer::print(const Expr *expr) {
  if (os.tell() > maxLength || depth > maxDepth) {
    os << "...";
    return;
  }
  ++depth;
  switch (expr->kind) {
  case ExprKind::Integer:
    os << expr->number;
    break;
  case ExprKind::Real:
    os << llvm::format("%.7g", expr->real);
    break;
  case ExprKind::Symbol:
    os << expr->name;
    break;
  case ExprKind::Unknown:
    os << "?";
    break;
  case ExprKind::Linear:
    printSum(expr);
    break;
  case ExprKind::FloorDiv:
    printList("(", expr->operands, "", ")");
    os << "/" << expr->number;
    break;
  case ExprKind::Mod:
    printList("(", expr->operands, "", ")");
    os << "%" << expr->number;
    break;
  case ExprKind::Element:
    printTensor(expr->tensor);
    printList("[", expr->operands, ", ", "]");
    break;
  case ExprKind::ToReal:
    print(expr->operand(0));
    break;
  case ExprKind::Round:
    os << "round_" << Type::getFromOpaquePointer(expr->key);
    printList("(", expr->operands, "", ")");
    break;
  case ExprKind::EqZero:
    printList("(", expr->operands, "", " == 0)");
    break;
  case ExprKind::LeZero:
    printList("(", expr->operands, "", " <= 0)");
    break;
  case ExprKind::Not:
    printList("!", expr->operands, "", "");
    break;
  case ExprKind::And:
    printList("(", expr->operands, " & ", ")");
    break;
  case ExprKind::Select:
    printList("(", expr->operand(0), "", " ? ");
    print(expr->operand(1));
    os << " : ";
    print(expr->operand(2));
    os << ")";
    break;
  case ExprKind::Apply:
    os << expr->name;
    printList("(", expr->operands, ", ", ")");
    break;
  case ExprKind::Reduce:
    os << nameOf(expr->reduction);
    print(expr->operand(0));
    os << ")";
    break;
  }
  --depth;
}

std::string mlir::kvrm::raise::toString(const Expr *expr) {
  std::string text;
  llvm::raw_string_ostream os(text);
  Printer(os).print(expr);
  return text;
}
