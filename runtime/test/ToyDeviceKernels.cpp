//===- ToyDeviceKernels.cpp - The toy decoder's kernels -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ToyDeviceKernels.h"

#include "ToyDevice.h"

#include "kvrm/runtime/session/TokenChoice.h"

#include <algorithm>
#include <array>
#include <bit>

using namespace toy;
using fake::Launch;

namespace {

constexpr float log2e = 1.44269504f;
constexpr int pageBytes = pageTokens * headDim * 2;

/// fromHalf(), looked up.
float valueOf(uint16_t half) {
  static const auto values = [] {
    std::array<float, 1 << 16> all{};
    for (size_t i = 0; i < all.size(); ++i)
      all[i] = fromHalf(static_cast<uint16_t>(i));
    return all;
  }();
  return values[half];
}

/// The parameters of a dense kernel.
class Parameters {
public:
  explicit Parameters(const Launch &launch) : launch(launch) {}

  uint64_t number(int index) const {
    uint64_t value;
    std::memcpy(&value,
                reinterpret_cast<const uint8_t *>(&launch.args) + index * 8, 8);
    return value;
  }
  template <typename T> T *pointer(int index) const {
    return std::bit_cast<T *>(number(index));
  }

private:
  const Launch &launch;
};

/// Calls `each` with row and token of each new token; a block is one of these.
template <typename Each>
void eachToken(const Launch &launch, const kvrm_row *rows, Each each) {
  for (uint32_t r = 0; r < launch.grid[0]; ++r)
    for (int32_t t = 0; t < rows[r].count; ++t)
      each(rows[r], int64_t(r) * launch.grid[1] + t, t);
}

void embedTokens(const Launch &launch) {
  Parameters at(launch);
  const auto *tokens = at.pointer<const int32_t>(0);
  auto *x = at.pointer<float>(2);
  eachToken(launch, at.pointer<const kvrm_row>(1),
            [&](const kvrm_row &row, int64_t i, int32_t t) {
              embed(tokens[i], row.position + t, x + i * hidden);
            });
}

void projectTokens(const Launch &launch) {
  Parameters at(launch);
  auto layer = static_cast<int>(at.number(5));
  eachToken(
      launch, at.pointer<const kvrm_row>(0),
      [&](const kvrm_row &, int64_t i, int32_t) {
        constexpr int kv = kvHeads * headDim;
        float q[hidden];
        float k[kv];
        float v[kv];
        project(layer, at.pointer<float>(1) + i * hidden, q, k, v);
        std::transform(q, q + hidden, at.pointer<uint16_t>(2) + i * hidden,
                       toHalf);
        std::transform(k, k + kv, at.pointer<uint16_t>(3) + i * kv, toHalf);
        std::transform(v, v + kv, at.pointer<uint16_t>(4) + i * kv, toHalf);
      });
}

/// What stands in for a product. Each weight's row has a single 1.
void mixHeads(const Launch &launch) {
  Parameters at(launch);
  const auto *in = at.pointer<const uint16_t>(0);
  auto *out = at.pointer<uint16_t>(2);
  auto rows = static_cast<int64_t>(at.number(3));
  for (int64_t i = 0; i < rows * headDim; ++i)
    out[i] = in[i / headDim * headDim + mixedFrom(int(i % headDim))];
}

void addAttended(const Launch &launch) {
  Parameters at(launch);
  eachToken(launch, at.pointer<const kvrm_row>(0),
            [&](const kvrm_row &, int64_t i, int32_t) {
              float attended[hidden];
              const auto *mixed = at.pointer<uint16_t>(2) + i * hidden;
              for (int c = 0; c < hidden; ++c)
                attended[c / headDim * headDim + mixedFrom(c % headDim)] =
                    valueOf(mixed[c]);
              residual(at.pointer<float>(1) + i * hidden, attended);
            });
}

void writeLogits(const Launch &launch) {
  Parameters at(launch);
  const auto *rows = at.pointer<const kvrm_row>(0);
  auto queries = static_cast<int64_t>(at.number(4));
  float *logits = at.pointer<float>(3) + at.number(5) * vocabulary;
  for (uint32_t r = 0; r < launch.grid[0]; ++r) {
    if (rows[r].count == 0)
      continue;
    const float *x =
        at.pointer<float>(1) + (r * queries + rows[r].count - 1) * hidden;
    for (int token = 0; token < vocabulary; ++token) {
      const float *weights = at.pointer<float>(2) + token * hidden;
      float sum = 0;
      for (int i = 0; i < hidden; ++i)
        sum += x[i] * weights[i];
      logits[r * vocabulary + token] = sum;
    }
  }
}

void sampleTokens(const Launch &launch) {
  Parameters at(launch);
  for (uint32_t r = 0; r < launch.grid[0]; ++r)
    if (at.pointer<const kvrm_row>(1)[r].count > 0)
      at.pointer<int32_t>(3)[r] = kvrm::chooseToken(
          {at.pointer<const float>(0) + r * vocabulary, vocabulary},
          at.pointer<const kvrm_sampling>(2)[r]);
}

/// The softmax state of a query tile.
template <int QTile> struct State {
  static constexpr int rows = QTile * group;
  float acc[rows][headDim];
  float sums[rows][2]; ///< m, l

  void clear() {
    for (int r = 0; r < rows; ++r) {
      std::fill(acc[r], acc[r] + headDim, 0.0f);
      sums[r][0] = -1e30f;
      sums[r][1] = 0;
    }
  }
  /// Adds weight * 2^(score - ...) of a value.
  template <typename Value> void add(int r, float score, float l, Value value) {
    float most = std::max(sums[r][0], score);
    float old = std::exp2(sums[r][0] - most);
    float weight = std::exp2(score - most);
    sums[r][0] = most;
    sums[r][1] = sums[r][1] * old + weight * l;
    for (int d = 0; d < headDim; ++d)
      acc[r][d] = acc[r][d] * old + weight * value(d);
  }
};

/// Attention of an entry of so many queries.
template <int Queries, int QTile> class Attention {
public:
  explicit Attention(const Launch &launch)
      : launch(launch), args(launch.args),
        header(std::bit_cast<const kvrm_descriptor_header *>(args.descriptor)) {
  }

  const char *runClusters() {
    int outputs = kvHeads * ((Queries + QTile - 1) / QTile);
    if (launch.grid[0] != header->rows * outputs * launch.cluster)
      return "clusters are not one an output";
    State<QTile> state;
    for (int r = 0; r < header->rows; ++r)
      for (int head = 0; head < kvHeads; ++head)
        for (int tile = 0; tile * QTile < row(r).count; ++tile) {
          attend({r, head, tile, 0, row(r).length, -1, -1, 0}, state);
          write(r, head, tile, state);
        }
    return failure;
  }

  const char *runWorkqueue() {
    if (launch.grid[0] != static_cast<uint32_t>(header->shares))
      return "blocks are not one a share";
    const auto *items = std::bit_cast<const kvrm_work_item *>(args.items);
    const auto *shares = std::bit_cast<const kvrm_share *>(args.shares);
    State<QTile> state;
    for (int s = 0; s < header->shares; ++s)
      for (int i = shares[s].item_begin; i < shares[s].item_end; ++i) {
        if (i == shares[s].item_begin &&
            std::memcmp(&shares[s].first, &items[i], sizeof(items[i])) != 0)
          return "a share does not repeat its first item";
        attend(items[i], state);
        if (items[i].partial < 0)
          write(items[i].row, items[i].kv_head, items[i].query_tile, state);
        else
          post(items[i].partial, state);
      }
    for (int i = 0; i < header->segments; ++i)
      merge(std::bit_cast<const kvrm_merge_segment *>(args.segments)[i]);
    return failure;
  }

private:
  const kvrm_row &row(int r) const {
    return std::bit_cast<const kvrm_row *>(args.rows)[r];
  }
  int64_t offsetOf(int r, int head, int tile, int queryRow) const {
    int query = tile * QTile + queryRow / group;
    return ((int64_t(r) * Queries + query) * heads + head * group +
            queryRow % group) *
           headDim;
  }
  bool isThere(int r, int tile, int queryRow) const {
    return tile * QTile + queryRow / group < row(r).count;
  }
  /// Element d of a token of a page that starts at `page`.
  static float element(uint64_t page, int token, int d) {
    auto chunk = kvrm_swizzled_chunk(headDim * 2, token, d / 8);
    const auto *at = std::bit_cast<const uint16_t *>(page);
    return valueOf(at[token * headDim + chunk * 8 + d % 8]);
  }

  void attend(const kvrm_work_item &item, State<QTile> &state) {
    state.clear();
    const auto *table = std::bit_cast<const int32_t *>(args.tables) +
                        item.row * args.pages_per_slot;
    const auto *q = std::bit_cast<const uint16_t *>(args.q);
    int past = row(item.row).length - row(item.row).count;
    int end = std::min(item.tile_end * kvTile, row(item.row).length);
    for (int token = item.tile_begin * kvTile; token < end; ++token) {
      int32_t page = table[token / pageTokens];
      if (page < 0) {
        failure = "a history has no page";
        return;
      }
      uint64_t at = item.kv_head * args.head_stride + int64_t(page) * pageBytes;
      int in = token % pageTokens;
      for (int r = 0; r < State<QTile>::rows; ++r) {
        if (!isThere(item.row, item.query_tile, r) ||
            token > past + item.query_tile * QTile + r / group)
          continue;
        const uint16_t *query =
            q + offsetOf(item.row, item.kv_head, item.query_tile, r);
        float score = 0;
        for (int d = 0; d < headDim; ++d)
          score += valueOf(query[d]) * element(args.k_pool + at, in, d);
        state.add(r, score * softmaxScale * log2e, 1,
                  [&](int d) { return element(args.v_pool + at, in, d); });
      }
    }
  }

  void write(int r, int head, int tile, const State<QTile> &state) {
    auto *out = std::bit_cast<uint16_t *>(args.out);
    for (int i = 0; i < State<QTile>::rows; ++i)
      if (isThere(r, tile, i))
        for (int d = 0; d < headDim; ++d)
          out[offsetOf(r, head, tile, i) + d] =
              toHalf(state.acc[i][d] / state.sums[i][1]);
  }

  float *mailbox(int partial) const {
    return std::bit_cast<float *>(args.partials) +
           partial * kvrm_device_partial_floats(State<QTile>::rows, headDim);
  }
  void post(int partial, const State<QTile> &state) {
    float *to = mailbox(partial);
    for (size_t i = 0; i < sizeof(state) / sizeof(float); ++i)
      if (std::bit_cast<uint32_t>(to[i]) != KVRM_EMPTY_PARTIAL)
        failure = "a mailbox is not empty";
    std::memcpy(to, &state, sizeof(state));
  }
  void merge(const kvrm_merge_segment &segment) {
    State<QTile> sum;
    sum.clear();
    for (int i = 0; i < segment.partials; ++i) {
      State<QTile> part;
      float *from = mailbox(segment.first_partial + i);
      std::memcpy(&part, from, sizeof(part));
      std::fill(from, from + sizeof(part) / sizeof(float),
                std::bit_cast<float>(KVRM_EMPTY_PARTIAL));
      for (int r = 0; r < State<QTile>::rows; ++r)
        sum.add(r, part.sums[r][0], part.sums[r][1],
                [&](int d) { return part.acc[r][d]; });
    }
    write(segment.row, segment.kv_head, segment.query_tile, sum);
  }

  const Launch &launch;
  const kvrm_device_args &args;
  const kvrm_descriptor_header *header;
  const char *failure = nullptr;
};

} // namespace

int32_t fake::parameterCount(std::string_view symbol) {
  for (const DeviceKernelInfo &kernel : deviceKernels)
    if (symbol == kernel.symbol)
      return kernel.args;
  return KVRM_DEVICE_ARGS;
}

const char *fake::runToyKernel(const Launch &launch) {
  auto is = [&](DeviceKernel kernel) {
    return launch.symbol == deviceKernels[kernel].symbol;
  };
  if (is(AttendWorkqueue))
    return Attention<1, 1>(launch).runWorkqueue();
  if (is(AttendPrefill))
    return Attention<prefillQueries, prefillQTile>(launch).runWorkqueue();
  if (is(AttendCluster))
    return Attention<1, 1>(launch).runClusters();
  if (is(Embed))
    embedTokens(launch);
  else if (is(Project))
    projectTokens(launch);
  else if (is(Mix))
    mixHeads(launch);
  else if (is(Residual))
    addAttended(launch);
  else if (is(Logits))
    writeLogits(launch);
  else if (is(Sample))
    sampleTokens(launch);
  return nullptr;
}
