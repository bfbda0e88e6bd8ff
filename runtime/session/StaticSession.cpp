//===- StaticSession.cpp - The static baseline of the host ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/StaticSession.h"

#include <algorithm>
#include <cstring>

using namespace kvrm;

Expected<std::unique_ptr<StaticSession>>
StaticSession::create(std::shared_ptr<const Package> package, int32_t threads) {
  KVRM_CHECK(package, "a session has a package");
  const Manifest &m = package->manifest();
  if (m.isPaged || m.target != TargetKind::Host)
    return invalidArgument(package->path(),
                           ": is no static package for the host");
  std::unique_ptr<StaticSession> session(new StaticSession());
  session->package = std::move(package);
  session->setShape({.slots = m.slots,
                     .histories = m.slots,
                     .capacity = m.capacity,
                     .vocabulary = m.vocabulary,
                     .prefillChunk = m.prefill.queries},
                    /*choosesTokens=*/true);
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
    .commit =
        [](void *session) {
          StaticStep::violate(session, "commit() in a static step");
        },
    .stage =
        [](void *session, int32_t, int32_t) {
          StaticStep::violate(session, "stage() in a static step");
        },
    .append =
        [](void *session, int32_t, int32_t, kvrm_append_kernel, const float *,
           const float *) {
          StaticStep::violate(session, "append() in a static step");
        },
    .attend =
        [](void *session, int32_t, int32_t, kvrm_attention_kernel,
           const float *, float *) {
          StaticStep::violate(session, "attend() in a static step");
        },
    .parallel = StaticStep::parallel,
    .all_reduce =
        [](void *session, const float *, float *, int64_t) {
          StaticStep::violate(session, "all_reduce() in a static step");
        },
    .all_gather =
        [](void *session, const float *, float *, int64_t) {
          StaticStep::violate(session, "all_gather() in a static step");
        },
};

Status StaticSession::runStep(StepEntry which, const StepRows &rows,
                              const StepOutputs &outputs, StepStats &stats) {
  float *logits = outputs.logits ? outputs.logits : spareLogits();
  StaticStep step{*pool};
  kvrm_step_args args{};
  args.api = &staticApi;
  args.session = &step;
  args.weights = package->weights();
  args.arena = arena.data();
  args.tokens[0] = rows.tokens.data();
  args.logits = logits;
  args.positions = rows.positions.data();
  args.counts = rows.counts.data();
  args.slots = rows.slots.data();
  args.k_cache = kCache.data();
  args.v_cache = vCache.data();
  // Idle rows in a full slot stand at the position `capacity`, which code never
  // writes.
  if (which == StepEntry::Decode)
    package->decodeStep()(&args);
  else
    package->prefillStep()(&args);
  if (step.violation)
    return makeError(StatusCode::Internal, "compiled step: ", step.violation);
  chooseActive(rows, logits, outputs);
  ++stats.steps;
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Caches
//===----------------------------------------------------------------------===//

/// Bytes of one token of one head, K or V.
int64_t StaticSession::headTokenBytes() const {
  return kvrm_token_bytes(manifest().headDim, manifest().element);
}

/// Where the tokens of a slot and head lie in a cache.
int64_t StaticSession::offsetOf(int64_t layer, int32_t slot,
                                int64_t head) const {
  const Manifest &m = manifest();
  int64_t index = (layer * m.slots + slot) * m.kvHeads + head;
  return index * m.capacity * headTokenBytes();
}

/// Gives `target` the first `tokens` tokens of a slot of `from`.
void StaticSession::copyTokensOf(const StaticSession &from, int32_t source,
                                 int32_t target, int32_t tokens) {
  const Manifest &m = manifest();
  auto bytes = static_cast<size_t>(tokens * headTokenBytes());
  for (int64_t layer = 0; layer < m.layers; ++layer)
    for (int64_t head = 0; head < m.kvHeads; ++head) {
      int64_t to = offsetOf(layer, target, head);
      int64_t at = from.offsetOf(layer, source, head);
      std::memcpy(kCache.data() + to, from.kCache.data() + at, bytes);
      std::memcpy(vCache.data() + to, from.vCache.data() + at, bytes);
    }
}

Status StaticSession::copyTokens(int32_t target, int32_t source,
                                 int32_t tokens) {
  copyTokensOf(*this, source, target, tokens);
  return Status::ok();
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
  copyTokensOf(source, slot, slot, tokens);
  setLength(slot, tokens);
  return Status::ok();
}

int64_t StaticSession::tokenKvBytes() const {
  const Manifest &m = manifest();
  return int64_t(m.layers) * m.kvHeads * 2 * headTokenBytes();
}
