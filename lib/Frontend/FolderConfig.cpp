//===- FolderConfig.cpp - config.json of a Hugging Face folder ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FolderConfig.h"

#include "Lookup.h"

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <cmath>
#include <optional>

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;

static constexpr int64_t maxFeedForward = 1 << 22;

//===----------------------------------------------------------------------===//
// Architectures
//===----------------------------------------------------------------------===//

namespace {
/// Which layers see a window of sliding_window tokens. But for All, layer_types
/// says it if it is there.
enum class Windows : uint8_t {
  None,     ///< none: the class reads none
  All,      ///< every layer
  Switched, ///< if use_sliding_window: layers from max_window_layers on
  OfStill,  ///< if use_sliding_window: layers that do not turn
  Most,     ///< all but every `fullEvery`-th, if that is not 0
};

/// What a Gemma has that no other does: 1 + w for norms, a GELU, embeddings
/// that are scaled, and in later ones a scale of attention, softcaps, and norms
/// after attention and feed-forward as well as before.
enum class Gemma : uint8_t { No, First, Later };

/// What transformers' class of a model_type does, and its values for keys that
/// its files may lack.
struct Architecture {
  const char *modelType;
  bool hasProjectionBias = false;
  HeadNorm headNorm = HeadNorm::None;
  bool normsAfter = false; ///< instead of before
  bool isFused = false;    ///< q, k, v are one tensor; gate and up another
  bool hasStill = false;   ///< no_rope_layers
  Windows windows = Windows::None;
  bool tiesEmbeddings = false;
  double theta = 10000;
  int64_t headDim = 0; ///< 0: hidden_size / num_attention_heads
  Gemma gemma = Gemma::No;
  int64_t defaultWindow = 0; ///< of a file that says none
  int64_t fullEvery = 0;
  const char *fullEveryKey = nullptr; ///< that may say otherwise
  /// Softcaps of a file that says none.
  double attentionSoftcap = 0, logitSoftcap = 0;
  bool hasLocalRope = false; ///< layers with a window turn by another theta
};
} // namespace

static ArrayRef<Architecture> architectures() {
  static constexpr Architecture all[] = {
      {.modelType = "llama"},
      {.modelType = "mistral", .windows = Windows::Most, .defaultWindow = 4096},
      {.modelType = "qwen2",
       .hasProjectionBias = true,
       .windows = Windows::Switched,
       .defaultWindow = 4096},
      {.modelType = "qwen3",
       .headNorm = HeadNorm::EachHead,
       .windows = Windows::Switched,
       .headDim = 128,
       .defaultWindow = 4096},
      {.modelType = "phi3", .isFused = true, .windows = Windows::All},
      {.modelType = "smollm3",
       .hasStill = true,
       .windows = Windows::OfStill,
       .tiesEmbeddings = true,
       .theta = 2000000},
      {.modelType = "olmo2",
       .headNorm = HeadNorm::AllHeads,
       .normsAfter = true},
      {.modelType = "gemma",
       .tiesEmbeddings = true,
       .headDim = 256,
       .gemma = Gemma::First},
      {.modelType = "gemma2",
       .windows = Windows::Most,
       .tiesEmbeddings = true,
       .headDim = 256,
       .gemma = Gemma::Later,
       .defaultWindow = 4096,
       .fullEvery = 2,
       .attentionSoftcap = 50,
       .logitSoftcap = 30},
      {.modelType = "gemma3_text",
       .headNorm = HeadNorm::EachHead,
       .windows = Windows::Most,
       .tiesEmbeddings = true,
       .theta = 1000000,
       .headDim = 256,
       .gemma = Gemma::Later,
       .defaultWindow = 4096,
       .fullEvery = 6,
       .fullEveryKey = "sliding_window_pattern",
       .hasLocalRope = true},
  };
  return all;
}

static TensorNames namesOf(const Architecture &architecture) {
  TensorNames names;
  names.embedding = "model.embed_tokens";
  names.outputNorm = "model.norm";
  names.output = "lm_head";
  names.layerPrefix = "model.layers.";
  TensorNames::Layer &l = names.layer;
  l.attnNorm = "input_layernorm";
  l.q = "self_attn.q_proj";
  l.k = "self_attn.k_proj";
  l.v = "self_attn.v_proj";
  l.qNorm = "self_attn.q_norm";
  l.kNorm = "self_attn.k_norm";
  l.attnOutput = "self_attn.o_proj";
  l.ffnNorm = "post_attention_layernorm";
  l.gate = "mlp.gate_proj";
  l.up = "mlp.up_proj";
  l.down = "mlp.down_proj";
  l.ffnPostNorm = "post_feedforward_layernorm";
  if (architecture.normsAfter || architecture.gemma == Gemma::Later)
    l.attnPostNorm = "post_attention_layernorm";
  if (architecture.gemma == Gemma::Later)
    l.ffnNorm = "pre_feedforward_layernorm";
  if (architecture.isFused) {
    l.qkv = "self_attn.qkv_proj";
    l.gateUp = "mlp.gate_up_proj";
  }
  return names;
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

namespace {
class ConfigReader {
public:
  ConfigReader(const JsonFields &fields, int64_t capacity)
      : fields(fields), capacity(capacity) {}

  Expected<FolderConfig> read();

private:
  Error readArchitecture();
  Error readSizes();
  Error readHead();
  Error readNumbers();
  Error readActivation();
  Error readGemma();
  Error readStill();
  Error readWindows();
  Error readLayerTypes(int64_t window);
  Error readLocalRope();
  Error checkUnsupported();
  Error checkNeutral(StringRef key);

  /// The number at `key`, over 0; `absent`, if any, where the key is not there.
  Error positiveNumber(double &place, StringRef key,
                       std::optional<double> absent = std::nullopt) const;
  /// The same, but 0 if it is null.
  Error positiveOrNone(double &place, StringRef key, double absent) const;
  /// The integer at `key`, in [1, limit].
  Error positive(int64_t &place, StringRef key, int64_t limit) const;
  Error positiveOr(int64_t &place, StringRef key, int64_t limit,
                   int64_t absent) const;

  const JsonFields &fields;
  int64_t capacity;
  const Architecture *architecture = nullptr;
  FolderConfig result;
  DecoderConfig &c = result.decoder;
};
} // namespace

Error ConfigReader::positive(int64_t &place, StringRef key,
                             int64_t limit) const {
  if (Error error = assign(place, fields.getInt(key)))
    return error;
  if (place < 1 || place > limit)
    return fields.fail(key,
                       formatv("{0} is not in [1, {1}]", place, limit).str());
  return Error::success();
}

Error ConfigReader::positiveOr(int64_t &place, StringRef key, int64_t limit,
                               int64_t absent) const {
  if (fields.has(key))
    return positive(place, key, limit);
  place = absent;
  return Error::success();
}

Error ConfigReader::positiveOrNone(double &place, StringRef key,
                                   double absent) const {
  if (fields.has(key))
    return positiveNumber(place, key);
  place = fields.isNull(key) ? 0 : absent;
  return Error::success();
}

Error ConfigReader::positiveNumber(double &place, StringRef key,
                                   std::optional<double> absent) const {
  if (Error error = assign(place, absent ? fields.getNumber(key, *absent)
                                         : fields.getNumber(key)))
    return error;
  if (!std::isfinite(place) || place <= 0)
    return fields.fail(key, formatv("{0} is not positive", place).str());
  return Error::success();
}

Error ConfigReader::readArchitecture() {
  StringRef type;
  if (Error error = assign(type, fields.getString("model_type")))
    return error;
  architecture = llvm::find_if(architectures(), [&](const Architecture &one) {
    return type == one.modelType;
  });
  if (architecture == architectures().end())
    return fields.fail(
        "model_type",
        "'" + type + "' is not supported (" +
            llvm::join(llvm::map_range(architectures(),
                                       [](const Architecture &one) {
                                         return std::string(one.modelType);
                                       }),
                       ", ") +
            " are)");
  c.architecture = architecture->modelType;
  c.hasProjectionBias = architecture->hasProjectionBias;
  c.headNorm = architecture->headNorm;
  c.hasNormsBefore = !architecture->normsAfter;
  c.hasNormsAfter =
      architecture->normsAfter || architecture->gemma == Gemma::Later;
  result.names = namesOf(*architecture);
  return Error::success();
}

Error ConfigReader::readSizes() {
  return firstOf({
      [&] { return positive(c.vocabulary, "vocab_size", KVRM_MAX_VOCABULARY); },
      [&] { return positive(c.hidden, "hidden_size", KVRM_MAX_HIDDEN); },
      [&] { return positive(c.layers, "num_hidden_layers", KVRM_MAX_LAYERS); },
      [&] {
        return positive(c.feedForward, "intermediate_size", maxFeedForward);
      },
      [&] {
        return positive(c.context, "max_position_embeddings", KVRM_MAX_CONTEXT);
      },
      [&] { return positive(c.heads, "num_attention_heads", KVRM_MAX_HEADS); },
      [&] {
        return positiveOr(c.kvHeads, "num_key_value_heads", KVRM_MAX_KV_HEADS,
                          c.heads);
      },
  });
}

Error ConfigReader::readHead() {
  int64_t absent = architecture->headDim;
  if (absent == 0) {
    absent = c.hidden / c.heads;
    if (!fields.has("head_dim") && c.hidden % c.heads != 0)
      return fields.fail("hidden_size", formatv("{0} is not a multiple of "
                                                "num_attention_heads, {1}",
                                                c.hidden, c.heads)
                                            .str());
  }
  if (Error error =
          positiveOr(c.headDim, "head_dim", KVRM_MAX_HEAD_DIM, absent))
    return error;
  if (c.heads % c.kvHeads != 0)
    return fields.fail("num_attention_heads",
                       formatv("{0} is not a multiple of "
                               "num_key_value_heads, {1}",
                               c.heads, c.kvHeads)
                           .str());
  return Error::success();
}

/// Gemmas have the tanh form of GELU. The first have been written with "gelu",
/// too, for that and for the other.
Error ConfigReader::readActivation() {
  bool isGemma = architecture->gemma != Gemma::No;
  StringRef key =
      architecture->gemma == Gemma::Later ? "hidden_activation" : "hidden_act";
  StringRef activation;
  if (Error error = assign(activation, fields.getString(key)))
    return error;
  if (isGemma && activation != "gelu_pytorch_tanh")
    return fields.fail(key, "'" + activation +
                                "' is not supported (gelu_pytorch_tanh is)");
  if (!isGemma && activation != "silu" && activation != "swish")
    return fields.fail(key, "'" + activation + "' is not supported (silu is)");
  c.activation = isGemma ? Activation::GeluTanh : Activation::Silu;
  return Error::success();
}

Error ConfigReader::readGemma() {
  if (architecture->gemma == Gemma::No)
    return Error::success();
  result.conventions.normOffset = 1.0f;
  c.embeddingScale = std::sqrt(static_cast<double>(c.hidden));
  if (architecture->gemma == Gemma::First)
    return Error::success();
  double width = 0;
  if (Error error = firstOf({
          [&] { return positiveNumber(width, "query_pre_attn_scalar", 256); },
          [&] {
            constexpr StringRef key = "attn_logit_softcapping";
            // Later than the second, transformers have the key and no code.
            return architecture->hasLocalRope
                       ? checkNeutral(key)
                       : positiveOrNone(c.attentionSoftcap, key,
                                        architecture->attentionSoftcap);
          },
          [&] {
            return positiveOrNone(c.logitSoftcap, "final_logit_softcapping",
                                  architecture->logitSoftcap);
          },
      }))
    return error;
  c.attentionScale = 1 / std::sqrt(width);
  return Error::success();
}

Error ConfigReader::readNumbers() {
  return firstOf({
      [&] { return positiveNumber(c.normEpsilon, "rms_norm_eps"); },
      [&] {
        return assign(c.tiedEmbeddings,
                      fields.getBool("tie_word_embeddings",
                                     architecture->tiesEmbeddings));
      },
      [&] { return readActivation(); },
      [&] { return readGemma(); },
      [&] {
        bool isNested =
            architecture->hasLocalRope && fields.has("rope_parameters");
        return assign(c.rope, readRope(fields, c, capacity, architecture->theta,
                                       isNested ? "full_attention" : ""));
      },
  });
}

/// no_rope_layers says 1 of a layer that turns; if it is not there, every so
/// manieth does not.
Error ConfigReader::readStill() {
  if (!architecture->hasStill)
    return Error::success();
  if (!fields.has("no_rope_layers")) {
    int64_t every = 0;
    if (Error error =
            positiveOr(every, "no_rope_layer_interval", KVRM_MAX_LAYERS, 4))
      return error;
    for (int64_t layer = 0; layer < c.layers; ++layer)
      c.turns.push_back((layer + 1) % every != 0);
    return Error::success();
  }
  Expected<std::vector<double>> turns = fields.getNumbers("no_rope_layers");
  if (!turns)
    return turns.takeError();
  if (static_cast<int64_t>(turns->size()) != c.layers)
    return fields.fail("no_rope_layers",
                       formatv("{0} entries, but there are {1} layers",
                               turns->size(), c.layers)
                           .str());
  for (double turn : *turns)
    c.turns.push_back(turn != 0);
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Windows
//===----------------------------------------------------------------------===//

/// Which layers have a window, one name a layer.
Error ConfigReader::readLayerTypes(int64_t window) {
  constexpr StringRef key = "layer_types";
  const llvm::json::Array *types = fields.find(key)->getAsArray();
  if (!types || static_cast<int64_t>(types->size()) != c.layers)
    return fields.fail(
        key, formatv("is no list of {0} entries, one a layer", c.layers).str());
  c.windows.clear();
  for (const llvm::json::Value &type : *types) {
    std::optional<StringRef> name = type.getAsString();
    if (name != "full_attention" && name != "sliding_attention")
      return fields.fail(key, "'" + name.value_or("") +
                                  "' is not supported (full_attention and "
                                  "sliding_attention are)");
    c.windows.push_back(name == "sliding_attention" ? window : 0);
  }
  return Error::success();
}

Error ConfigReader::readWindows() {
  Windows windows = architecture->windows;
  if (windows == Windows::None || fields.isNull("sliding_window"))
    return Error::success();
  int64_t absent = architecture->defaultWindow;
  bool isUsed = absent != 0 || fields.has("sliding_window");
  // SmolLM3's masks are those of layer_types, whatever is said to be used.
  bool isSwitched = windows == Windows::Switched ||
                    (windows == Windows::OfStill && !fields.has("layer_types"));
  if (isUsed && isSwitched)
    if (Error error =
            assign(isUsed, fields.getBool("use_sliding_window", false)))
      return error;
  if (!isUsed)
    return Error::success();
  int64_t window = 0, fullEvery = architecture->fullEvery, first = 0;
  if (Error error =
          positiveOr(window, "sliding_window", KVRM_MAX_CONTEXT, absent))
    return error;
  if (windows != Windows::All && fields.has("layer_types"))
    return readLayerTypes(window);
  if (const char *key = architecture->fullEveryKey)
    if (Error error = positiveOr(fullEvery, key, KVRM_MAX_LAYERS, fullEvery))
      return error;
  if (Error error =
          assign(first, fields.getInt("max_window_layers", /*absent=*/28)))
    return error;
  c.setWindows(window, fullEvery);
  for (int64_t layer = 0; layer < c.layers; ++layer)
    if ((windows == Windows::Switched && layer < first) ||
        (windows == Windows::OfStill && c.layerTurns(layer)))
      c.windows[static_cast<size_t>(layer)] = 0;
  return Error::success();
}

/// The angles of layers with a window.
Error ConfigReader::readLocalRope() {
  if (!architecture->hasLocalRope)
    return Error::success();
  constexpr double absent = 10000;
  if (fields.has("rope_parameters")) {
    Expected<Rope> rope =
        readRope(fields, c, capacity, absent, "sliding_attention");
    if (!rope)
      return rope.takeError();
    c.localRope = std::move(*rope);
    return Error::success();
  }
  double theta = 0;
  if (Error error = positiveNumber(theta, "rope_local_base_freq", absent))
    return error;
  c.localRope = plainRope(theta, c.headDim);
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Tokens
//===----------------------------------------------------------------------===//

Expected<std::vector<int32_t>> kvrm::readTokenIds(const JsonFields &fields,
                                                  StringRef key,
                                                  int64_t vocabulary) {
  std::vector<int32_t> ids;
  const llvm::json::Value *value = fields.find(key);
  if (!value)
    return ids;
  auto add = [&](const llvm::json::Value &entry) -> Error {
    std::optional<int64_t> id = entry.getAsInteger();
    if (id == -1) // none
      return Error::success();
    if (!id || *id < 0 || *id >= vocabulary)
      return fields.fail(
          key,
          formatv("{0} is no token below the vocabulary {1}", entry, vocabulary)
              .str());
    ids.push_back(static_cast<int32_t>(*id));
    return Error::success();
  };
  if (const llvm::json::Array *list = value->getAsArray()) {
    for (const llvm::json::Value &entry : *list)
      if (Error error = add(entry))
        return error;
  } else if (Error error = add(*value)) {
    return error;
  }
  return ids;
}

Error kvrm::readTokenMarks(const JsonFields &fields, DecoderConfig &config) {
  std::vector<int32_t> begins, ends;
  auto read = [&](std::vector<int32_t> &ids, StringRef key) {
    return assign(ids, readTokenIds(fields, key, config.vocabulary));
  };
  if (Error error = firstOf({[&] { return read(begins, "bos_token_id"); },
                             [&] { return read(ends, "eos_token_id"); }}))
    return error;
  if (!begins.empty())
    config.bos = begins.front();
  if (!ends.empty())
    config.eos = ends.front();
  llvm::for_each(ends, [&](int32_t id) { config.addEnd(id); });
  return Error::success();
}

//===----------------------------------------------------------------------===//
// What is refused
//===----------------------------------------------------------------------===//

/// Accepts what stands for "no": false, 0, and 1 for a factor.
Error ConfigReader::checkNeutral(StringRef key) {
  const llvm::json::Value *value = fields.find(key);
  if (!value || value->getAsBoolean() == false || value->getAsNumber() == 0.0)
    return Error::success();
  bool isFactor = key.ends_with("_multiplier") || key.ends_with("_scale") ||
                  key.ends_with("_scaling");
  if (isFactor && value->getAsNumber() == 1.0)
    return Error::success();
  return fields.fail(key, "is not supported (only without it)");
}

/// Keys of other classes are refused here too, where a class that kvrm has not
/// may have been saved under the name of one that it has.
Error ConfigReader::checkUnsupported() {
  for (StringRef key :
       {"quantization_config", "attention_bias", "mlp_bias", "clip_qkv",
        "use_bidirectional_attention", "logit_scale", "logits_scaling",
        "embedding_multiplier", "residual_multiplier", "attention_multiplier",
        "qk_layernorm", "use_qk_norm", "num_experts", "num_local_experts",
        "n_routed_experts", "add_cross_attention"})
    if (Error error = checkNeutral(key))
      return error;
  if (architecture->gemma == Gemma::Later)
    return Error::success();
  return firstOf({
      [&] { return checkNeutral("attn_logit_softcapping"); },
      [&] { return checkNeutral("final_logit_softcapping"); },
  });
}

Expected<FolderConfig> ConfigReader::read() {
  if (Error error = firstOf({
          [&] { return readArchitecture(); },
          [&] { return readSizes(); },
          [&] { return readHead(); },
      }))
    return error;
  if (capacity == 0)
    capacity = c.context;
  if (Error error = firstOf({
          [&] { return readNumbers(); },
          [&] { return readStill(); },
          [&] { return readWindows(); },
          [&] { return readLocalRope(); },
          [&] { return readTokenMarks(fields, c); },
          [&] { return checkUnsupported(); },
      }))
    return error;
  return std::move(result);
}

Expected<FolderConfig> kvrm::readFolderConfig(const JsonFields &config,
                                              int64_t capacity) {
  return ConfigReader(config, capacity).read();
}
