//===- Model.cpp - A decoder as the compiler sees it ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Model.h"

#include "kvrm/Frontend/BlockCodes.h"

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/FormatVariadic.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;
using llvm::Error;
using llvm::formatv;
using llvm::StringRef;

WeightSource::~WeightSource() = default;

void WeightSource::readBlocks(int64_t, int64_t, uint8_t *) const {
  llvm_unreachable("no blocks");
}

void WeightSource::readCodes(int64_t row, BlockCodes *out) const {
  BlockFormat format = *blockFormat();
  const GGMLTypeInfo &info = infoOf(typeOf(format));
  int64_t blocks = cols() / info.blockElements;
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks * info.blockBytes));
  readBlocks(row, row + 1, bytes.data());
  for (int64_t b = 0; b < blocks; ++b)
    unpackBlock(format, bytes.data() + b * info.blockBytes, out[b]);
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

std::vector<WeightPiece> DecoderModel::piecesOf(StringRef matrix) const {
  const WeightSource *whole = lookup(matrix);
  if (!whole->blockFormat())
    for (const PartNames &names : partNames()) {
      StringRef prefix = matrix;
      if (!prefix.consume_back(names.whole) ||
          !lookup((prefix + names.parts.front()).str()))
        continue;
      std::vector<WeightPiece> pieces;
      for (const char *part : names.parts) {
        std::string name = (prefix + part).str();
        const WeightSource *source = lookup(name);
        pieces.push_back({name, source->rows(), source->blockFormat()});
      }
      return pieces;
    }
  return {{matrix.str(), whole->rows(), whole->blockFormat()}};
}

MatrixPieces DecoderModel::matricesInBlocks() const {
  MatrixPieces found;
  for (const WeightShape &weight : weightsOf(config)) {
    if (weight.kind != WeightKind::Matrix)
      continue;
    std::vector<WeightPiece> pieces = piecesOf(weight.name);
    if (llvm::any_of(pieces, [](const WeightPiece &piece) {
          return piece.format.has_value();
        }))
      found[weight.name] = std::move(pieces);
  }
  return found;
}

namespace {
/// cos or sin of position * frequency, times the magnitude. Pairs of a head
/// beyond those that turn have the frequency 0, and no magnitude.
class RopeSource final : public WeightSource {
public:
  RopeSource(int64_t positions, int64_t pairs, Rope rope, bool sine)
      : positions(positions), pairs(pairs), rope(std::move(rope)), sine(sine) {}

  int64_t rows() const override { return positions; }
  int64_t cols() const override { return pairs; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    auto turning = static_cast<int64_t>(rope.frequencies.size());
    for (int64_t position = begin; position < end; ++position) {
      for (double frequency : rope.frequencies) {
        double angle = static_cast<double>(position) * frequency;
        double value = sine ? std::sin(angle) : std::cos(angle);
        *out++ = static_cast<float>(rope.magnitude * value);
      }
      out = std::fill_n(out, pairs - turning, sine ? 0.0f : 1.0f);
    }
  }

private:
  int64_t positions;
  int64_t pairs;
  Rope rope;
  bool sine;
};
} // namespace

void DecoderModel::addRopeTables() {
  auto add = [&](StringRef name, const Rope &rope, bool sine) {
    set(name, std::make_shared<RopeSource>(config.context, config.headDim / 2,
                                           rope, sine));
  };
  add("rope_cos", config.rope, /*sine=*/false);
  add("rope_sin", config.rope, /*sine=*/true);
  if (!config.localRope)
    return;
  add("rope_cos_local", *config.localRope, /*sine=*/false);
  add("rope_sin_local", *config.localRope, /*sine=*/true);
}

static Error verifyRope(const DecoderConfig &config, const Rope &rope,
                        StringRef origin) {
  if (config.headDim % 2 != 0 || rope.dim % 2 != 0)
    return llvm::createStringError(
        origin + formatv(": head dim {0} or rope dim {1} is odd",
                         config.headDim, rope.dim)
                     .str());
  if (static_cast<int64_t>(rope.frequencies.size()) != rope.dim / 2 ||
      !llvm::all_of(rope.frequencies,
                    [](double f) { return std::isfinite(f) && f > 0; }) ||
      !std::isfinite(rope.magnitude) || rope.magnitude <= 0)
    return llvm::createStringError(
        origin + ": rope frequencies or magnitude are not positive");
  return Error::success();
}

static Error verifyAttention(const DecoderConfig &config, StringRef origin) {
  for (auto [name, value] : {std::pair<const char *, double>(
                                 "attention scale", config.attentionScale),
                             {"attention softcap", config.attentionSoftcap},
                             {"logit softcap", config.logitSoftcap},
                             {"embedding scale", config.embeddingScale}})
    if (!std::isfinite(value) || value < 0)
      return llvm::createStringError(
          origin +
          formatv(": {0} {1} is not a number of 0 or more", name, value).str());
  if (!config.windows.empty() &&
      (static_cast<int64_t>(config.windows.size()) != config.layers ||
       llvm::any_of(config.windows, [](int64_t window) { return window < 0; })))
    return llvm::createStringError(origin +
                                   ": windows are not one of 0 or more a "
                                   "layer");
  return Error::success();
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
      {"rope dim", config.rope.dim, config.headDim},
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
  if (Error error = verifyRope(config, config.rope, origin))
    return error;
  if (config.localRope)
    if (Error error = verifyRope(config, *config.localRope, origin))
      return error;
  if (Error error = verifyAttention(config, origin))
    return error;
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
  for (const WeightShape &weight : weightsOf(model.config)) {
    const WeightSource *source = model.lookup(weight.name);
    if (!source)
      return llvm::createStringError(origin + ": weight '" + weight.name +
                                     "' is missing");
    if (source->rows() != weight.rows || source->cols() != weight.cols)
      return llvm::createStringError(
          origin + formatv(": weight '{0}' is [{1}][{2}], expected [{3}][{4}]",
                           weight.name, source->rows(), source->cols(),
                           weight.rows, weight.cols)
                       .str());
  }
  return Error::success();
}

Error DecoderModel::verify(StringRef origin) const {
  if (Error error = verifyConfig(config, origin))
    return error;
  return verifyWeights(*this, origin);
}
