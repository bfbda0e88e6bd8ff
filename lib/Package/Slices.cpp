//===- Slices.cpp - What of a weight a rank has ---------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Package/Weights.h"

#include <algorithm>
#include <numeric>

using namespace kvrm;

std::vector<WeightSlices::Run> WeightSlices::runsOf(int64_t rank) const {
  std::vector<Run> runs;
  int64_t from = 0, to = 0;
  for (int64_t part : parts) {
    int64_t size = part / ranks;
    runs.push_back({from + rank * size, to, size});
    from += part;
    to += size;
  }
  return runs;
}

int64_t WeightSlices::wholeSize() const {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0});
}

namespace {
class SliceSource final : public WeightSource {
public:
  SliceSource(const WeightSource &whole, const WeightSlices &slices,
              int64_t rank)
      : whole(whole), isOfColumns(slices.isOfColumns),
        size(slices.wholeSize() / slices.ranks), runs(slices.runsOf(rank)) {}

  int64_t rows() const override { return isOfColumns ? whole.rows() : size; }
  int64_t cols() const override { return isOfColumns ? size : whole.cols(); }

  void readRows(int64_t begin, int64_t end, float *out) const override {
    if (isOfColumns)
      return readColumns(begin, end, out);
    for (const WeightSlices::Run &run : runs) {
      int64_t first = std::max(begin, run.to);
      int64_t last = std::min(end, run.to + run.size);
      if (first >= last)
        continue;
      int64_t shift = run.from - run.to;
      whole.readRows(first + shift, last + shift, out);
      out += (last - first) * cols();
    }
  }

  std::string origin(int64_t row) const override {
    if (isOfColumns)
      return whole.origin(row);
    for (const WeightSlices::Run &run : runs)
      if (row < run.to + run.size)
        return whole.origin(row + run.from - run.to);
    return {};
  }

private:
  void readColumns(int64_t begin, int64_t end, float *out) const {
    std::vector<float> row(static_cast<size_t>(whole.cols()));
    for (int64_t r = begin; r < end; ++r) {
      whole.readRows(r, r + 1, row.data());
      for (const WeightSlices::Run &run : runs)
        out = std::copy_n(row.begin() + run.from, run.size, out);
    }
  }

  const WeightSource &whole;
  bool isOfColumns;
  int64_t size;
  std::vector<WeightSlices::Run> runs;
};
} // namespace

std::unique_ptr<const WeightSource>
kvrm::sliceWeight(const WeightSource &whole, const WeightSlices &slices,
                  int64_t rank) {
  return std::make_unique<SliceSource>(whole, slices, rank);
}
