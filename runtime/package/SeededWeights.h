//===- SeededWeights.h - Weights that a package has as seeds ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_SEEDEDWEIGHTS_H
#define KVRM_RUNTIME_PACKAGE_SEEDEDWEIGHTS_H

#include "kvrm/runtime/abi/block_format.h"
#include "kvrm/runtime/support/Memory.h"
#include "kvrm/runtime/support/SeededValues.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace kvrm {

/// One weight of seeds.json: a matrix in the order that a package stores.
struct SeededTensor {
  enum class Element : int32_t { F32 = 0, F16 = 1, BF16 = 2 };

  Element element = Element::F32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t rowPanel = 0; ///< rows of a panel; 0 = row-major
  int64_t offset = 0;   ///< in the weights
  SeededValues values;
  /// Element (r, c) is value first + r * pitch + c: more than `cols` of them a
  /// row where it is a slice of a whole.
  int64_t first = 0;
  int64_t pitch = 0;

  /// In blocks, whatever `element` says: records of `rowPanel` rows, of a
  /// format without sub-scales.
  std::optional<kvrmblocks::BlockShape> blocks;

  int64_t elementBytes() const { return element == Element::F32 ? 4 : 2; }
  /// Rows as stored: those that the last panel lacks are zeros.
  int64_t paddedRows() const {
    return rowPanel > 0 ? (rows + rowPanel - 1) / rowPanel * rowPanel : rows;
  }
  int64_t bytes() const {
    return blocks ? records() * blocks->recordBytes(rowPanel)
                  : paddedRows() * cols * elementBytes();
  }
  /// Of a tensor in blocks.
  int64_t records() const { return paddedRows() / rowPanel * recordsOfRow(); }
  int64_t recordsOfRow() const { return cols / blocks->elements; }
};

/// A run of bytes of weights.safetensors, for weights that have no seed.
struct CopiedBytes {
  int64_t offset = 0; ///< in the weights
  int64_t from = 0;   ///< in the file's data section
  int64_t bytes = 0;
};

/// seeds.json, checked.
struct WeightSeeds {
  int64_t bytes = 0; ///< of all weights
  std::vector<SeededTensor> tensors;
  std::vector<CopiedBytes> copies;
};

/// `where` names the text in errors, `dataBytes` are those of the data section
/// of weights.safetensors. Errors: Corrupt.
Expected<WeightSeeds> parseSeeds(std::string_view text, std::string_view where,
                                 int64_t dataBytes);

/// Makes the weights, on all CPUs. `data` is the data section of
/// weights.safetensors. Errors: ResourceExhausted.
Expected<AlignedBuffer> growWeights(const WeightSeeds &seeds,
                                    std::span<const uint8_t> data);

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_SEEDEDWEIGHTS_H
