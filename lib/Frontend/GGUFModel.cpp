//===- GGUFModel.cpp - Decoders in GGUF files -----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DecoderWeights.h"
#include "GGUFTensors.h"
#include "GGUFTokenizer.h"
#include "Lookup.h"

#include "kvrm/Frontend/GGUF.h"
#include "kvrm/Frontend/Model.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
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

//===----------------------------------------------------------------------===//
// Architectures
//===----------------------------------------------------------------------===//

namespace {
struct Architecture {
  const char *name;
  HeadOrder headOrder = HeadOrder::Halves;
  bool hasProjectionBias = false;
  HeadNorm headNorm = HeadNorm::None;
  bool normsAfter = false;  ///< instead of before
  bool normsAround = false; ///< after as well as before
  bool isFused = false;     ///< q, k, v are one tensor; gate and up another
  int64_t stillEvery = 0;   ///< every so-manieth layer does not turn
  /// Which layers attention.sliding_window is for: all but every so-manieth, 0
  /// for all; -1 if there may be no window.
  int64_t fullEvery = -1;
  bool isGemma = false;      ///< GELU, and embeddings are scaled
  bool hasSoftcaps = false;  ///< may have
  bool hasLocalRope = false; ///< layers with a window turn by another theta
  /// With so many layers attention's scale is by the hidden size.
  int64_t scaledByHidden = 0;
};
} // namespace

/// The architectures, and how convert_hf_to_gguf.py of llama.cpp writes them.
static ArrayRef<Architecture> architectures() {
  static constexpr Architecture all[] = {
      {.name = "llama", .headOrder = HeadOrder::Neighbours, .fullEvery = 0},
      {.name = "qwen2", .hasProjectionBias = true},
      {.name = "qwen3", .headNorm = HeadNorm::EachHead},
      {.name = "phi3", .isFused = true, .fullEvery = 0},
      {.name = "smollm3", .headOrder = HeadOrder::Neighbours, .stillEvery = 4},
      {.name = "olmo2", .headNorm = HeadNorm::AllHeads, .normsAfter = true},
      // The weights of their norms have the 1 in them that Gemmas add.
      {.name = "gemma", .isGemma = true},
      {.name = "gemma2",
       .normsAround = true,
       .fullEvery = 2,
       .isGemma = true,
       .hasSoftcaps = true,
       .scaledByHidden = 46},
      {.name = "gemma3",
       .headNorm = HeadNorm::EachHead,
       .normsAround = true,
       .fullEvery = 6,
       .isGemma = true,
       .hasSoftcaps = true,
       .hasLocalRope = true,
       .scaledByHidden = 62},
  };
  return all;
}

static TensorNames namesOf(const Architecture &architecture) {
  TensorNames names;
  names.embedding = "token_embd";
  names.outputNorm = "output_norm";
  names.output = "output";
  names.layerPrefix = "blk.";
  TensorNames::Layer &l = names.layer;
  l.attnNorm = "attn_norm";
  l.q = "attn_q";
  l.k = "attn_k";
  l.v = "attn_v";
  l.qNorm = "attn_q_norm";
  l.kNorm = "attn_k_norm";
  l.attnOutput = "attn_output";
  l.attnPostNorm = "post_attention_norm";
  l.ffnNorm = "ffn_norm";
  l.gate = "ffn_gate";
  l.up = "ffn_up";
  l.down = "ffn_down";
  l.ffnPostNorm = "post_ffw_norm";
  if (architecture.isFused) {
    l.qkv = "attn_qkv";
    l.gateUp = "ffn_up";
  }
  return names;
}

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

namespace {
class ModelReader {
public:
  ModelReader(const GGUFParts &parts, int64_t capacity)
      : parts(parts), file(parts.first()), capacity(capacity) {}

  Expected<DecoderModel> read();

private:
  Error readName();
  Error readSizes();
  Error readHead();
  Error readArchitecture();
  Error readVocabulary();
  Error readEnds();
  Error checkUnsupported();
  Error readSoftcaps();
  Error readWindow();
  Error readLocalRope();
  Error checkKeys();
  Error readRope(GGUFTensors &tensors);
  Error scaleRope(double theta);
  Error scaleByFactors(GGUFTensors &tensors);
  Error readWeights();

  /// "llama.block_count" of "block_count".
  std::string key(const Twine &name) const {
    return (model.config.architecture + "." + name).str();
  }
  /// The integer at a key of the architecture, in [1, limit].
  Error positive(int64_t &place, StringRef name, int64_t limit) const;
  Error positiveOr(int64_t &place, StringRef name, int64_t limit,
                   int64_t absent) const;
  /// The number at a key of the architecture, finite and over 0.
  Error positiveNumberOr(double &place, StringRef name, double absent) const;

  Error fail(const Twine &message) const {
    return fileError(file->name(), message);
  }

  const GGUFParts &parts;
  FilePtr file; ///< with the metadata
  int64_t capacity;
  const Architecture *architecture = nullptr;
  DecoderModel model;
};
} // namespace

Error ModelReader::positive(int64_t &place, StringRef name,
                            int64_t limit) const {
  if (Error error = assign(place, file->getInt(key(name))))
    return error;
  if (place < 1 || place > limit)
    return fail(formatv("metadata '{0}': {1} is not in [1, {2}]", key(name),
                        place, limit)
                    .str());
  return Error::success();
}

Error ModelReader::positiveOr(int64_t &place, StringRef name, int64_t limit,
                              int64_t absent) const {
  if (file->has(key(name)))
    return positive(place, name, limit);
  place = absent;
  return Error::success();
}

Error ModelReader::positiveNumberOr(double &place, StringRef name,
                                    double absent) const {
  if (Error error = assign(place, file->getFloat(key(name), absent)))
    return error;
  if (!std::isfinite(place) || place <= 0)
    return fail(
        formatv("metadata '{0}': {1} is not positive", key(name), place).str());
  return Error::success();
}

Error ModelReader::readName() {
  DecoderConfig &c = model.config;
  if (Error error =
          assign(c.architecture, file->getString("general.architecture")))
    return error;
  architecture = llvm::find_if(architectures(), [&](const Architecture &one) {
    return c.architecture == one.name;
  });
  if (architecture == architectures().end())
    return fail("architecture '" + c.architecture + "' is not supported (" +
                llvm::join(llvm::map_range(architectures(),
                                           [](const Architecture &one) {
                                             return std::string(one.name);
                                           }),
                           ", ") +
                " are)");
  StringRef type;
  if (Error error = assign(type, file->getString("general.type", "model")))
    return error;
  if (type != "model")
    return fail("metadata 'general.type': '" + type +
                "' is not supported (model is)");
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

Error ModelReader::readSizes() {
  DecoderConfig &c = model.config;
  if (Error error = firstOf({
          [&] { return positive(c.layers, "block_count", KVRM_MAX_LAYERS); },
          [&] {
            return positive(c.context, "context_length", KVRM_MAX_CONTEXT);
          },
          [&] {
            return positive(c.hidden, "embedding_length", KVRM_MAX_HIDDEN);
          },
          [&] {
            return positive(c.feedForward, "feed_forward_length",
                            maxFeedForward);
          },
          [&] {
            return positive(c.heads, "attention.head_count", KVRM_MAX_HEADS);
          },
          [&] {
            return positiveOr(c.kvHeads, "attention.head_count_kv",
                              KVRM_MAX_KV_HEADS, c.heads);
          },
      }))
    return error;
  if (c.heads % c.kvHeads != 0)
    return fail(formatv("metadata '{0}': {1} is not a multiple of '{2}', {3}",
                        key("attention.head_count"), c.heads,
                        key("attention.head_count_kv"), c.kvHeads)
                    .str());
  // Needed for the default of the head dimension.
  if (!file->has(key("attention.key_length")) && c.hidden % c.heads != 0)
    return fail(formatv("metadata '{0}': {1} is not a multiple of '{2}', {3}",
                        key("embedding_length"), c.hidden,
                        key("attention.head_count"), c.heads)
                    .str());
  return Error::success();
}

Error ModelReader::readHead() {
  DecoderConfig &c = model.config;
  int64_t valueDim = 0;
  if (Error error = firstOf({
          [&] {
            return positiveOr(c.headDim, "attention.key_length",
                              KVRM_MAX_HEAD_DIM, c.hidden / c.heads);
          },
          [&] {
            return positiveOr(valueDim, "attention.value_length",
                              KVRM_MAX_HEAD_DIM, c.headDim);
          },
          [&] {
            return assign(c.normEpsilon,
                          file->getFloat(key("attention.layer_norm_rms_"
                                             "epsilon")));
          },
      }))
    return error;
  if (!std::isfinite(c.normEpsilon) || c.normEpsilon < 0)
    return fail(formatv("metadata '{0}': {1} is not a number of 0 or more",
                        key("attention.layer_norm_rms_epsilon"), c.normEpsilon)
                    .str());
  if (valueDim != c.headDim)
    return fail(formatv("metadata '{0}': {1} is not the key length {2}",
                        key("attention.value_length"), valueDim, c.headDim)
                    .str());
  return Error::success();
}

Error ModelReader::readArchitecture() {
  DecoderConfig &c = model.config;
  c.hasProjectionBias = architecture->hasProjectionBias;
  c.headNorm = architecture->headNorm;
  c.hasNormsBefore = !architecture->normsAfter;
  c.hasNormsAfter = architecture->normsAfter || architecture->normsAround;
  if (architecture->isGemma) {
    c.activation = Activation::GeluTanh;
    c.embeddingScale = std::sqrt(static_cast<double>(c.hidden));
  }
  if (c.layers == architecture->scaledByHidden)
    c.attentionScale = 1 / std::sqrt(static_cast<double>(c.hidden) /
                                     static_cast<double>(c.heads));
  if (int64_t every = architecture->stillEvery)
    for (int64_t layer = 0; layer < c.layers; ++layer)
      c.turns.push_back((layer + 1) % every != 0);
  return Error::success();
}

Error ModelReader::readVocabulary() {
  DecoderConfig &c = model.config;
  const GGUFTensor *embedding = parts.tensor("token_embd.weight").tensor;
  if (!embedding)
    return fail("tensor 'token_embd.weight' is missing");
  c.vocabulary = embedding->rows();
  int64_t vocabulary = 0;
  if (Error error = positiveOr(vocabulary, "vocab_size", KVRM_MAX_VOCABULARY,
                               c.vocabulary))
    return error;
  if (vocabulary != c.vocabulary)
    return fail(formatv("metadata '{0}': {1} is not the number of rows of "
                        "'token_embd.weight', {2}",
                        key("vocab_size"), vocabulary, c.vocabulary)
                    .str());
  return readEnds();
}

Error ModelReader::readEnds() {
  DecoderConfig &c = model.config;
  auto tokenId = [&](int32_t &place, StringRef name) -> Error {
    int64_t id = -1;
    if (Error error = assign(id, file->getInt(name, -1)))
      return error;
    if (id < -1 || id >= c.vocabulary)
      return fail(formatv("metadata '{0}': {1} is not below the vocabulary {2}",
                          name, id, c.vocabulary)
                      .str());
    place = static_cast<int32_t>(id);
    return Error::success();
  };
  auto endId = [&](StringRef name) -> Error {
    int32_t id = -1;
    Error error = tokenId(id, name);
    c.addEnd(id);
    return error;
  };
  return firstOf({[&] { return tokenId(c.bos, "tokenizer.ggml.bos_token_id"); },
                  [&] { return tokenId(c.eos, "tokenizer.ggml.eos_token_id"); },
                  [&] { return endId("tokenizer.ggml.eos_token_id"); },
                  [&] { return endId("tokenizer.ggml.eot_token_id"); },
                  [&] { return endId("tokenizer.ggml.eom_token_id"); }});
}

Error ModelReader::checkUnsupported() {
  // Keys, and what they say that changes nothing.
  struct Neutral {
    StringRef name;
    double value;
  };
  for (auto [name, neutral] : {
           Neutral{"rope.scale_linear", 1},
           {"logit_scale", 1},
           {"embedding_scale", 1},
           {"residual_scale", 1},
           {"attention.scale", 0},
           {"expert_count", 0},
           {"attention.clamp_kqv", 0},
       }) {
    double value = neutral;
    if (Error error = assign(value, file->getFloat(key(name), neutral)))
      return error;
    if (value != neutral)
      return fail(formatv("metadata '{0}': {1} is not supported (only {2} is)",
                          key(name), value, static_cast<int>(neutral))
                      .str());
  }
  bool isCausal = true;
  if (Error error =
          assign(isCausal, file->getBool(key("attention.causal"), true)))
    return error;
  if (!isCausal)
    return fail("metadata '" + key("attention.causal") +
                "': false is not supported (only true is)");
  return checkKeys();
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

Error ModelReader::readSoftcaps() {
  DecoderConfig &c = model.config;
  for (auto [place, name] :
       {std::pair(&c.attentionSoftcap, "attn_logit_softcapping"),
        {&c.logitSoftcap, "final_logit_softcapping"}}) {
    if (Error error = assign(*place, file->getFloat(key(name), 0.0)))
      return error;
    bool isAllowed = architecture->hasSoftcaps || *place == 0;
    if (!isAllowed || !std::isfinite(*place) || *place < 0)
      return fail(formatv("metadata '{0}': {1} is not supported (only {2})",
                          key(name), *place,
                          architecture->hasSoftcaps ? "0 and more is" : "0 is")
                      .str());
  }
  return Error::success();
}

Error ModelReader::readWindow() {
  StringRef name = "attention.sliding_window";
  int64_t window = 0, fullEvery = architecture->fullEvery;
  if (Error error = assign(window, file->getInt(key(name), 0)))
    return error;
  if (window < 0 || window > KVRM_MAX_CONTEXT)
    return fail(formatv("metadata '{0}': {1} is not in [0, {2}]", key(name),
                        window, int64_t(KVRM_MAX_CONTEXT))
                    .str());
  if (file->has(key("attention.sliding_window_pattern")))
    if (Error error = positive(fullEvery, "attention.sliding_window_pattern",
                               KVRM_MAX_LAYERS))
      return error;
  if (window == 0)
    return Error::success();
  if (fullEvery >= 0)
    model.config.setWindows(window, fullEvery);
  else if (window < capacity)
    return fail(formatv("metadata '{0}': a window of {1} tokens, less than the "
                        "capacity {2}, is not supported in a '{3}'",
                        key(name), window, capacity, architecture->name)
                    .str());
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Rotation
//===----------------------------------------------------------------------===//

/// A key of attention or of angles that is not known here may change numbers,
/// and they would be wrong without a word.
Error ModelReader::checkKeys() {
  static constexpr StringRef ofRope[] = {
      "dimension_count",
      "freq_base",
      "freq_base_swa",
      "scale_linear",
      "scaling.attn_factor",
      "scaling.factor",
      "scaling.type",
      "scaling.original_context_length",
      "scaling.yarn_beta_fast",
      "scaling.yarn_beta_slow",
      // Says how the model came about.
      "scaling.finetuned",
  };
  static constexpr StringRef ofAttention[] = {
      "causal",
      "clamp_kqv",
      "head_count",
      "head_count_kv",
      "key_length",
      // Of norms that these models have not.
      "layer_norm_epsilon",
      "layer_norm_rms_epsilon",
      "scale",
      "sliding_window",
      "sliding_window_pattern",
      "value_length",
  };
  auto check = [&](StringRef group, ArrayRef<StringRef> known) -> Error {
    std::string prefix = key(group);
    for (StringRef name : file->keys(prefix))
      if (!llvm::is_contained(known, name.drop_front(prefix.size())))
        return fail("metadata '" + name + "' is not supported");
    return Error::success();
  };
  return firstOf({[&] { return check("rope.", ofRope); },
                  [&] { return check("attention.", ofAttention); }});
}

Error ModelReader::readRope(GGUFTensors &tensors) {
  DecoderConfig &c = model.config;
  int64_t dim = 0;
  double theta = 0;
  if (Error error = firstOf({
          [&] {
            return positiveOr(dim, "rope.dimension_count", KVRM_MAX_HEAD_DIM,
                              c.headDim);
          },
          [&] { return positiveNumberOr(theta, "rope.freq_base", 10000.0); },
      }))
    return error;
  if (dim > c.headDim || dim % 2 != 0 || c.headDim % 2 != 0)
    return fail(formatv("metadata '{0}': {1} is not an even number up to the "
                        "key length {2}, which has to be even too",
                        key("rope.dimension_count"), dim, c.headDim)
                    .str());
  if (architecture->headOrder == HeadOrder::Neighbours && dim != c.headDim)
    return fail(formatv("metadata '{0}': {1} is not the key length {2}; a "
                        "{3}'s heads are rotated as a whole",
                        key("rope.dimension_count"), dim, c.headDim,
                        architecture->name)
                    .str());
  c.rope = plainRope(theta, dim);
  return firstOf({[&] { return scaleRope(theta); },
                  [&] { return scaleByFactors(tensors); },
                  [&] {
                    double factor = 1;
                    Error error = positiveNumberOr(
                        factor, "rope.scaling.attn_factor", 1.0);
                    c.rope.magnitude *= factor;
                    return error;
                  },
                  [&] { return readLocalRope(); }});
}

/// The angles of layers with a window, which no scaling stretches.
Error ModelReader::readLocalRope() {
  StringRef name = "rope.freq_base_swa";
  if (!architecture->hasLocalRope) {
    if (file->has(key(name)))
      return fail("metadata '" + key(name) + "' is not supported");
    return Error::success();
  }
  double theta = 0;
  Error error = positiveNumberOr(theta, name, 10000.0);
  model.config.localRope = plainRope(theta, model.config.rope.dim);
  return error;
}

/// A factor without a type is linear, as llama.cpp takes it.
Error ModelReader::scaleRope(double theta) {
  Rope &rope = model.config.rope;
  StringRef type;
  YarnScaling yarn;
  int64_t context = 0;
  if (Error error = firstOf({
          [&] {
            return assign(type,
                          file->getString(key("rope.scaling.type"), "linear"));
          },
          [&] {
            return positiveNumberOr(yarn.factor, "rope.scaling.factor", 1.0);
          },
          [&] {
            return positiveOr(context, "rope.scaling.original_context_length",
                              KVRM_MAX_CONTEXT, model.config.context);
          },
          [&] {
            return positiveNumberOr(yarn.betaFast,
                                    "rope.scaling.yarn_beta_fast", 32);
          },
          [&] {
            return positiveNumberOr(yarn.betaSlow,
                                    "rope.scaling.yarn_beta_slow", 1);
          },
      }))
    return error;
  // With factors for each pair, the tensors say all there is.
  if (type == "none" || type == "longrope")
    return Error::success();
  if (type == "linear") {
    scaleLinear(rope, yarn.factor);
    return Error::success();
  }
  if (type != "yarn")
    return fail("metadata '" + key("rope.scaling.type") + "': '" + type +
                "' is not supported (none, linear, yarn and longrope are)");
  yarn.theta = theta;
  yarn.originalContext = static_cast<double>(context);
  scaleYarn(rope, yarn);
  rope.magnitude = yarnMagnitude(yarn.factor);
  return Error::success();
}

/// Llama 3 has factors for each pair; Phi-3 two sets of them, for contexts that
/// are as long as those that it was trained with, and for longer ones.
Error ModelReader::scaleByFactors(GGUFTensors &tensors) {
  DecoderConfig &c = model.config;
  int64_t original = 0;
  std::vector<double> factors, shortFactors, longFactors;
  int64_t pairs = c.rope.dim / 2;
  if (Error error = firstOf({
          [&] {
            return positiveOr(original, "rope.scaling.original_context_length",
                              KVRM_MAX_CONTEXT, c.context);
          },
          [&] {
            return assign(factors,
                          tensors.takeValues("rope_freqs.weight", pairs));
          },
          [&] {
            return assign(
                shortFactors,
                tensors.takeValues("rope_factors_short.weight", pairs));
          },
          [&] {
            return assign(longFactors, tensors.takeValues(
                                           "rope_factors_long.weight", pairs));
          },
      }))
    return error;
  if (shortFactors.empty() != longFactors.empty())
    return fail("of tensors 'rope_factors_short.weight' and "
                "'rope_factors_long.weight' there is one");
  if (factors.empty())
    factors = capacity > original ? longFactors : shortFactors;
  if (!factors.empty())
    divideFrequencies(c.rope, factors);
  return Error::success();
}

//===----------------------------------------------------------------------===//
// The model
//===----------------------------------------------------------------------===//

Error ModelReader::readWeights() {
  DecoderConfig &c = model.config;
  c.tiedEmbeddings = !parts.tensor("output.weight").tensor;
  GGUFTensors tensors(parts, c.architecture);
  if (Error error = readRope(tensors))
    return error;
  return addDecoderWeights(model, tensors, namesOf(*architecture),
                           {.headOrder = architecture->headOrder});
}

Expected<DecoderModel> ModelReader::read() {
  for (const FilePtr &part : parts.all())
    model.files.push_back(part->name().str());
  if (Error error = firstOf({
          [&] { return readName(); },
          [&] { return readSizes(); },
          [&] { return readHead(); },
          [&] { return readArchitecture(); },
          [&] { return readVocabulary(); },
      }))
    return error;
  if (capacity == 0)
    capacity = model.config.context;
  if (Error error = firstOf(
          {[&] { return checkUnsupported(); }, [&] { return readSoftcaps(); },
           [&] { return readWindow(); }, [&] { return readWeights(); },
           [&] { return readTokenizer(*file, model); },
           [&] { return model.verify(file->name()); }}))
    return error;
  return std::move(model);
}

Expected<DecoderModel> kvrm::openGGUF(StringRef path, int64_t capacity) {
  Expected<GGUFParts> parts = GGUFParts::open(path);
  if (!parts)
    return parts.takeError();
  return ModelReader(*parts, capacity).read();
}
