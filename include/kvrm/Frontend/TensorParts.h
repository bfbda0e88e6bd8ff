//===- TensorParts.h - Weights as views of tensors --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_TENSORPARTS_H
#define KVRM_FRONTEND_TENSORPARTS_H

#include "kvrm/Frontend/Model.h"
#include "kvrm/Frontend/Safetensors.h"

#include "llvm/ADT/SmallVector.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvrm {

/// A tensor of floating point that lies in memory, row-major.
struct StoredTensor {
  SafetensorsType type = SafetensorsType::F32;
  const uint8_t *data = nullptr;
  int64_t elements = 0;
  std::shared_ptr<const void> owner; ///< keeps `data`
  std::string origin;                ///< what a user knows it by
};

/// Rows of a weight: elements of a tensor by sizes and strides, slowest first.
struct TensorPart {
  StoredTensor tensor;
  int64_t offset = 0; ///< of the first, in elements
  struct Factor {
    int64_t size, stride;
  };
  llvm::SmallVector<Factor, 2> rows, columns;

  int64_t rowCount() const;
  int64_t columnCount() const;
  /// Whether all elements are in the tensor.
  bool isInside() const;
};

/// A weight whose rows are those of the parts, one under the other. Parts have
/// the same number of columns and are inside their tensors.
std::shared_ptr<const WeightSource> joinParts(std::vector<TensorPart> parts);

} // namespace kvrm

#endif // KVRM_FRONTEND_TENSORPARTS_H
