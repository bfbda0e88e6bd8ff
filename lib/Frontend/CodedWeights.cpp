//===- CodedWeights.cpp - Matrices brought to blocks ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/CodedWeights.h"

#include "kvrm/Frontend/BlockCodes.h"
#include "kvrm/Frontend/DecoderConfig.h"
#include "kvrm/runtime/support/F8E4M3.h"
#include "kvrm/runtime/support/SeededCodes.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

#include <algorithm>
#include <cmath>
#include <vector>

using namespace kvrm;
using llvm::Error;
using llvm::StringRef;

static constexpr std::pair<const char *, BlockFormat> kNames[] = {
    {"q8_0", BlockFormat::Q8_0},
    {"q4_0", BlockFormat::Q4_0},
    {"q4_1", BlockFormat::Q4_1},
    {"q5_0", BlockFormat::Q5_0},
    {"q5_1", BlockFormat::Q5_1},
    {"int4_g128", BlockFormat::INT4_G128},
    {"int4_g128_min", BlockFormat::INT4_G128_MIN},
    {"fp8_g128", BlockFormat::FP8_G128},
};

std::optional<BlockFormat> kvrm::codedFormat(StringRef name) {
  for (auto [known, format] : kNames)
    if (name == known)
      return format;
  return std::nullopt;
}

std::string kvrm::codedFormatNames() {
  return llvm::join(
      llvm::map_range(kNames, [](auto &each) { return StringRef(each.first); }),
      ", ");
}

//===----------------------------------------------------------------------===//
// Sources
//===----------------------------------------------------------------------===//

namespace {

/// A matrix whose blocks are made when they are read.
class CodedSource : public WeightSource {
public:
  CodedSource(std::shared_ptr<const WeightSource> original, BlockFormat format)
      : original(std::move(original)), format(format), shape(shapeOf(format)) {}

  int64_t rows() const override { return original->rows(); }
  int64_t cols() const override { return original->cols(); }
  std::string origin(int64_t row) const override {
    return original->origin(row);
  }
  std::optional<BlockFormat> blockFormat() const override { return format; }
  void readRows(int64_t begin, int64_t end, float *out) const override;

protected:
  int64_t blocks() const { return cols() / shape.elements; }
  /// What a code stands for, before it is scaled.
  float worthOf(uint8_t code) const {
    return shape.isFloat ? f8E4M3ToFloat(code)
                         : static_cast<float>(code - shape.offset);
  }

  std::shared_ptr<const WeightSource> original;
  BlockFormat format;
  BlockShape shape;
};

/// Rounded from the values of another source.
class RoundedSource final : public CodedSource {
public:
  using CodedSource::CodedSource;
  void readCodes(int64_t row, BlockCodes *out) const override;

private:
  void round(const float *values, BlockCodes &out) const;
  uint8_t codeOf(float scaled) const;
};

/// Codes that a seed makes.
class SeededSource final : public CodedSource {
public:
  using CodedSource::CodedSource;
  void readCodes(int64_t row, BlockCodes *out) const override;
  const SeededValues *seededValues() const override {
    return original->seededValues();
  }
};

} // namespace

void CodedSource::readRows(int64_t begin, int64_t end, float *out) const {
  std::vector<BlockCodes> codes(static_cast<size_t>(blocks()));
  for (int64_t row = begin; row < end; ++row) {
    readCodes(row, codes.data());
    for (const BlockCodes &block : codes)
      for (int64_t i = 0; i < shape.elements; ++i) {
        float value = halfToFloat(block.scale) * worthOf(block.codes[i]);
        *out++ = shape.hasMinima ? value + halfToFloat(block.minimum) : value;
      }
  }
}

/// A scale that is not finite says which weight cannot be rounded.
void RoundedSource::round(const float *values, BlockCodes &out) const {
  auto end = values + shape.elements;
  auto [least, most] = std::minmax_element(values, end);
  bool isFinite =
      std::all_of(values, end, [](float v) { return std::isfinite(v); });
  auto last = static_cast<float>((1 << shape.codeBits) - 1);
  float low = 0, step = 0;
  if (shape.isFloat) {
    step = std::max(-*least, *most) / kLargestF8E4M3;
  } else if (shape.hasMinima) {
    low = *least;
    step = (*most - *least) / last;
  } else {
    // The largest magnitude is code 0, of which there is one more.
    float largest = -*least > *most ? *least : *most;
    step = largest / -static_cast<float>(shape.offset);
  }
  constexpr uint16_t notFinite = 0x7e00;
  out.scale = isFinite ? roundToF16(step) : notFinite;
  out.minimum = roundToF16(low);
  float scale = halfToFloat(out.scale), base = halfToFloat(out.minimum);
  for (int64_t i = 0; i < shape.elements; ++i) {
    bool isScaled = isFinite && scale != 0;
    out.codes[i] = codeOf(isScaled ? (values[i] - base) / scale : 0.0f);
  }
}

/// The code that stands for a value over its scale, or for the nearest.
uint8_t RoundedSource::codeOf(float scaled) const {
  if (shape.isFloat)
    return floatToF8E4M3(scaled);
  auto last = static_cast<float>((1 << shape.codeBits) - 1);
  float code = std::nearbyint(scaled) + static_cast<float>(shape.offset);
  return static_cast<uint8_t>(std::clamp(code, 0.0f, last));
}

void RoundedSource::readCodes(int64_t row, BlockCodes *out) const {
  std::vector<float> values(static_cast<size_t>(cols()));
  original->readRows(row, row + 1, values.data());
  for (int64_t block = 0; block < blocks(); ++block)
    round(values.data() + block * shape.elements, out[block]);
}

void SeededSource::readCodes(int64_t row, BlockCodes *out) const {
  SeededCodes seeded(*original->seededValues(), shape);
  for (int64_t block = 0; block < blocks(); ++block) {
    out[block].scale = seeded.scale;
    out[block].minimum = seeded.minimum;
    int64_t first = row * cols() + block * shape.elements;
    for (int64_t i = 0; i < shape.elements; ++i)
      out[block].codes[i] = seeded.code(first + i);
  }
}

Error kvrm::codeMatrices(DecoderModel &model, BlockFormat format) {
  llvm::SmallDenseMap<const WeightSource *, std::shared_ptr<CodedSource>> known;
  for (const WeightShape &weight : weightsOf(model.config)) {
    if (weight.kind != WeightKind::Matrix)
      continue;
    std::shared_ptr<const WeightSource> source = model.get(weight.name);
    if (int64_t elements = shapeOf(format).elements;
        source->cols() % elements != 0)
      return llvm::createStringError(
          "--weight-type: the rows of '" + weight.name + "' have " +
          llvm::Twine(source->cols()) + " columns, not whole blocks of " +
          llvm::Twine(elements));
    std::shared_ptr<CodedSource> &made = known[source.get()];
    if (!made && source->seededValues())
      made = std::make_shared<SeededSource>(source, format);
    else if (!made)
      made = std::make_shared<RoundedSource>(source, format);
    model.set(weight.name, made);
  }
  return Error::success();
}
