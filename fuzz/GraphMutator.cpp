//===- GraphMutator.cpp - Decode steps that are nearly others -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each mutation takes an op and changes one thing that its meaning depends on,
// in a way that leaves the types as they are. Nothing is erased: what nobody
// uses any more is dead.
//
//===----------------------------------------------------------------------===//

#include "GraphMutator.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/TypeUtilities.h"
#include "mlir/IR/Verifier.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/StringExtras.h"

#include <cmath>

using namespace mlir;
using namespace fuzz;

namespace {

class Mutator {
public:
  Mutator(func::FuncOp func, Random &random)
      : func(func), random(random), b(func.getContext()) {}

  /// Changes something of `op`; false if this kind of change has nothing there.
  bool mutate(Operation *op, std::string &description);

private:
  using Change = bool (Mutator::*)(Operation *op);

  bool changeConstant(Operation *op);
  bool changeConstantOperand(Operation *op);
  bool changePredicate(Operation *op);
  bool swapOperands(Operation *op);
  bool replaceOperand(Operation *op);
  bool replaceOp(Operation *op);
  bool changeMap(Operation *op);
  bool changeIterator(Operation *op);
  bool changeSlice(Operation *op);
  bool dropOp(Operation *op);
  bool repeatOp(Operation *op);
  bool changePermutation(Operation *op);
  bool changeLoopIndex(Operation *op);
  bool changeScatter(Operation *op);
  bool swapBranches(Operation *op);
  bool computeOnOperand(Operation *op);
  bool reindexOperand(Operation *op);
  bool swapUses(Operation *op);

  size_t below(size_t limit) { return limit == 0 ? 0 : random() % limit; }
  template <typename Range> auto oneOf(const Range &range) {
    return *std::next(range.begin(),
                      static_cast<ptrdiff_t>(below(range.size())));
  }
  /// An operand that may be changed, or null.
  OpOperand *anyOperand(Operation *op,
                        llvm::function_ref<bool(Value)> isWanted);
  int64_t otherNumber(int64_t number);
  double otherNumber(double number);
  TypedAttr otherConstant(TypedAttr value);
  TypedAttr otherTable(DenseElementsAttr table);
  Value computeInteger(Location loc, Value value);
  Value computeReal(Location loc, Value value);
  Value otherIndex(Location loc, Value index, int64_t size);
  Value constantLike(Location loc, Type type, double number);
  void say(const llvm::Twine &what) { text = what.str(); }

  func::FuncOp func;
  Random &random;
  OpBuilder b;
  std::string text;
};

} // namespace

/// What was not written means nothing, wherever it is read.
static bool isEmpty(Value value) {
  return value.getDefiningOp<tensor::EmptyOp>();
}

static bool isScalar(Value value) {
  return value.getType().isIntOrIndexOrFloat();
}

OpOperand *Mutator::anyOperand(Operation *op,
                               llvm::function_ref<bool(Value)> isWanted) {
  SmallVector<OpOperand *> wanted;
  for (OpOperand &operand : op->getOpOperands())
    if (isWanted(operand.get()))
      wanted.push_back(&operand);
  return wanted.empty() ? nullptr : oneOf(wanted);
}

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

int64_t Mutator::otherNumber(int64_t number) {
  int64_t numbers[] = {number + 1, number - 1, 0,          1, -1, number * 2,
                       number / 2, -number,    number + 2, 3, 2,  number - 2};
  return oneOf(ArrayRef(numbers));
}

double Mutator::otherNumber(double number) {
  double numbers[] = {number * 2,
                      number / 2,
                      -number,
                      0,
                      1,
                      number * 1.001,
                      number + 1,
                      -1,
                      INFINITY,
                      -INFINITY,
                      -1e4,
                      -9e3,
                      -1e9,
                      std::sqrt(std::fabs(number)),
                      number + 0.125};
  return oneOf(ArrayRef(numbers));
}

TypedAttr Mutator::otherTable(DenseElementsAttr table) {
  SmallVector<Attribute> elements(table.getValues<Attribute>());
  size_t at = below(elements.size()), other = below(elements.size());
  switch (below(table.isSplat() ? 1 : 5)) {
  case 0:
    if (!table.isSplat())
      elements[at] = otherConstant(cast<TypedAttr>(elements[at]));
    else
      llvm::fill(elements, otherConstant(cast<TypedAttr>(elements[0])));
    break;
  case 1:
    std::reverse(elements.begin(), elements.end());
    break;
  case 2:
    std::rotate(elements.begin(), elements.begin() + 1, elements.end());
    break;
  case 3:
    std::rotate(elements.begin(), elements.end() - 1, elements.end());
    break;
  default:
    std::swap(elements[at], elements[other]);
    break;
  }
  return DenseElementsAttr::get(table.getType(), elements);
}

TypedAttr Mutator::otherConstant(TypedAttr value) {
  if (auto integer = dyn_cast<IntegerAttr>(value)) {
    Type type = integer.getType();
    unsigned width = type.isIndex() ? 64 : type.getIntOrFloatBitWidth();
    if (width == 1)
      return b.getIntegerAttr(type, integer.getValue().isZero() ? 1 : 0);
    return b.getIntegerAttr(
        type, APInt(width, static_cast<uint64_t>(otherNumber(integer.getInt())),
                    /*isSigned=*/true, /*implicitTrunc=*/true));
  }
  if (auto real = dyn_cast<FloatAttr>(value))
    return b.getFloatAttr(real.getType(), otherNumber(real.getValueAsDouble()));
  if (auto table = dyn_cast<DenseElementsAttr>(value);
      table && table.getNumElements() <= 4096 && table.getNumElements() > 0)
    return otherTable(table);
  return value;
}

bool Mutator::changeConstant(Operation *op) {
  auto constant = dyn_cast<arith::ConstantOp>(op);
  if (!constant)
    return false;
  TypedAttr value = otherConstant(constant.getValue());
  if (value == constant.getValue())
    return false;
  say("constant");
  constant.setValueAttr(value);
  return true;
}

/// The same for one user of a constant.
bool Mutator::changeConstantOperand(Operation *op) {
  OpOperand *operand = anyOperand(
      op, [](Value value) { return value.getDefiningOp<arith::ConstantOp>(); });
  if (!operand)
    return false;
  auto constant = operand->get().getDefiningOp<arith::ConstantOp>();
  TypedAttr value = otherConstant(constant.getValue());
  if (value == constant.getValue())
    return false;
  b.setInsertionPointAfter(constant);
  operand->set(arith::ConstantOp::create(b, op->getLoc(), value));
  say("constant of operand " + llvm::Twine(operand->getOperandNumber()));
  return true;
}

//===----------------------------------------------------------------------===//
// Operands
//===----------------------------------------------------------------------===//

bool Mutator::swapOperands(Operation *op) {
  SmallVector<std::pair<unsigned, unsigned>> pairs;
  for (unsigned left = 0; left < op->getNumOperands(); ++left)
    for (unsigned right = left + 1; right < op->getNumOperands(); ++right)
      if (op->getOperand(left) != op->getOperand(right) &&
          !isEmpty(op->getOperand(left)) && !isEmpty(op->getOperand(right)) &&
          op->getOperand(left).getType() == op->getOperand(right).getType())
        pairs.emplace_back(left, right);
  if (pairs.empty())
    return false;
  auto [left, right] = oneOf(pairs);
  say("operands " + llvm::Twine(left) + " and " + llvm::Twine(right) +
      " swapped");
  Value first = op->getOperand(left);
  op->setOperand(left, op->getOperand(right));
  op->setOperand(right, first);
  return true;
}

/// Values of a type that are there where `op` stands.
static SmallVector<Value> valuesBefore(Operation *op, Type type) {
  SmallVector<Value> values;
  auto take = [&](Value value) {
    if (value.getType() == type && !isEmpty(value))
      values.push_back(value);
  };
  for (Operation *at = op; at && !isa<func::FuncOp>(at);
       at = at->getParentOp()) {
    llvm::for_each(at->getBlock()->getArguments(), take);
    for (Operation &before : *at->getBlock()) {
      if (&before == at)
        break;
      llvm::for_each(before.getResults(), take);
    }
  }
  return values;
}

bool Mutator::replaceOperand(Operation *op) {
  OpOperand *operand = anyOperand(op, [](Value) { return true; });
  if (!operand)
    return false;
  SmallVector<Value> values = valuesBefore(op, operand->get().getType());
  // Near ones are likelier to be of the same matter.
  size_t last = values.size();
  if (last > 12 && below(2) == 0)
    values.erase(values.begin(), values.end() - 12);
  llvm::erase(values, operand->get());
  if (values.empty())
    return false;
  say("operand " + llvm::Twine(operand->getOperandNumber()) + " replaced");
  operand->set(oneOf(values));
  return true;
}

/// Exchanges this op's result with another value, for all users of both that
/// stand behind.
bool Mutator::swapUses(Operation *op) {
  if (op->getNumResults() != 1 || op->use_empty() || isEmpty(op->getResult(0)))
    return false;
  SmallVector<Value> values = valuesBefore(op, op->getResult(0).getType());
  if (values.empty())
    return false;
  Value result = op->getResult(0), other = oneOf(values);
  if (other.getParentBlock() != op->getBlock())
    return false;
  SmallVector<OpOperand *> mine, others;
  for (OpOperand &use : result.getUses())
    mine.push_back(&use);
  for (OpOperand &use : other.getUses()) {
    Operation *user = op->getBlock()->findAncestorOpInBlock(*use.getOwner());
    if (user && op->isBeforeInBlock(user))
      others.push_back(&use);
  }
  for (OpOperand *use : mine)
    use->set(other);
  for (OpOperand *use : others)
    use->set(result);
  say("uses swapped with another value's");
  return true;
}

//===----------------------------------------------------------------------===//
// Ops
//===----------------------------------------------------------------------===//

static ArrayRef<StringRef> alike(StringRef name) {
  static const SmallVector<SmallVector<StringRef>> groups = {
      {"arith.addf", "arith.subf", "arith.mulf", "arith.divf", "arith.maximumf",
       "arith.minimumf", "arith.maxnumf", "arith.minnumf"},
      {"arith.addi", "arith.subi", "arith.muli", "arith.minsi", "arith.maxsi",
       "arith.minui", "arith.maxui", "arith.andi", "arith.ori", "arith.xori",
       "arith.divsi", "arith.remsi", "arith.floordivsi", "arith.ceildivsi",
       "arith.divui", "arith.remui"},
      {"math.exp", "math.exp2", "math.sqrt", "math.rsqrt", "math.sin",
       "math.cos", "math.tanh", "math.absf", "arith.negf", "math.expm1"},
      {"arith.sitofp", "arith.uitofp"},
      {"arith.extsi", "arith.extui"},
      {"arith.index_cast", "arith.index_castui"},
  };
  for (const SmallVector<StringRef> &group : groups)
    if (llvm::is_contained(group, name))
      return group;
  return {};
}

bool Mutator::replaceOp(Operation *op) {
  StringRef name = op->getName().getStringRef();
  ArrayRef<StringRef> names = alike(name);
  if (names.empty())
    return false;
  StringRef other = oneOf(names);
  if (other == name)
    return false;
  OperationState state(op->getLoc(), other, op->getOperands(),
                       op->getResultTypes());
  b.setInsertionPointAfter(op);
  Operation *made = b.create(state);
  op->replaceAllUsesWith(made->getResults());
  say("becomes " + other);
  return true;
}

bool Mutator::changePredicate(Operation *op) {
  uint64_t count = 0;
  if (isa<arith::CmpIOp>(op))
    count = arith::getMaxEnumValForCmpIPredicate() + 1;
  else if (isa<arith::CmpFOp>(op))
    count = arith::getMaxEnumValForCmpFPredicate() + 1;
  else
    return false;
  auto predicate = static_cast<int64_t>(below(count));
  auto old = op->getAttrOfType<IntegerAttr>("predicate");
  if (old.getInt() == predicate)
    return false;
  op->setAttr("predicate", b.getI64IntegerAttr(predicate));
  say("predicate " + llvm::Twine(predicate));
  return true;
}

bool Mutator::dropOp(Operation *op) {
  if (op->getNumResults() != 1 || op->use_empty())
    return false;
  Value result = op->getResult(0);
  OpOperand *operand = anyOperand(op, [&](Value value) {
    return value.getType() == result.getType() && !isEmpty(value);
  });
  if (!operand)
    return false;
  say("dropped for operand " + llvm::Twine(operand->getOperandNumber()));
  result.replaceAllUsesWith(operand->get());
  return true;
}

/// Applies an op to its own result, too.
bool Mutator::repeatOp(Operation *op) {
  if (op->getNumResults() != 1 || op->use_empty())
    return false;
  Value result = op->getResult(0);
  OpOperand *operand = anyOperand(
      op, [&](Value value) { return value.getType() == result.getType(); });
  if (!operand)
    return false;
  b.setInsertionPointAfter(op);
  Operation *again = b.clone(*op);
  result.replaceAllUsesExcept(again->getResult(0), again);
  again->setOperand(operand->getOperandNumber(), result);
  say("repeated on operand " + llvm::Twine(operand->getOperandNumber()));
  return true;
}

bool Mutator::swapBranches(Operation *op) {
  auto branch = dyn_cast<scf::IfOp>(op);
  if (!branch || branch.getElseRegion().empty())
    return false;
  Region kept;
  kept.takeBody(branch.getThenRegion());
  branch.getThenRegion().takeBody(branch.getElseRegion());
  branch.getElseRegion().takeBody(kept);
  say("branches swapped");
  return true;
}

//===----------------------------------------------------------------------===//
// Loops, slices, scatters
//===----------------------------------------------------------------------===//

bool Mutator::changeMap(Operation *op) {
  auto generic = dyn_cast<linalg::GenericOp>(op);
  if (!generic)
    return false;
  SmallVector<AffineMap> maps = generic.getIndexingMapsArray();
  size_t number = below(maps.size());
  AffineMap map = maps[number];
  if (map.getNumResults() == 0)
    return false;
  SmallVector<AffineExpr> exprs(map.getResults());
  AffineExpr &expr = exprs[below(exprs.size())];
  AffineExpr loop = b.getAffineDimExpr(below(map.getNumDims()));
  auto few = static_cast<int64_t>(2 + below(3));
  switch (below(6)) {
  case 0:
  case 1:
    expr = loop;
    break;
  case 2:
    std::swap(expr, exprs[below(exprs.size())]);
    break;
  case 3:
    expr = expr.floorDiv(few);
    break;
  case 4:
    expr = expr % few;
    break;
  default:
    expr = b.getAffineConstantExpr(0);
    break;
  }
  AffineMap other = AffineMap::get(map.getNumDims(), 0, exprs, b.getContext());
  if (other == map)
    return false;
  maps[number] = other;
  generic.setIndexingMapsAttr(b.getAffineMapArrayAttr(maps));
  say("map " + llvm::Twine(number));
  return true;
}

bool Mutator::changeIterator(Operation *op) {
  auto generic = dyn_cast<linalg::GenericOp>(op);
  if (!generic)
    return false;
  SmallVector<Attribute> iterators(generic.getIteratorTypes().getValue());
  if (iterators.empty())
    return false;
  Attribute &changed = iterators[below(iterators.size())];
  bool isParallel = cast<linalg::IteratorTypeAttr>(changed).getValue() ==
                    utils::IteratorType::parallel;
  changed = linalg::IteratorTypeAttr::get(
      b.getContext(), isParallel ? utils::IteratorType::reduction
                                 : utils::IteratorType::parallel);
  generic.setIteratorTypesAttr(b.getArrayAttr(iterators));
  say("iterator");
  return true;
}

bool Mutator::changeSlice(Operation *op) {
  if (!isa<tensor::ExtractSliceOp, tensor::InsertSliceOp>(op))
    return false;
  StringRef name = below(4) == 0 ? "static_strides" : "static_offsets";
  auto numbers = op->getAttrOfType<DenseI64ArrayAttr>(name);
  SmallVector<int64_t> others(numbers.asArrayRef());
  if (others.empty())
    return false;
  int64_t &number = others[below(others.size())];
  if (ShapedType::isDynamic(number))
    return false;
  int64_t other = otherNumber(number);
  if (other < 0 || other == number)
    return false;
  number = other;
  op->setAttr(name, b.getDenseI64ArrayAttr(others));
  say(name);
  return true;
}

bool Mutator::changePermutation(Operation *op) {
  StringRef name = isa<linalg::BroadcastOp>(op) ? "dimensions" : "permutation";
  auto dims = op->getAttrOfType<DenseI64ArrayAttr>(name);
  if (!isa<linalg::TransposeOp, linalg::BroadcastOp>(op) || dims.empty())
    return false;
  SmallVector<int64_t> others(dims.asArrayRef());
  if (isa<linalg::TransposeOp>(op))
    std::swap(others[below(others.size())], others[below(others.size())]);
  else
    others[below(others.size())] = static_cast<int64_t>(below(5));
  if (ArrayRef(others) == dims.asArrayRef())
    return false;
  op->setAttr(name, b.getDenseI64ArrayAttr(others));
  say(name);
  return true;
}

bool Mutator::changeLoopIndex(Operation *op) {
  auto index = dyn_cast<linalg::IndexOp>(op);
  if (!index)
    return false;
  auto loops = cast<linalg::LinalgOp>(op->getParentOp()).getNumLoops();
  uint64_t other = below(loops);
  if (other == index.getDim())
    return false;
  index.setDim(other);
  say("loop " + llvm::Twine(other));
  return true;
}

bool Mutator::changeScatter(Operation *op) {
  if (!op->getName().getStringRef().ends_with(".scatter"))
    return false;
  if (auto map = op->getAttrOfType<DenseI64ArrayAttr>("dimension_map")) {
    SmallVector<int64_t> dims(map.asArrayRef());
    if (below(2) == 0)
      std::swap(dims[below(dims.size())], dims[below(dims.size())]);
    else
      dims[below(dims.size())] = static_cast<int64_t>(below(5));
    if (ArrayRef(dims) == map.asArrayRef())
      return false;
    op->setAttr("dimension_map", b.getDenseI64ArrayAttr(dims));
    say("dimension_map");
    return true;
  }
  auto numbers = op->getAttrOfType<OpaqueAttr>("scatter_dimension_numbers");
  if (!numbers)
    return false;
  std::string dims = numbers.getAttrData().str();
  SmallVector<size_t> digits;
  for (auto [at, c] : llvm::enumerate(dims))
    if (llvm::isDigit(c))
      digits.push_back(at);
  if (digits.empty())
    return false;
  char &digit = dims[oneOf(digits)];
  if (below(2) == 0)
    std::swap(digit, dims[oneOf(digits)]);
  else
    digit = static_cast<char>('0' + below(5));
  if (dims == numbers.getAttrData())
    return false;
  op->setAttr(
      "scatter_dimension_numbers",
      OpaqueAttr::get(numbers.getDialectNamespace(), dims, numbers.getType()));
  say("scatter_dimension_numbers");
  return true;
}

//===----------------------------------------------------------------------===//
// More ops
//===----------------------------------------------------------------------===//

Value Mutator::constantLike(Location loc, Type type, double number) {
  TypedAttr value;
  if (isa<FloatType>(type))
    value = b.getFloatAttr(type, number);
  else
    value = b.getIntegerAttr(type, static_cast<int64_t>(number));
  return arith::ConstantOp::create(b, loc, value);
}

Value Mutator::computeInteger(Location loc, Value value) {
  static const StringRef names[] = {
      "arith.addi",  "arith.subi",  "arith.muli",  "arith.minsi",
      "arith.maxsi", "arith.divsi", "arith.remsi", "arith.xori",
      "arith.divui", "arith.remui", "arith.minui", "arith.maxui"};
  static const double numbers[] = {1, 2, 3, 4, 15, 14, 16, -1, 7, 8, 0};
  StringRef name = oneOf(ArrayRef(names));
  double number = oneOf(ArrayRef(numbers));
  Type type = value.getType();
  if (type.isInteger(1)) {
    name = "arith.xori";
    number = 1;
  }
  say(name + " of it and " + llvm::Twine(static_cast<int64_t>(number)));
  if (type.isInteger() && !type.isInteger(1) && below(5) == 0) {
    Type narrow = b.getIntegerType(oneOf(ArrayRef<unsigned>{2, 4, 5, 8}));
    if (narrow.getIntOrFloatBitWidth() >= type.getIntOrFloatBitWidth())
      return {};
    say("cut to fewer bits");
    Value cut = arith::TruncIOp::create(b, loc, narrow, value);
    if (below(2) == 0)
      return arith::ExtSIOp::create(b, loc, type, cut);
    return arith::ExtUIOp::create(b, loc, type, cut);
  }
  Value operands[] = {value, constantLike(loc, type, number)};
  if (below(4) == 0)
    std::swap(operands[0], operands[1]);
  OperationState state(loc, name, operands, type);
  return b.create(state)->getResult(0);
}

Value Mutator::computeReal(Location loc, Value value) {
  static const StringRef unary[] = {"arith.negf", "math.tanh", "math.absf",
                                    "math.exp", "math.sin"};
  static const StringRef binary[] = {"arith.addf",     "arith.subf",
                                     "arith.mulf",     "arith.divf",
                                     "arith.maximumf", "arith.minimumf"};
  static const double numbers[] = {0, 1, 2, 0.5, -1, 0.125, 1e-3, -1e4, -1e9};
  Type type = value.getType();
  unsigned kind = below(6);
  if (kind == 0) {
    Type narrow = below(3) == 0   ? Type(Float8E4M3FNType::get(b.getContext()))
                  : below(2) == 0 ? Type(b.getF16Type())
                                  : Type(b.getBF16Type());
    if (narrow.getIntOrFloatBitWidth() >= type.getIntOrFloatBitWidth())
      return {};
    say("rounded to less");
    Value rounded = arith::TruncFOp::create(b, loc, narrow, value);
    return arith::ExtFOp::create(b, loc, type, rounded);
  }
  StringRef name = kind == 1 ? oneOf(ArrayRef(unary)) : oneOf(ArrayRef(binary));
  SmallVector<Value> operands = {value};
  double number = oneOf(ArrayRef(numbers));
  if (kind != 1)
    operands.push_back(constantLike(loc, type, number));
  if (kind != 1 && below(3) == 0)
    std::swap(operands[0], operands[1]);
  say(name + " of it and " + std::to_string(number));
  OperationState state(loc, name, operands, type);
  return b.create(state)->getResult(0);
}

/// Puts arithmetic between a scalar and its user.
bool Mutator::computeOnOperand(Operation *op) {
  OpOperand *operand = anyOperand(op, isScalar);
  if (!operand)
    return false;
  b.setInsertionPoint(op);
  Value value = operand->get();
  Value computed = isa<FloatType>(value.getType())
                       ? computeReal(op->getLoc(), value)
                       : computeInteger(op->getLoc(), value);
  if (!computed)
    return false;
  operand->set(computed);
  text += " for operand " + std::to_string(operand->getOperandNumber());
  return true;
}

/// Another index of a dim of `size`.
Value Mutator::otherIndex(Location loc, Value index, int64_t size) {
  auto number = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, loc, value);
  };
  Value few = number(static_cast<int64_t>(2 + below(2)));
  switch (below(6)) {
  case 0: // rolled
    return arith::RemUIOp::create(
        b, loc, arith::AddIOp::create(b, loc, index, number(1)), number(size));
  case 1: // turned round
    return arith::SubIOp::create(b, loc, number(size - 1), index);
  case 2:
    return arith::DivUIOp::create(b, loc, index, few);
  case 3:
    return arith::RemUIOp::create(b, loc, index, few);
  case 4: // shifted
    return arith::MaxSIOp::create(
        b, loc, arith::SubIOp::create(b, loc, index, number(1)), number(0));
  default: // each second of them, twice
    return arith::MulIOp::create(
        b, loc, arith::DivUIOp::create(b, loc, index, few), few);
  }
}

/// Gives a user the elements of a tensor at other places: along one dim, or
/// with two dims of one size exchanged.
bool Mutator::reindexOperand(Operation *op) {
  OpOperand *operand = anyOperand(op, [](Value value) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    return type && type.hasStaticShape() && type.getNumElements() > 1 &&
           !isEmpty(value);
  });
  if (!operand || op->getBlock() != &func.getBody().front())
    return false;
  auto type = cast<RankedTensorType>(operand->get().getType());
  int64_t rank = type.getRank();
  auto dim = static_cast<int64_t>(below(rank));
  auto other = static_cast<int64_t>(below(rank));
  bool exchanges =
      other != dim && type.getDimSize(dim) == type.getDimSize(other);
  int64_t size = type.getDimSize(dim);
  if (size == 1)
    return false;
  b.setInsertionPoint(op);
  Value tensor = operand->get();
  Value init = tensor::EmptyOp::create(b, op->getLoc(), type.getShape(),
                                       type.getElementType());
  SmallVector<utils::IteratorType> loops(rank, utils::IteratorType::parallel);
  auto generic = linalg::GenericOp::create(
      b, op->getLoc(), TypeRange{type}, ValueRange{}, ValueRange{init},
      ArrayRef{b.getMultiDimIdentityMap(rank)}, loops,
      [&](OpBuilder &nested, Location loc, ValueRange) {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(nested.getInsertionBlock());
        SmallVector<Value> index;
        for (int64_t at = 0; at < rank; ++at)
          index.push_back(linalg::IndexOp::create(b, loc, at));
        if (exchanges)
          std::swap(index[dim], index[other]);
        else
          index[dim] = otherIndex(loc, index[dim], size);
        Value read = tensor::ExtractOp::create(b, loc, tensor, index);
        linalg::YieldOp::create(b, loc, read);
      });
  operand->set(generic.getResult(0));
  say(llvm::Twine(exchanges ? "dims exchanged" : "dim reindexed") +
      " of operand " + llvm::Twine(operand->getOperandNumber()));
  return true;
}

//===----------------------------------------------------------------------===//
// One mutation
//===----------------------------------------------------------------------===//

bool Mutator::mutate(Operation *op, std::string &description) {
  static constexpr Change changes[] = {
      &Mutator::changeConstant,  &Mutator::changeConstantOperand,
      &Mutator::changePredicate, &Mutator::swapOperands,
      &Mutator::replaceOperand,  &Mutator::replaceOp,
      &Mutator::changeMap,       &Mutator::changeIterator,
      &Mutator::changeSlice,     &Mutator::dropOp,
      &Mutator::repeatOp,        &Mutator::changePermutation,
      &Mutator::changeLoopIndex, &Mutator::changeScatter,
      &Mutator::swapBranches,    &Mutator::computeOnOperand,
      &Mutator::reindexOperand,  &Mutator::swapUses,
  };
  Change change = oneOf(ArrayRef(changes));
  StringRef name = op->getName().getStringRef();
  if (!(this->*change)(op))
    return false;
  description += (description.empty() ? "" : "; ") + name.str() + ": " + text;
  return true;
}

/// Ops that depend on `roots`, with those around them, in order; what depends
/// on them through `stops` alone is left out.
static SmallVector<Operation *>
nearOps(func::FuncOp func, ArrayRef<Value> roots, ArrayRef<Operation *> stops) {
  llvm::DenseSet<Value> reached(roots.begin(), roots.end());
  llvm::DenseSet<Operation *> stopped(stops.begin(), stops.end());
  SmallVector<Operation *> near;
  for (Operation &op : func.getBody().front()) {
    WalkResult depends = op.walk([&](Operation *nested) {
      return llvm::any_of(nested->getOperands(),
                          [&](Value value) { return reached.contains(value); })
                 ? WalkResult::interrupt()
                 : WalkResult::advance();
    });
    if (!depends.wasInterrupted())
      continue;
    op.walk<WalkOrder::PreOrder>([&](Operation *nested) {
      near.push_back(nested);
      // What else they take is made near them.
      for (Value operand : nested->getOperands())
        if (Operation *maker = operand.getDefiningOp())
          near.push_back(maker);
    });
    if (!stopped.contains(&op))
      reached.insert(op.result_begin(), op.result_end());
  }
  return near;
}

bool fuzz::mutate(func::FuncOp func, ArrayRef<Value> roots,
                  ArrayRef<Operation *> stops, Random &random,
                  std::string &description) {
  SmallVector<Operation *> all, near = nearOps(func, roots, stops);
  func.getBody().walk<WalkOrder::PreOrder>(
      [&](Operation *op) { all.push_back(op); });
  Mutator mutator(func, random);
  for (unsigned tries = 0; tries < 1000; ++tries) {
    bool isNear = !near.empty() && random() % 8 != 0;
    const SmallVector<Operation *> &ops = isNear ? near : all;
    Operation *op = ops[random() % ops.size()];
    size_t number = llvm::find(all, op) - all.begin();
    if (!mutator.mutate(op, description))
      continue;
    description += " (op " + std::to_string(number) + ")";
    return true;
  }
  return false;
}
