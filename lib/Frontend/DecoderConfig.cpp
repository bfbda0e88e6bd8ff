//===- DecoderConfig.cpp - What a decoder is made of ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/DecoderConfig.h"

#include "llvm/ADT/STLExtras.h"

using namespace kvrm;

void DecoderConfig::addEnd(int32_t token) {
  if (token >= 0 && !llvm::is_contained(ends, token))
    ends.push_back(token);
}

void DecoderConfig::setWindows(int64_t window, int64_t fullEvery) {
  windows.clear();
  for (int64_t layer = 0; layer < layers; ++layer)
    windows.push_back(fullEvery && (layer + 1) % fullEvery == 0 ? 0 : window);
}

const std::vector<PartNames> &kvrm::partNames() {
  static const std::vector<PartNames> names = {
      {"attn_qkv", {"attn_q", "attn_k", "attn_v"}},
      {"ffn_gate_up", {"ffn_gate", "ffn_up"}}};
  return names;
}

std::string kvrm::layerWeight(int64_t layer, const char *name) {
  return "blk." + std::to_string(layer) + "." + name;
}

static void addLayer(std::vector<WeightShape> &weights, const DecoderConfig &c,
                     int64_t layer) {
  auto add = [&](const char *name, int64_t rows, int64_t cols,
                 WeightKind kind) {
    weights.push_back({layerWeight(layer, name), rows, cols, kind});
  };
  auto addVector = [&](const char *name, int64_t cols, bool isThere) {
    if (isThere)
      add(name, 1, cols, WeightKind::Vector);
  };
  int64_t q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
  bool normsHeads = c.headNorm != HeadNorm::None;
  bool normsEach = c.headNorm == HeadNorm::EachHead;
  addVector("attn_norm", c.hidden, c.hasNormsBefore);
  add("attn_qkv", q + 2 * kv, c.hidden, WeightKind::Matrix);
  addVector("attn_qkv_bias", q + 2 * kv, c.hasProjectionBias);
  addVector("attn_q_norm", normsEach ? c.headDim : q, normsHeads);
  addVector("attn_k_norm", normsEach ? c.headDim : kv, normsHeads);
  add("attn_output", c.hidden, q, WeightKind::Matrix);
  addVector("attn_post_norm", c.hidden, c.hasNormsAfter);
  addVector("ffn_norm", c.hidden, c.hasNormsBefore);
  add("ffn_gate_up", 2 * c.feedForward, c.hidden, WeightKind::Matrix);
  add("ffn_down", c.hidden, c.feedForward, WeightKind::Matrix);
  addVector("ffn_post_norm", c.hidden, c.hasNormsAfter);
}

std::vector<WeightShape> kvrm::weightsOf(const DecoderConfig &config) {
  const DecoderConfig &c = config;
  std::vector<WeightShape> weights = {
      {"token_embd", c.vocabulary, c.hidden, WeightKind::Matrix},
      {"rope_cos", c.context, c.headDim / 2, WeightKind::Table},
      {"rope_sin", c.context, c.headDim / 2, WeightKind::Table},
  };
  if (c.localRope)
    for (const char *name : {"rope_cos_local", "rope_sin_local"})
      weights.push_back({name, c.context, c.headDim / 2, WeightKind::Table});
  for (int64_t layer = 0; layer < c.layers; ++layer)
    addLayer(weights, c, layer);
  weights.push_back({"output_norm", 1, c.hidden, WeightKind::Vector});
  weights.push_back({"output", c.vocabulary, c.hidden, WeightKind::Matrix});
  return weights;
}
