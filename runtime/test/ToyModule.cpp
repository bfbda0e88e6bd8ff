//===- ToyModule.cpp - The toy decoder as a package's code ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Built as code.so several times: TOY_TRANSPORT 0 (native) and 1 (staged) make
// paged packages, with TOY_FAR of sessions with far history, TOY_DROPS of those
// that drop pages; TOY_STATIC makes a static one.
//
//===----------------------------------------------------------------------===//

#include "ToyModel.h"
#include "kvrm/runtime/abi.h"

#include <algorithm>

using namespace toy;

namespace {

constexpr float log2e = 1.44269504f;
[[maybe_unused]] constexpr int pageBytes = pageTokens * headDim * 2;
[[maybe_unused]] constexpr float empty = -1e30f;

/// Values between the parts of a step, at the start of the arena.
struct Values {
  float *x;
  float *q;
  float *k;
  float *v;
  float *out;

  Values(uint8_t *arena, int tokens) {
    float *at = reinterpret_cast<float *>(arena);
    auto take = [&](int width) {
      float *start = at;
      at += tokens * width;
      return start;
    };
    x = take(hidden);
    q = take(hidden);
    k = take(kvHeads * headDim);
    v = take(kvHeads * headDim);
    out = take(hidden);
  }
};

#ifndef TOY_STATIC

#if defined(TOY_FAR)
constexpr int tablePages = farPagesPerSlot;
constexpr int entries = farEntries;
#elif defined(TOY_DROPS)
constexpr int tablePages = droppingPagesPerSlot;
constexpr int entries = 0;
#else
constexpr int tablePages = pagesPerSlot;
constexpr int entries = 0;
#endif

kvrm_descriptor_layout layoutOf(int rows) {
  int queries = rows == slots ? 1 : prefillQueries;
  return kvrm_descriptor_layout_of(
      {rows, queries, tablePages, 0, 0, 0, 0, entries});
}

const kvrm_row *rowsOf(const uint8_t *descriptor, int rows) {
  auto layout = layoutOf(rows);
  return reinterpret_cast<const kvrm_row *>(descriptor + layout.rows);
}

const int32_t *tableOf(const uint8_t *descriptor, int rows, int row) {
  auto layout = layoutOf(rows);
  return reinterpret_cast<const int32_t *>(descriptor + layout.tables) +
         row * tablePages;
}

/// log2 of the tokens that the entry at `place` stands for, 0 for a token.
float biasOf(const uint8_t *descriptor, int rows, int row, int place) {
  if (rowsOf(descriptor, rows)[row].summaries == 0 || place >= entries)
    return 0;
  auto layout = layoutOf(rows);
  return reinterpret_cast<const float *>(
      descriptor + layout.summary_biases)[row * entries + place];
}

template <int Rows, int Queries> void append(const kvrm_kernel_args *args) {
  for (int r = 0; r < Rows; ++r) {
    const kvrm_row &row = rowsOf(args->descriptor, Rows)[r];
    const int32_t *table = tableOf(args->descriptor, Rows, r);
    for (int t = 0; t < row.count; ++t) {
      int place = row.length - row.count + t;
      int64_t page = table[place / pageTokens];
      int offset = place % pageTokens;
      for (int head = 0; head < kvHeads; ++head) {
        int64_t base = head * args->head_stride + page * pageBytes;
        auto *k = reinterpret_cast<uint16_t *>(args->k_pool + base);
        auto *v = reinterpret_cast<uint16_t *>(args->v_pool + base);
        int64_t from = ((r * Queries + t) * kvHeads + head) * headDim;
        for (int d = 0; d < headDim; ++d) {
          k[d * pageTokens + offset] = toHalf(args->k[from + d]);
          v[offset * headDim + d] = toHalf(args->v[from + d]);
        }
      }
    }
  }
}

template <int Rows, int Queries, int QTile>
void attention(const kvrm_kernel_args *args, const kvrm_work_item *item,
               float *scratch, uint8_t *stage) {
  constexpr int rows = QTile * group;
  const kvrm_row &row = rowsOf(args->descriptor, Rows)[item->row];
  const int32_t *table = tableOf(args->descriptor, Rows, item->row);
  float *m = scratch;
  float *l = m + rows;
  float *acc = l + rows;
  std::fill(m, m + rows, empty);
  std::fill(l, l + rows, 0.0f);
  std::fill(acc, acc + rows * headDim, 0.0f);
  auto queryOf = [&](int r) { return item->query_tile * QTile + r / group; };
  auto offsetOf = [&](int r) {
    return ((int64_t(item->row) * Queries + queryOf(r)) * heads +
            item->kv_head * group + r % group) *
           headDim;
  };
  for (int tile = item->tile_begin; tile < item->tile_end; ++tile) {
    if (stage)
      args->stage_tile(args, item, tile, stage);
    for (int i = 0; i < kvTile; ++i) {
      int token = tile * kvTile + i;
      if (token >= row.length)
        break;
      const uint8_t *kPage;
      const uint8_t *vPage;
      if (stage) {
        kPage = stage + i / pageTokens * pageBytes;
        vPage = kPage + kvTile * headDim * 2;
      } else {
        int64_t base = item->kv_head * args->head_stride +
                       int64_t(table[token / pageTokens]) * pageBytes;
        kPage = args->k_pool + base;
        vPage = args->v_pool + base;
      }
      const auto *k = reinterpret_cast<const uint16_t *>(kPage);
      const auto *v = reinterpret_cast<const uint16_t *>(vPage);
      int offset = token % pageTokens;
      for (int r = 0; r < rows; ++r) {
        if (queryOf(r) >= row.count ||
            token > row.length - row.count + queryOf(r))
          continue;
        const float *q = args->q + offsetOf(r);
        float score = 0;
        for (int d = 0; d < headDim; ++d)
          score += q[d] * fromHalf(k[d * pageTokens + offset]);
        score *= softmaxScale * log2e;
        score += biasOf(args->descriptor, Rows, item->row, token);
        float most = std::max(m[r], score);
        float old = std::exp2(m[r] - most);
        float weight = std::exp2(score - most);
        m[r] = most;
        l[r] = l[r] * old + weight;
        for (int d = 0; d < headDim; ++d)
          acc[r * headDim + d] = acc[r * headDim + d] * old +
                                 weight * fromHalf(v[offset * headDim + d]);
      }
    }
  }
  if (item->partial >= 0) {
    float *state =
        args->partials + item->partial * kvrm_partial_floats(rows, headDim);
    std::memcpy(state, scratch, sizeof(float) * rows * (headDim + 2));
    return;
  }
  for (int r = 0; r < rows; ++r)
    if (queryOf(r) < row.count)
      for (int d = 0; d < headDim; ++d)
        args->out[offsetOf(r) + d] = acc[r * headDim + d] / l[r];
}

/// One batch of a step, which the step does layer by layer.
template <int Rows, int Queries, int QTile> class BatchStep {
public:
  BatchStep(const kvrm_step_args *args, int32_t batch, uint8_t *arena,
            float *logits)
      : args(args), batch(batch), tokens(args->tokens[batch]),
        rows(rowsOf(args->descriptors[batch], Rows)),
        values(arena, Rows * Queries), rowLogits(logits) {}

  void begin() {
    if (tokens[0] != tokenSkipsStage)
      args->api->stage(args->session, batch, TOY_TRANSPORT);
    forEachToken([&](int r, int t, int i) {
      embed(tokens[i], rows[r].position + t, values.x + i * hidden);
    });
  }

  void layer(int number) {
    if (number == 1 && tokens[0] == tokenSkipsLayer)
      return;
    forEachToken([&](int, int, int i) {
      project(number, values.x + i * hidden, values.q + i * hidden,
              values.k + i * kvHeads * headDim,
              values.v + i * kvHeads * headDim);
    });
    args->api->append(args->session, batch, number, append<Rows, Queries>,
                      values.k, values.v);
    args->api->attend(args->session, batch, number,
                      attention<Rows, Queries, QTile>, values.q, values.out);
    forEachToken([&](int, int, int i) {
      residual(values.x + i * hidden, values.out + i * hidden);
    });
  }

  void end() {
    args->api->parallel(
        args->session,
        [](void *opaque, int64_t begin, int64_t end) {
          auto *step = static_cast<BatchStep *>(opaque);
          for (auto r = static_cast<int>(begin); r < end; ++r)
            step->writeLogits(r);
        },
        this, Rows);
  }

private:
  template <typename Fn> void forEachToken(Fn fn) {
    for (int r = 0; r < Rows; ++r)
      for (int t = 0; t < rows[r].count; ++t)
        fn(r, t, r * Queries + t);
  }
  void writeLogits(int r) {
    if (rows[r].count > 0)
      logits(values.x + (r * Queries + rows[r].count - 1) * hidden,
             rowLogits + r * vocabulary);
  }

  const kvrm_step_args *args;
  int32_t batch;
  const int32_t *tokens;
  const kvrm_row *rows;
  Values values;
  float *rowLogits;
};

/// Without the right weights the step fails: commit() is missing.
bool commit(const kvrm_step_args *args) {
  float scale;
  std::memcpy(&scale, args->weights, sizeof(scale));
  if (scale != softmaxScale)
    return false;
  args->api->commit(args->session);
  if (args->tokens[0][0] == tokenCommitsTwice)
    args->api->commit(args->session);
  return true;
}

template <int Rows, int Queries, int QTile>
void step(const kvrm_step_args *args) {
  if (!commit(args))
    return;
  BatchStep<Rows, Queries, QTile> batch(args, 0, args->arena, args->logits);
  batch.begin();
  for (int layer = 0; layer < layers; ++layer)
    batch.layer(layer);
  batch.end();
}

void mixedStep(const kvrm_step_args *args) {
  if (!commit(args))
    return;
  BatchStep<slots, 1, 1> rows(args, 0, args->arena, args->logits);
  BatchStep<1, prefillQueries, prefillQTile> prompt(
      args, 1, args->arena + arenaBytes(slots),
      args->logits + slots * vocabulary);
  rows.begin();
  prompt.begin();
  for (int layer = 0; layer < layers; ++layer) {
    rows.layer(layer);
    prompt.layer(layer);
  }
  rows.end();
  prompt.end();
}

#else

template <int Rows, int Queries> void staticStep(const kvrm_step_args *args) {
  Values values(args->arena, 1);
  auto *kCache = reinterpret_cast<uint16_t *>(args->k_cache);
  auto *vCache = reinterpret_cast<uint16_t *>(args->v_cache);
  for (int r = 0; r < Rows; ++r) {
    int slot = Queries == 1 ? r : args->slots[r];
    int count = Queries == 1 ? 1 : args->counts[r];
    for (int t = 0; t < count; ++t) {
      int position = args->positions[r] + t;
      embed(args->tokens[0][r * Queries + t], position, values.x);
      for (int layer = 0; layer < layers; ++layer) {
        project(layer, values.x, values.q, values.k, values.v);
        auto at = [&](int head, int token) {
          return (((int64_t(layer) * slots + slot) * kvHeads + head) *
                      capacity +
                  token) *
                 headDim;
        };
        if (position < capacity)
          for (int head = 0; head < kvHeads; ++head)
            for (int d = 0; d < headDim; ++d) {
              kCache[at(head, position) + d] =
                  toHalf(values.k[head * headDim + d]);
              vCache[at(head, position) + d] =
                  toHalf(values.v[head * headDim + d]);
            }
        int length = std::min(position + 1, capacity);
        for (int head = 0; head < heads; ++head) {
          float weights[capacity];
          float sum = 0;
          for (int i = 0; i < length; ++i) {
            float dot = 0;
            for (int d = 0; d < headDim; ++d)
              dot += values.q[head * headDim + d] *
                     fromHalf(kCache[at(head / group, i) + d]);
            weights[i] = std::exp2(dot * softmaxScale * log2e);
            sum += weights[i];
          }
          for (int d = 0; d < headDim; ++d) {
            float total = 0;
            for (int i = 0; i < length; ++i)
              total += weights[i] * fromHalf(vCache[at(head / group, i) + d]);
            values.out[head * headDim + d] = total / sum;
          }
        }
        residual(values.x, values.out);
      }
      if (t == count - 1)
        logits(values.x, args->logits + r * vocabulary);
    }
  }
}

#endif

} // namespace

extern "C" __attribute__((visibility("default"))) void
kvrm_decode_step(const kvrm_step_args *args) {
#ifdef TOY_STATIC
  staticStep<slots, 1>(args);
#else
  step<slots, 1, 1>(args);
#endif
}

extern "C" __attribute__((visibility("default"))) void
kvrm_prefill(const kvrm_step_args *args) {
#ifdef TOY_STATIC
  staticStep<1, prefillQueries>(args);
#else
  step<1, prefillQueries, prefillQTile>(args);
#endif
}

#ifndef TOY_STATIC
extern "C" __attribute__((visibility("default"))) void
kvrm_mixed_step(const kvrm_step_args *args) {
  mixedStep(args);
}
#endif
