//===- StaticSession.cpp - The static baseline ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/StaticSession.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <cstring>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

void StaticSession::prepare(Entry &entry, const EntryInfo &info,
                            kvrm_step_fn fn) {
  entry.fn = fn;
  auto rows = static_cast<size_t>(info.rows);
  entry.tokens.resize(rows * static_cast<size_t>(info.queries));
  entry.positions.resize(rows);
  entry.counts.resize(rows);
  entry.slots.resize(rows);
}

Expected<std::unique_ptr<StaticSession>>
StaticSession::create(std::shared_ptr<const Package> package, int32_t threads) {
  KVRM_CHECK(package && !package->manifest().isPaged, "a static package");
  std::unique_ptr<StaticSession> session(new StaticSession());
  session->package = std::move(package);
  const Manifest &m = session->manifest();
  session->bounds = {.slots = m.slots,
                     .histories = m.slots,
                     .capacity = m.capacity,
                     .vocabulary = m.vocabulary,
                     .prefillChunk = m.prefill.queries};
  prepare(session->decodeEntry, m.decode, session->package->decodeStep());
  prepare(session->prefillEntry, m.prefill, session->package->prefillStep());
  Expected<std::unique_ptr<ThreadPool>> pool = ThreadPool::create(threads);
  KVRM_TRY(pool.status());
  session->pool = pool.take();
  auto take = [](AlignedBuffer &buffer, int64_t bytes, const char *purpose) {
    Expected<AlignedBuffer> taken = AlignedBuffer::create(bytes, purpose);
    KVRM_TRY(taken.status());
    buffer = taken.take();
    return Status::ok();
  };
  int64_t cacheBytes = session->offsetOf(m.layers, 0, 0);
  KVRM_TRY(take(session->kCache, cacheBytes, "KV cache"));
  KVRM_TRY(take(session->vCache, cacheBytes, "KV cache"));
  KVRM_TRY(take(session->arena,
                std::max({int64_t(KVRM_ALIGNMENT), m.decode.arenaBytes,
                          m.prefill.arenaBytes}),
                "arena"));
  session->lengths.resize(static_cast<size_t>(m.slots));
  session->spareLogits.resize(static_cast<size_t>(m.slots) *
                              static_cast<size_t>(m.vocabulary));
  return session;
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

namespace {

/// What compiled code calls back with: a static step may call parallel() alone.
struct StaticStep {
  ThreadPool &pool;
  const char *violation = nullptr;

  static void violate(void *session, const char *what) {
    auto *step = static_cast<StaticStep *>(session);
    if (!step->violation)
      step->violation = what;
  }
  static void parallel(void *session, kvrm_parallel_fn fn, void *context,
                       int64_t count) {
    if (!fn || count < 0)
      return violate(session, "parallel() without a function or a count");
    static_cast<StaticStep *>(session)->pool.parallelFor(count, fn, context);
  }
};

} // namespace

static constexpr kvrm_host_api staticApi = {
    .commit = [](void *session) -> const uint8_t * {
      StaticStep::violate(session, "commit() in a static step");
      return nullptr;
    },
    .stage =
        [](void *session, int32_t) {
          StaticStep::violate(session, "stage() in a static step");
        },
    .append =
        [](void *session, int32_t, kvrm_append_kernel, const float *,
           const float *) {
          StaticStep::violate(session, "append() in a static step");
        },
    .attend =
        [](void *session, int32_t, kvrm_attention_kernel, const float *,
           float *) {
          StaticStep::violate(session, "attend() in a static step");
        },
    .parallel = StaticStep::parallel,
};

/// Runs one step of an entry whose arguments are filled in.
Status StaticSession::runEntry(Entry &entry, float *logits) {
  StaticStep step{*pool};
  kvrm_step_args args{};
  args.api = &staticApi;
  args.session = &step;
  args.weights = package->weights();
  args.arena = arena.data();
  args.tokens = entry.tokens.data();
  args.logits = logits;
  args.positions = entry.positions.data();
  args.counts = entry.counts.data();
  args.slots = entry.slots.data();
  args.k_cache = kCache.data();
  args.v_cache = vCache.data();
  entry.fn(&args);
  if (step.violation)
    return makeError(StatusCode::Internal, "compiled step: ", step.violation);
  return Status::ok();
}

Status StaticSession::prefill(int32_t slot, std::span<const int32_t> tokens,
                              const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkPrefill(slot, tokens));
  KVRM_TRY(checkOutputs(outputs));
  float *logits = outputs.logits ? outputs.logits : spareLogits.data();
  StepStats stats;
  stats.activeRows = 1;
  Entry &entry = prefillEntry;
  auto count = static_cast<int32_t>(tokens.size());
  int32_t before = length(slot);
  for (int32_t done = 0; done < count;) {
    int32_t chunk = std::min(bounds.prefillChunk, count - done);
    std::ranges::fill(entry.tokens, 0);
    std::copy_n(tokens.begin() + done, chunk, entry.tokens.begin());
    entry.positions[0] = before + done;
    entry.counts[0] = chunk;
    entry.slots[0] = slot;
    KVRM_TRY(runEntry(entry, logits));
    ++stats.steps;
    done += chunk;
  }
  choose(0, logits, outputs);
  lengths[static_cast<size_t>(slot)] = before + count;
  stats.stepNanoseconds = watch.nanoseconds();
  last = stats;
  return Status::ok();
}

Status StaticSession::decode(std::span<const int32_t> tokens,
                             const StepOutputs &outputs) {
  Stopwatch watch;
  KVRM_TRY(checkDecode(tokens, outputs));
  StepStats stats;
  Entry &entry = decodeEntry;
  for (int32_t slot = 0; slot < slots(); ++slot) {
    auto row = static_cast<size_t>(slot);
    bool isActive = tokens[row] != -1;
    stats.activeRows += isActive;
    // An idle row writes too: to where its next token will overwrite it, or, in
    // a full slot, to the position `capacity`, which code never writes.
    entry.tokens[row] = isActive ? tokens[row] : 0;
    entry.positions[row] = length(slot);
    entry.counts[row] = isActive;
    entry.slots[row] = slot;
  }
  if (stats.activeRows == 0)
    return Status::ok();
  float *logits = outputs.logits ? outputs.logits : spareLogits.data();
  KVRM_TRY(runEntry(entry, logits));
  for (size_t row = 0; row < lengths.size(); ++row) {
    lengths[row] += entry.counts[row];
    if (entry.counts[row] > 0)
      choose(static_cast<int32_t>(row), logits, outputs);
  }
  stats.steps = 1;
  stats.stepNanoseconds = watch.nanoseconds();
  last = stats;
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Histories
//===----------------------------------------------------------------------===//

int32_t StaticSession::length(int32_t slot) const {
  KVRM_CHECK(slot >= 0 && slot < slots(), "slot in range");
  return lengths[static_cast<size_t>(slot)];
}

Status StaticSession::release(int32_t slot) {
  KVRM_TRY(checkHistory(slot));
  lengths[static_cast<size_t>(slot)] = 0;
  return Status::ok();
}

Status StaticSession::trim(int32_t slot, int32_t newLength) {
  KVRM_TRY(checkHistory(slot));
  if (newLength < 0 || newLength > length(slot))
    return invalidArgument("slot ", slot, ": cannot trim to ", newLength,
                           " tokens, outside 0..", length(slot));
  lengths[static_cast<size_t>(slot)] = newLength;
  return Status::ok();
}

Status StaticSession::alias(int32_t target, int32_t source, int32_t tokens) {
  KVRM_TRY(checkHistory(target));
  KVRM_TRY(checkHistory(source));
  if (target == source)
    return invalidArgument("slot ", target, " cannot share with itself");
  if (length(target) != 0)
    return invalidArgument("slot ", target, " is not empty");
  if (tokens < 0 || tokens > length(source))
    return invalidArgument("slot ", source, ": cannot share ", tokens,
                           " tokens, outside 0..", length(source));
  copyTokens(target, *this, source, tokens);
  return Status::ok();
}

static Status refuseParking() {
  return invalidArgument("a static decoder has no parking places");
}

Status StaticSession::park(int32_t, int32_t) { return refuseParking(); }
Status StaticSession::unpark(int32_t, int32_t) { return refuseParking(); }
Status StaticSession::discard(int32_t) { return refuseParking(); }

//===----------------------------------------------------------------------===//
// Caches
//===----------------------------------------------------------------------===//

/// Bytes of one token of one head, K or V.
int64_t StaticSession::headTokenBytes() const {
  return manifest().headDim * kvrm_element_bytes(manifest().element);
}

/// Where the tokens of a slot and head lie in a cache.
int64_t StaticSession::offsetOf(int64_t layer, int32_t slot,
                                int64_t head) const {
  const Manifest &m = manifest();
  int64_t index = (layer * m.slots + slot) * m.kvHeads + head;
  return index * m.capacity * headTokenBytes();
}

/// Gives `target` the first `tokens` tokens of a slot of `from`.
void StaticSession::copyTokens(int32_t target, const StaticSession &from,
                               int32_t source, int32_t tokens) {
  const Manifest &m = manifest();
  auto bytes = static_cast<size_t>(tokens * headTokenBytes());
  for (int64_t layer = 0; layer < m.layers; ++layer)
    for (int64_t head = 0; head < m.kvHeads; ++head) {
      int64_t to = offsetOf(layer, target, head);
      int64_t at = from.offsetOf(layer, source, head);
      std::memcpy(kCache.data() + to, from.kCache.data() + at, bytes);
      std::memcpy(vCache.data() + to, from.vCache.data() + at, bytes);
    }
  lengths[static_cast<size_t>(target)] = tokens;
}

Status StaticSession::copyHistory(const StaticSession &source, int32_t slot) {
  const Manifest &m = manifest();
  const Manifest &from = source.manifest();
  if (m.layers != from.layers || m.kvHeads != from.kvHeads ||
      m.headDim != from.headDim || m.slots != from.slots ||
      m.element != from.element)
    return invalidArgument("sessions of different models");
  KVRM_TRY(checkSlot(slot));
  if (length(slot) != 0)
    return invalidArgument("slot ", slot, " is not empty");
  int32_t tokens = source.length(slot);
  if (tokens > capacity())
    return invalidArgument("history of ", tokens,
                           " tokens exceeds the capacity ", capacity());
  copyTokens(slot, source, slot, tokens);
  return Status::ok();
}

int64_t StaticSession::tokenKvBytes() const {
  const Manifest &m = manifest();
  return int64_t(m.layers) * m.kvHeads * 2 * headTokenBytes();
}

int64_t StaticSession::liveKvBytes() const {
  int64_t tokens = 0;
  for (int32_t length : lengths)
    tokens += length;
  return tokens * tokenKvBytes();
}
