//===- ToyModel.h - A tiny decoder for tests --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A decoder small enough to compute in float64 on the side. ToyModule.cpp is
// its "compiled" form, which keeps to abi.h as generated code does;
// ToyReference is what it should come to. Both round K and V to f16 and are
// otherwise separate.
//
// With TOY_DEVICE its shape is one that GPUs take, and ToyDeviceKernels.cpp its
// kernels; these round queries and what attention makes of them too.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYMODEL_H
#define KVRM_TEST_TOYMODEL_H

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace toy {
// Each shape has names of its own, so that one program can know both.
#ifdef TOY_DEVICE
inline namespace device {
constexpr bool isDevice = true;
constexpr int headDim = 64;
constexpr int pageTokens = 16;
constexpr int kvTile = 32;
#else
inline namespace host {
constexpr bool isDevice = false;
constexpr int headDim = 16;
constexpr int pageTokens = 4;
constexpr int kvTile = 8;
#endif

constexpr int layers = 2;
constexpr int heads = 6;
constexpr int kvHeads = 2;
constexpr int group = heads / kvHeads;
constexpr int hidden = heads * headDim;
constexpr int vocabulary = 61;
constexpr int slots = 4;
constexpr int capacity = 50; // not a multiple of a page
constexpr int pagesPerSlot = (capacity + pageTokens - 1) / pageTokens;
constexpr int prefillQueries = 10;
/// Of packages with far history.
constexpr int farWindow = 16;
constexpr int farEntries = 8;
constexpr int farSinks = 2;
constexpr int farPagesPerSlot =
    (farWindow + farEntries + prefillQueries + pageTokens - 1) / pageTokens;
constexpr int droppingPagesPerSlot = // of those that keep no entries
    (farWindow + prefillQueries + pageTokens - 1) / pageTokens;
constexpr int prefillQTile = 4;
/// Bytes of the values between the parts of a step of so many tokens.
constexpr int arenaBytes(int tokens) {
  return tokens * (hidden * 3 + 2 * kvHeads * headDim) * 4;
}
constexpr float softmaxScale = 0.75f;
/// Tokens that make the module break the protocol.
constexpr int tokenCommitsTwice = 58;
constexpr int tokenSkipsLayer = 59;
constexpr int tokenSkipsStage = 60;

/// A number in [-1, 1] that depends on all three arguments.
inline float hashed(int a, int b, int c) {
  uint32_t x = static_cast<uint32_t>(a) * 2654435761u ^
               static_cast<uint32_t>(b) * 2246822519u ^
               static_cast<uint32_t>(c) * 3266489917u;
  x ^= x >> 15;
  x *= 2246822519u;
  x ^= x >> 13;
  return static_cast<float>(x & 0xffff) / 32768.0f - 1.0f;
}

inline uint16_t toHalf(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = bits >> 16 & 0x8000;
  float magnitude = std::fabs(value);
  if (magnitude < 6.103515625e-05f)
    return static_cast<uint16_t>(
        sign | static_cast<uint32_t>(std::nearbyint(magnitude * 16777216.0f)));
  bits = (bits & 0x7fffffff) - (112u << 23);
  bits += 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(sign | bits >> 13);
}

inline float fromHalf(uint16_t half) {
  int exponent = half >> 10 & 31;
  float mantissa = static_cast<float>(half & 0x3ff);
  float value;
  if (exponent == 31)
    value = (half & 0x3ff) ? NAN : INFINITY;
  else if (exponent == 0)
    value = mantissa * 5.9604644775390625e-08f;
  else
    value = std::ldexp(1024.0f + mantissa, exponent - 25);
  return half & 0x8000 ? -value : value;
}

// The parts of the model, for float and double.

template <typename T> void embed(int token, int position, T *x) {
  for (int i = 0; i < hidden; ++i)
    x[i] = T(hashed(token, i, 1)) + T(0.25) * std::sin(T(position) + T(i));
}

template <typename T> void project(int layer, const T *x, T *q, T *k, T *v) {
  for (int i = 0; i < hidden; ++i)
    q[i] = x[i] * T(hashed(layer, i, 2)) * T(2);
  for (int i = 0; i < kvHeads * headDim; ++i) {
    k[i] = x[i * group] * T(hashed(layer, i, 3)) * T(2);
    v[i] = x[i * group + 1] * T(hashed(layer, i, 4));
  }
}

template <typename T> void residual(T *x, const T *attended) {
  for (int i = 0; i < hidden; ++i)
    x[i] = T(0.5) * x[i] + attended[i];
}

template <typename T, typename Out> void logits(const T *x, Out *out) {
  for (int token = 0; token < vocabulary; ++token) {
    T sum = 0;
    for (int i = 0; i < hidden; ++i)
      sum += x[i] * T(hashed(token, i, 5));
    out[token] = static_cast<Out>(sum);
  }
}

/// One history in float64 over contiguous K and V.
class Reference {
public:
  std::vector<double> append(int token) {
    int position = length++;
    std::vector<double> x(hidden);
    embed(token, position, x.data());
    for (int layer = 0; layer < layers; ++layer) {
      double q[hidden];
      double k[kvHeads * headDim];
      double v[kvHeads * headDim];
      project(layer, x.data(), q, k, v);
      for (int i = 0; i < kvHeads * headDim; ++i) {
        keys[layer].push_back(fromHalf(toHalf(static_cast<float>(k[i]))));
        values[layer].push_back(fromHalf(toHalf(static_cast<float>(v[i]))));
      }
      double out[hidden] = {};
      for (int head = 0; head < heads; ++head) {
        std::vector<double> weights(length);
        double sum = 0;
        for (int t = 0; t < length; ++t) {
          double dot = 0;
          for (int d = 0; d < headDim; ++d)
            dot += q[head * headDim + d] * keys[layer][index(t, head, d)];
          weights[t] = std::exp(dot * softmaxScale);
          sum += weights[t];
        }
        for (int t = 0; t < length; ++t)
          for (int d = 0; d < headDim; ++d)
            out[head * headDim + d] +=
                weights[t] / sum * values[layer][index(t, head, d)];
      }
      residual(x.data(), out);
    }
    std::vector<double> result(vocabulary);
    logits(x.data(), result.data());
    return result;
  }

  void trim(int newLength) {
    length = newLength;
    for (int layer = 0; layer < layers; ++layer) {
      keys[layer].resize(static_cast<size_t>(length) * kvHeads * headDim);
      values[layer].resize(static_cast<size_t>(length) * kvHeads * headDim);
    }
  }

  int length = 0;

private:
  static size_t index(int token, int head, int d) {
    return (static_cast<size_t>(token) * kvHeads + head / group) * headDim + d;
  }
  std::vector<double> keys[layers];
  std::vector<double> values[layers];
};

#ifdef TOY_DEVICE
} // namespace device
#else
} // namespace host
#endif
} // namespace toy

#endif // KVRM_TEST_TOYMODEL_H
