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

/// Rows of the step that is built that take the same number of tokens: slots
/// that decode one each, or a prompt, whose tokens are rows to all but
/// attention.
struct RowBatch {
  int64_t rows, queries;
  bool isPrompt;
  int64_t firstToken = 0; ///< of the step's
  // Arguments, the last two of a prompt.
  Value tokens = {}, positions = {}, counts = {}, slot = {};

  static RowBatch decode(int64_t slots) {
    return {.rows = slots, .queries = 1, .isPrompt = false};
  }
  static RowBatch prompt(int64_t chunk) {
    return {.rows = 1, .queries = chunk, .isPrompt = true};
  }
  int64_t tokenCount() const { return rows * queries; }
};

/// Builds one step of an analysed one, of one batch or of several, of which a
/// prompt is the last.
class BatchedStep {
public:
  BatchedStep(func::FuncOp source, const RowAnalysis &analysis, int64_t slots,
              ArrayRef<RowBatch> shapes)
      : source(source), from(source.getBody().front()), analysis(analysis),
        slots(slots), batches(shapes), b(source.getLoc(), source) {
    for (RowBatch &batch : batches) {
      batch.firstToken = tokenCount;
      tokenCount += batch.tokenCount();
      rowCount += batch.rows;
    }
  }

  void build(StringRef name);

private:
  bool hasPrompt() const { return batches.back().isPrompt; }
  void createFunction(StringRef name);
  void mapArguments(RowBuilder &rows);
  Value tokensOf(const RowBatch &batch);
  Value positionsOf(const RowBatch &batch);
  Value join(ArrayRef<Value> parts);
  Value lastTokens();
  Value operandOf(const RowBatch &batch, Value all);
  Value attend(const RowBatch &batch, CachedAttentionOp op, RowBuilder &rows);
  void attendAll(CachedAttentionOp op, RowBuilder &rows);
  /// The ops that attention needs, in all rows.
  llvm::DenseSet<Operation *> findForAttention();
  Value buildBody();
  Value buildTail(RowBuilder &all, IRMapping &shared,
                  const llvm::DenseSet<Operation *> &built);

  func::FuncOp source;
  Block &from;
  const RowAnalysis &analysis;
  int64_t slots;
  SmallVector<RowBatch, 2> batches;
  int64_t tokenCount = 0, rowCount = 0;
  ImplicitLocOpBuilder b;
  Block *entry = nullptr;
  Value keyCache, valueCache;
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
  SmallVector<Type> inputs;
  for (const RowBatch &batch : batches) {
    inputs.push_back(RankedTensorType::get({batch.rows, batch.queries}, i32));
    inputs.append(batch.isPrompt ? 3 : 1,
                  RankedTensorType::get({batch.rows}, i32));
  }
  inputs.append(2, cache);
  auto step = func::FuncOp::create(
      b, name,
      b.getFunctionType(inputs, {RankedTensorType::get({rowCount, vocabulary},
                                                       b.getF32Type()),
                                 cache, cache}));
  step->setAttr(KVRMDialect::getStepAttrName(), b.getUnitAttr());
  entry = step.addEntryBlock();
  b.setInsertionPointToStart(entry);
  auto next = entry->args_begin();
  for (RowBatch &batch : batches) {
    batch.tokens = *next++;
    batch.positions = *next++;
    if (!batch.isPrompt)
      continue;
    batch.counts = *next++;
    batch.slot = *next++;
  }
  keyCache = *next++;
  valueCache = *next++;
}

/// What batches have of each token, one after another.
Value BatchedStep::join(ArrayRef<Value> parts) {
  if (parts.size() == 1)
    return parts.front();
  auto type = cast<RankedTensorType>(parts.front().getType());
  SmallVector<int64_t> shape(type.getShape());
  shape[0] = tokenCount;
  Value joined = tensor::EmptyOp::create(b, shape, type.getElementType());
  SmallVector<OpFoldResult> offsets(shape.size(), b.getIndexAttr(0)),
      strides(shape.size(), b.getIndexAttr(1));
  for (auto [batch, part] : llvm::zip_equal(batches, parts)) {
    offsets[0] = b.getIndexAttr(batch.firstToken);
    joined = tensor::InsertSliceOp::create(
        b, part, joined, offsets, tensor::getMixedSizes(b, b.getLoc(), part),
        strides);
  }
  return joined;
}

/// `[tokens, 1]`.
Value BatchedStep::tokensOf(const RowBatch &batch) {
  if (!batch.isPrompt)
    return batch.tokens;
  Value flat = tensor::CollapseShapeOp::create(
      b, batch.tokens, ArrayRef<ReassociationIndices>{{0, 1}});
  return tensor::ExpandShapeOp::create(
      b, RankedTensorType::get({batch.queries, 1}, b.getI32Type()), flat,
      ArrayRef<ReassociationIndices>{{0, 1}});
}

/// The position of each token, `[tokens]`.
Value BatchedStep::positionsOf(const RowBatch &batch) {
  if (!batch.isPrompt)
    return batch.positions;
  Value init =
      tensor::EmptyOp::create(b, ArrayRef{batch.queries}, b.getI32Type());
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, batch.positions, init,
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

/// The tokens whose logits a step with a prompt returns, a row each: all that
/// stand before the prompt, and its last valid one.
Value BatchedStep::lastTokens() {
  const RowBatch &prompt = batches.back();
  Value init = tensor::EmptyOp::create(b, ArrayRef{rowCount}, b.getI32Type());
  auto first = static_cast<int32_t>(prompt.firstToken);
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, prompt.counts, init,
             ArrayRef{AffineMap::get(1, 0, b.getAffineConstantExpr(0)),
                      b.getMultiDimIdentityMap(1)},
             ArrayRef{utils::IteratorType::parallel},
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               auto constant = [&](int32_t value) -> Value {
                 return arith::ConstantOp::create(
                     nested, loc, nested.getI32IntegerAttr(value));
               };
               Value last = arith::AddIOp::create(nested, loc, args.front(),
                                                  constant(first - 1));
               if (first > 0) {
                 Value row = arith::IndexCastOp::create(
                     nested, loc, nested.getI32Type(),
                     linalg::IndexOp::create(nested, loc, 0));
                 Value isBefore = arith::CmpIOp::create(
                     nested, loc, arith::CmpIPredicate::slt, row,
                     constant(first));
                 last =
                     arith::SelectOp::create(nested, loc, isBefore, row, last);
               }
               linalg::YieldOp::create(nested, loc, last);
             })
      .getResult(0);
}

void BatchedStep::mapArguments(RowBuilder &rows) {
  SmallVector<Value> tokens, positions;
  for (const RowBatch &batch : batches) {
    tokens.push_back(tokensOf(batch));
    positions.push_back(positionsOf(batch));
  }
  Value oldTokens = from.getArgument(0), oldPositions = from.getArgument(1);
  rows.map(oldTokens, rows.fromFront(join(tokens), oldTokens));
  rows.map(oldPositions, rows.fromFront(join(positions), oldPositions));
}

/// `[tokens, 1, heads, columns]` as `[tokens, heads, columns]`, or any other
/// grouping of tokens.
static Value flattenTokens(ImplicitLocOpBuilder &b, Value value) {
  return tensor::CollapseShapeOp::create(
      b, value, ArrayRef<ReassociationIndices>{{0, 1}, {2}, {3}});
}

static Value groupTokens(ImplicitLocOpBuilder &b, Value flat, int64_t rows,
                         int64_t queries) {
  auto type = cast<RankedTensorType>(flat.getType());
  return tensor::ExpandShapeOp::create(
      b, type.clone({rows, queries, type.getDimSize(1), type.getDimSize(2)}),
      flat, ArrayRef<ReassociationIndices>{{0, 1}, {2}, {3}});
}

/// What attention of `batch` reads of `[tokens, 1, heads, columns]`:
/// `[rows, queries, heads, columns]`.
Value BatchedStep::operandOf(const RowBatch &batch, Value all) {
  if (batches.size() == 1 && !batch.isPrompt)
    return all;
  Value flat = flattenTokens(b, all);
  if (batches.size() > 1) {
    SmallVector<OpFoldResult> sizes =
        tensor::getMixedSizes(b, b.getLoc(), flat);
    sizes[0] = b.getIndexAttr(batch.tokenCount());
    flat = tensor::ExtractSliceOp::create(
        b, flat,
        ArrayRef<OpFoldResult>{b.getIndexAttr(batch.firstToken),
                               b.getIndexAttr(0), b.getIndexAttr(0)},
        sizes, SmallVector<OpFoldResult>(3, b.getIndexAttr(1)));
  }
  return groupTokens(b, flat, batch.rows, batch.queries);
}

/// Attention of one batch; the caches are then those that it wrote.
Value BatchedStep::attend(const RowBatch &batch, CachedAttentionOp op,
                          RowBuilder &rows) {
  Value query = operandOf(batch, rows.toFront(op.getQuery())),
        key = operandOf(batch, rows.toFront(op.getKey())),
        value = operandOf(batch, rows.toFront(op.getValue()));
  auto attention = CachedAttentionOp::create(
      b, TypeRange{query.getType(), keyCache.getType(), valueCache.getType()},
      query, key, value, keyCache, valueCache, batch.positions, batch.counts,
      batch.slot, op.getLayerAttr(), op.getScaleAttr(), op.getWindowAttr(),
      op.getSoftcapAttr());
  keyCache = attention.getNewKeyCache();
  valueCache = attention.getNewValueCache();
  return attention.getOutput();
}

void BatchedStep::attendAll(CachedAttentionOp op, RowBuilder &rows) {
  SmallVector<Value> outputs;
  for (const RowBatch &batch : batches)
    outputs.push_back(attend(batch, op, rows));
  Value output = outputs.front();
  if (hasPrompt()) {
    for (Value &part : outputs)
      part = flattenTokens(b, part);
    output = groupTokens(b, join(outputs), tokenCount, 1);
  }
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

/// Logits of a prompt are those of its last token: of the prompt's tokens, what
/// attention does not need is computed for that alone.
Value BatchedStep::buildTail(RowBuilder &all, IRMapping &shared,
                             const llvm::DenseSet<Operation *> &built) {
  RowBuilder last(analysis, b, rowCount, shared);
  Value numbers = lastTokens();
  llvm::DenseSet<Value> selected;
  auto select = [&](Value value) {
    bool isBuilt =
        isa<BlockArgument>(value) || built.contains(value.getDefiningOp());
    if (isBuilt && analysis.of(value) && selected.insert(value).second)
      last.map(value, last.selectRows(value, all, numbers));
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
  RowBuilder rows(analysis, b, tokenCount, shared);
  mapArguments(rows);
  llvm::DenseSet<Operation *> needed = findForAttention();
  for (Operation &op : from.without_terminator()) {
    if (hasPrompt() && !needed.contains(&op))
      continue;
    if (auto attention = dyn_cast<CachedAttentionOp>(op))
      attendAll(attention, rows);
    else
      rows.build(op);
  }
  if (hasPrompt())
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
    if (mixed && chunk == 0) {
      step.emitError("a mixed step needs a chunk of a prompt");
      return signalPassFailure();
    }
    int64_t rows = slots == 0 ? analysis.getRows() : slots.getValue();
    auto decode = RowBatch::decode(rows), prompt = RowBatch::prompt(chunk);
    std::string name = step.getSymName().str();
    step.setSymName(name + ".of_graph");
    BatchedStep(step, analysis, rows, decode).build(name);
    if (chunk > 0)
      BatchedStep(step, analysis, rows, prompt).build("prefill");
    if (mixed)
      BatchedStep(step, analysis, rows, {decode, prompt}).build("mixed_step");
    step.erase();
  }
};
} // namespace
