//===- StaticBaseline.cpp - Static attention without the runtime --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../MaskedScore.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_STATICBASELINEPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Writes the function that one cached_attention dispatches.
class StaticAttention {
public:
  StaticAttention(CachedAttentionOp op, int64_t lanes)
      : op(op), b(op.getLoc(), op->getParentOfType<ModuleOp>()), lanes(lanes) {
    auto query = cast<RankedTensorType>(op.getQuery().getType());
    auto cache = cast<RankedTensorType>(op.getKeyCache().getType());
    rows = query.getDimSize(0);
    queries = query.getDimSize(1);
    heads = query.getDimSize(2);
    headDim = query.getDimSize(3);
    kvHeads = cache.getDimSize(2);
    capacity = cache.getDimSize(3);
    group = heads / kvHeads;
  }

  func::FuncOp build(StringRef name);
  int64_t tasks() const { return rows * kvHeads; }
  /// Scores of every task: [rows][kv_heads][queries * group][capacity].
  RankedTensorType scoresType() {
    return RankedTensorType::get({rows, kvHeads, queries * group, capacity},
                                 b.getF32Type());
  }

  /// One layer of a cache: [slots][kv_heads][capacity][head_dim].
  RankedTensorType layerCacheType() {
    auto cache = cast<RankedTensorType>(op.getKeyCache().getType());
    return RankedTensorType::get(cache.getShape().drop_front(),
                                 cache.getElementType());
  }

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  VectorType floats(int64_t count) {
    return VectorType::get({count}, b.getF32Type());
  }
  Value splat(float value, VectorType type) {
    return arith::ConstantOp::create(b, type,
                                     DenseElementsAttr::get(type, value));
  }
  Value loadField(Value buffer, Value row) {
    return arith::IndexCastOp::create(
        b, b.getIndexType(),
        memref::LoadOp::create(b, buffer, ValueRange{row}));
  }
  Type cacheElement() { return getElementTypeOrSelf(keyCache.getType()); }
  /// Elements of the cache's rows that are no values but their scale.
  int64_t scaleElements() { return getCacheRow(0, cacheElement()); }
  /// What is stored, as the cache's memref has it.
  Value asCached(Value stored) {
    return arith::BitcastOp::create(
        b, VectorType::get({headDim}, cacheElement()), stored);
  }
  void forEach(Value begin, Value end, int64_t step,
               function_ref<void(Value)> body) {
    auto loop = scf::ForOp::create(b, begin, end, index(step));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    body(loop.getInductionVar());
  }
  Value plus(Value base, int64_t offset) {
    return arith::AddIOp::create(b, base, index(offset));
  }
  void appendTokens(Value row, Value kvHead, Value slot, Value first);
  /// Query rows [first, first + count) of one token over the whole capacity.
  /// Each key and value is loaded and widened once for all of them.
  void attendRows(Value row, Value kvHead, Value slot, Value firstPosition,
                  Value firstRow, int64_t count);
  /// What attendRows() works on, as its steps need it.
  struct RowGroup {
    Value row, kvHead, slot, firstRow;
    int64_t count;
    Value zero;      ///< an index
    Value token;     ///< of the row, whose queries these are
    Value firstHead; ///< of `count` query heads
    Value visible;   ///< one past the last token that these see
    Value hidden;    ///< tokens behind their window; null without one
  };
  /// A token's key, or value, in f32: what is stored, and what that is then to
  /// be multiplied with; null for nothing.
  struct Token {
    Value stored, scale;
  };
  Token loadToken(const RowGroup &at, Value cache, Value position);
  void storeToken(Value token, Value cache, ArrayRef<Value> place);
  void scoreTokens(const RowGroup &at);
  void capScores(const RowGroup &at, Value r);
  Value maskedScores(const RowGroup &at, Value r, Value position);
  Value weighScores(const RowGroup &at, Value r);
  void sumValues(const RowGroup &at, ArrayRef<Value> sums);
  Value reduce(Value start, function_ref<Value(Value, Value)> body);
  /// Query rows that share a pass over the cache: as many of one token as have
  /// room in registers.
  int64_t rowsAtOnce() const {
    int64_t room = std::max<int64_t>(1, 16 * lanes / headDim), count = 1;
    for (int64_t candidate = 1; candidate <= std::min(group, room); ++candidate)
      if (group % candidate == 0)
        count = candidate;
    return count;
  }

  CachedAttentionOp op;
  ImplicitLocOpBuilder b;
  int64_t lanes, rows, queries, heads, headDim, kvHeads, capacity, group;
  Value query, key, value, keyCache, valueCache, output, scores;
};

} // namespace

/// A token past the capacity is not written: it belongs to an idle row.
void StaticAttention::appendTokens(Value row, Value kvHead, Value slot,
                                   Value first) {
  auto vectorType = floats(headDim);
  Value zero = index(0);
  forEach(index(0), index(queries), 1, [&](Value t) {
    Value position = arith::AddIOp::create(b, first, t);
    Value fits = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, position,
                                       index(capacity));
    auto branch = scf::IfOp::create(b, fits);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    for (auto [source, cache] :
         {std::pair(key, keyCache), std::pair(value, valueCache)}) {
      Value token = vector::LoadOp::create(b, vectorType, source,
                                           ValueRange{row, t, kvHead, zero});
      storeToken(token, cache, {slot, kvHead, position});
    }
  });
}

void StaticAttention::storeToken(Value token, Value cache,
                                 ArrayRef<Value> place) {
  auto storeAt = [&](int64_t column, Value values) {
    SmallVector<Value> indices(place);
    indices.push_back(index(column));
    vector::StoreOp::create(b, values, cache, indices);
  };
  if (scaleElements() == 0)
    return storeAt(0, asCached(narrowElements(b, token, cacheElement())));
  Value largest = vector::ReductionOp::create(b, vector::CombiningKind::MAXSI,
                                              magnitudesOf(b, token));
  Value scale = scaleOfRow(b, largest);
  storeAt(0, narrowScaled(b, token, widenScales(b, scale)));
  Value halves = vector::BroadcastOp::create(
      b, VectorType::get({1}, scale.getType()), scale);
  storeAt(headDim,
          vector::BitCastOp::create(
              b, VectorType::get({scaleElements()}, cacheElement()), halves));
}

StaticAttention::Token StaticAttention::loadToken(const RowGroup &at,
                                                  Value cache, Value position) {
  auto loadAt = [&](Value column, int64_t count) -> Value {
    return vector::LoadOp::create(
        b, VectorType::get({count}, cacheElement()), cache,
        ValueRange{at.slot, at.kvHead, position, column});
  };
  auto storedType = VectorType::get({headDim}, getStoredType(cacheElement()));
  Value stored =
      arith::BitcastOp::create(b, storedType, loadAt(at.zero, headDim));
  Token token = {widenElements(b, stored, cacheElement()), Value()};
  if (scaleElements() > 0) {
    Value halves =
        vector::BitCastOp::create(b, VectorType::get({1}, b.getI16Type()),
                                  loadAt(index(headDim), scaleElements()));
    token.scale = widenScales(b, vector::ExtractOp::create(b, halves, 0));
  }
  return token;
}

void StaticAttention::scoreTokens(const RowGroup &at) {
  auto headVector = floats(headDim);
  SmallVector<Value> queriesOf;
  for (int64_t i = 0; i < at.count; ++i) {
    Value loaded = vector::LoadOp::create(
        b, headVector, query,
        ValueRange{at.row, at.token, plus(at.firstHead, i), at.zero});
    queriesOf.push_back(arith::MulFOp::create(
        b, loaded, splat(op.getScale().convertToFloat(), headVector)));
  }
  forEach(at.zero, index(capacity), 1, [&](Value position) {
    Token token = loadToken(at, keyCache, position);
    for (int64_t i = 0; i < at.count; ++i) {
      Value product = arith::MulFOp::create(b, queriesOf[i], token.stored);
      Value score =
          vector::ReductionOp::create(b, vector::CombiningKind::ADD, product,
                                      arith::FastMathFlags::reassoc);
      if (token.scale)
        score = arith::MulFOp::create(b, score, token.scale);
      memref::StoreOp::create(
          b, score, scores,
          ValueRange{at.row, at.kvHead, plus(at.firstRow, i), position});
    }
  });
}

/// Caps the scores of query row `r`.
void StaticAttention::capScores(const RowGroup &at, Value r) {
  auto laneVector = floats(lanes);
  float cap = op.getSoftcap()->convertToFloat();
  forEach(at.zero, index(capacity), lanes, [&](Value position) {
    Value score = vector::LoadOp::create(
        b, laneVector, scores, ValueRange{at.row, at.kvHead, r, position});
    score = math::TanhOp::create(
        b, arith::DivFOp::create(b, score, splat(cap, laneVector)));
    vector::StoreOp::create(
        b, arith::MulFOp::create(b, score, splat(cap, laneVector)), scores,
        ValueRange{at.row, at.kvHead, r, position});
  });
}

/// Scores of query row `r`, from `position` on.
Value StaticAttention::maskedScores(const RowGroup &at, Value r,
                                    Value position) {
  auto laneVector = floats(lanes);
  auto indexVector = VectorType::get({lanes}, b.getIndexType());
  Value score = vector::LoadOp::create(
      b, laneVector, scores, ValueRange{at.row, at.kvHead, r, position});
  Value positions = arith::AddIOp::create(
      b, vector::StepOp::create(b, indexVector),
      vector::BroadcastOp::create(b, indexVector, position));
  Value seen = arith::CmpIOp::create(
      b, arith::CmpIPredicate::ult, positions,
      vector::BroadcastOp::create(b, indexVector, at.visible));
  if (at.hidden)
    seen = arith::AndIOp::create(
        b, seen,
        arith::CmpIOp::create(
            b, arith::CmpIPredicate::uge, positions,
            vector::BroadcastOp::create(b, indexVector, at.hidden)));
  return arith::SelectOp::create(b, seen, score,
                                 splat(kMaskedScore, laneVector));
}

/// Turns the scores of query row `r` into weights. Returns their sum.
Value StaticAttention::weighScores(const RowGroup &at, Value r) {
  auto laneVector = floats(lanes);
  Value maxima = reduce(splat(kMaskedScore, laneVector), [&](Value position,
                                                             Value carried) {
    return arith::MaximumFOp::create(b, carried, maskedScores(at, r, position))
        .getResult();
  });
  Value maximum = vector::BroadcastOp::create(
      b, laneVector,
      vector::ReductionOp::create(b, vector::CombiningKind::MAXIMUMF, maxima)
          .getResult());
  Value sum = reduce(
      splat(0.0f, laneVector), [&](Value position, Value carried) -> Value {
        Value weight = math::ExpOp::create(
            b,
            arith::SubFOp::create(b, maskedScores(at, r, position), maximum));
        vector::StoreOp::create(b, weight, scores,
                                ValueRange{at.row, at.kvHead, r, position});
        return arith::AddFOp::create(b, carried, weight);
      });
  return vector::ReductionOp::create(b, vector::CombiningKind::ADD, sum,
                                     arith::FastMathFlags::reassoc);
}

/// The weighted sum of values, of which `sums` are the weights' own.
void StaticAttention::sumValues(const RowGroup &at, ArrayRef<Value> sums) {
  auto headVector = floats(headDim);
  SmallVector<Value> start(at.count, splat(0.0f, headVector));
  auto valueLoop =
      scf::ForOp::create(b, at.zero, index(capacity), index(1), start);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(valueLoop.getBody());
    Value position = valueLoop.getInductionVar();
    Token token = loadToken(at, valueCache, position);
    SmallVector<Value> next;
    for (int64_t i = 0; i < at.count; ++i) {
      Value weight = memref::LoadOp::create(
          b, scores,
          ValueRange{at.row, at.kvHead, plus(at.firstRow, i), position});
      if (token.scale)
        weight = arith::MulFOp::create(b, weight, token.scale);
      next.push_back(vector::FMAOp::create(
          b, vector::BroadcastOp::create(b, headVector, weight), token.stored,
          valueLoop.getRegionIterArg(i)));
    }
    scf::YieldOp::create(b, next);
  }
  for (int64_t i = 0; i < at.count; ++i) {
    Value result = arith::DivFOp::create(
        b, valueLoop.getResult(i),
        vector::BroadcastOp::create(b, headVector, sums[i]));
    vector::StoreOp::create(
        b, result, output,
        ValueRange{at.row, at.token, plus(at.firstHead, i), at.zero});
  }
}

void StaticAttention::attendRows(Value row, Value kvHead, Value slot,
                                 Value firstPosition, Value firstRow,
                                 int64_t count) {
  Value zero = index(0);
  Value token = arith::DivUIOp::create(b, firstRow, index(group));
  Value firstHead =
      arith::AddIOp::create(b, arith::MulIOp::create(b, kvHead, index(group)),
                            arith::RemUIOp::create(b, firstRow, index(group)));
  Value visible = arith::AddIOp::create(
      b, arith::AddIOp::create(b, firstPosition, token), index(1));
  Value hidden;
  if (std::optional<uint64_t> window = op.getWindow()) {
    Value size = index(static_cast<int64_t>(*window));
    // Never below 0, as indices have no sign.
    hidden = arith::SubIOp::create(b, arith::MaxUIOp::create(b, visible, size),
                                   size);
  }
  RowGroup at = {row,  kvHead, slot,      firstRow, count,
                 zero, token,  firstHead, visible,  hidden};
  scoreTokens(at);
  if (op.getSoftcap())
    for (int64_t i = 0; i < count; ++i)
      capScores(at, plus(firstRow, i));
  SmallVector<Value> sums;
  for (int64_t i = 0; i < count; ++i)
    sums.push_back(weighScores(at, plus(firstRow, i)));
  sumValues(at, sums);
}

/// Folds vectors of `lanes` positions over the whole capacity.
Value StaticAttention::reduce(Value start,
                              function_ref<Value(Value, Value)> body) {
  auto loop = scf::ForOp::create(b, index(0), index(capacity), index(lanes),
                                 ValueRange{start});
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  scf::YieldOp::create(
      b, ValueRange{body(loop.getInductionVar(), loop.getRegionIterArg(0))});
  return loop.getResult(0);
}

/// (begin, end, q, k, v, positions, [slots], scores, out, caches of the layer)
func::FuncOp StaticAttention::build(StringRef name) {
  auto bufferOf = [](Type type) -> Type {
    auto tensor = cast<RankedTensorType>(type);
    return MemRefType::get(tensor.getShape(), tensor.getElementType());
  };
  SmallVector<Type> inputs(2, b.getIndexType());
  auto addInput = [&](Type type) { inputs.push_back(bufferOf(type)); };
  addInput(op.getQuery().getType());
  addInput(op.getKey().getType());
  addInput(op.getValue().getType());
  addInput(op.getPositions().getType());
  if (op.getSlots())
    addInput(op.getSlots().getType());
  addInput(scoresType());
  addInput(op.getOutput().getType());
  addInput(layerCacheType());
  addInput(layerCacheType());

  auto func = func::FuncOp::create(b, name, b.getFunctionType(inputs, {}));
  func.setPrivate();
  Block *entry = func.addEntryBlock();
  b.setInsertionPointToStart(entry);
  unsigned next = 2;
  query = entry->getArgument(next++);
  key = entry->getArgument(next++);
  value = entry->getArgument(next++);
  Value positions = entry->getArgument(next++);
  Value slots = op.getSlots() ? entry->getArgument(next++) : Value();
  scores = entry->getArgument(next++);
  output = entry->getArgument(next++);
  keyCache = entry->getArgument(next++);
  valueCache = entry->getArgument(next++);

  forEach(entry->getArgument(0), entry->getArgument(1), 1, [&](Value task) {
    Value row = arith::DivUIOp::create(b, task, index(kvHeads));
    Value kvHead = arith::RemUIOp::create(b, task, index(kvHeads));
    Value slot = slots ? loadField(slots, row) : row;
    Value first = loadField(positions, row);
    appendTokens(row, kvHead, slot, first);
    int64_t count = rowsAtOnce();
    forEach(index(0), index(queries * group), count,
            [&](Value r) { attendRows(row, kvHead, slot, first, r, count); });
  });
  func::ReturnOp::create(b);
  return func;
}

namespace {
class StaticBaselinePass
    : public kvrm::impl::StaticBaselinePassBase<StaticBaselinePass> {
public:
  using StaticBaselinePassBase::StaticBaselinePassBase;

  void runOnOperation() override {
    if (lanes < 1 || lanes > 64) {
      getOperation().emitError("lanes is ")
          << lanes.getValue() << ", outside 1..64";
      return signalPassFailure();
    }
    functions.clear();
    SymbolTable symbols(getOperation());
    SmallVector<CachedAttentionOp> ops;
    for (func::FuncOp step : getSteps(getOperation()))
      step.walk([&](CachedAttentionOp op) { ops.push_back(op); });
    for (CachedAttentionOp op : ops)
      if (failed(lower(op, symbols)))
        return signalPassFailure();
  }

private:
  LogicalResult lower(CachedAttentionOp op, SymbolTable &symbols) {
    if (Type io = getElementTypeOrSelf(op.getQuery().getType()); !io.isF32())
      return op.emitOpError("for the static baseline needs activations of f32, "
                            "got ")
             << io;
    auto cache = cast<RankedTensorType>(op.getKeyCache().getType());
    if (cache.getDimSize(3) % lanes)
      return op.emitOpError("needs a capacity of whole vectors: ")
             << cache.getDimSize(3) << " tokens are not a multiple of "
             << lanes.getValue() << " lanes";
    for (auto [value, role] :
         {std::pair<Value, ArgumentRole>(op.getPositions(),
                                         ArgumentRole::Positions),
          {op.getCounts(), ArgumentRole::Counts},
          {op.getSlots(), ArgumentRole::Slots},
          {op.getKeyCache(), ArgumentRole::KeyCache},
          {op.getValueCache(), ArgumentRole::ValueCache}}) {
      auto arg = dyn_cast_or_null<BlockArgument>(value);
      auto func = op->getParentOfType<func::FuncOp>();
      if (!arg || arg.getOwner() != &func.getBody().front())
        continue;
      unsigned index = arg.getArgNumber();
      std::optional<ArgumentRole> known = getArgumentRole(func, index);
      if (known && *known != role)
        return op.emitOpError("takes argument ")
               << index << " of its step as " << stringifyArgumentRole(role)
               << "; it is " << stringifyArgumentRole(*known) << " already";
      setArgumentRole(func, index, role);
    }

    StaticAttention attention(op, lanes);
    // One function serves all layers of a step that attend alike.
    func::FuncOp &function =
        functions[{op->getParentOfType<func::FuncOp>().getOperation(),
                   op.getScaleAttr(), op.getWindowAttr(), op.getSoftcapAttr()}];
    if (!function) {
      function = attention.build("static_attention");
      symbols.insert(function);
    }

    ImplicitLocOpBuilder b(op.getLoc(), op);
    auto outputType = cast<RankedTensorType>(op.getOutput().getType());
    auto makeEmpty = [&](RankedTensorType type) -> Value {
      return tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
    };
    SmallVector<OpFoldResult> offsets(5, b.getIndexAttr(0)), sizes,
        strides(5, b.getIndexAttr(1));
    offsets[0] = b.getIndexAttr(op.getLayer());
    for (int64_t size : cache.getShape())
      sizes.push_back(b.getIndexAttr(size));
    sizes[0] = b.getIndexAttr(1);
    auto layerOf = [&](Value whole) -> Value {
      return tensor::ExtractSliceOp::create(b, attention.layerCacheType(),
                                            whole, offsets, sizes, strides);
    };

    SmallVector<Value> inputs = {op.getQuery(), op.getKey(), op.getValue(),
                                 op.getPositions()};
    if (op.getSlots())
      inputs.push_back(op.getSlots());
    SmallVector<Value> outputs = {
        makeEmpty(attention.scoresType()), makeEmpty(outputType),
        layerOf(op.getKeyCache()), layerOf(op.getValueCache())};
    auto dispatch = DispatchOp::create(b, ValueRange(outputs).getTypes(),
                                       function.getSymName(), attention.tasks(),
                                       inputs, outputs);
    auto withLayer = [&](unsigned result, Value whole) -> Value {
      return tensor::InsertSliceOp::create(b, dispatch.getResult(result), whole,
                                           offsets, sizes, strides);
    };
    op.getOutput().replaceAllUsesWith(dispatch.getResult(1));
    op.getNewKeyCache().replaceAllUsesWith(withLayer(2, op.getKeyCache()));
    op.getNewValueCache().replaceAllUsesWith(withLayer(3, op.getValueCache()));
    op.erase();
    return success();
  }

  llvm::DenseMap<std::tuple<Operation *, Attribute, Attribute, Attribute>,
                 func::FuncOp>
      functions;
};
} // namespace
