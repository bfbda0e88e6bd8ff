//===- Model.cpp - A decoder as the compiler sees it ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Model.h"

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/FormatVariadic.h"

#include <cassert>
#include <cmath>

using namespace kvrm;
using llvm::Error;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

WeightSource::~WeightSource() = default;

void DecoderConfig::addEnd(int32_t token) {
  if (token >= 0 && !llvm::is_contained(ends, token))
    ends.push_back(token);
}

const WeightSource *DecoderModel::lookup(StringRef name) const {
  auto it = weights.find(name);
  return it == weights.end() ? nullptr : it->second.get();
}

void DecoderModel::set(StringRef name,
                       std::shared_ptr<const WeightSource> source) {
  weights[name] = std::move(source);
}

void DecoderModel::share(StringRef name, StringRef existing) {
  set(name, weights.at(existing));
}

namespace {
/// cos or sin of position * frequency.
class RopeSource final : public WeightSource {
public:
  RopeSource(int64_t positions, std::vector<double> frequencies, bool sine)
      : positions(positions), frequencies(std::move(frequencies)), sine(sine) {}

  int64_t rows() const override { return positions; }
  int64_t cols() const override {
    return static_cast<int64_t>(frequencies.size());
  }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    for (int64_t position = begin; position < end; ++position)
      for (double frequency : frequencies) {
        double angle = static_cast<double>(position) * frequency;
        *out++ = static_cast<float>(sine ? std::sin(angle) : std::cos(angle));
      }
  }

private:
  int64_t positions;
  std::vector<double> frequencies;
  bool sine;
};
} // namespace

void DecoderModel::addRopeTables(std::vector<float> factors) {
  assert((factors.empty() ||
          static_cast<int64_t>(factors.size()) == config.ropeDim / 2) &&
         "one factor for each pair");
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.ropeDim / 2; ++i) {
    double exponent =
        -2.0 * static_cast<double>(i) / static_cast<double>(config.ropeDim);
    double factor = factors.empty() ? 1.0 : factors[static_cast<size_t>(i)];
    frequencies.push_back(std::pow(config.ropeTheta, exponent) / factor);
  }
  set("rope_cos", std::make_shared<RopeSource>(config.context, frequencies,
                                               /*sine=*/false));
  set("rope_sin", std::make_shared<RopeSource>(config.context, frequencies,
                                               /*sine=*/true));
}

static Error verifyConfig(const DecoderConfig &config, StringRef origin) {
  struct Range {
    const char *name;
    int64_t value;
    int64_t limit;
  };
  const Range ranges[] = {
      {"layers", config.layers, KVRM_MAX_LAYERS},
      {"kv heads", config.kvHeads, KVRM_MAX_KV_HEADS},
      {"heads", config.heads, KVRM_MAX_HEADS},
      {"head dim", config.headDim, KVRM_MAX_HEAD_DIM},
      {"hidden", config.hidden, KVRM_MAX_HIDDEN},
      {"feed forward", config.feedForward, 1 << 22},
      {"vocabulary", config.vocabulary, KVRM_MAX_VOCABULARY},
      {"context", config.context, KVRM_MAX_CONTEXT},
      {"rope dim", config.ropeDim, config.headDim},
  };
  for (const Range &range : ranges)
    if (range.value < 1 || range.value > range.limit)
      return llvm::createStringError(
          origin + formatv(": {0} {1} is not in [1, {2}]", range.name,
                           range.value, range.limit)
                       .str());
  if (config.heads % config.kvHeads != 0)
    return llvm::createStringError(
        origin + formatv(": {0} heads are not a multiple of {1} kv heads",
                         config.heads, config.kvHeads)
                     .str());
  if (config.ropeDim % 2 != 0)
    return llvm::createStringError(
        origin + formatv(": rope dim {0} is odd", config.ropeDim).str());
  if (!std::isfinite(config.ropeTheta) || config.ropeTheta <= 0)
    return llvm::createStringError(
        origin +
        formatv(": rope theta {0} is not positive", config.ropeTheta).str());
  if (!std::isfinite(config.normEpsilon) || config.normEpsilon < 0)
    return llvm::createStringError(
        origin + formatv(": norm epsilon {0} is not a number of 0 or more",
                         config.normEpsilon)
                     .str());
  for (int32_t id : {config.bos, config.eos})
    if (id < -1 || id >= config.vocabulary)
      return llvm::createStringError(
          origin +
          formatv(": bos or eos id {0} is not below the vocabulary {1}", id,
                  config.vocabulary)
              .str());
  return Error::success();
}

/// That every weight is there in the right shape.
static Error verifyWeights(const DecoderModel &model, StringRef origin) {
  const DecoderConfig &c = model.config;
  auto check = [&](const Twine &name, int64_t rows, int64_t cols) -> Error {
    std::string text = name.str();
    const WeightSource *source = model.lookup(text);
    if (!source)
      return llvm::createStringError(origin + ": weight '" + text +
                                     "' is missing");
    if (source->rows() != rows || source->cols() != cols)
      return llvm::createStringError(
          origin + formatv(": weight '{0}' is [{1}][{2}], expected [{3}][{4}]",
                           text, source->rows(), source->cols(), rows, cols)
                       .str());
    return Error::success();
  };
  struct Weight {
    const char *name;
    int64_t rows;
    int64_t cols;
  };
  const Weight global[] = {
      {"token_embd", c.vocabulary, c.hidden},
      {"output_norm", 1, c.hidden},
      {"output", c.vocabulary, c.hidden},
      {"rope_cos", c.context, c.ropeDim / 2},
      {"rope_sin", c.context, c.ropeDim / 2},
  };
  const Weight ofLayer[] = {
      {"attn_norm", 1, c.hidden},
      {"attn_qkv", (c.heads + 2 * c.kvHeads) * c.headDim, c.hidden},
      {"attn_output", c.hidden, c.heads * c.headDim},
      {"ffn_norm", 1, c.hidden},
      {"ffn_gate_up", 2 * c.feedForward, c.hidden},
      {"ffn_down", c.hidden, c.feedForward},
  };
  for (const Weight &weight : global)
    if (Error error = check(weight.name, weight.rows, weight.cols))
      return error;
  for (int64_t layer = 0; layer < c.layers; ++layer)
    for (const Weight &weight : ofLayer)
      if (Error error = check("blk." + Twine(layer) + "." + weight.name,
                              weight.rows, weight.cols))
        return error;
  return Error::success();
}

Error DecoderModel::verify(StringRef origin) const {
  if (Error error = verifyConfig(config, origin))
    return error;
  return verifyWeights(*this, origin);
}
