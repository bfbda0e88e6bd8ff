//===- block_format.h - Weights in blocks of codes --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the block formats of GGUF have in common, and how a package stores them:
// the one place that front end, dialect, package writer, kernels and runtime
// share.
//
// A row of a matrix is a line of blocks. A block has an unsigned code of 4, 5,
// 6 or 8 bits for each element, and each group of its elements a scale and
// perhaps a minimum:
//
//   value = scale * (code - offset)        scale = d, or d * sub-scale
//   value = scale * code + minimum         minimum = m, or -dmin * sub-minimum
//
// d, m and dmin are IEEE halves, sub-scales and sub-minima integers of 8 bits.
// A code may be a float of 8 bits instead, which stands for itself.
//
// A package has a record for the blocks that `panel` rows have at the same
// place, in the order in which a kernel reads them:
//
//   for each stretch of 32 elements its codes, element by element 4j + b:
//     of 8 bits:         [j = 8][panel][b = 4]
//     of fewer, low:     [j = 4][panel][b = 4], the four low bits of 4j + b,
//                        and of 16 + 4j + b as the high half of the byte
//     then of 5 bits:    [panel][b = 4], the fifth bit of 4j + b as bit j
//     or then of 6 bits: [2][panel][b = 4], the two high bits of 16h + 4j + b
//                        at bit 2j of byte h
//   d       [panel] halves
//   m, dmin [panel] halves, if there are minima
//   sub-scales [groups][panel], then sub-minima if there are minima, if there
//              are such
//
// Rows that the last panel lacks have scales and minima of zero.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_BLOCK_FORMAT_H
#define KVRM_RUNTIME_ABI_BLOCK_FORMAT_H

#include <cstdint>

/// Apart from both ::kvrm and mlir::kvrm, which no file can name beside each
/// other as `kvrm`.
namespace kvrmblocks {

/// As GGUF calls them; then ours, which quantisers of weights for GPUs use:
/// 128 neighbours to a scale, codes of 4 bits without and with a minimum, and
/// floats of 8 bits (E4M3 of the Open Compute Project: no infinities, up to
/// 448).
enum class BlockFormat : uint8_t {
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q4_K,
  Q5_K,
  Q6_K,
  INT4_G128,
  INT4_G128_MIN,
  FP8_G128
};

inline constexpr int kBlockFormats = 11;
/// As the dialect and packages call them.
inline constexpr const char *kBlockFormatNames[kBlockFormats] = {
    "q4_0", "q4_1", "q5_0",      "q5_1",          "q8_0",    "q4_k",
    "q5_k", "q6_k", "int4_g128", "int4_g128_min", "fp8_g128"};

/// Elements whose codes are stored together, and that share a scale of
/// activations.
inline constexpr int64_t kStretch = 32;

/// Most elements and groups of a block.
inline constexpr int64_t kMaxBlockElements = 256;
inline constexpr int64_t kMaxBlockGroups = 16;

struct BlockShape {
  int64_t elements; ///< of a block
  int64_t group;    ///< elements that share a scale
  int64_t codeBits; ///< 4, 5, 6 or 8
  int64_t offset;   ///< that a code is stored with
  bool hasMinima;
  bool hasSubScales;
  bool isFloat = false; ///< codes are E4M3, of 8 bits

  constexpr int64_t groups() const { return elements / group; }
  constexpr int64_t stretches() const { return elements / kStretch; }

  // The record of `panel` rows, in bytes.
  constexpr int64_t stretchBytes(int64_t panel) const {
    return panel * kStretch * codeBits / 8;
  }
  constexpr int64_t scalesAt(int64_t panel) const {
    return stretches() * stretchBytes(panel);
  }
  constexpr int64_t minimaAt(int64_t panel) const {
    return scalesAt(panel) + 2 * panel;
  }
  constexpr int64_t subScalesAt(int64_t panel) const {
    return minimaAt(panel) + (hasMinima ? 2 * panel : 0);
  }
  constexpr int64_t subMinimaAt(int64_t panel) const {
    return subScalesAt(panel) + groups() * panel;
  }
  constexpr int64_t recordBytes(int64_t panel) const {
    if (!hasSubScales)
      return subScalesAt(panel);
    return subMinimaAt(panel) + (hasMinima ? groups() * panel : 0);
  }
};

constexpr BlockShape shapeOf(BlockFormat format) {
  switch (format) {
  case BlockFormat::Q4_0:
    return {32, 32, 4, 8, false, false};
  case BlockFormat::Q4_1:
    return {32, 32, 4, 0, true, false};
  case BlockFormat::Q5_0:
    return {32, 32, 5, 16, false, false};
  case BlockFormat::Q5_1:
    return {32, 32, 5, 0, true, false};
  case BlockFormat::Q8_0:
    return {32, 32, 8, 128, false, false};
  case BlockFormat::Q4_K:
    return {256, 32, 4, 0, true, true};
  case BlockFormat::Q5_K:
    return {256, 32, 5, 0, true, true};
  case BlockFormat::Q6_K:
    return {256, 16, 6, 32, false, true};
  case BlockFormat::INT4_G128:
    return {128, 128, 4, 8, false, false};
  case BlockFormat::INT4_G128_MIN:
    return {128, 128, 4, 0, true, false};
  case BlockFormat::FP8_G128:
    return {128, 128, 8, 0, false, false, true};
  }
  return {};
}

/// A stretch of activations, quantised: 32 signed codes, then in f32 their
/// scale, and scale times the sum of all codes, of the first and of the last
/// 16.
struct ActivationRecord {
  static constexpr int64_t scaleAt = kStretch;
  static constexpr int64_t sumsAt = scaleAt + 4;
  static constexpr int64_t bytes = sumsAt + 12;
};

} // namespace kvrmblocks

#endif // KVRM_RUNTIME_ABI_BLOCK_FORMAT_H
