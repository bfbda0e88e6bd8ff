//===- DecoderConfig.h - What a decoder is made of --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One description for every architecture: front ends fill it, the builder
// reads it, and neither knows the other. Defaults are those of Llama.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_DECODERCONFIG_H
#define KVRM_FRONTEND_DECODERCONFIG_H

#include "kvrm/Frontend/Rope.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvrm {

/// Which norm query and key have before they turn.
enum class HeadNorm : uint8_t {
  None,
  EachHead, ///< over head_dim, one gain for all heads
  AllHeads  ///< over all heads of a token at once
};

/// What the gate of a feed-forward goes through.
enum class Activation : uint8_t {
  Silu,
  GeluTanh ///< GELU by its approximation with a tanh
};

struct DecoderConfig {
  std::string name;
  std::string architecture;
  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kvHeads = 0;
  int64_t headDim = 0;
  int64_t feedForward = 0;
  int64_t context = 0;
  double normEpsilon = 1e-5;
  Rope rope;
  int32_t bos = -1; ///< -1: the model has none
  int32_t eos = -1; ///< -1: the model has none
  /// Tokens that end a turn: eos, then others, each once.
  std::vector<int32_t> ends;
  bool tiedEmbeddings = false;

  /// Query, key and value are added a bias.
  bool hasProjectionBias = false;
  HeadNorm headNorm = HeadNorm::None;
  /// Norms of what attention and feed-forward read, and of what they add.
  bool hasNormsBefore = true;
  bool hasNormsAfter = false;
  /// Of each layer, whether query and key turn; empty: all do.
  std::vector<bool> turns;
  Activation activation = Activation::Silu;
  double embeddingScale = 1; ///< what rows of the embedding are multiplied with

  double attentionScale = 0;   ///< of scores; 0: 1 / sqrt(headDim)
  double attentionSoftcap = 0; ///< of scaled scores; 0: none
  double logitSoftcap = 0;     ///< 0: none
  /// Of each layer, how many last tokens a token sees, 0: all; empty: all do.
  std::vector<int64_t> windows;
  /// The rotary embedding of layers with a window, if it is another.
  std::optional<Rope> localRope;

  /// 0: none.
  int64_t layerWindow(int64_t layer) const {
    return windows.empty() ? 0 : windows[static_cast<size_t>(layer)];
  }
  /// Gives layers a window, all but every `fullEvery`-th; 0: all layers.
  void setWindows(int64_t window, int64_t fullEvery);
  bool layerTurns(int64_t layer) const {
    return turns.empty() || turns[static_cast<size_t>(layer)];
  }
  /// Adds `token` to `ends` unless it is there; -1 is none.
  void addEnd(int32_t token);
};

enum class WeightKind : uint8_t {
  Vector, ///< f32, and there is one row
  Table,  ///< f32, a row a position
  Matrix  ///< of the package's element
};

struct WeightShape {
  std::string name;
  int64_t rows;
  int64_t cols;
  WeightKind kind;
};

/// Every weight of such a decoder, as listed in Model.h.
std::vector<WeightShape> weightsOf(const DecoderConfig &config);

/// A matrix of a layer that files may have in parts, one below the other.
struct PartNames {
  const char *whole;
  std::vector<const char *> parts;
};
const std::vector<PartNames> &partNames();

/// The name of a layer's weight: "blk.3.attn_qkv".
std::string layerWeight(int64_t layer, const char *name);

} // namespace kvrm

#endif // KVRM_FRONTEND_DECODERCONFIG_H
