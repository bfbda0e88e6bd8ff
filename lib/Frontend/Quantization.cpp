//===- Quantization.cpp - Block formats of GGML tensors -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Quantization.h"

#include <bit>
#include <cassert>
#include <cstring>

using namespace kvrm;

static uint16_t read16(const uint8_t *in) {
  return static_cast<uint16_t>(in[0] | in[1] << 8);
}

static uint32_t read32(const uint8_t *in) {
  return in[0] | in[1] << 8 | in[2] << 16 | static_cast<uint32_t>(in[3]) << 24;
}

float kvrm::halfToFloat(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  uint32_t magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) // infinity, NaN
    return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // A half's bits read as a float's are its value times 2^-112, subnormals
  // included.
  float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

static float readHalf(const uint8_t *in) { return halfToFloat(read16(in)); }

static void fromF32(const uint8_t *in, int64_t blocks, float *out) {
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(out, in, static_cast<size_t>(blocks) * sizeof(float));
}

static void fromF16(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t i = 0; i < blocks; ++i)
    out[i] = readHalf(in + 2 * i);
}

static void fromBF16(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t i = 0; i < blocks; ++i)
    out[i] =
        std::bit_cast<float>(static_cast<uint32_t>(read16(in + 2 * i)) << 16);
}

// Half scale; 16 bytes of two nibbles, low ones first.
static void fromQ4_0(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 18, out += 32) {
    float scale = readHalf(in);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>((in[2 + i] & 15) - 8) * scale;
      out[i + 16] = static_cast<float>((in[2 + i] >> 4) - 8) * scale;
    }
  }
}

static void fromQ4_1(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 20, out += 32) {
    float scale = readHalf(in);
    float minimum = readHalf(in + 2);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>(in[4 + i] & 15) * scale + minimum;
      out[i + 16] = static_cast<float>(in[4 + i] >> 4) * scale + minimum;
    }
  }
}

// As Q4_0, with a fifth bit of element i in bit i of a 32-bit word.
static void fromQ5_0(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 22, out += 32) {
    float scale = readHalf(in);
    uint32_t high = read32(in + 2);
    for (int i = 0; i < 16; ++i) {
      int lowElement = (in[6 + i] & 15) | (high >> i & 1) << 4;
      int highElement = in[6 + i] >> 4 | (high >> (i + 16) & 1) << 4;
      out[i] = static_cast<float>(lowElement - 16) * scale;
      out[i + 16] = static_cast<float>(highElement - 16) * scale;
    }
  }
}

static void fromQ5_1(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 24, out += 32) {
    float scale = readHalf(in);
    float minimum = readHalf(in + 2);
    uint32_t high = read32(in + 4);
    for (int i = 0; i < 16; ++i) {
      int lowElement = (in[8 + i] & 15) | (high >> i & 1) << 4;
      int highElement = in[8 + i] >> 4 | (high >> (i + 16) & 1) << 4;
      out[i] = static_cast<float>(lowElement) * scale + minimum;
      out[i + 16] = static_cast<float>(highElement) * scale + minimum;
    }
  }
}

static void fromQ8_0(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 34, out += 32) {
    float scale = readHalf(in);
    for (int i = 0; i < 32; ++i)
      out[i] = static_cast<float>(static_cast<int8_t>(in[2 + i])) * scale;
  }
}

namespace {
struct ScaleAndMinimum {
  float scale;
  float minimum;
};
} // namespace

/// The six-bit scale and minimum of sub-block `i` of a Q4_K or Q5_K block,
/// packed in 12 bytes.
static ScaleAndMinimum unpackScale(const uint8_t *packed, int i) {
  if (i < 4)
    return {static_cast<float>(packed[i] & 63),
            static_cast<float>(packed[i + 4] & 63)};
  return {static_cast<float>((packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4),
          static_cast<float>(packed[i + 4] >> 4 | (packed[i] >> 6) << 4)};
}

// Half scale and minimum, 12 bytes of packed scales, 128 bytes of nibbles:
// eight sub-blocks of 32, two to each 32 bytes.
static void fromQ4_K(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 144, out += 256) {
    float scale = readHalf(in);
    float minimum = readHalf(in + 2);
    for (int s = 0; s < 8; ++s) {
      ScaleAndMinimum sub = unpackScale(in + 4, s);
      float subScale = scale * sub.scale;
      float subMinimum = minimum * sub.minimum;
      const uint8_t *nibbles = in + 16 + 32 * (s / 2);
      int shift = 4 * (s % 2);
      for (int i = 0; i < 32; ++i)
        out[32 * s + i] =
            subScale * static_cast<float>(nibbles[i] >> shift & 15) -
            subMinimum;
    }
  }
}

// As Q4_K, with the fifth bit of element i of sub-block s in bit s of byte i
// of 32 bytes before the nibbles.
static void fromQ5_K(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 176, out += 256) {
    float scale = readHalf(in);
    float minimum = readHalf(in + 2);
    const uint8_t *high = in + 16;
    for (int s = 0; s < 8; ++s) {
      ScaleAndMinimum sub = unpackScale(in + 4, s);
      float subScale = scale * sub.scale;
      float subMinimum = minimum * sub.minimum;
      const uint8_t *nibbles = in + 48 + 32 * (s / 2);
      int shift = 4 * (s % 2);
      for (int i = 0; i < 32; ++i) {
        int element = (nibbles[i] >> shift & 15) | (high[i] >> s & 1) << 4;
        out[32 * s + i] = subScale * static_cast<float>(element) - subMinimum;
      }
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 scales of 16
// elements each, half scale. Two halves of 128 elements.
static void fromQ6_K(const uint8_t *in, int64_t blocks, float *out) {
  for (int64_t b = 0; b < blocks; ++b, in += 210, out += 256) {
    float scale = readHalf(in + 208);
    for (int half = 0; half < 2; ++half) {
      const uint8_t *low = in + 64 * half;
      const uint8_t *high = in + 128 + 32 * half;
      const uint8_t *scales = in + 192 + 8 * half;
      for (int quarter = 0; quarter < 4; ++quarter) {
        const uint8_t *nibbles = low + 32 * (quarter % 2);
        int lowShift = 4 * (quarter / 2);
        int highShift = 2 * quarter;
        for (int i = 0; i < 32; ++i) {
          int element = ((nibbles[i] >> lowShift & 15) |
                         (high[i] >> highShift & 3) << 4) -
                        32;
          auto subScale = static_cast<int8_t>(scales[2 * quarter + i / 16]);
          out[128 * half + 32 * quarter + i] = scale *
                                               static_cast<float>(subScale) *
                                               static_cast<float>(element);
        }
      }
    }
  }
}

const GGMLTypeInfo *kvrm::lookupGGMLType(uint32_t type) {
  static constexpr GGMLTypeInfo f32 = {"F32", 1, 4, fromF32};
  static constexpr GGMLTypeInfo f16 = {"F16", 1, 2, fromF16};
  static constexpr GGMLTypeInfo bf16 = {"BF16", 1, 2, fromBF16};
  static constexpr GGMLTypeInfo q4_0 = {"Q4_0", 32, 18, fromQ4_0};
  static constexpr GGMLTypeInfo q4_1 = {"Q4_1", 32, 20, fromQ4_1};
  static constexpr GGMLTypeInfo q5_0 = {"Q5_0", 32, 22, fromQ5_0};
  static constexpr GGMLTypeInfo q5_1 = {"Q5_1", 32, 24, fromQ5_1};
  static constexpr GGMLTypeInfo q8_0 = {"Q8_0", 32, 34, fromQ8_0};
  static constexpr GGMLTypeInfo q4_k = {"Q4_K", 256, 144, fromQ4_K};
  static constexpr GGMLTypeInfo q5_k = {"Q5_K", 256, 176, fromQ5_K};
  static constexpr GGMLTypeInfo q6_k = {"Q6_K", 256, 210, fromQ6_K};
  switch (static_cast<GGMLType>(type)) {
  case GGMLType::F32:
    return &f32;
  case GGMLType::F16:
    return &f16;
  case GGMLType::BF16:
    return &bf16;
  case GGMLType::Q4_0:
    return &q4_0;
  case GGMLType::Q4_1:
    return &q4_1;
  case GGMLType::Q5_0:
    return &q5_0;
  case GGMLType::Q5_1:
    return &q5_1;
  case GGMLType::Q8_0:
    return &q8_0;
  case GGMLType::Q4_K:
    return &q4_k;
  case GGMLType::Q5_K:
    return &q5_k;
  case GGMLType::Q6_K:
    return &q6_k;
  }
  return nullptr;
}

const GGMLTypeInfo &kvrm::infoOf(GGMLType type) {
  const GGMLTypeInfo *info = lookupGGMLType(static_cast<uint32_t>(type));
  assert(info && "not a readable type");
  return *info;
}

void kvrm::dequantize(GGMLType type, const uint8_t *in, int64_t count,
                      float *out) {
  const GGMLTypeInfo &info = infoOf(type);
  assert(count % info.blockElements == 0 && "not whole blocks");
  info.toFloat(in, count / info.blockElements, out);
}
