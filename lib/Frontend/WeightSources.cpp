//===- WeightSources.cpp - Weights made of tensors ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WeightSources.h"

#include "kvrm/Frontend/BlockCodes.h"

#include <algorithm>
#include <cassert>
#include <numeric>

using namespace kvrm;

/// Of a source in blocks.
static int64_t blockRowBytes(const WeightSource &source) {
  const GGMLTypeInfo &info = infoOf(typeOf(*source.blockFormat()));
  return source.cols() / info.blockElements * info.blockBytes;
}

namespace {

class ConcatSource final : public WeightSource {
public:
  explicit ConcatSource(std::vector<SourcePtr> parts)
      : parts(std::move(parts)) {
    for (const SourcePtr &part : this->parts)
      total += part->rows();
  }

  int64_t rows() const override { return total; }
  int64_t cols() const override { return parts.front()->cols(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    forEachPart(begin, end,
                [&](const SourcePtr &part, int64_t from, int64_t to) {
                  part->readRows(from, to, out);
                  out += (to - from) * cols();
                });
  }
  std::optional<BlockFormat> blockFormat() const override {
    std::optional<BlockFormat> format = parts.front()->blockFormat();
    bool isCommon =
        std::all_of(parts.begin(), parts.end(), [&](const SourcePtr &part) {
          return part->blockFormat() == format;
        });
    return isCommon ? format : std::nullopt;
  }
  void readBlocks(int64_t begin, int64_t end, uint8_t *out) const override {
    forEachPart(begin, end,
                [&](const SourcePtr &part, int64_t from, int64_t to) {
                  part->readBlocks(from, to, out);
                  out += (to - from) * blockRowBytes(*this);
                });
  }
  std::string origin(int64_t row) const override {
    for (const SourcePtr &part : parts) {
      if (row < part->rows())
        return part->origin(row);
      row -= part->rows();
    }
    return {};
  }

private:
  /// Calls `read` with the rows of each part that are among [begin, end).
  template <typename Fn>
  void forEachPart(int64_t begin, int64_t end, Fn read) const {
    int64_t first = 0;
    for (const SourcePtr &part : parts) {
      int64_t from = std::max(begin - first, int64_t(0));
      int64_t to = std::min(end - first, part->rows());
      if (from < to)
        read(part, from, to);
      first += part->rows();
    }
  }

  std::vector<SourcePtr> parts;
  int64_t total = 0;
};

class HeadOrderSource final : public WeightSource {
public:
  HeadOrderSource(SourcePtr source, int64_t heads, std::vector<int64_t> order)
      : source(std::move(source)), order(std::move(order)),
        ordered(heads * static_cast<int64_t>(this->order.size())) {}

  int64_t rows() const override { return source->rows(); }
  int64_t cols() const override { return source->cols(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    for (int64_t row = begin; row < end; ++row, out += cols()) {
      int64_t from = rowOf(row);
      source->readRows(from, from + 1, out);
    }
  }
  std::optional<BlockFormat> blockFormat() const override {
    return source->blockFormat();
  }
  void readBlocks(int64_t begin, int64_t end, uint8_t *out) const override {
    for (int64_t row = begin; row < end; ++row, out += blockRowBytes(*this)) {
      int64_t from = rowOf(row);
      source->readBlocks(from, from + 1, out);
    }
  }
  std::string origin(int64_t row) const override {
    return source->origin(rowOf(row));
  }

private:
  int64_t rowOf(int64_t row) const {
    if (row >= ordered)
      return row;
    int64_t element = row % static_cast<int64_t>(order.size());
    return row - element + order[static_cast<size_t>(element)];
  }

  SourcePtr source;
  std::vector<int64_t> order;
  int64_t ordered; ///< rows that have an order
};

class ColumnSource final : public WeightSource {
public:
  ColumnSource(std::vector<float> values, std::string name)
      : values(std::move(values)), name(std::move(name)) {}

  int64_t rows() const override { return static_cast<int64_t>(values.size()); }
  int64_t cols() const override { return 1; }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    std::copy(values.begin() + begin, values.begin() + end, out);
  }
  std::string origin(int64_t) const override { return name; }

private:
  std::vector<float> values;
  std::string name;
};

class RowSource final : public WeightSource {
public:
  RowSource(SourcePtr column, float added)
      : column(std::move(column)), added(added) {}

  int64_t rows() const override { return 1; }
  int64_t cols() const override { return column->rows(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    if (begin == end)
      return;
    column->readRows(0, cols(), out);
    std::for_each_n(out, cols(), [&](float &value) { value += added; });
  }
  std::string origin(int64_t) const override { return column->origin(0); }

private:
  SourcePtr column;
  float added;
};

} // namespace

SourcePtr kvrm::concatRows(std::vector<SourcePtr> parts) {
  if (parts.size() == 1)
    return std::move(parts.front());
  return std::make_unique<ConcatSource>(std::move(parts));
}

SourcePtr kvrm::reorderHeads(SourcePtr source, int64_t heads,
                             std::vector<int64_t> order) {
  std::vector<int64_t> asItIs(order.size());
  std::iota(asItIs.begin(), asItIs.end(), 0);
  if (order == asItIs)
    return source;
  return std::make_unique<HeadOrderSource>(std::move(source), heads,
                                           std::move(order));
}

SourcePtr kvrm::columnOf(std::vector<float> values, std::string origin) {
  return std::make_unique<ColumnSource>(std::move(values), std::move(origin));
}

SourcePtr kvrm::columnToRow(SourcePtr column, float added) {
  assert(column->cols() == 1 && "a vector");
  return std::make_unique<RowSource>(std::move(column), added);
}
