//===- DecoderBuilder.cpp - A decoder as phase-1 IR -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepBuilder.h"

#include "Activations.h"

#include "kvrm/Frontend/CheckRange.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <cmath>

using namespace mlir;
using namespace ::kvrm;

Type StepBuilder::cacheType() {
  Type element = mlir::kvrm::getCacheType(b.getContext(), shape.cache);
  return RankedTensorType::get(
      {config.layers, shape.slots, config.kvHeads, shape.capacity,
       mlir::kvrm::getCacheRow(config.headDim, element)},
      element);
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
  Value product = linear(x, layerWeight(layer, "attn_qkv"), width);
  if (!c.hasProjectionBias)
    return product;
  Value bias = layerVector(layer, "attn_qkv_bias", width);
  return elementwise(
      {tokens, width}, {product, bias},
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
  Value added = linear(attended, layerWeight(layer, "attn_output"), c.hidden);
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
      linear(normed, layerWeight(layer, "ffn_gate_up"), 2 * c.feedForward);
  Value gate = columns(gateUp, 0, c.feedForward);
  Value up = columns(gateUp, c.feedForward, c.feedForward);
  Value activated = activate(gate, up);
  Value added = linear(activated, layerWeight(layer, "ffn_down"), c.hidden);
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
  Value logits =
      linear(rmsNorm(x, vector("output_norm", config.hidden), activationType()),
             "output", config.vocabulary);
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
  kvrm_element own =
      shape.activations == ActivationType::BF16 ? KVRM_BF16 : KVRM_F16;
  if (shape.activations != ActivationType::F32 && shape.cache != own &&
      !kvrm_element_is_code(shape.cache))
    return llvm::createStringError(
        "activations are %s and the cache is %s; they are of one element "
        "unless activations are f32 or the cache is f8e4m3 or int8",
        kvrm_element_name(own), kvrm_element_name(shape.cache));
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
  auto declare = [&](StringRef name, RankedTensorType type) {
    ml_program::GlobalOp::create(
        b, name, type, /*is_mutable=*/false,
        ml_program::ExternAttr::get(b.getContext(), type),
        b.getStringAttr("private"));
  };
  for (const WeightShape &weight : weightsOf(config)) {
    if (weight.name == "token_embd" &&
        embeddingOf(config, shape) != weight.name)
      continue;
    if (weight.kind == WeightKind::Matrix) {
      for (const WeightPiece &piece : piecesOf(shape, weight.name, weight.rows))
        declare(piece.name, typeOf(b.getContext(), shape, piece, weight.cols));
      continue;
    }
    SmallVector<int64_t> dims = {weight.rows, weight.cols};
    if (weight.kind == WeightKind::Vector)
      dims = {weight.cols};
    else
      dims[0] = shape.capacity;
    declare(weight.name, RankedTensorType::get(dims, b.getF32Type()));
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
