//===- DecoderBuilder.cpp - A decoder as phase-1 IR -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/DecoderBuilder.h"

#include "Activations.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Dialect/KVRM/Utils/Rotation.h"
#include "kvrm/Frontend/CheckRange.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <cmath>
#include <functional>

using namespace mlir;
using namespace ::kvrm;

namespace {

/// Rows of a step that take the same number of tokens: `rows` is how many
/// requests they serve, `queries` how many tokens of each.
struct BatchShape {
  int64_t rows, queries;
  bool selectsSlot;

  int64_t tokens() const { return rows * queries; }
};

/// A batch in the step that is built.
struct Batch {
  BatchShape shape;
  int64_t firstToken; ///< of the step's
  // Arguments, the last two if it selects slots.
  Value tokens, positions, counts, slots;
};

/// Of each token, `[tokens, head_dim / 2]`.
struct Angles {
  Value cosines, sines;
};

/// Builds one entry point. Inside, activations are `[tokens, width]`, batch
/// after batch and row after row.
class StepBuilder {
public:
  StepBuilder(ModuleOp module, const DecoderConfig &config,
              const GraphShape &shape, StringRef name,
              ArrayRef<BatchShape> shapes)
      : b(module.getLoc(), OpBuilder::atBlockEnd(module.getBody())),
        config(config), shape(shape), name(name) {
    for (const BatchShape &batch : shapes) {
      batches.push_back({batch, tokens, {}, {}, {}, {}});
      tokens += batch.tokens();
      rows += batch.rows;
    }
  }

  void build();

private:
  using BodyFn = function_ref<Value(OpBuilder &, Location, ValueRange)>;

  RankedTensorType f32(ArrayRef<int64_t> dims) {
    return RankedTensorType::get(dims, b.getF32Type());
  }
  RankedTensorType activations(ArrayRef<int64_t> dims) {
    return RankedTensorType::get(dims, activationType());
  }
  Value empty(ArrayRef<int64_t> dims) {
    return tensor::EmptyOp::create(b, dims, b.getF32Type());
  }
  Value weight(StringRef name, ArrayRef<int64_t> dims, Type element) {
    return ml_program::GlobalLoadConstOp::create(
        b, RankedTensorType::get(dims, element),
        SymbolRefAttr::get(b.getContext(), name));
  }
  Value vector(StringRef name, int64_t width) {
    return weight(name, {width}, b.getF32Type());
  }
  Type matrixType() {
    return shape.bf16Weights ? Type(b.getBF16Type()) : Type(b.getF16Type());
  }
  Type activationType();
  /// A scalar of a body, rounded to the element of activations.
  Value toActivation(OpBuilder &nested, Location loc, Value value);
  Value layerVector(int64_t layer, const char *weightName, int64_t width) {
    return vector(layerWeight(layer, weightName), width);
  }

  /// An elementwise op over `dims` with one map an input. Its elements are f32
  /// unless it is said which.
  Value elementwise(ArrayRef<int64_t> dims, ValueRange inputs,
                    ArrayRef<AffineMap> maps, BodyFn body, Type element = {});
  Value identityMapped(Value like, ValueRange inputs, BodyFn body,
                       Type element = {});
  Value insertRows(Value part, Value joined, int64_t first);
  Value embed(const Batch &batch);
  /// Over the last dimension; elements are f32 unless it is said which.
  Value rmsNorm(Value x, Value weight, Type element = {});
  Value linear(Value x, Value weight);
  Value columns(Value x, int64_t begin, int64_t width) {
    return mlir::kvrm::sliceColumns(b, x, begin, width);
  }
  Value rowsOf(const Batch &batch, Value x);
  Value splitHeads(const Batch &batch, Value x, int64_t heads);
  /// f32 to the element of activations.
  Value castToActivations(Value x);
  Value gatherRope(StringRef table, const Batch &batch);
  Value rotate(Value x, int64_t heads, const Angles &angles);
  Value lastTokens(const Batch &batch, Value x);
  Value matrix(int64_t layer, const char *weightName, int64_t out, int64_t in) {
    return weight(layerWeight(layer, weightName), {out, in}, matrixType());
  }
  Type cacheType();
  SmallVector<Type> argumentTypes();
  void createFunction();
  Value forEachBatch(int64_t count,
                     llvm::function_ref<Value(const Batch &)> build);
  Value add(Value x, Value y);
  Value attendCache(const Batch &batch, Value q, Value k, Value v,
                    int64_t layer);
  Value normBefore(Value x, int64_t layer, const char *weightName);
  Value normAfter(Value x, int64_t layer, const char *weightName);
  Value projection(Value x, int64_t layer);
  Value headNorm(Value x, int64_t layer, const char *weightName, int64_t heads);
  Angles gatherAngles(StringRef cosTable, StringRef sinTable);
  Angles noAngles();
  Value attend(Value x, int64_t layer, const Angles &angles);
  Value activate(Value gate, Value up);
  Value capLogits(Value logits);
  Value feedForward(Value x, int64_t layer);

  ImplicitLocOpBuilder b;
  const DecoderConfig &config;
  const GraphShape &shape;
  StringRef name;
  SmallVector<Batch> batches;
  int64_t tokens = 0, rows = 0; ///< of all batches
  Value keyCache, valueCache;   ///< as the layers so far leave them
};

} // namespace

Type StepBuilder::activationType() {
  switch (shape.activations) {
  case ActivationType::F16:
    return b.getF16Type();
  case ActivationType::BF16:
    return b.getBF16Type();
  case ActivationType::F32:
    break;
  }
  return b.getF32Type();
}

Value StepBuilder::toActivation(OpBuilder &nested, Location loc, Value value) {
  if (value.getType() == activationType())
    return value;
  return arith::TruncFOp::create(nested, loc, activationType(), value);
}

Value StepBuilder::elementwise(ArrayRef<int64_t> dims, ValueRange inputs,
                               ArrayRef<AffineMap> maps, BodyFn body,
                               Type element) {
  if (!element)
    element = b.getF32Type();
  SmallVector<utils::IteratorType> iterators(dims.size(),
                                             utils::IteratorType::parallel);
  SmallVector<AffineMap> allMaps(maps);
  allMaps.push_back(b.getMultiDimIdentityMap(dims.size()));
  Value init = tensor::EmptyOp::create(b, dims, element);
  return linalg::GenericOp::create(
             b, TypeRange{init.getType()}, inputs, ValueRange{init}, allMaps,
             iterators,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               linalg::YieldOp::create(nested, loc, body(nested, loc, args));
             })
      .getResult(0);
}

Value StepBuilder::identityMapped(Value like, ValueRange inputs, BodyFn body,
                                  Type element) {
  auto dims = cast<RankedTensorType>(like.getType()).getShape();
  SmallVector<AffineMap> maps(inputs.size(),
                              b.getMultiDimIdentityMap(dims.size()));
  return elementwise(dims, inputs, maps, body, element);
}

/// Writes the rows of `part` to those of `joined` from `first` on.
Value StepBuilder::insertRows(Value part, Value joined, int64_t first) {
  SmallVector<OpFoldResult> offsets = {b.getIndexAttr(first),
                                       b.getIndexAttr(0)};
  return tensor::InsertSliceOp::create(
      b, part, joined, offsets, tensor::getMixedSizes(b, b.getLoc(), part),
      SmallVector<OpFoldResult>(2, b.getIndexAttr(1)));
}

/// What `build` makes of each batch, one after another: `[count, width]`.
Value StepBuilder::forEachBatch(
    int64_t count, llvm::function_ref<Value(const Batch &)> build) {
  if (batches.size() == 1)
    return build(batches.front());
  Value joined;
  int64_t first = 0;
  for (const Batch &batch : batches) {
    Value part = build(batch);
    auto type = cast<RankedTensorType>(part.getType());
    if (!joined)
      joined = tensor::EmptyOp::create(
          b, ArrayRef<int64_t>{count, type.getDimSize(1)},
          type.getElementType());
    joined = insertRows(part, joined, first);
    first += type.getDimSize(0);
  }
  return joined;
}

/// The rows of `[tokens, width]` that are of `batch`.
Value StepBuilder::rowsOf(const Batch &batch, Value x) {
  if (batches.size() == 1)
    return x;
  int64_t width = cast<RankedTensorType>(x.getType()).getDimSize(1);
  return tensor::ExtractSliceOp::create(
      b, x,
      ArrayRef<OpFoldResult>{b.getIndexAttr(batch.firstToken),
                             b.getIndexAttr(0)},
      ArrayRef<OpFoldResult>{b.getIndexAttr(batch.shape.tokens()),
                             b.getIndexAttr(width)},
      SmallVector<OpFoldResult>(2, b.getIndexAttr(1)));
}

/// Rows of the embedding table, `[rows * queries, hidden]`.
Value StepBuilder::embed(const Batch &batch) {
  Value table =
      weight("token_embd", {config.vocabulary, config.hidden}, matrixType());
  Value flat = tensor::CollapseShapeOp::create(
      b, batch.tokens, ArrayRef<ReassociationIndices>{{0, 1}});
  return elementwise(
      {batch.shape.tokens(), config.hidden}, {flat},
      {AffineMap::get(2, 0, b.getAffineDimExpr(0))},
      [&](OpBuilder &nested, Location loc, ValueRange args) -> Value {
        Value token = arith::IndexCastOp::create(
            nested, loc, nested.getIndexType(), args[0]);
        Value column = linalg::IndexOp::create(nested, loc, 1);
        Value element = tensor::ExtractOp::create(nested, loc, table,
                                                  ValueRange{token, column});
        Value wide =
            arith::ExtFOp::create(nested, loc, nested.getF32Type(), element);
        if (config.embeddingScale == 1)
          return wide;
        Value scale = arith::ConstantOp::create(
            nested, loc,
            nested.getF32FloatAttr(static_cast<float>(config.embeddingScale)));
        return arith::MulFOp::create(nested, loc, wide, scale);
      });
}

/// y = x / sqrt(mean(x^2) + epsilon) * weight, row by row.
Value StepBuilder::rmsNorm(Value x, Value weight, Type element) {
  auto shape = cast<RankedTensorType>(x.getType()).getShape();
  auto rank = static_cast<unsigned>(shape.size());
  ArrayRef<int64_t> rowDims = shape.drop_back();
  AffineMap full = b.getMultiDimIdentityMap(rank);
  AffineMap byRow = full.dropResult(rank - 1);
  AffineMap byColumn = AffineMap::get(rank, 0, b.getAffineDimExpr(rank - 1));

  Value zero = arith::ConstantOp::create(b, b.getF32FloatAttr(0.0f));
  Value init = linalg::FillOp::create(b, zero, empty(rowDims)).getResult(0);
  SmallVector<utils::IteratorType> iterators(rank,
                                             utils::IteratorType::parallel);
  iterators.back() = utils::IteratorType::reduction;
  Value squares =
      linalg::GenericOp::create(
          b, TypeRange{f32(rowDims)}, ValueRange{x}, ValueRange{init},
          ArrayRef{full, byRow}, iterators,
          [](OpBuilder &nested, Location loc, ValueRange args) {
            Value square = arith::MulFOp::create(nested, loc, args[0], args[0]);
            Value sum = arith::AddFOp::create(nested, loc, args[1], square);
            linalg::YieldOp::create(nested, loc, sum);
          })
          .getResult(0);

  Value scale = elementwise(
      rowDims, {squares}, {b.getMultiDimIdentityMap(rank - 1)},
      [&](OpBuilder &nested, Location loc, ValueRange args) -> Value {
        Value inverse = arith::ConstantOp::create(
            nested, loc,
            nested.getF32FloatAttr(1.0f / static_cast<float>(shape.back())));
        Value epsilon = arith::ConstantOp::create(
            nested, loc,
            nested.getF32FloatAttr(static_cast<float>(config.normEpsilon)));
        Value one = arith::ConstantOp::create(nested, loc,
                                              nested.getF32FloatAttr(1.0f));
        Value mean = arith::MulFOp::create(nested, loc, args[0], inverse);
        Value sum = arith::AddFOp::create(nested, loc, mean, epsilon);
        Value root = math::SqrtOp::create(nested, loc, sum);
        return arith::DivFOp::create(nested, loc, one, root);
      });
  return elementwise(
      shape, {x, scale, weight}, {full, byRow, byColumn},
      [&](OpBuilder &nested, Location loc, ValueRange args) -> Value {
        Value scaled = arith::MulFOp::create(nested, loc, args[0], args[1]);
        Value normed = arith::MulFOp::create(nested, loc, scaled, args[2]);
        return element ? toActivation(nested, loc, normed) : normed;
      },
      element);
}

/// What attention or feed-forward reads of x.
Value StepBuilder::normBefore(Value x, int64_t layer, const char *weightName) {
  if (!config.hasNormsBefore)
    return castToActivations(x);
  return rmsNorm(x, layerVector(layer, weightName, config.hidden),
                 activationType());
}

/// What attention or feed-forward adds to x.
Value StepBuilder::normAfter(Value x, int64_t layer, const char *weightName) {
  if (!config.hasNormsAfter)
    return x;
  return rmsNorm(x, layerVector(layer, weightName, config.hidden));
}

/// x * weight^T for `weight` `[out][in]`.
Value StepBuilder::linear(Value x, Value weight) {
  int64_t count = cast<RankedTensorType>(x.getType()).getDimSize(0);
  int64_t width = cast<RankedTensorType>(weight.getType()).getDimSize(0);
  Value zero = arith::ConstantOp::create(b, b.getF32FloatAttr(0.0f));
  Value init =
      linalg::FillOp::create(b, zero, empty({count, width})).getResult(0);
  return linalg::MatmulTransposeBOp::create(
             b, b.getLoc(), TypeRange{f32({count, width})},
             ValueRange{x, weight}, ValueRange{init})
      ->getResult(0);
}

/// `[rows, queries, heads, head_dim]` of `[tokens, heads * head_dim]`.
Value StepBuilder::splitHeads(const Batch &batch, Value x, int64_t heads) {
  return tensor::ExpandShapeOp::create(
      b,
      activations(
          {batch.shape.rows, batch.shape.queries, heads, config.headDim}),
      rowsOf(batch, x), ArrayRef<ReassociationIndices>{{0, 1}, {2, 3}});
}

Value StepBuilder::castToActivations(Value x) {
  if (getElementTypeOrSelf(x) == activationType())
    return x;
  return identityMapped(
      x, {x},
      [&](OpBuilder &nested, Location loc, ValueRange args) {
        return toActivation(nested, loc, args[0]);
      },
      activationType());
}

/// Rows of a RoPE table for every token, `[rows * queries, head_dim / 2]`.
/// Positions past the table (idle rows) read its last row.
Value StepBuilder::gatherRope(StringRef tableName, const Batch &batch) {
  int64_t half = config.headDim / 2;
  Value table = weight(tableName, {shape.capacity, half}, b.getF32Type());
  AffineExpr row = b.getAffineDimExpr(0);
  Value gathered = elementwise(
      {batch.shape.rows, batch.shape.queries, half}, {batch.positions},
      {AffineMap::get(3, 0, row)},
      [&](OpBuilder &nested, Location loc, ValueRange args) -> Value {
        Value first = arith::IndexCastOp::create(
            nested, loc, nested.getIndexType(), args[0]);
        Value token = linalg::IndexOp::create(nested, loc, 1);
        Value position = arith::AddIOp::create(nested, loc, first, token);
        Value last =
            arith::ConstantIndexOp::create(nested, loc, shape.capacity - 1);
        position = arith::MinUIOp::create(nested, loc, position, last);
        Value column = linalg::IndexOp::create(nested, loc, 2);
        return tensor::ExtractOp::create(nested, loc, table,
                                         ValueRange{position, column});
      });
  return tensor::CollapseShapeOp::create(
      b, gathered, ArrayRef<ReassociationIndices>{{0, 1}, {2}});
}

/// RoPE in the half-split form.
Value StepBuilder::rotate(Value x, int64_t heads, const Angles &angles) {
  int64_t half = config.headDim / 2;
  Value pairs = tensor::ExpandShapeOp::create(
      b, f32({tokens, heads, 2, half}), x,
      ArrayRef<ReassociationIndices>{{0}, {1, 2, 3}});
  Value rotated =
      mlir::kvrm::Rotation{pairs, angles.cosines, angles.sines}.write(
          b, activationType());
  return tensor::CollapseShapeOp::create(
      b, rotated, ArrayRef<ReassociationIndices>{{0}, {1, 2, 3}});
}

/// The last valid token of each row, `[rows, hidden]`.
Value StepBuilder::lastTokens(const Batch &batch, Value x) {
  if (batch.shape.queries == 1)
    return rowsOf(batch, x);
  Value ofBatch = rowsOf(batch, x);
  return elementwise(
      {batch.shape.rows, config.hidden}, {batch.counts},
      {AffineMap::get(2, 0, b.getAffineDimExpr(0))},
      [&](OpBuilder &nested, Location loc, ValueRange args) -> Value {
        Value count = arith::IndexCastOp::create(
            nested, loc, nested.getIndexType(), args[0]);
        Value one = arith::ConstantIndexOp::create(nested, loc, 1);
        Value row = linalg::IndexOp::create(nested, loc, 0);
        Value stride =
            arith::ConstantIndexOp::create(nested, loc, batch.shape.queries);
        Value base = arith::MulIOp::create(nested, loc, row, stride);
        Value end = arith::AddIOp::create(nested, loc, base, count);
        Value token = arith::SubIOp::create(nested, loc, end, one);
        Value column = linalg::IndexOp::create(nested, loc, 1);
        return tensor::ExtractOp::create(nested, loc, ofBatch,
                                         ValueRange{token, column});
      });
}

Type StepBuilder::cacheType() {
  return RankedTensorType::get({config.layers, shape.slots, config.kvHeads,
                                shape.capacity, config.headDim},
                               shape.bf16Cache ? Type(b.getBF16Type())
                                               : Type(b.getF16Type()));
}

/// Of each batch tokens and positions, and counts and slots if it has them;
/// then both caches.
SmallVector<Type> StepBuilder::argumentTypes() {
  Type i32 = b.getI32Type();
  SmallVector<Type> types;
  for (const Batch &batch : batches) {
    types.push_back(
        RankedTensorType::get({batch.shape.rows, batch.shape.queries}, i32));
    types.append(batch.shape.selectsSlot ? 3 : 1,
                 RankedTensorType::get({batch.shape.rows}, i32));
  }
  types.append(2, cacheType());
  return types;
}

/// The function; the builder is then in it.
void StepBuilder::createFunction() {
  auto func = func::FuncOp::create(
      b, name,
      b.getFunctionType(argumentTypes(), {f32({rows, config.vocabulary}),
                                          cacheType(), cacheType()}));
  func->setAttr(mlir::kvrm::KVRMDialect::getStepAttrName(), b.getUnitAttr());
  Block *entry = func.addEntryBlock();
  b.setInsertionPointToStart(entry);
  auto next = entry->args_begin();
  for (Batch &batch : batches) {
    batch.tokens = *next++;
    batch.positions = *next++;
    if (batch.shape.selectsSlot) {
      batch.counts = *next++;
      batch.slots = *next++;
    }
  }
  keyCache = *next++;
  valueCache = *next++;
}

/// x + y
Value StepBuilder::add(Value x, Value y) {
  return identityMapped(
      x, {x, y},
      [](OpBuilder &nested, Location loc, ValueRange elements) -> Value {
        return arith::AddFOp::create(nested, loc, elements[0], elements[1]);
      });
}

/// What the tokens of a batch attend to, `[rows * queries, heads * head_dim]`.
Value StepBuilder::attendCache(const Batch &batch, Value q, Value k, Value v,
                               int64_t layer) {
  Value query = splitHeads(batch, q, config.heads);
  Value key = splitHeads(batch, k, config.kvHeads);
  Value value = splitHeads(batch, v, config.kvHeads);
  auto attribute = [&](double number) {
    return b.getF32FloatAttr(static_cast<float>(number));
  };
  double scale = config.attentionScale;
  if (scale == 0)
    scale = 1.0 / std::sqrt(static_cast<double>(config.headDim));
  // A window that is as long as a slot hides nothing.
  IntegerAttr window;
  if (int64_t size = config.layerWindow(layer); size && size < shape.capacity)
    window = b.getI64IntegerAttr(size);
  FloatAttr softcap;
  if (config.attentionSoftcap != 0)
    softcap = attribute(config.attentionSoftcap);
  auto attention = mlir::kvrm::CachedAttentionOp::create(
      b, TypeRange{query.getType(), cacheType(), cacheType()}, query, key,
      value, keyCache, valueCache, batch.positions, batch.counts, batch.slots,
      b.getI64IntegerAttr(layer), attribute(scale), window, softcap);
  keyCache = attention.getNewKeyCache();
  valueCache = attention.getNewValueCache();
  return tensor::CollapseShapeOp::create(
      b, attention.getOutput(), ArrayRef<ReassociationIndices>{{0, 1}, {2, 3}});
}

/// Query, key and value of a layer, f32, one beside the other.
Value StepBuilder::projection(Value x, int64_t layer) {
  const DecoderConfig &c = config;
  int64_t width = (c.heads + 2 * c.kvHeads) * c.headDim;
  Value weight = matrix(layer, "attn_qkv", width, c.hidden);
  if (!c.hasProjectionBias)
    return linear(x, weight);
  Value bias = layerVector(layer, "attn_qkv_bias", width);
  return elementwise(
      {tokens, width}, {linear(x, weight), bias},
      {b.getMultiDimIdentityMap(2),
       AffineMap::get(2, 0, b.getAffineDimExpr(1))},
      [](OpBuilder &nested, Location loc, ValueRange elements) -> Value {
        return arith::AddFOp::create(nested, loc, elements[0], elements[1]);
      });
}

/// Query or key, `[tokens, heads * head_dim]`, as it is before it turns.
Value StepBuilder::headNorm(Value x, int64_t layer, const char *weightName,
                            int64_t heads) {
  int64_t headDim = config.headDim;
  switch (config.headNorm) {
  case HeadNorm::None:
    return x;
  case HeadNorm::AllHeads:
    return rmsNorm(x, layerVector(layer, weightName, heads * headDim));
  case HeadNorm::EachHead:
    break;
  }
  SmallVector<ReassociationIndices> groups = {{0}, {1, 2}};
  Value apart = tensor::ExpandShapeOp::create(b, f32({tokens, heads, headDim}),
                                              x, groups);
  Value normed = rmsNorm(apart, layerVector(layer, weightName, headDim));
  return tensor::CollapseShapeOp::create(b, normed, groups);
}

/// x and what attention of a layer adds to it.
Value StepBuilder::attend(Value x, int64_t layer, const Angles &angles) {
  const DecoderConfig &c = config;
  int64_t qWidth = c.heads * c.headDim, kvWidth = c.kvHeads * c.headDim;
  Value qkv = projection(normBefore(x, layer, "attn_norm"), layer);
  Value q = headNorm(columns(qkv, 0, qWidth), layer, "attn_q_norm", c.heads);
  Value k =
      headNorm(columns(qkv, qWidth, kvWidth), layer, "attn_k_norm", c.kvHeads);
  q = rotate(q, c.heads, angles);
  k = rotate(k, c.kvHeads, angles);
  Value v = castToActivations(columns(qkv, qWidth + kvWidth, kvWidth));
  Value attended = forEachBatch(tokens, [&](const Batch &batch) {
    return attendCache(batch, q, k, v, layer);
  });
  Value added =
      linear(attended, matrix(layer, "attn_output", c.hidden, qWidth));
  return add(x, normAfter(added, layer, "attn_post_norm"));
}

/// The activation of gate, times up.
Value StepBuilder::activate(Value gate, Value up) {
  return identityMapped(
      gate, {gate, up},
      [&](OpBuilder &nested, Location loc, ValueRange elements) -> Value {
        ImplicitLocOpBuilder body(loc, nested);
        Value activated = config.activation == Activation::Silu
                              ? silu(body, elements[0])
                              : geluTanh(body, elements[0]);
        Value gated = arith::MulFOp::create(body, activated, elements[1]);
        return toActivation(nested, loc, gated);
      },
      activationType());
}

Value StepBuilder::capLogits(Value logits) {
  if (config.logitSoftcap == 0)
    return logits;
  return identityMapped(
      logits, {logits},
      [&](OpBuilder &nested, Location loc, ValueRange elements) {
        ImplicitLocOpBuilder body(loc, nested);
        return softcap(body, elements[0], config.logitSoftcap);
      });
}

/// x and what the feed-forward of a layer adds to it.
Value StepBuilder::feedForward(Value x, int64_t layer) {
  const DecoderConfig &c = config;
  Value normed = normBefore(x, layer, "ffn_norm");
  Value gateUp =
      linear(normed, matrix(layer, "ffn_gate_up", 2 * c.feedForward, c.hidden));
  Value gate = columns(gateUp, 0, c.feedForward);
  Value up = columns(gateUp, c.feedForward, c.feedForward);
  Value activated = activate(gate, up);
  Value added =
      linear(activated, matrix(layer, "ffn_down", c.hidden, c.feedForward));
  return add(x, normAfter(added, layer, "ffn_post_norm"));
}

Angles StepBuilder::gatherAngles(StringRef cosTable, StringRef sinTable) {
  auto gather = [&](StringRef table) {
    return forEachBatch(
        tokens, [&](const Batch &batch) { return gatherRope(table, batch); });
  };
  Value cosines = gather(cosTable);
  return {cosines, gather(sinTable)};
}

/// Those of what does not turn: the ops of a layer are the same as of others.
Angles StepBuilder::noAngles() {
  auto all = [&](float value) {
    Value scalar = arith::ConstantOp::create(b, b.getF32FloatAttr(value));
    return linalg::FillOp::create(b, scalar,
                                  empty({tokens, config.headDim / 2}))
        .getResult(0);
  };
  Value cosines = all(1.0f);
  return {cosines, all(0.0f)};
}

void StepBuilder::build() {
  OpBuilder::InsertionGuard guard(b);
  createFunction();
  Angles angles = gatherAngles("rope_cos", "rope_sin"), local = angles;
  if (config.localRope)
    local = gatherAngles("rope_cos_local", "rope_sin_local");
  Angles still = config.turns.empty() ? Angles() : noAngles();
  auto anglesOf = [&](int64_t layer) {
    if (!config.layerTurns(layer))
      return still;
    return config.layerWindow(layer) ? local : angles;
  };
  Value x =
      forEachBatch(tokens, [&](const Batch &batch) { return embed(batch); });
  for (int64_t layer = 0; layer < config.layers; ++layer)
    x = feedForward(attend(x, layer, anglesOf(layer)), layer);
  // Only tokens whose logits are asked for go through the vocabulary.
  x = forEachBatch(rows,
                   [&](const Batch &batch) { return lastTokens(batch, x); });
  Value logits = linear(
      rmsNorm(x, vector("output_norm", config.hidden), activationType()),
      weight("output", {config.vocabulary, config.hidden}, matrixType()));
  func::ReturnOp::create(b,
                         ValueRange{capLogits(logits), keyCache, valueCache});
}

static llvm::Error checkShape(const DecoderConfig &config,
                              const GraphShape &shape) {
  if (llvm::Error error = checkRange("slots", shape.slots, 1, KVRM_MAX_ROWS))
    return error;
  if (llvm::Error error =
          checkRange("capacity", shape.capacity, 1, config.context))
    return error;
  if (llvm::Error error =
          checkRange("prefill chunk", shape.prefillChunk, 1, KVRM_MAX_QUERIES))
    return error;
  bool isBF16 = shape.activations == ActivationType::BF16;
  if (shape.activations != ActivationType::F32 && isBF16 != shape.bf16Cache)
    return llvm::createStringError(
        "activations are %s and the cache is %s; they are of one element "
        "unless activations are f32",
        isBF16 ? "bf16" : "f16", shape.bf16Cache ? "bf16" : "f16");
  if (config.headDim % 2)
    return llvm::createStringError("head_dim is %lld, which is odd",
                                   static_cast<long long>(config.headDim));
  return llvm::Error::success();
}

/// Declares every weight as a global without a value.
static void declareWeights(ModuleOp module, const DecoderConfig &config,
                           const GraphShape &shape) {
  ImplicitLocOpBuilder b(module.getLoc(),
                         OpBuilder::atBlockBegin(module.getBody()));
  Type f32 = b.getF32Type();
  Type matrix =
      shape.bf16Weights ? Type(b.getBF16Type()) : Type(b.getF16Type());
  for (const WeightShape &weight : weightsOf(config)) {
    bool isMatrix = weight.kind == WeightKind::Matrix;
    SmallVector<int64_t> dims = {weight.rows, weight.cols};
    if (weight.kind == WeightKind::Vector)
      dims = {weight.cols};
    else if (weight.kind == WeightKind::Table)
      dims[0] = shape.capacity;
    auto type = RankedTensorType::get(dims, isMatrix ? matrix : f32);
    ml_program::GlobalOp::create(
        b, weight.name, type, /*is_mutable=*/false,
        ml_program::ExternAttr::get(b.getContext(), type),
        b.getStringAttr("private"));
  }
}

namespace kvrm {

llvm::Expected<OwningOpRef<ModuleOp>> buildDecoder(MLIRContext &context,
                                                   const DecoderConfig &config,
                                                   const GraphShape &shape) {
  if (llvm::Error error = checkShape(config, shape))
    return error;
  context.loadDialect<arith::ArithDialect, func::FuncDialect,
                      linalg::LinalgDialect, math::MathDialect,
                      ml_program::MLProgramDialect, tensor::TensorDialect,
                      mlir::kvrm::KVRMDialect>();
  OwningOpRef<ModuleOp> module = ModuleOp::create(UnknownLoc::get(&context));
  declareWeights(*module, config, shape);
  const BatchShape decode{shape.slots, 1, /*selectsSlot=*/false};
  const BatchShape prompt{1, shape.prefillChunk, /*selectsSlot=*/true};
  StepBuilder(*module, config, shape, "decode_step", decode).build();
  StepBuilder(*module, config, shape, "prefill", prompt).build();
  if (shape.mixes)
    StepBuilder(*module, config, shape, "mixed_step", {decode, prompt}).build();
  return module;
}

} // namespace kvrm
