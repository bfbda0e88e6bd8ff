//===- ScalarOps.cpp - Ops on scalars as expressions ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PointEvaluator.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

static bool isTruthType(Type type) { return type.isInteger(1); }

const Expr *PointEvaluator::scalar(Value value) {
  if (const Expr *known = functionScalars.lookup(value))
    return known;
  const Expr *result = nullptr;
  auto argument = dyn_cast<BlockArgument>(value);
  if (argument && isa<func::FuncOp>(argument.getOwner()->getParentOp())) {
    result = at(value, {});
  } else if (argument || depth >= maxDepth) {
    exhausted |= depth >= maxDepth;
    result = pool.unknown(value.getType().isIntOrIndex(),
                          rangeOfType(value.getType()));
  } else {
    Scalars none;
    ++depth;
    result = evaluateScalarOp(value.getDefiningOp(), none, {},
                              cast<OpResult>(value).getResultNumber());
    --depth;
  }
  functionScalars[value] = result;
  return result;
}

const Expr *PointEvaluator::lookUp(Value value, Scalars &scalars) {
  const Expr *known = scalars.lookup(value);
  return known ? known : scalar(value);
}

SmallVector<const Expr *>
PointEvaluator::evaluateBlock(Block &block, Scalars &scalars, Index loops) {
  for (Operation &op : block.without_terminator())
    for (OpResult result : op.getResults())
      scalars[result] =
          evaluateScalarOp(&op, scalars, loops, result.getResultNumber());
  SmallVector<const Expr *> yielded;
  for (Value value : block.getTerminator()->getOperands())
    yielded.push_back(lookUp(value, scalars));
  return yielded;
}

const Expr *PointEvaluator::evaluateScalarOp(Operation *op, Scalars &scalars,
                                             Index loops, unsigned result) {
  auto notKnown = [&] {
    Type type = op->getResult(result).getType();
    return pool.unknown(type.isIntOrIndex(), rangeOfType(type));
  };
  if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
    if (constant.getType().isIntOrIndex() && !constant.getType().isIndex() &&
        constant.getType().getIntOrFloatBitWidth() > 64)
      return notKnown();
    if (auto integer = dyn_cast<IntegerAttr>(constant.getValue()))
      return pool.integer(isTruthType(integer.getType())
                              ? integer.getValue().getZExtValue()
                              : integer.getInt());
    if (auto real = dyn_cast<FloatAttr>(constant.getValue()))
      return pool.real(real.getValueAsDouble());
    return notKnown();
  }
  if (auto loop = dyn_cast<linalg::IndexOp>(op))
    return loop.getDim() < loops.size() ? loops[loop.getDim()] : notKnown();
  if (auto branch = dyn_cast<scf::IfOp>(op)) {
    if (branch.getElseRegion().empty() || depth >= maxDepth)
      return notKnown();
    const Expr *condition = lookUp(branch.getCondition(), scalars);
    ++depth;
    const Expr *ifTrue =
        evaluateBlock(*branch.thenBlock(), scalars, loops)[result];
    const Expr *ifFalse =
        evaluateBlock(*branch.elseBlock(), scalars, loops)[result];
    --depth;
    return pool.select(condition, ifTrue, ifFalse);
  }
  if (auto extract = dyn_cast<tensor::ExtractOp>(op)) {
    SmallVector<const Expr *> index;
    for (Value value : extract.getIndices())
      index.push_back(lookUp(value, scalars));
    return at(extract.getTensor(), index);
  }
  // Its operands alone say what it gives.
  if (op->getNumRegions() != 0 || !isMemoryEffectFree(op) ||
      !op->getResult(result).getType().isIntOrIndexOrFloat())
    return notKnown();
  SmallVector<const Expr *> operands;
  for (Value value : op->getOperands()) {
    if (!value.getType().isIntOrIndexOrFloat())
      return notKnown();
    operands.push_back(lookUp(value, scalars));
  }
  return llvm::TypeSwitch<Operation *, const Expr *>(op)
      .Case<arith::CmpFOp>([&](auto) { return compareReals(op, operands); })
      .Case<arith::SelectOp>([&](auto) {
        return pool.select(operands[0], operands[1], operands[2]);
      })
      .Case<arith::ExtFOp>([&](auto) { return operands[0]; })
      .Case<arith::TruncFOp>([&](arith::TruncFOp cast) {
        return pool.round(operands[0], cast.getType());
      })
      .Case<arith::SIToFPOp>([&](arith::SIToFPOp cast) {
        // As a signed number, one bit is 0 or -1.
        const Expr *value = isTruthType(cast.getIn().getType())
                                ? pool.scale(operands[0], -1)
                                : operands[0];
        return pool.round(pool.toReal(value), cast.getType());
      })
      .Case<arith::UIToFPOp>([&](arith::UIToFPOp cast) {
        if (operands[0]->range.low < 0)
          return opaque(op, operands);
        return pool.round(pool.toReal(operands[0]), cast.getType());
      })
      .Default([&](Operation *) {
        return op->getResult(result).getType().isIntOrIndex()
                   ? integerOp(op, operands)
                   : opaque(op, operands, result);
      });
}

const Expr *PointEvaluator::opaque(Operation *op, Index operands,
                                   unsigned result) {
  Type type = op->getResult(result).getType();
  if (result != 0)
    return pool.unknown(type.isIntOrIndex(), rangeOfType(type));
  SmallVector<const Expr *> ordered(operands);
  if (op->hasTrait<OpTrait::IsCommutative>())
    llvm::sort(ordered, [](const Expr *lhs, const Expr *rhs) {
      return lhs->id < rhs->id;
    });
  // Attributes and types tell integer ops of one name apart. Of ops on real
  // numbers alone they say how to round and what may be rearranged.
  const void *key = nullptr;
  if (type.isIntOrIndex() || llvm::any_of(op->getOperandTypes(), [](Type from) {
        return from.isIntOrIndex();
      })) {
    Attribute identity[] = {
        op->getAttrDictionary(),
        TypeAttr::get(FunctionType::get(op->getContext(), op->getOperandTypes(),
                                        op->getResultTypes()))};
    key = ArrayAttr::get(op->getContext(), identity).getAsOpaquePointer();
  }
  return pool.apply(op->getName().getStringRef(), key, ordered,
                    type.isIntOrIndex(), rangeOfType(type));
}

const Expr *PointEvaluator::unlessItWraps(Operation *op, Index operands,
                                          const Expr *value) {
  if (llvm::is_contained(operands, value))
    return value;
  Type type = op->getResult(0).getType();
  IntRange range = rangeOfType(type);
  // A sum that may leave 64 bits has the end of them as its bound.
  bool mayLeave =
      value->range.low == range.low || value->range.high == range.high;
  bool isWide = type.isIndex() || type.getIntOrFloatBitWidth() >= 64;
  if (!value->range.within(range) || (isWide && mayLeave))
    return opaque(op, operands);
  return value;
}

const Expr *PointEvaluator::integerOp(Operation *op, Index operands) {
  Type type = op->getResult(0).getType();
  auto isNatural = [](const Expr *expr) { return expr->range.low >= 0; };
  auto dividesBy = [&](const Expr *divisor) {
    return divisor->is(ExprKind::Integer) && divisor->number > 0;
  };
  using Result = const Expr *;
  bool isTruth = isTruthType(type);
  return llvm::TypeSwitch<Operation *, Result>(op)
      .Case<arith::CmpIOp>([&](auto) { return compareIntegers(op, operands); })
      .Case<arith::AndIOp>([&](auto) {
        return isTruth ? pool.conjunction(operands[0], operands[1])
                       : opaque(op, operands);
      })
      .Case<arith::OrIOp>([&](auto) {
        return isTruth ? pool.disjunction(operands[0], operands[1])
                       : opaque(op, operands);
      })
      .Case<arith::XOrIOp>([&](auto) -> Result {
        if (isTruth)
          for (auto [side, other] : {std::pair(0, 1), std::pair(1, 0)})
            if (operands[side]->is(ExprKind::Integer))
              return operands[side]->number ? pool.negate(operands[other])
                                            : operands[other];
        return opaque(op, operands);
      })
      .Case<arith::IndexCastOp, arith::TruncIOp>([&](auto cast) {
        // One bit as a number is -1 or 0; of a number, its last bit.
        bool isOfTruth = isTruth || isTruthType(cast.getIn().getType());
        return !isOfTruth && operands[0]->range.within(rangeOfType(type))
                   ? operands[0]
                   : opaque(op, operands);
      })
      .Case<arith::ExtSIOp>([&](arith::ExtSIOp cast) {
        return isTruthType(cast.getIn().getType()) ? pool.scale(operands[0], -1)
                                                   : operands[0];
      })
      .Case<arith::ExtUIOp, arith::IndexCastUIOp>([&](auto) {
        return !isTruth && isNatural(operands[0]) &&
                       operands[0]->range.within(rangeOfType(type))
                   ? operands[0]
                   : opaque(op, operands);
      })
      .Case<arith::AddIOp>([&](auto) {
        return isTruth ? opaque(op, operands)
                       : unlessItWraps(op, operands,
                                       pool.add(operands[0], operands[1]));
      })
      .Case<arith::SubIOp>([&](auto) {
        return isTruth ? opaque(op, operands)
                       : unlessItWraps(op, operands,
                                       pool.subtract(operands[0], operands[1]));
      })
      .Case<arith::MulIOp>([&](auto) -> Result {
        if (!isTruth)
          for (auto [side, other] : {std::pair(0, 1), std::pair(1, 0)})
            if (operands[side]->is(ExprKind::Integer))
              return unlessItWraps(
                  op, operands,
                  pool.scale(operands[other], operands[side]->number));
        return opaque(op, operands);
      })
      .Case<arith::DivSIOp, arith::DivUIOp>([&](auto) {
        return !isTruth && isNatural(operands[0]) && dividesBy(operands[1])
                   ? pool.floorDiv(operands[0], operands[1]->number)
                   : opaque(op, operands);
      })
      .Case<arith::FloorDivSIOp>([&](auto) {
        return !isTruth && dividesBy(operands[1])
                   ? pool.floorDiv(operands[0], operands[1]->number)
                   : opaque(op, operands);
      })
      .Case<arith::RemSIOp, arith::RemUIOp>([&](auto) {
        return !isTruth && isNatural(operands[0]) && dividesBy(operands[1])
                   ? pool.mod(operands[0], operands[1]->number)
                   : opaque(op, operands);
      })
      .Case<arith::MaxSIOp, arith::MinSIOp, arith::MaxUIOp, arith::MinUIOp>(
          [&](auto) { return minOrMax(op, operands); })
      .Default([&](Operation *) { return opaque(op, operands); });
}

const Expr *PointEvaluator::minOrMax(Operation *op, Index operands) {
  const Expr *lhs = operands[0], *rhs = operands[1];
  bool isMax = isa<arith::MaxSIOp, arith::MaxUIOp>(op);
  bool isUnsigned = isa<arith::MaxUIOp, arith::MinUIOp>(op);
  if (isTruthType(op->getResult(0).getType()) ||
      (isUnsigned && (lhs->range.low < 0 || rhs->range.low < 0)))
    return opaque(op, operands);
  if (lhs->range.low >= rhs->range.high)
    return isMax ? lhs : rhs;
  if (rhs->range.low >= lhs->range.high)
    return isMax ? rhs : lhs;
  if (assumption.trustsClamps && lhs->is(ExprKind::Integer))
    return rhs;
  if (assumption.trustsClamps && rhs->is(ExprKind::Integer))
    return lhs;
  return opaque(op, operands);
}

const Expr *PointEvaluator::compareIntegers(Operation *op, Index operands) {
  auto compare = cast<arith::CmpIOp>(op);
  const Expr *lhs = operands[0], *rhs = operands[1];
  using Predicate = arith::CmpIPredicate;
  Predicate predicate = compare.getPredicate();
  if (predicate == Predicate::eq)
    return pool.equal(lhs, rhs);
  if (predicate == Predicate::ne)
    return pool.negate(pool.equal(lhs, rhs));
  bool isUnsigned = predicate == Predicate::ult ||
                    predicate == Predicate::ule ||
                    predicate == Predicate::ugt || predicate == Predicate::uge;
  // Unsigned and signed agree where nothing is negative; one bit is, signed.
  if (isUnsigned ? lhs->range.low < 0 || rhs->range.low < 0
                 : isTruthType(compare.getLhs().getType()))
    return opaque(op, operands);
  switch (predicate) {
  case Predicate::slt:
  case Predicate::ult:
    return pool.negate(pool.lessOrEqual(rhs, lhs));
  case Predicate::sle:
  case Predicate::ule:
    return pool.lessOrEqual(lhs, rhs);
  case Predicate::sgt:
  case Predicate::ugt:
    return pool.negate(pool.lessOrEqual(lhs, rhs));
  default:
    return pool.lessOrEqual(rhs, lhs);
  }
}

/// A truth value that went through real numbers comes back by a comparison.
const Expr *PointEvaluator::compareReals(Operation *op, Index operands) {
  auto compare = cast<arith::CmpFOp>(op);
  const Expr *lhs = head(operands[0]);
  std::optional<double> rhs = constant(operands[1]);
  using Predicate = arith::CmpFPredicate;
  bool isTruth =
      lhs->is(ExprKind::ToReal) && lhs->operand(0)->range.within({0, 1});
  if (isTruth && rhs == 0) {
    switch (compare.getPredicate()) {
    case Predicate::ONE:
    case Predicate::UNE:
    case Predicate::OGT:
    case Predicate::UGT:
      return lhs->operand(0);
    case Predicate::OEQ:
    case Predicate::UEQ:
    case Predicate::OLE:
    case Predicate::ULE:
      return pool.negate(lhs->operand(0));
    default:
      break;
    }
  }
  std::string name =
      ("arith.cmpf " + arith::stringifyCmpFPredicate(compare.getPredicate()))
          .str();
  return pool.apply(name, nullptr, operands, /*isInteger=*/true, {0, 1});
}
