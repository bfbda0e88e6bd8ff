//===- AttentionPoint.cpp - A fused attention, written out ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// softmax(scale * q . k, masked) . v, where loops run over the operands as maps
// say. iree_linalg_ext.attention has its maps; tm_tensor.attention is one of
// them, `[batch..., row, column]` each.
//
//===----------------------------------------------------------------------===//

#include "PointEvaluator.h"

#include "mlir/IR/AffineMap.h"
#include "mlir/IR/BuiltinAttributes.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm::raise;

static bool isOfTorch(Operation *op) {
  return op->getName().getStringRef() == "tm_tensor.attention";
}

bool mlir::kvrm::raise::isFusedAttention(Operation *op) {
  return isOfTorch(op) ||
         op->getName().getStringRef() == "iree_linalg_ext.attention";
}

namespace {

/// Operands with the loops along their dims.
struct AttentionForm {
  struct Operand {
    Value tensor;
    AffineMap map;

    bool runsAlong(unsigned loop) const { return map.isFunctionOfDim(loop); }
  };
  Operand query, key, value, output;
  std::optional<Operand> mask;
  Value scale;                ///< null: one over the root of the width
  Block *body = nullptr;      ///< what becomes of a score; null: nothing
  SmallVector<int64_t> sizes; ///< of the loops
  /// Loops over which scores and outputs are sums.
  SmallVector<unsigned> columns, tokens;

  SmallVector<Operand> operands() const {
    SmallVector<Operand> list{query, key, value, output};
    if (mask)
      list.push_back(*mask);
    return list;
  }
  LogicalResult sortLoops();
};

} // namespace

/// The sizes of the loops, and which are summed over. Fails where operands do
/// not agree, or loops are none of an attention's: nothing else verifies that.
LogicalResult AttentionForm::sortLoops() {
  sizes.assign(output.map.getNumDims(), 0);
  for (const Operand &operand : operands()) {
    auto type = dyn_cast<RankedTensorType>(operand.tensor.getType());
    if (!type || !type.hasStaticShape() ||
        operand.map.getNumDims() != sizes.size() ||
        operand.map.getNumSymbols() != 0 ||
        operand.map.getNumResults() != type.getRank() ||
        !operand.map.isProjectedPermutation())
      return failure();
    for (auto [dim, size] : llvm::enumerate(type.getShape())) {
      int64_t &loop = sizes[operand.map.getDimPosition(dim)];
      if (loop != 0 && loop != size)
        return failure();
      loop = size;
    }
  }
  for (unsigned loop = 0; loop < sizes.size(); ++loop) {
    bool ofQuery = query.runsAlong(loop), ofKey = key.runsAlong(loop);
    bool ofValue = value.runsAlong(loop);
    if (output.runsAlong(loop))
      continue;
    if (ofQuery && ofKey && !ofValue && !(mask && mask->runsAlong(loop)))
      columns.push_back(loop);
    else if (!ofQuery && ofKey && ofValue)
      tokens.push_back(loop);
    else
      return failure();
  }
  return success(!columns.empty() && tokens.size() == 1);
}

/// Queries, keys, values, perhaps a mask, and the tensor to write to.
static std::optional<AttentionForm> formOfTorch(Operation *op) {
  unsigned count = op->getNumOperands();
  auto type = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if (count < 4 || count > 5 || !type || type.getRank() < 2)
    return std::nullopt;
  auto batch = static_cast<unsigned>(type.getRank()) - 2;
  unsigned row = batch, column = batch + 1, depth = batch + 2;
  unsigned token = batch + 3;
  auto over = [&](Value tensor, unsigned first, unsigned second) {
    SmallVector<unsigned> loops = llvm::to_vector(llvm::seq(0u, batch));
    loops.append({first, second});
    return AttentionForm::Operand{
        tensor, AffineMap::getMultiDimMapWithTargets(batch + 4, loops,
                                                     op->getContext())};
  };
  AttentionForm form;
  form.query = over(op->getOperand(0), row, depth);
  form.key = over(op->getOperand(1), token, depth);
  form.value = over(op->getOperand(2), token, column);
  if (count == 5)
    form.mask = over(op->getOperand(3), row, token);
  form.output = over(op->getResult(0), row, column);
  return form;
}

/// Queries, keys, values, the scale, perhaps a mask, and the tensor to write
/// to, each with its map.
static std::optional<AttentionForm> formOfIREE(Operation *op) {
  auto maps = op->getAttrOfType<ArrayAttr>("indexing_maps");
  unsigned count = op->getNumOperands();
  if (!maps || maps.size() != count || count < 5 || count > 6 ||
      op->getNumResults() != 1 || op->getNumRegions() != 1 ||
      !op->getRegion(0).hasOneBlock() ||
      !llvm::all_of(maps, llvm::IsaPred<AffineMapAttr>))
    return std::nullopt;
  // A mask is where there is one more; segments have to say the same.
  if (auto segments =
          op->getAttrOfType<DenseI32ArrayAttr>("operandSegmentSizes");
      segments &&
      segments.asArrayRef() !=
          ArrayRef<int32_t>{1, 1, 1, 1, static_cast<int32_t>(count) - 5, 1})
    return std::nullopt;
  auto operand = [&](unsigned number) {
    return AttentionForm::Operand{op->getOperand(number),
                                  cast<AffineMapAttr>(maps[number]).getValue()};
  };
  AttentionForm form;
  form.query = operand(0);
  form.key = operand(1);
  form.value = operand(2);
  form.scale = op->getOperand(3);
  if (count == 6)
    form.mask = operand(4);
  form.output = {op->getResult(0), operand(count - 1).map};
  form.body = &op->getRegion(0).front();
  if (!isa<FloatType>(form.scale.getType()) ||
      form.body->getNumArguments() != 1 || form.body->empty() ||
      form.body->back().getNumOperands() != 1)
    return std::nullopt;
  return form;
}

const Expr *PointEvaluator::modifiedScore(Block &body, const Expr *score) {
  Scalars scalars;
  for (BlockArgument argument : body.getArguments())
    scalars[argument] = score;
  return evaluateBlock(body, scalars, {}).front();
}

const Expr *PointEvaluator::defineAttention(Operation *op, Index index) {
  // An attribute that is not known could say anything.
  if (!op->getDiscardableAttrs().empty())
    return nullptr;
  std::optional<AttentionForm> form =
      isOfTorch(op) ? formOfTorch(op) : formOfIREE(op);
  if (!form || failed(form->sortLoops()))
    return nullptr;
  SmallVector<const Expr *> loops(form->sizes.size());
  for (auto [dim, at] : llvm::enumerate(index))
    loops[form->output.map.getDimPosition(dim)] = at;
  for (unsigned loop : form->columns)
    loops[loop] = pool.symbol(form->sizes[loop], "k");
  unsigned along = form->tokens.front();
  auto point = [&](const AttentionForm::Operand &operand) {
    SmallVector<const Expr *> place;
    for (AffineExpr dim : operand.map.getResults())
      place.push_back(loops[cast<AffineDimExpr>(dim).getPosition()]);
    return at(operand.tensor, place);
  };
  auto apply = [&](StringRef name, Index operands) {
    return pool.apply(name, nullptr, operands, /*isInteger=*/false);
  };
  int64_t width = 1;
  for (unsigned loop : form->columns)
    width *= form->sizes[loop];
  auto exponential = [&](const Expr *token) {
    loops[along] = token;
    const Expr *sum =
        apply("arith.mulf", {point(form->query), point(form->key)});
    for (unsigned loop : form->columns)
      sum = pool.reduce(Reduction::Sum, sum, pool.real(0), loops[loop]);
    const Expr *scale =
        form->scale ? scalar(form->scale)
                    : pool.real(1.0 / std::sqrt(static_cast<double>(width)));
    const Expr *score = apply("arith.mulf", {scale, sum});
    if (form->body)
      score = modifiedScore(*form->body, score);
    if (form->mask) {
      const Expr *element = point(*form->mask);
      score = element->isInteger
                  ? pool.select(element, score, pool.real(-INFINITY))
                  : apply("arith.addf", {score, element});
    }
    return apply("math.exp", {score});
  };
  const Expr *token = pool.symbol(form->sizes[along], "s");
  const Expr *other = pool.symbol(form->sizes[along], "s");
  const Expr *numerator = exponential(token);
  // Both are the same exponential: the columns that they sum over, too.
  const Expr *denominator = pool.reduce(
      Reduction::Sum, substitute(numerator, token, other), pool.real(0), other);
  const Expr *probability = apply("arith.divf", {numerator, denominator});
  const Expr *weighted = apply("arith.mulf", {probability, point(form->value)});
  return pool.reduce(Reduction::Sum, weighted, pool.real(0), token);
}
