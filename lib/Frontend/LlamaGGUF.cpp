//===- LlamaGGUF.cpp - Llama decoders in GGUF files -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUFParts.h"
#include "GGUFTokenizer.h"
#include "Lookup.h"

#include "kvrm/Frontend/GGUF.h"
#include "kvrm/Frontend/Model.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include <cmath>

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

using FilePtr = GGUFParts::FilePtr;

static constexpr int64_t maxFeedForward = 1 << 22;

static Error failure(const GGUFFile &file, const Twine &message) {
  return fileError(file.name(), message);
}

//===----------------------------------------------------------------------===//
// Sources
//===----------------------------------------------------------------------===//

namespace {
class TensorSource : public WeightSource {
public:
  TensorSource(FilePtr file, const GGUFTensor &tensor)
      : file(std::move(file)), tensor(tensor),
        rowBytes(tensor.bytes / static_cast<uint64_t>(tensor.rows())) {}

  int64_t rows() const override { return tensor.rows(); }
  int64_t cols() const override { return tensor.cols(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    dequantize(tensor.type,
               tensor.data + static_cast<uint64_t>(begin) * rowBytes,
               (end - begin) * cols(), out);
  }
  std::string origin(int64_t) const override {
    return (file->name() + ": tensor '" + tensor.name + "'").str();
  }

private:
  FilePtr file; ///< keeps the mapping
  const GGUFTensor &tensor;
  uint64_t rowBytes;
};

/// The rows of q or k. A Llama GGUF orders the rows of a head so that RoPE
/// rotates rows 2i and 2i + 1; this puts them into the half-split order of
/// Model.h. Scores are sums over a head, and so do not see it.
class HalfSplitSource final : public TensorSource {
public:
  HalfSplitSource(FilePtr file, const GGUFTensor &tensor, int64_t headDim)
      : TensorSource(std::move(file), tensor), headDim(headDim) {}

  void readRows(int64_t begin, int64_t end, float *out) const override {
    for (int64_t row = begin; row < end; ++row, out += cols()) {
      int64_t element = row % headDim;
      int64_t half = headDim / 2;
      int64_t old = element < half ? 2 * element : 2 * (element - half) + 1;
      int64_t from = row - element + old;
      TensorSource::readRows(from, from + 1, out);
    }
  }

private:
  int64_t headDim;
};

/// Matrices of one width, one below the other.
class ConcatSource final : public WeightSource {
public:
  explicit ConcatSource(std::vector<std::unique_ptr<WeightSource>> parts)
      : parts(std::move(parts)) {
    for (const auto &part : this->parts)
      total += part->rows();
  }

  int64_t rows() const override { return total; }
  int64_t cols() const override { return parts.front()->cols(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    int64_t first = 0;
    for (const auto &part : parts) {
      int64_t from = std::max(begin - first, int64_t(0));
      int64_t to = std::min(end - first, part->rows());
      if (from < to) {
        part->readRows(from, to, out);
        out += (to - from) * cols();
      }
      first += part->rows();
    }
  }

  std::string origin(int64_t row) const override {
    for (const auto &part : parts) {
      if (row < part->rows())
        return part->origin(row);
      row -= part->rows();
    }
    return {};
  }

private:
  std::vector<std::unique_ptr<WeightSource>> parts;
  int64_t total = 0;
};
} // namespace

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

namespace {
class LlamaReader {
public:
  explicit LlamaReader(const GGUFParts &parts)
      : parts(parts), file(parts.first()) {}

  Expected<DecoderModel> read();

private:
  Error readConfig();
  Error readName();
  Error readSizes();
  Error readHead();
  Error readVocabulary();
  Error checkUnsupported();
  Error checkRopeKeys();
  Error readWeights();
  Error readLayer(int64_t layer);
  Error readRopeTables();
  Error checkAllUsed();

  /// The integer at `key`, in [1, limit].
  Error positive(int64_t &place, StringRef key, int64_t limit) const;
  Error positiveOr(int64_t &place, StringRef key, int64_t limit,
                   int64_t absent) const;

  /// The tensor `name`, which must have the shape [rows][cols], or [cols] if
  /// `rows` is 0.
  Expected<GGUFParts::Found> tensor(const Twine &name, int64_t rows,
                                    int64_t cols);
  Error addTensor(const Twine &name, const Twine &tensorName, int64_t rows,
                  int64_t cols);

  Error fail(const Twine &message) const { return failure(*file, message); }

  const GGUFParts &parts;
  FilePtr file; ///< with the metadata
  DecoderModel model;
  llvm::StringSet<> used; ///< tensors that the decoder has a place for
};
} // namespace

Error LlamaReader::positive(int64_t &place, StringRef key,
                            int64_t limit) const {
  if (Error error = assign(place, file->getInt(key)))
    return error;
  if (place < 1 || place > limit)
    return fail(
        formatv("metadata '{0}': {1} is not in [1, {2}]", key, place, limit)
            .str());
  return Error::success();
}

Error LlamaReader::positiveOr(int64_t &place, StringRef key, int64_t limit,
                              int64_t absent) const {
  if (file->has(key))
    return positive(place, key, limit);
  place = absent;
  return Error::success();
}

Error LlamaReader::readName() {
  DecoderConfig &c = model.config;
  if (Error error =
          assign(c.architecture, file->getString("general.architecture")))
    return error;
  if (c.architecture != "llama")
    return fail("architecture '" + c.architecture +
                "' is not supported (only 'llama' is)");
  if (Error error = assign(c.name, file->getString("general.name", "")))
    return error;
  if (!llvm::json::isUTF8(c.name))
    return fail("metadata 'general.name' is not UTF-8");
  if (c.name.size() > KVRM_MAX_NAME_BYTES)
    return fail(formatv("metadata 'general.name': {0} bytes are more than the "
                        "limit {1}",
                        c.name.size(), int64_t(KVRM_MAX_NAME_BYTES))
                    .str());
  return Error::success();
}

Error LlamaReader::readSizes() {
  DecoderConfig &c = model.config;
  if (Error error = firstOf({
          [&] {
            return positive(c.layers, "llama.block_count", KVRM_MAX_LAYERS);
          },
          [&] {
            return positive(c.context, "llama.context_length",
                            KVRM_MAX_CONTEXT);
          },
          [&] {
            return positive(c.hidden, "llama.embedding_length",
                            KVRM_MAX_HIDDEN);
          },
          [&] {
            return positive(c.feedForward, "llama.feed_forward_length",
                            maxFeedForward);
          },
          [&] {
            return positive(c.heads, "llama.attention.head_count",
                            KVRM_MAX_HEADS);
          },
          [&] {
            return positiveOr(c.kvHeads, "llama.attention.head_count_kv",
                              KVRM_MAX_KV_HEADS, c.heads);
          },
      }))
    return error;
  if (c.heads % c.kvHeads != 0)
    return fail(formatv("metadata 'llama.attention.head_count': {0} is not a "
                        "multiple of 'llama.attention.head_count_kv', {1}",
                        c.heads, c.kvHeads)
                    .str());
  // Needed for the default of the head dimension.
  if (!file->has("llama.attention.key_length") && c.hidden % c.heads != 0)
    return fail(formatv("metadata 'llama.embedding_length': {0} is not a "
                        "multiple of 'llama.attention.head_count', {1}",
                        c.hidden, c.heads)
                    .str());
  return Error::success();
}

Error LlamaReader::readHead() {
  DecoderConfig &c = model.config;
  int64_t valueDim = 0;
  if (Error error = firstOf({
          [&] {
            return positiveOr(c.headDim, "llama.attention.key_length",
                              KVRM_MAX_HEAD_DIM, c.hidden / c.heads);
          },
          [&] {
            return positiveOr(valueDim, "llama.attention.value_length",
                              KVRM_MAX_HEAD_DIM, c.headDim);
          },
          [&] {
            return positiveOr(c.ropeDim, "llama.rope.dimension_count",
                              KVRM_MAX_HEAD_DIM, c.headDim);
          },
          [&] {
            return assign(c.ropeTheta,
                          file->getFloat("llama.rope.freq_base", 10000.0));
          },
          [&] {
            return assign(
                c.normEpsilon,
                file->getFloat("llama.attention.layer_norm_rms_epsilon"));
          },
      }))
    return error;
  if (c.ropeDim != c.headDim)
    return fail(formatv("metadata 'llama.rope.dimension_count': {0} is not the "
                        "key length {1}; heads are rotated as a whole",
                        c.ropeDim, c.headDim)
                    .str());
  if (c.ropeDim % 2 != 0)
    return fail(
        formatv("metadata 'llama.rope.dimension_count': {0} is odd", c.ropeDim)
            .str());
  if (!std::isfinite(c.ropeTheta) || c.ropeTheta <= 0)
    return fail(formatv("metadata 'llama.rope.freq_base': {0} is not positive",
                        c.ropeTheta)
                    .str());
  if (!std::isfinite(c.normEpsilon) || c.normEpsilon < 0)
    return fail(formatv("metadata 'llama.attention.layer_norm_rms_epsilon': "
                        "{0} is not a number of 0 or more",
                        c.normEpsilon)
                    .str());
  if (valueDim != c.headDim)
    return fail(formatv("metadata 'llama.attention.value_length': {0} is not "
                        "the key length {1}",
                        valueDim, c.headDim)
                    .str());
  return Error::success();
}

Error LlamaReader::readVocabulary() {
  DecoderConfig &c = model.config;
  const GGUFTensor *embedding = parts.tensor("token_embd.weight").tensor;
  if (!embedding)
    return fail("tensor 'token_embd.weight' is missing");
  c.vocabulary = embedding->rows();
  int64_t vocabulary = 0;
  if (Error error = positiveOr(vocabulary, "llama.vocab_size",
                               KVRM_MAX_VOCABULARY, c.vocabulary))
    return error;
  if (vocabulary != c.vocabulary)
    return fail(formatv("metadata 'llama.vocab_size': {0} is not the number of "
                        "rows of 'token_embd.weight', {1}",
                        vocabulary, c.vocabulary)
                    .str());
  auto tokenId = [&](int32_t &place, StringRef key) -> Error {
    int64_t id = -1;
    if (Error error = assign(id, file->getInt(key, -1)))
      return error;
    if (id < -1 || id >= c.vocabulary)
      return fail(formatv("metadata '{0}': {1} is not below the vocabulary {2}",
                          key, id, c.vocabulary)
                      .str());
    place = static_cast<int32_t>(id);
    return Error::success();
  };
  auto endId = [&](StringRef key) -> Error {
    int32_t id = -1;
    Error error = tokenId(id, key);
    c.addEnd(id);
    return error;
  };
  return firstOf({[&] { return tokenId(c.bos, "tokenizer.ggml.bos_token_id"); },
                  [&] { return tokenId(c.eos, "tokenizer.ggml.eos_token_id"); },
                  [&] { return endId("tokenizer.ggml.eos_token_id"); },
                  [&] { return endId("tokenizer.ggml.eot_token_id"); },
                  [&] { return endId("tokenizer.ggml.eom_token_id"); }});
}

Error LlamaReader::readConfig() {
  return firstOf({[&] { return readName(); }, [&] { return readSizes(); },
                  [&] { return readHead(); },
                  [&] { return readVocabulary(); }});
}

Error LlamaReader::checkUnsupported() {
  StringRef scaling;
  if (Error error =
          assign(scaling, file->getString("llama.rope.scaling.type", "none")))
    return error;
  if (scaling != "none")
    return fail("metadata 'llama.rope.scaling.type': '" + scaling +
                "' is not supported (only 'none' is)");
  // Keys, and what they say that changes nothing.
  struct Neutral {
    StringRef key;
    double value;
  };
  for (auto [key, neutral] : {
           Neutral{"llama.rope.scale_linear", 1},
           {"llama.rope.scaling.factor", 1},
           {"llama.rope.scaling.attn_factor", 1},
           {"llama.logit_scale", 1},
           {"llama.embedding_scale", 1},
           {"llama.residual_scale", 1},
           {"llama.attention.scale", 0},
           {"llama.expert_count", 0},
           {"llama.attention.sliding_window", 0},
           {"llama.attention.clamp_kqv", 0},
       }) {
    double value = neutral;
    if (Error error = assign(value, file->getFloat(key, neutral)))
      return error;
    if (value != neutral)
      return fail(formatv("metadata '{0}': {1} is not supported (only {2} is)",
                          key, value, static_cast<int>(neutral))
                      .str());
  }
  bool isCausal = true;
  if (Error error =
          assign(isCausal, file->getBool("llama.attention.causal", true)))
    return error;
  if (!isCausal)
    return fail("metadata 'llama.attention.causal': false is not supported "
                "(only true is)");
  return checkRopeKeys();
}

/// A key that is not known here may turn angles, and numbers would be wrong
/// without a word.
Error LlamaReader::checkRopeKeys() {
  static constexpr StringRef known[] = {
      "llama.rope.dimension_count",
      "llama.rope.freq_base",
      "llama.rope.scale_linear",
      "llama.rope.scaling.attn_factor",
      "llama.rope.scaling.factor",
      "llama.rope.scaling.type",
      // Of what came before, and for scaling that is refused.
      "llama.rope.scaling.finetuned",
      "llama.rope.scaling.original_context_length",
  };
  for (StringRef key : file->keys("llama.rope."))
    if (!llvm::is_contained(known, key))
      return fail("metadata '" + key + "' is not supported");
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

Expected<GGUFParts::Found> LlamaReader::tensor(const Twine &name, int64_t rows,
                                               int64_t cols) {
  std::string text = name.str();
  GGUFParts::Found found = parts.tensor(text);
  if (!found.tensor)
    return fail("tensor '" + text + "' is missing");
  llvm::SmallVector<int64_t, 4> wanted = {cols};
  if (rows > 0)
    wanted.push_back(rows);
  const auto &dims = found.tensor->dims;
  if (ArrayRef(dims) != ArrayRef(wanted))
    return failure(*found.file,
                   formatv("tensor '{0}': dimensions [{1:$[, ]}], expected "
                           "[{2:$[, ]}]",
                           text, llvm::make_range(dims.begin(), dims.end()),
                           llvm::make_range(wanted.begin(), wanted.end()))
                       .str());
  used.insert(text);
  return found;
}

Error LlamaReader::addTensor(const Twine &name, const Twine &tensorName,
                             int64_t rows, int64_t cols) {
  Expected<GGUFParts::Found> found = tensor(tensorName, rows, cols);
  if (!found)
    return found.takeError();
  model.set(name.str(),
            std::make_shared<TensorSource>(found->file, *found->tensor));
  return Error::success();
}

Error LlamaReader::readLayer(int64_t layer) {
  DecoderConfig &c = model.config;
  std::string prefix = "blk." + std::to_string(layer) + ".";
  auto part = [&](std::vector<std::unique_ptr<WeightSource>> &sources,
                  StringRef name, int64_t rows, bool rotated) -> Error {
    Expected<GGUFParts::Found> found = tensor(prefix + name, rows, c.hidden);
    if (!found)
      return found.takeError();
    if (rotated)
      sources.push_back(std::make_unique<HalfSplitSource>(
          found->file, *found->tensor, c.headDim));
    else
      sources.push_back(
          std::make_unique<TensorSource>(found->file, *found->tensor));
    return Error::success();
  };
  std::vector<std::unique_ptr<WeightSource>> qkv;
  std::vector<std::unique_ptr<WeightSource>> gateUp;
  int64_t qRows = c.heads * c.headDim;
  int64_t kvRows = c.kvHeads * c.headDim;
  if (Error error = firstOf({
          [&] {
            return addTensor(prefix + "attn_norm", prefix + "attn_norm.weight",
                             0, c.hidden);
          },
          [&] { return part(qkv, "attn_q.weight", qRows, true); },
          [&] { return part(qkv, "attn_k.weight", kvRows, true); },
          [&] { return part(qkv, "attn_v.weight", kvRows, false); },
          [&] {
            return addTensor(prefix + "attn_output",
                             prefix + "attn_output.weight", c.hidden, qRows);
          },
          [&] {
            return addTensor(prefix + "ffn_norm", prefix + "ffn_norm.weight", 0,
                             c.hidden);
          },
          [&] { return part(gateUp, "ffn_gate.weight", c.feedForward, false); },
          [&] { return part(gateUp, "ffn_up.weight", c.feedForward, false); },
          [&] {
            return addTensor(prefix + "ffn_down", prefix + "ffn_down.weight",
                             c.hidden, c.feedForward);
          },
      }))
    return error;
  model.set(prefix + "attn_qkv",
            std::make_shared<ConcatSource>(std::move(qkv)));
  model.set(prefix + "ffn_gate_up",
            std::make_shared<ConcatSource>(std::move(gateUp)));
  return Error::success();
}

Error LlamaReader::readRopeTables() {
  const DecoderConfig &c = model.config;
  std::vector<float> factors;
  if (parts.tensor("rope_freqs.weight").tensor) {
    Expected<GGUFParts::Found> found =
        tensor("rope_freqs.weight", 0, c.ropeDim / 2);
    if (!found)
      return found.takeError();
    factors.resize(static_cast<size_t>(c.ropeDim / 2));
    TensorSource(found->file, *found->tensor).readRows(0, 1, factors.data());
    for (float factor : factors)
      if (!(factor > 0.0f))
        return fail(formatv("tensor 'rope_freqs.weight': factor {0} is not "
                            "positive",
                            factor)
                        .str());
  }
  model.addRopeTables(std::move(factors));
  return Error::success();
}

/// A tensor without a place (a bias, an expert) would change the result.
Error LlamaReader::checkAllUsed() {
  for (const FilePtr &part : parts.all())
    for (const GGUFTensor &tensor : part->tensors())
      if (!used.contains(tensor.name))
        return failure(*part, "tensor '" + tensor.name +
                                  "' has no place in a plain Llama decoder");
  return Error::success();
}

Error LlamaReader::readWeights() {
  DecoderConfig &c = model.config;
  if (Error error =
          addTensor("token_embd", "token_embd.weight", c.vocabulary, c.hidden))
    return error;
  if (Error error = addTensor("output_norm", "output_norm.weight", 0, c.hidden))
    return error;
  c.tiedEmbeddings = !parts.tensor("output.weight").tensor;
  if (c.tiedEmbeddings)
    model.share("output", "token_embd");
  else if (Error error =
               addTensor("output", "output.weight", c.vocabulary, c.hidden))
    return error;
  for (int64_t layer = 0; layer < c.layers; ++layer)
    if (Error error = readLayer(layer))
      return error;
  if (Error error = readRopeTables())
    return error;
  return checkAllUsed();
}

Expected<DecoderModel> LlamaReader::read() {
  for (const FilePtr &part : parts.all())
    model.files.push_back(part->name().str());
  if (Error error = firstOf({[&] { return readConfig(); },
                             [&] { return checkUnsupported(); },
                             [&] { return readWeights(); },
                             [&] { return readTokenizer(*file, model); },
                             [&] { return model.verify(file->name()); }}))
    return error;
  return std::move(model);
}

Expected<DecoderModel> kvrm::openGGUF(StringRef path) {
  Expected<GGUFParts> parts = GGUFParts::open(path);
  if (!parts)
    return parts.takeError();
  return LlamaReader(*parts).read();
}
