//===- KVRMForms.cpp - Forms of the dense part ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FormVerifiers.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::kvrm;

//===----------------------------------------------------------------------===//
// What forms share
//===----------------------------------------------------------------------===//

static LogicalResult verifyEpsilon(Operation *op, const APFloat &epsilon) {
  if (!epsilon.isFinite() || epsilon.isNegative() || epsilon.isZero())
    return op->emitOpError("epsilon must be positive and finite");
  return success();
}

/// A weight of elements, `rows` of them, which are `expected`.
template <typename OpT>
static LogicalResult verifyElements(OpT op, int64_t rows, StringRef meaning,
                                    const Twine &expected) {
  if (failed(verifyRank(op, "weight", op.getWeight(), 2,
                        ("[" + meaning + ", depth]").str())))
    return failure();
  ArrayRef<int64_t> weight = shapeOf(op.getWeight());
  if (getElementTypeOrSelf(op.getWeight()).isInteger(8))
    return op.emitOpError("weight is of bytes, and in no block format");
  if (weight[1] != op.getDepth())
    return op.emitOpError("input has ")
           << op.getDepth() << " columns, weight " << weight[1];
  if (weight[0] != rows)
    return op.emitOpError("weight has ")
           << weight[0] << " rows, expected " << expected;
  return success();
}

/// What products share: an input, a weight as deep as it is wide, and perhaps a
/// norm between the two.
template <typename OpT>
static LogicalResult verifyProduct(OpT op, int64_t rows, StringRef meaning,
                                   const Twine &expected) {
  if (failed(op.getFormat() ? verifyRecords(op, *op.getFormat(), op.getWeight(),
                                            rows, op.getDepth(), "input")
                            : verifyElements(op, rows, meaning, expected)))
    return failure();
  if (op.getNormElement() && !op.getGain())
    return op.emitOpError("says what a norm rounds to, and has none");
  if (!op.getGain() && !op.getEpsilon())
    return success();
  if (!op.getGain() || !op.getEpsilon())
    return op.emitOpError("has one of gain and epsilon, and a norm is both");
  if (failed(verifyRank(op, "gain", op.getGain(), 1, "[depth]")))
    return failure();
  if (shapeOf(op.getGain())[0] != op.getDepth())
    return op.emitOpError("input has ")
           << op.getDepth() << " columns, gain " << shapeOf(op.getGain())[0];
  if (!getElementTypeOrSelf(op.getInput()).isF32())
    return op.emitOpError("input is of ")
           << getElementTypeOrSelf(op.getInput()) << ", and a norm's is f32";
  Type normed = op.getMultiplicandElement();
  if (!normed.isF32() && !normed.isF16() && !normed.isBF16())
    return op.emitOpError("has a norm, which rounds to f32, f16 or bf16 and "
                          "not to ")
           << normed;
  return verifyEpsilon(op, *op.getEpsilon());
}

//===----------------------------------------------------------------------===//
// LinearOp
//===----------------------------------------------------------------------===//

void LinearOp::getEffects(Effects &effects) { addEffects(*this, effects); }

LogicalResult LinearOp::verify() {
  auto parts = static_cast<int64_t>(getParts());
  if (failed(verifyRank(*this, "input", getInput(), 2, "[rows, depth]")) ||
      failed(verifyRank(*this, "output", getOutput(), 2, "[rows, columns]")))
    return failure();
  int64_t rows = 0;
  if (llvm::MulOverflow(parts, getColumns(), rows))
    return emitOpError("has ") << parts << " parts, which are too many";
  if (failed(verifyProduct(*this, rows, "parts * columns",
                           Twine(parts) + " x " + Twine(getColumns()))))
    return failure();
  if (shapeOf(getOutput())[0] != getRows())
    return emitOpError("input has ")
           << getRows() << " rows, output " << shapeOf(getOutput())[0];
  for (auto [i, extra] : llvm::enumerate(getExtras())) {
    ArrayRef<int64_t> shape = shapeOf(extra);
    if (shape != shapeOf(getOutput()) && shape != ArrayRef{getColumns()})
      return emitOpError("extra ")
             << i << " is " << extra.getType() << ", expected a shape ["
             << getRows() << ", " << getColumns() << "] or [" << getColumns()
             << "]";
    if (failed(
            verifyContiguousRows(*this, "extra " + Twine(i), extra.getType())))
      return failure();
  }
  return success();
}

bool LinearOp::isBodyOp(Operation *op) {
  auto isScalar = [](Type type) { return type.isIntOrIndexOrFloat(); };
  return isa_and_present<arith::ArithDialect, math::MathDialect>(
             op->getDialect()) &&
         op->getNumRegions() == 0 && isMemoryEffectFree(op) &&
         llvm::all_of(op->getOperandTypes(), isScalar) &&
         llvm::all_of(op->getResultTypes(), isScalar);
}

LogicalResult LinearOp::verifyRegions() {
  // Not more types than there are arguments, whatever `parts` says.
  if (getBody().getNumArguments() != getParts() + getExtras().size())
    return emitOpError("body has ")
           << getBody().getNumArguments() << " arguments, expected "
           << getParts() << " for parts and " << getExtras().size()
           << " for extras";
  SmallVector<Type> expected(getParts(), Float32Type::get(getContext()));
  for (Value extra : getExtras())
    expected.push_back(getElementTypeOrSelf(extra));
  if (getBody().getArgumentTypes() != TypeRange(expected))
    return emitOpError("body takes (")
           << getBody().getArgumentTypes() << "), expected (" << expected
           << "): f32 for each part, then the element of each extra";
  Block &block = getBody().front();
  for (Operation &op : block.without_terminator())
    if (!isBodyOp(&op))
      return op.emitOpError("stands in the body of a kvrm.linear, which has "
                            "pure ops of arith and math on scalars alone");
  auto yield = dyn_cast<YieldOp>(block.getTerminator());
  if (!yield)
    return emitOpError("body must end in kvrm.yield");
  Type element = getElementTypeOrSelf(getOutput());
  if (yield.getValue().getType() != element)
    return emitOpError("body yields ")
           << yield.getValue().getType() << ", output is of " << element;
  return success();
}

//===----------------------------------------------------------------------===//
// QKVProjectionOp
//===----------------------------------------------------------------------===//

void QKVProjectionOp::getEffects(Effects &effects) {
  addEffects(*this, effects);
}

/// Whole heads of a token a row, all of one element.
static LogicalResult verifyHeads(QKVProjectionOp op, StringRef name,
                                 Value heads) {
  if (failed(verifyRank(op, name, heads, 2, "[rows, heads * head_dim]")))
    return failure();
  if (shapeOf(heads)[0] != op.getRows())
    return op.emitOpError("input has ")
           << op.getRows() << " rows, " << name << " " << shapeOf(heads)[0];
  if (shapeOf(heads)[1] % op.getHeadDim())
    return op.emitOpError(name)
           << " has " << shapeOf(heads)[1] << " columns, not whole heads of "
           << op.getHeadDim();
  Type element = getElementTypeOrSelf(op.getQuery());
  if (getElementTypeOrSelf(heads) != element)
    return op.emitOpError(name) << " is of " << getElementTypeOrSelf(heads)
                                << ", query of " << element;
  return success();
}

LogicalResult QKVProjectionOp::verify() {
  if (failed(verifyRank(*this, "input", getInput(), 2, "[rows, depth]")) ||
      failed(verifyRank(*this, "cosines", getCosines(), 2,
                        "[rows, head_dim / 2]")) ||
      failed(verifyRank(*this, "sines", getSines(), 2, "[rows, head_dim / 2]")))
    return failure();
  if (shapeOf(getCosines()) != shapeOf(getSines()) ||
      shapeOf(getCosines())[0] != getRows())
    return emitOpError("cosines and sines must be ")
           << getRows() << " rows of one length, got " << getCosines().getType()
           << " and " << getSines().getType();
  if (failed(verifyHeads(*this, "query", getQuery())) ||
      failed(verifyHeads(*this, "key", getKey())) ||
      failed(verifyHeads(*this, "value", getValue())))
    return failure();
  if (shapeOf(getKey()) != shapeOf(getValue()))
    return emitOpError("key is ")
           << getKey().getType() << " and value " << getValue().getType()
           << ", which differ in shape";
  if (getBias()) {
    if (failed(verifyRank(*this, "bias", getBias(), 1, "[heads * head_dim]")))
      return failure();
    if (shapeOf(getBias())[0] != getColumns())
      return emitOpError("weight has ")
             << getColumns() << " rows, bias " << shapeOf(getBias())[0];
  }
  if (failed(verifyProduct(*this, getColumns(), "heads * head_dim",
                           "those of query, key and value, " +
                               Twine(getColumns()))))
    return failure();
  if (getNumResults() != 0 &&
      getResultTypes() !=
          getOperation()
              ->getOperands()
              .slice(getDpsInitsMutable()[0].getOperandNumber(), 3)
              .getTypes())
    return emitOpError("must return what it writes: query, key and value");
  return success();
}

//===----------------------------------------------------------------------===//
// RmsNormOp
//===----------------------------------------------------------------------===//

void RmsNormOp::getEffects(Effects &effects) { addEffects(*this, effects); }

LogicalResult RmsNormOp::verify() {
  if (failed(verifyRank(*this, "input", getInput(), 2, "[rows, columns]")) ||
      failed(verifyRank(*this, "gain", getGain(), 1, "[columns]")) ||
      failed(verifyRank(*this, "output", getOutput(), 2, "[rows, columns]")))
    return failure();
  if (shapeOf(getOutput()) != shapeOf(getInput()))
    return emitOpError("input is ")
           << getInput().getType() << " and output " << getOutput().getType()
           << ", which differ in shape";
  int64_t columns = shapeOf(getInput())[1];
  if (shapeOf(getGain())[0] != columns)
    return emitOpError("input has ")
           << columns << " columns, gain " << shapeOf(getGain())[0];
  return verifyEpsilon(*this, getEpsilon());
}

//===----------------------------------------------------------------------===//
// Collectives
//===----------------------------------------------------------------------===//

/// Of an input and an output that a transport takes as runs of bytes.
static LogicalResult verifyWhole(Operation *op, StringRef name, Value operand) {
  auto type = cast<ShapedType>(operand.getType());
  if (!kvrm::detail::isPositiveShape(type, type.getRank()))
    return op->emitOpError(name)
           << " must have a static, positive shape, got " << type;
  auto buffer = dyn_cast<MemRefType>(type);
  if (!buffer)
    return success();
  auto [strides, offset] = buffer.getStridesAndOffset();
  auto whole = MemRefType::get(buffer.getShape(), buffer.getElementType());
  if (strides != whole.getStridesAndOffset().first)
    return op->emitOpError(name) << " is " << type << ", not contiguous";
  return success();
}

template <typename OpT> static LogicalResult verifyCollective(OpT op) {
  if (failed(verifyWhole(op, "input", op.getInput())) ||
      failed(verifyWhole(op, "output", op.getOutput())))
    return failure();
  Type in = getElementTypeOrSelf(op.getInput());
  Type out = getElementTypeOrSelf(op.getOutput());
  if (in != out)
    return op.emitOpError("input is of ") << in << " and output of " << out;
  auto module = op->template getParentOfType<ModuleOp>();
  if (module && getRanks(module) < 2)
    return op.emitOpError("stands in a module without 'kvrm.ranks', and so of "
                          "one rank");
  return success();
}

void AllReduceOp::getEffects(Effects &effects) { addEffects(*this, effects); }

LogicalResult AllReduceOp::verify() {
  if (failed(verifyCollective(*this)))
    return failure();
  if (shapeOf(getInput()) != shapeOf(getOutput()))
    return emitOpError("input is ")
           << getInput().getType() << " and output " << getOutput().getType()
           << ", which differ in shape";
  return success();
}

void AllGatherOp::getEffects(Effects &effects) { addEffects(*this, effects); }

LogicalResult AllGatherOp::verify() {
  if (failed(verifyCollective(*this)))
    return failure();
  ArrayRef<int64_t> output = shapeOf(getOutput());
  if (output.empty() || output.drop_front() != shapeOf(getInput()))
    return emitOpError("output is ")
           << getOutput().getType()
           << ", expected the input's shape with the number of ranks in front";
  auto module = (*this)->getParentOfType<ModuleOp>();
  if (module && output.front() != getRanks(module))
    return emitOpError("output is of ")
           << output.front() << " ranks, and the module of "
           << getRanks(module);
  return success();
}
