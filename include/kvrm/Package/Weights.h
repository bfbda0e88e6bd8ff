//===- Weights.h - The layout of a package's weights ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The compiler bakes the offset of every weight into code. It lists the weights
// as it compiled them, in the layouts that its kernels read and at the offsets
// that it chose, and has the file written from that list.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_PACKAGE_WEIGHTS_H
#define KVRM_PACKAGE_WEIGHTS_H

#include "kvrm/Frontend/Model.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvrm {

enum class WeightType : uint8_t { F32, F16, BF16 };

/// Bytes of one element.
int64_t sizeOf(WeightType type);

/// What of a whole weight a rank has: along rows or columns the weight is
/// parts, one behind the other, and rank r has the r-th of `ranks` equal pieces
/// of each.
struct WeightSlices {
  /// So many rows or columns of the whole, and where they are in a rank's.
  struct Run {
    int64_t from, to, size;
  };

  bool isOfColumns = false;
  std::vector<int64_t> parts; ///< multiples of `ranks`; none: all of it
  int64_t ranks = 1;

  bool isWhole() const { return parts.empty(); }
  int64_t wholeSize() const; ///< rows or columns of the whole
  std::vector<Run> runsOf(int64_t rank) const;
};

/// A rank's of `whole`, which outlives it.
std::unique_ptr<const WeightSource> sliceWeight(const WeightSource &whole,
                                                const WeightSlices &slices,
                                                int64_t rank);

struct WeightLayout {
  std::string name;
  int64_t rows = 0; ///< logical; of a rank, as the columns
  int64_t cols = 0;
  WeightType type = WeightType::F32;
  /// 0: row-major. n > 0: panels of n rows, [rows / n][cols][n], so that
  /// element (r, c) is at ((r / n) * cols + c) * n + r % n. The rows that the
  /// last panel lacks are zeros.
  int64_t rowPanel = 0;
  /// In the data section, a multiple of KVRM_ALIGNMENT.
  int64_t offset = -1;
  /// In blocks, whatever `type` says: records of `rowPanel` rows, [rows /
  /// rowPanel][blocks of a row][record], as BlockFormat.h has them. The source
  /// has to be in these blocks.
  // Set, so that initializers may leave it out.
  // NOLINTNEXTLINE(readability-redundant-member-init)
  std::optional<BlockFormat> blocks = {};
  // NOLINTNEXTLINE(readability-redundant-member-init)
  WeightSlices slices = {}; ///< of the model's weight

  /// Rows as stored.
  int64_t paddedRows() const {
    return rowPanel > 0 ? (rows + rowPanel - 1) / rowPanel * rowPanel : rows;
  }
  /// Of a row as stored; in a panel, its share of it.
  int64_t rowBytes() const {
    if (!blocks)
      return cols * sizeOf(type);
    BlockShape shape = shapeOf(*blocks);
    return cols / shape.elements * shape.recordBytes(rowPanel) / rowPanel;
  }
  int64_t bytes() const { return paddedRows() * rowBytes(); }
};

/// Checks that `model` has what the layouts ask for: every name, with the same
/// shape. Of rope_cos and rope_sin a layout may take the first rows only. The
/// layouts are in the order of their offsets, aligned, and do not overlap.
llvm::Error checkLayouts(const DecoderModel &model,
                         llvm::ArrayRef<WeightLayout> layouts);

/// Writes `path` as a safetensors file whose data section is 64-byte aligned
/// in the file and holds every layout at its offset. Gaps are covered by uint8
/// tensors "__pad.N". A value that is not finite in its layout's type is an
/// error. Conversion runs on `threads` threads (0: all). Of weights that ranks
/// have in slices, those of `rank` are written.
llvm::Error writeWeights(llvm::StringRef path, const DecoderModel &model,
                         llvm::ArrayRef<WeightLayout> layouts,
                         unsigned threads = 0, int64_t rank = 0);

/// Splits `layouts` into those of weights that a seed makes, at the offsets
/// that they have, and the others, moved together as they lie in a file of
/// their own. Slices whose runs of rows do not lie at multiples of
/// KVRM_ALIGNMENT, or cut a panel, are among the others.
struct SeededLayouts {
  std::vector<WeightLayout> seeded;
  std::vector<WeightLayout> stored; ///< at their offsets in the file
  std::vector<int64_t> places;      ///< of the stored, in the weights
  int64_t bytes = 0;                ///< of all weights
};
SeededLayouts splitSeeded(const DecoderModel &model,
                          llvm::ArrayRef<WeightLayout> layouts);

/// Writes the seeds.json of a rank (docs/package.md).
void writeSeeds(llvm::raw_ostream &os, const DecoderModel &model,
                const SeededLayouts &layouts, int64_t rank = 0);

/// Reads one weight into `out` (layout.bytes() bytes) as it would be stored.
/// Returns false if a value is not finite in the layout's type.
bool packWeight(const WeightSource &source, const WeightLayout &layout,
                void *out);

/// Converts with round-to-nearest-even. Overflow gives infinity; a NaN stays a
/// NaN.
void convertToF16(const float *in, uint16_t *out, int64_t count);
void convertToBF16(const float *in, uint16_t *out, int64_t count);

} // namespace kvrm

#endif // KVRM_PACKAGE_WEIGHTS_H
