//===- Synth.cpp - Decoders with seeded weights ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Weights come from a hash of (seed, name, index), so that any row can be
// produced by itself. Values are uniform, with a variance of 1 / columns for
// matrices: activations stay near 1. What a layer adds to the residual is
// scaled down by the root of the number of additions.
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Model.h"

#include "llvm/ADT/Twine.h"

#include <cmath>

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
using llvm::Twine;

static uint64_t streamOf(uint64_t seed, StringRef name) {
  uint64_t hash = SplitMix64::mix(seed);
  for (char c : name)
    hash = SplitMix64::mix(hash ^ static_cast<unsigned char>(c));
  return hash;
}

namespace {
class SynthSource final : public WeightSource {
public:
  SynthSource(int64_t rowCount, int64_t colCount, const SeededValues &values)
      : rowCount(rowCount), colCount(colCount), values(values) {}

  int64_t rows() const override { return rowCount; }
  int64_t cols() const override { return colCount; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    for (int64_t i = begin * colCount, last = end * colCount; i < last; ++i)
      *out++ = values.at(i);
  }
  const SeededValues *seededValues() const override { return &values; }

private:
  int64_t rowCount;
  int64_t colCount;
  SeededValues values;
};
} // namespace

Expected<DecoderModel> kvrm::synthModel(const SynthOptions &options) {
  DecoderModel model;
  DecoderConfig &c = model.config;
  c.name = "synth";
  c.architecture = "llama";
  c.vocabulary = options.vocabulary;
  c.hidden = options.hidden;
  c.layers = options.layers;
  c.heads = options.heads;
  c.kvHeads = options.kvHeads;
  c.headDim = options.headDim;
  c.feedForward = options.feedForward;
  c.context = options.context;
  c.tiedEmbeddings = options.tiedEmbeddings;
  model.tokenizerNote = "a synthetic model has no tokenizer";

  auto add = [&](const Twine &name, int64_t rows, int64_t cols, double center,
                 double deviation) {
    std::string text = name.str();
    // A uniform variable of half-width w has the deviation w / sqrt(3).
    auto width = static_cast<float>(deviation * std::sqrt(3.0));
    model.set(text, std::make_shared<SynthSource>(
                        rows, cols,
                        SeededValues{streamOf(options.seed, text),
                                     static_cast<float>(center), width}));
  };
  auto matrix = [&](const Twine &name, int64_t rows, int64_t cols,
                    double scale) {
    add(name, rows, cols, 0.0, scale / std::sqrt(static_cast<double>(cols)));
  };
  auto norm = [&](const Twine &name) { add(name, 1, c.hidden, 1.0, 0.1); };

  // Sizes that are out of range are refused below; here they must only not
  // become more sources than there can be layers.
  auto layers = static_cast<int64_t>(std::min<int64_t>(c.layers, 65536));
  double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(layers));
  add("token_embd", c.vocabulary, c.hidden, 0.0, 1.0);
  if (c.tiedEmbeddings)
    model.share("output", "token_embd");
  else
    matrix("output", c.vocabulary, c.hidden, 1.0);
  norm("output_norm");
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::string prefix = "blk." + std::to_string(layer) + ".";
    norm(prefix + "attn_norm");
    matrix(prefix + "attn_qkv", (c.heads + 2 * c.kvHeads) * c.headDim, c.hidden,
           1.0);
    matrix(prefix + "attn_output", c.hidden, c.heads * c.headDim, residual);
    norm(prefix + "ffn_norm");
    matrix(prefix + "ffn_gate_up", 2 * c.feedForward, c.hidden, 1.0);
    matrix(prefix + "ffn_down", c.hidden, c.feedForward, residual);
  }
  // A dimension out of range is refused below.
  c.rope = plainRope(10000.0, std::min<int64_t>(c.headDim, 1 << 16));
  model.addRopeTables();
  if (Error error = model.verify("synth"))
    return error;
  return model;
}
