//===- BlockCodes.cpp - What is in the blocks of GGML tensors -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/BlockCodes.h"

using namespace kvrm;

namespace {
/// Reads the fields of a block one after another.
class Fields {
public:
  explicit Fields(const uint8_t *in) : in(in) {}
  const uint8_t *take(int64_t bytes) {
    const uint8_t *field = in;
    in += bytes;
    return field;
  }
  uint16_t half() {
    const uint8_t *bytes = take(2);
    return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
  }

private:
  const uint8_t *in;
};
} // namespace

std::optional<BlockFormat> kvrm::blockFormatOf(GGMLType type) {
  switch (type) {
  case GGMLType::Q4_0:
    return BlockFormat::Q4_0;
  case GGMLType::Q4_1:
    return BlockFormat::Q4_1;
  case GGMLType::Q5_0:
    return BlockFormat::Q5_0;
  case GGMLType::Q5_1:
    return BlockFormat::Q5_1;
  case GGMLType::Q8_0:
    return BlockFormat::Q8_0;
  case GGMLType::Q4_K:
    return BlockFormat::Q4_K;
  case GGMLType::Q5_K:
    return BlockFormat::Q5_K;
  case GGMLType::Q6_K:
    return BlockFormat::Q6_K;
  case GGMLType::F32:
  case GGMLType::F16:
  case GGMLType::BF16:
    break;
  }
  return std::nullopt;
}

GGMLType kvrm::typeOf(BlockFormat format) {
  constexpr GGMLType types[] = {GGMLType::Q4_0, GGMLType::Q4_1, GGMLType::Q5_0,
                                GGMLType::Q5_1, GGMLType::Q8_0, GGMLType::Q4_K,
                                GGMLType::Q5_K, GGMLType::Q6_K};
  return types[static_cast<size_t>(format)];
}

/// Nibbles of 32 elements: the low ones are of the first half.
static void unpackNibbles(const uint8_t *in, uint8_t *out) {
  constexpr int half = kStretch / 2;
  for (int i = 0; i < half; ++i) {
    out[i] = in[i] & 15;
    out[i + half] = in[i] >> 4;
  }
}

/// Bit i of four bytes is the fifth bit of element i.
static void addFifthBits(const uint8_t *in, uint8_t *out) {
  for (int i = 0; i < kStretch; ++i)
    out[i] |= static_cast<uint8_t>((in[i / 8] >> i % 8 & 1) << 4);
}

/// Eight scales and minima of six bits, in 12 bytes: those of the last four
/// groups are in two pieces.
static void unpackSixBits(const uint8_t *in, BlockCodes &out) {
  for (int i = 0; i < 4; ++i) {
    out.subScales[i] = static_cast<int8_t>(in[i] & 63);
    out.subMinima[i] = static_cast<int8_t>(in[i + 4] & 63);
    out.subScales[i + 4] =
        static_cast<int8_t>((in[i + 8] & 15) | (in[i] >> 6) << 4);
    out.subMinima[i + 4] =
        static_cast<int8_t>(in[i + 8] >> 4 | (in[i + 4] >> 6) << 4);
  }
}

/// Of 32 bytes the low nibbles are a stretch, and the high ones the next.
static void unpackStretches(const uint8_t *in, uint8_t *out) {
  for (int64_t pair = 0; pair < kMaxBlockElements / (2 * kStretch); ++pair)
    for (int i = 0; i < kStretch; ++i) {
      out[2 * pair * kStretch + i] = in[pair * kStretch + i] & 15;
      out[(2 * pair + 1) * kStretch + i] = in[pair * kStretch + i] >> 4;
    }
}

/// Halves of 128 elements: 64 bytes of nibbles and 32 of pairs of bits each.
static void unpackQ6K(Fields &fields, BlockCodes &out) {
  const uint8_t *low = fields.take(128), *high = fields.take(64);
  for (int e = 0; e < kMaxBlockElements; ++e) {
    int half = e / 128, quarter = e % 128 / 32, i = e % 32;
    int nibble = low[64 * half + 32 * (quarter % 2) + i] >> 4 * (quarter / 2);
    int pair = high[32 * half + i] >> 2 * quarter;
    out.codes[e] = static_cast<uint8_t>((nibble & 15) | (pair & 3) << 4);
  }
  const uint8_t *scales = fields.take(kMaxBlockGroups);
  for (int i = 0; i < kMaxBlockGroups; ++i)
    out.subScales[i] = static_cast<int8_t>(scales[i]);
  out.scale = fields.half();
}

void kvrm::unpackBlock(BlockFormat format, const uint8_t *in, BlockCodes &out) {
  Fields fields(in);
  if (format == BlockFormat::Q6_K)
    return unpackQ6K(fields, out);
  BlockShape shape = shapeOf(format);
  out.scale = fields.half();
  if (shape.hasMinima)
    out.minimum = fields.half();
  if (format == BlockFormat::Q8_0) {
    const uint8_t *codes = fields.take(kStretch);
    for (int i = 0; i < kStretch; ++i)
      out.codes[i] = codes[i] ^ 0x80;
    return;
  }
  if (!shape.hasSubScales) {
    const uint8_t *fifth = shape.codeBits == 5 ? fields.take(4) : nullptr;
    unpackNibbles(fields.take(kStretch / 2), out.codes);
    if (fifth)
      addFifthBits(fifth, out.codes);
    return;
  }
  unpackSixBits(fields.take(12), out);
  const uint8_t *fifth = shape.codeBits == 5 ? fields.take(kStretch) : nullptr;
  unpackStretches(fields.take(kMaxBlockElements / 2), out.codes);
  if (fifth) // bit s of byte i: element i of stretch s
    for (int e = 0; e < kMaxBlockElements; ++e)
      out.codes[e] |=
          static_cast<uint8_t>((fifth[e % kStretch] >> e / kStretch & 1) << 4);
}
