//===- StepBuilder.cpp - One decoder step as phase-1 IR -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepBuilder.h"

#include "kvrm/Dialect/KVRM/Utils/Rotation.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace ::kvrm;

namespace kvrm {

StringRef embeddingOf(const DecoderConfig &config, const GraphShape &shape) {
  bool isShared = config.tiedEmbeddings && shape.pieces.contains("output");
  return isShared ? "output" : "token_embd";
}

std::vector<WeightPiece> piecesOf(const GraphShape &shape, StringRef name,
                                  int64_t rows) {
  auto known = shape.pieces.find(name);
  if (known != shape.pieces.end())
    return known->second;
  return {{name.str(), rows, std::nullopt}};
}

RankedTensorType typeOf(MLIRContext *context, const GraphShape &shape,
                        const WeightPiece &piece, int64_t width) {
  if (!piece.format) {
    Type element = shape.bf16Weights ? Type(BFloat16Type::get(context))
                                     : Type(Float16Type::get(context));
    return RankedTensorType::get({piece.rows, width}, element);
  }
  auto block = mlir::kvrm::BlockType::get(
      context, static_cast<mlir::kvrm::BlockFormat>(*piece.format));
  return RankedTensorType::get(
      {piece.rows, width / shapeOf(*piece.format).elements}, block);
}

} // namespace kvrm

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

Value StepBuilder::matrixRows(const WeightPiece &piece, int64_t width) {
  RankedTensorType type = typeOf(b.getContext(), shape, piece, width);
  Value stored = weight(piece.name, type.getShape(), type.getElementType());
  if (!piece.format)
    return stored;
  return mlir::kvrm::DequantizeOp::create(b, f32({piece.rows, width}), stored);
}

/// Rows of the embedding table, `[rows * queries, hidden]`.
Value StepBuilder::embed(const Batch &batch) {
  WeightPiece piece =
      piecesOf(shape, embeddingOf(config, shape), config.vocabulary).front();
  Value table = matrixRows(piece, config.hidden);
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
        if (!element.getType().isF32())
          element =
              arith::ExtFOp::create(nested, loc, nested.getF32Type(), element);
        if (config.embeddingScale == 1)
          return element;
        Value scale = arith::ConstantOp::create(
            nested, loc,
            nested.getF32FloatAttr(static_cast<float>(config.embeddingScale)));
        return arith::MulFOp::create(nested, loc, element, scale);
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
Value StepBuilder::multiply(Value x, Value weight) {
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

/// Pieces of a matrix make columns of the product, one beside the other.
Value StepBuilder::linear(Value x, StringRef name, int64_t width) {
  auto type = cast<RankedTensorType>(x.getType());
  std::vector<WeightPiece> pieces = piecesOf(shape, name, width);
  if (pieces.size() == 1)
    return multiply(x, matrixRows(pieces.front(), type.getDimSize(1)));
  Value joined = empty({type.getDimSize(0), width});
  int64_t first = 0;
  for (const WeightPiece &piece : pieces) {
    Value part = multiply(x, matrixRows(piece, type.getDimSize(1)));
    SmallVector<OpFoldResult> offsets = {b.getIndexAttr(0),
                                         b.getIndexAttr(first)};
    joined = tensor::InsertSliceOp::create(
        b, part, joined, offsets, tensor::getMixedSizes(b, b.getLoc(), part),
        SmallVector<OpFoldResult>(2, b.getIndexAttr(1)));
    first += piece.rows;
  }
  return joined;
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
