//===- TensorParts.cpp - Weights as views of tensors ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/TensorParts.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

#include <algorithm>
#include <cassert>

using namespace kvrm;
using llvm::ArrayRef;

static int64_t countOf(ArrayRef<TensorPart::Factor> factors) {
  int64_t count = 1;
  for (TensorPart::Factor factor : factors)
    count *= factor.size;
  return count;
}

/// Where element `index` of the factors lies.
static int64_t placeOf(ArrayRef<TensorPart::Factor> factors, int64_t index) {
  int64_t place = 0;
  for (TensorPart::Factor factor : llvm::reverse(factors)) {
    place += index % factor.size * factor.stride;
    index /= factor.size;
  }
  return place;
}

int64_t TensorPart::rowCount() const { return countOf(rows); }
int64_t TensorPart::columnCount() const { return countOf(columns); }

bool TensorPart::isInside() const {
  bool isHuge = offset < 0;
  auto last = static_cast<uint64_t>(offset);
  for (const auto *factors : {&rows, &columns})
    for (Factor factor : *factors) {
      bool overflows = false;
      last = llvm::SaturatingMultiplyAdd(static_cast<uint64_t>(factor.size - 1),
                                         static_cast<uint64_t>(factor.stride),
                                         last, &overflows);
      isHuge |= overflows || factor.size < 1 || factor.stride < 0;
    }
  return !isHuge && last < static_cast<uint64_t>(tensor.elements);
}

namespace {
class PartsSource final : public WeightSource {
public:
  explicit PartsSource(std::vector<TensorPart> list) : parts(std::move(list)) {
    for (const TensorPart &part : parts) {
      firstRows.push_back(rowTotal);
      rowTotal += part.rowCount();
      assert(part.isInside() &&
             part.columnCount() == parts.front().columnCount());
    }
  }

  int64_t rows() const override { return rowTotal; }
  int64_t cols() const override { return parts.front().columnCount(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    for (int64_t row = begin; row < end; ++row, out += cols()) {
      size_t part = partOf(row);
      readRow(parts[part], row - firstRows[part], out);
    }
  }
  std::string origin(int64_t row) const override {
    return parts[partOf(row)].tensor.origin;
  }

private:
  size_t partOf(int64_t row) const {
    auto next = std::upper_bound(firstRows.begin(), firstRows.end(), row);
    return static_cast<size_t>(next - firstRows.begin() - 1);
  }

  static void readRow(const TensorPart &part, int64_t row, float *out) {
    const StoredTensor &tensor = part.tensor;
    const int64_t bytes = sizeOf(tensor.type);
    const uint8_t *in =
        tensor.data + (part.offset + placeOf(part.rows, row)) * bytes;
    TensorPart::Factor fastest = part.columns.back();
    int64_t runs = part.columnCount() / fastest.size;
    ArrayRef<TensorPart::Factor> slower = ArrayRef(part.columns).drop_back();
    for (int64_t run = 0; run < runs; ++run, out += fastest.size) {
      const uint8_t *first = in + placeOf(slower, run) * bytes;
      if (fastest.stride == 1) {
        convertToFloat(tensor.type, first, fastest.size, out);
        continue;
      }
      for (int64_t i = 0; i < fastest.size; ++i)
        convertToFloat(tensor.type, first + i * fastest.stride * bytes, 1,
                       out + i);
    }
  }

  std::vector<TensorPart> parts;
  std::vector<int64_t> firstRows;
  int64_t rowTotal = 0;
};
} // namespace

std::shared_ptr<const WeightSource>
kvrm::joinParts(std::vector<TensorPart> parts) {
  return std::make_shared<PartsSource>(std::move(parts));
}
