//===- FolderRope.cpp - Rotary embeddings in config.json ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FolderConfig.h"
#include "Lookup.h"

#include "llvm/Support/FormatVariadic.h"

#include <cmath>

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;

static constexpr StringRef originalKey = "original_max_position_embeddings";

namespace {
/// `scaling` has the parameters of the scaling; where it lacks one of those
/// that older files have beside it, `config` may have it.
class RopeReader {
public:
  RopeReader(const JsonFields &config, const JsonFields &scaling,
             const DecoderConfig &decoder, int64_t capacity)
      : config(config), scaling(scaling), decoder(decoder), capacity(capacity) {
  }

  Expected<Rope> read(double absentTheta);

private:
  Expected<double> positive(StringRef key) const {
    return checked(scaling, key, scaling.getNumber(key));
  }
  Expected<double> positive(StringRef key, double absent) const {
    return checked(scaling, key, scaling.getNumber(key, absent));
  }
  /// In older files beside the scaling.
  Expected<double> positiveAnywhere(StringRef key, double absent) const {
    const JsonFields &fields = scaling.has(key) ? scaling : config;
    return checked(fields, key, fields.getNumber(key, absent));
  }
  static Expected<double> checked(const JsonFields &fields, StringRef key,
                                  Expected<double> value) {
    if (value && (!std::isfinite(*value) || *value <= 0))
      return fields.fail(key, formatv("{0} is not positive", *value).str());
    return value;
  }
  /// Where both have it, transformers take what is beside the scaling.
  Expected<double> originalContext() const {
    const JsonFields &fields = config.has(originalKey) ? config : scaling;
    return checked(
        fields, originalKey,
        fields.getNumber(originalKey, static_cast<double>(decoder.context)));
  }

  Error scale(StringRef type);
  Error scaleLlama3();
  Error scaleYarn();
  Error scaleLongRope();
  Error setMagnitude(double absent);

  const JsonFields &config;
  const JsonFields &scaling;
  const DecoderConfig &decoder;
  int64_t capacity;
  double theta = 0;
  Rope rope;
};
} // namespace

Error RopeReader::scaleLlama3() {
  Llama3Scaling values;
  if (Error error = firstOf({
          [&] { return assign(values.factor, positive("factor")); },
          [&] {
            return assign(values.lowFrequencyFactor,
                          positive("low_freq_factor"));
          },
          [&] {
            return assign(values.highFrequencyFactor,
                          positive("high_freq_factor"));
          },
          [&] { return assign(values.originalContext, originalContext()); },
      }))
    return error;
  if (values.highFrequencyFactor <= values.lowFrequencyFactor)
    return scaling.fail("high_freq_factor",
                        formatv("{0} is not over low_freq_factor, {1}",
                                values.highFrequencyFactor,
                                values.lowFrequencyFactor)
                            .str());
  kvrm::scaleLlama3(rope, values);
  return Error::success();
}

Error RopeReader::setMagnitude(double absent) {
  return assign(rope.magnitude, positive("attention_factor", absent));
}

Error RopeReader::scaleYarn() {
  YarnScaling values;
  values.theta = theta;
  double mscale = 0, mscaleAllDim = 0;
  if (Error error = firstOf({
          [&] { return assign(values.originalContext, originalContext()); },
          [&] {
            double ratio =
                static_cast<double>(decoder.context) / values.originalContext;
            return assign(values.factor, positive("factor", ratio));
          },
          [&] { return assign(values.betaFast, positive("beta_fast", 32)); },
          [&] { return assign(values.betaSlow, positive("beta_slow", 1)); },
          [&] {
            return assign(values.truncates, scaling.getBool("truncate", true));
          },
          [&] { return assign(mscale, scaling.getNumber("mscale", 0)); },
          [&] {
            return assign(mscaleAllDim, scaling.getNumber("mscale_all_dim", 0));
          },
      }))
    return error;
  kvrm::scaleYarn(rope, values);
  bool hasScales = mscale != 0 && mscaleAllDim != 0;
  return setMagnitude(hasScales ? yarnMagnitude(values.factor, mscale) /
                                      yarnMagnitude(values.factor, mscaleAllDim)
                                : yarnMagnitude(values.factor));
}

/// transformers take the factors by the length of a text so far, and turn what
/// is cached by others than what is new. A static graph has one set.
Error RopeReader::scaleLongRope() {
  if (!config.has(originalKey) && !scaling.has(originalKey))
    return config.fail(originalKey, "is missing");
  double original = 0, factor = 0;
  std::vector<double> factors;
  if (Error error = assign(original, originalContext()))
    return error;
  StringRef key =
      static_cast<double>(capacity) > original ? "long_factor" : "short_factor";
  double ratio = static_cast<double>(decoder.context) / original;
  if (Error error = firstOf({
          [&] { return assign(factor, positive("factor", ratio)); },
          [&] { return assign(factors, scaling.getNumbers(key)); },
      }))
    return error;
  if (factors.size() != rope.frequencies.size())
    return scaling.fail(key, formatv("{0} factors, but {1} pairs turn",
                                     factors.size(), rope.frequencies.size())
                                 .str());
  for (double value : factors)
    if (!std::isfinite(value) || value <= 0)
      return scaling.fail(key, formatv("{0} is not positive", value).str());
  divideFrequencies(rope, factors);
  return setMagnitude(longRopeMagnitude(factor, original));
}

Error RopeReader::scale(StringRef type) {
  if (type == "default")
    return Error::success();
  // Stretches what is longer than the context, which a slot is not.
  if (type == "dynamic")
    return Error::success();
  if (type == "linear") {
    Expected<double> factor = positive("factor");
    if (!factor)
      return factor.takeError();
    scaleLinear(rope, *factor);
    return Error::success();
  }
  if (type == "llama3")
    return scaleLlama3();
  // Phi-3 has been written with either name.
  if (type == "longrope" || type == "su" ||
      (type == "yarn" && decoder.architecture == "phi3"))
    return scaleLongRope();
  if (type == "yarn")
    return scaleYarn();
  return scaling.fail("rope_type",
                      "'" + type +
                          "' is not supported (default, linear, dynamic, "
                          "llama3, yarn and longrope are)");
}

Expected<Rope> RopeReader::read(double absentTheta) {
  double part = 1;
  StringRef type;
  if (Error error = firstOf({
          [&] {
            return assign(theta, positiveAnywhere("rope_theta", absentTheta));
          },
          [&] {
            return assign(part, positiveAnywhere("partial_rotary_factor", 1.0));
          },
          [&] { return assign(type, scaling.getString("type", "default")); },
          [&] { return assign(type, scaling.getString("rope_type", type)); },
      }))
    return error;
  // The others' classes have the key and no code for it.
  if (part != 1 && decoder.architecture != "phi3")
    return config.fail("partial_rotary_factor",
                       formatv("{0} is not supported in a '{1}' (only 1 is)",
                               part, decoder.architecture)
                           .str());
  if (part == 1 && decoder.headDim % 2 != 0)
    return config.fail("head_dim",
                       formatv("{0} is not even", decoder.headDim).str());
  double dim = std::floor(static_cast<double>(decoder.headDim) * part);
  if (dim > static_cast<double>(decoder.headDim) || std::fmod(dim, 2) != 0 ||
      dim < 2)
    return config.fail("partial_rotary_factor",
                       formatv("{0} of head_dim {1} is no even number of "
                               "elements up to it",
                               part, decoder.headDim)
                           .str());
  rope = plainRope(theta, static_cast<int64_t>(dim));
  if (Error error = scale(type))
    return error;
  return std::move(rope);
}

/// Which of both names holds is not said anywhere, unless they say the same.
static Error checkOneName(const JsonFields &fields) {
  const llvm::json::Value *parameters = fields.find("rope_parameters");
  const llvm::json::Value *scaling = fields.find("rope_scaling");
  bool saysNothing =
      !scaling || !scaling->getAsObject() || scaling->getAsObject()->empty();
  if (!parameters || saysNothing || *parameters == *scaling)
    return Error::success();
  return fields.fail("rope_scaling",
                     "says something else than rope_parameters beside it");
}

Expected<Rope> kvrm::readRope(const JsonFields &fields,
                              const DecoderConfig &config, int64_t capacity,
                              double theta, StringRef layerType) {
  if (Error error = checkOneName(fields))
    return error;
  StringRef key =
      fields.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  Expected<JsonFields> scaling = fields.getObjectOrNone(key);
  if (!scaling)
    return scaling.takeError();
  if (layerType.empty()) {
    for (StringRef type : {"full_attention", "sliding_attention"})
      if (scaling->has(type))
        return scaling->fail(type, "is not supported in a '" +
                                       config.architecture +
                                       "' (its layers all turn alike)");
    return RopeReader(fields, *scaling, config, capacity).read(theta);
  }
  Expected<JsonFields> ofType = scaling->getObject(layerType);
  if (!ofType)
    return ofType.takeError();
  if (!ofType->has("rope_theta"))
    return ofType->fail("rope_theta", "is missing");
  return RopeReader(fields, *ofType, config, capacity).read(theta);
}
