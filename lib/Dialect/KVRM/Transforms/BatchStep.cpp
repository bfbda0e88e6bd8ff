//===- BatchStep.cpp - A decode step of other rows, and its prefill -------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Batch/RowBuilder.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Arith/IR/Arith.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_BATCHSTEPPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;
using namespace mlir::kvrm::batch;

namespace {

/// Builds one step of an analysed one. A decode step has a token a row; a
/// prefill has one row, whose tokens are rows to all but attention.
class BatchedStep {
public:
  BatchedStep(func::FuncOp source, const RowAnalysis &analysis, int64_t slots,
              int64_t chunk)
      : source(source), from(source.getBody().front()), analysis(analysis),
        slots(slots), chunk(chunk), b(source.getLoc(), source) {}

  void build(StringRef name);

private:
  bool isPrefill() const { return chunk > 0; }
  void createFunction(StringRef name);
  void mapArguments(RowBuilder &rows);
  Value spreadPositions();
  Value lastToken();
  void attend(CachedAttentionOp op, RowBuilder &rows);
  /// The ops that attention needs, in all rows.
  llvm::DenseSet<Operation *> findForAttention();
  Value buildBody();
  Value buildTail(RowBuilder &all, IRMapping &shared,
                  const llvm::DenseSet<Operation *> &built);

  func::FuncOp source;
  Block &from;
  const RowAnalysis &analysis;
  int64_t slots, chunk;
  ImplicitLocOpBuilder b;
  Block *entry = nullptr;
  Value tokens, positions, counts, slot, keyCache, valueCache;
};

} // namespace

static RankedTensorType withSlots(Type cache, int64_t slots) {
  auto type = cast<RankedTensorType>(cache);
  SmallVector<int64_t> shape(type.getShape());
  shape[1] = slots;
  return type.clone(shape);
}

void BatchedStep::createFunction(StringRef name) {
  Type i32 = b.getI32Type();
  auto cache = withSlots(source.getArgumentTypes().back(), slots);
  auto vocabulary =
      cast<RankedTensorType>(source.getResultTypes()[0]).getDimSize(1);
  int64_t rows = isPrefill() ? 1 : slots;
  auto ofRows = RankedTensorType::get({rows}, i32);
  SmallVector<Type> inputs = {
      RankedTensorType::get({rows, isPrefill() ? chunk : 1}, i32), ofRows};
  if (isPrefill())
    inputs.append(2, ofRows);
  inputs.append(2, cache);
  auto step = func::FuncOp::create(
      b, name,
      b.getFunctionType(
          inputs, {RankedTensorType::get({rows, vocabulary}, b.getF32Type()),
                   cache, cache}));
  step->setAttr(KVRMDialect::getStepAttrName(), b.getUnitAttr());
  entry = step.addEntryBlock();
  b.setInsertionPointToStart(entry);
  auto next = entry->args_begin();
  tokens = *next++;
  positions = *next++;
  if (isPrefill()) {
    counts = *next++;
    slot = *next++;
  }
  keyCache = *next++;
  valueCache = *next++;
}

/// The position of each token of a chunk, `[chunk]`.
Value BatchedStep::spreadPositions() {
  Value init = tensor::EmptyOp::create(b, ArrayRef{chunk}, b.getI32Type());
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, positions, init,
             ArrayRef{AffineMap::get(1, 0, b.getAffineConstantExpr(0)),
                      b.getMultiDimIdentityMap(1)},
             ArrayRef{utils::IteratorType::parallel},
             [](OpBuilder &nested, Location loc, ValueRange args) {
               Value token = linalg::IndexOp::create(nested, loc, 0);
               Value number = arith::IndexCastOp::create(
                   nested, loc, nested.getI32Type(), token);
               Value position =
                   arith::AddIOp::create(nested, loc, args.front(), number);
               linalg::YieldOp::create(nested, loc, position);
             })
      .getResult(0);
}

/// The number of a chunk's last valid token, `[1]`.
Value BatchedStep::lastToken() {
  Value init = tensor::EmptyOp::create(b, ArrayRef<int64_t>{1}, b.getI32Type());
  AffineMap identity = b.getMultiDimIdentityMap(1);
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, counts, init,
             ArrayRef{identity, identity},
             ArrayRef{utils::IteratorType::parallel},
             [](OpBuilder &nested, Location loc, ValueRange args) {
               Value one = arith::ConstantOp::create(
                   nested, loc, nested.getI32IntegerAttr(1));
               Value last =
                   arith::SubIOp::create(nested, loc, args.front(), one);
               linalg::YieldOp::create(nested, loc, last);
             })
      .getResult(0);
}

void BatchedStep::mapArguments(RowBuilder &rows) {
  Value rowTokens = tokens, rowPositions = positions;
  if (isPrefill()) {
    Value flat = tensor::CollapseShapeOp::create(
        b, tokens, ArrayRef<ReassociationIndices>{{0, 1}});
    rowTokens = tensor::ExpandShapeOp::create(
        b, RankedTensorType::get({chunk, 1}, b.getI32Type()), flat,
        ArrayRef<ReassociationIndices>{{0, 1}});
    rowPositions = spreadPositions();
  }
  Value oldTokens = from.getArgument(0), oldPositions = from.getArgument(1);
  rows.map(oldTokens, rows.fromFront(rowTokens, oldTokens));
  rows.map(oldPositions, rows.fromFront(rowPositions, oldPositions));
}

/// `[tokens, 1, heads, columns]` as one row of so many queries, or back.
static Value swapRowsAndQueries(ImplicitLocOpBuilder &b, Value value) {
  auto type = cast<RankedTensorType>(value.getType());
  Value flat = tensor::CollapseShapeOp::create(
      b, value, ArrayRef<ReassociationIndices>{{0, 1}, {2}, {3}});
  SmallVector<int64_t> shape(type.getShape());
  std::swap(shape[0], shape[1]);
  return tensor::ExpandShapeOp::create(
      b, type.clone(shape), flat,
      ArrayRef<ReassociationIndices>{{0, 1}, {2}, {3}});
}

void BatchedStep::attend(CachedAttentionOp op, RowBuilder &rows) {
  auto operandOf = [&](Value old) {
    Value value = rows.toFront(old);
    return isPrefill() ? swapRowsAndQueries(b, value) : value;
  };
  Value query = operandOf(op.getQuery()), key = operandOf(op.getKey()),
        value = operandOf(op.getValue());
  auto attention = CachedAttentionOp::create(
      b, TypeRange{query.getType(), keyCache.getType(), valueCache.getType()},
      query, key, value, keyCache, valueCache, positions, counts, slot,
      op.getLayerAttr(), op.getScaleAttr(), op.getWindowAttr(),
      op.getSoftcapAttr());
  keyCache = attention.getNewKeyCache();
  valueCache = attention.getNewValueCache();
  Value output = attention.getOutput();
  if (isPrefill())
    output = swapRowsAndQueries(b, output);
  rows.map(op.getOutput(), rows.fromFront(output, op.getOutput()));
}

llvm::DenseSet<Operation *> BatchedStep::findForAttention() {
  SetVector<Operation *> slice;
  BackwardSliceOptions options;
  options.omitBlockArguments = true;
  options.omitUsesFromAbove = false;
  options.inclusive = true;
  for (auto attention : source.getOps<CachedAttentionOp>())
    (void)getBackwardSlice(attention.getOperation(), &slice, options);
  return {slice.begin(), slice.end()};
}

/// Logits of a prompt are those of its last token: what attention does not need
/// is computed for that alone.
Value BatchedStep::buildTail(RowBuilder &all, IRMapping &shared,
                             const llvm::DenseSet<Operation *> &built) {
  RowBuilder last(analysis, b, /*rows=*/1, shared);
  Value number = lastToken();
  llvm::DenseSet<Value> selected;
  auto select = [&](Value value) {
    bool isBuilt =
        isa<BlockArgument>(value) || built.contains(value.getDefiningOp());
    if (isBuilt && analysis.of(value) && selected.insert(value).second)
      last.map(value, last.selectRow(value, all, number));
  };
  for (Operation &op : from.without_terminator()) {
    if (built.contains(&op))
      continue;
    op.walk([&](Operation *nested) {
      for (Value operand : nested->getOperands())
        if (operand.getParentBlock() == &from)
          select(operand);
    });
    last.build(op);
  }
  Value logits = from.getTerminator()->getOperand(0);
  select(logits);
  return last.toFront(logits);
}

Value BatchedStep::buildBody() {
  IRMapping shared;
  RowBuilder rows(analysis, b, isPrefill() ? chunk : slots, shared);
  mapArguments(rows);
  llvm::DenseSet<Operation *> needed = findForAttention();
  for (Operation &op : from.without_terminator()) {
    if (isPrefill() && !needed.contains(&op))
      continue;
    if (auto attention = dyn_cast<CachedAttentionOp>(op))
      attend(attention, rows);
    else
      rows.build(op);
  }
  if (isPrefill())
    return buildTail(rows, shared, needed);
  return rows.toFront(from.getTerminator()->getOperand(0));
}

void BatchedStep::build(StringRef name) {
  createFunction(name);
  Value logits = buildBody();
  func::ReturnOp::create(b, ValueRange{logits, keyCache, valueCache});
}

/// Whether a step has tokens, positions and caches, and logits and caches.
static bool isAdopted(func::FuncOp step) {
  auto isOfRank = [](Type type, int64_t rank) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    return tensor && tensor.hasStaticShape() && tensor.getRank() == rank;
  };
  ArrayRef<Type> inputs = step.getArgumentTypes(),
                 results = step.getResultTypes();
  return inputs.size() == 4 && isOfRank(inputs[0], 2) &&
         isOfRank(inputs[1], 1) && isOfRank(inputs[2], 5) &&
         inputs[3] == inputs[2] && results.size() == 3 &&
         isOfRank(results[0], 2) && results[1] == inputs[2] &&
         results[2] == inputs[2] && !step.getOps<CachedAttentionOp>().empty();
}

namespace {
class BatchStepPass : public kvrm::impl::BatchStepPassBase<BatchStepPass> {
public:
  using BatchStepPassBase::BatchStepPassBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> steps = getSteps(getOperation());
    if (steps.size() != 1 || !isAdopted(steps.front())) {
      getOperation().emitError("has no single adopted step; run "
                               "kvrm-adopt-step first");
      return signalPassFailure();
    }
    func::FuncOp step = steps.front();
    if (slots < 0 || slots > KVRM_MAX_ROWS || chunk < 0 ||
        chunk > KVRM_MAX_QUERIES) {
      step.emitError("slots or chunk are out of range: ")
          << slots << " and " << chunk;
      return signalPassFailure();
    }
    RowAnalysis analysis(step);
    if (failed(analysis.run()))
      return signalPassFailure();
    int64_t rows = slots == 0 ? analysis.getRows() : slots.getValue();
    std::string name = step.getSymName().str();
    step.setSymName(name + ".of_graph");
    BatchedStep(step, analysis, rows, 0).build(name);
    if (chunk > 0)
      BatchedStep(step, analysis, rows, chunk).build("prefill");
    step.erase();
  }
};
} // namespace
