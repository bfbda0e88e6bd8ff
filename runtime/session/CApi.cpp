//===- CApi.cpp - The C API of the runtime ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../support/Answer.h"
#include "kvrm/runtime/kvrm.h"
#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/serving/Engine.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <algorithm>
#include <array>
#include <unistd.h>

using namespace kvrm;

struct kvrm_package {
  std::shared_ptr<const Package> package;
};

namespace {

/// What a session and its engine share. Whichever handle is destroyed last
/// takes it along.
struct SharedDecoder {
  std::unique_ptr<Decoder> decoder;
  pid_t process = ::getpid();
  bool hasEngine = false;
};

} // namespace

struct kvrm_session {
  std::shared_ptr<SharedDecoder> shared;

  Decoder &decoder() const { return *shared->decoder; }
};

/// The threads of a session, and a GPU's context, are not in a child of fork().
static Status checkProcess(const SharedDecoder &shared) {
  if (shared.process == ::getpid())
    return Status::ok();
  return invalidArgument("the session is of process ", shared.process,
                         "; a child that fork() makes has to open its own");
}

/// For calls that change histories.
static Status checkOwner(const kvrm_session &session) {
  KVRM_TRY(checkProcess(*session.shared));
  if (session.shared->hasEngine)
    return invalidArgument("the session is its engine's, which keeps its "
                           "histories until kvrm_engine_destroy");
  return Status::ok();
}

const char *kvrm_status_name(kvrm_status status) {
  switch (status) {
  case KVRM_OK:
    return "ok";
  case KVRM_INVALID_ARGUMENT:
    return "invalid argument";
  case KVRM_NOT_FOUND:
    return "not found";
  case KVRM_RESOURCE_EXHAUSTED:
    return "resource exhausted";
  case KVRM_INCOMPATIBLE:
    return "incompatible";
  case KVRM_CORRUPT:
    return "corrupt";
  case KVRM_IO_ERROR:
    return "I/O error";
  case KVRM_INTERNAL:
    return "internal error";
  }
  return "unknown status";
}

const char *kvrm_version(void) { return KVRM_VERSION; }

kvrm_status kvrm_package_open(const char *path, kvrm_package **package) {
  if (!package)
    return nullArgument("package");
  *package = nullptr;
  if (!path)
    return nullArgument("path");
  return guarded([&]() -> Status {
    Expected<std::shared_ptr<const Package>> loaded = Package::load(path);
    KVRM_TRY(loaded.status());
    *package = new kvrm_package{loaded.take()};
    return Status::ok();
  });
}

void kvrm_package_close(kvrm_package *package) { delete package; }

kvrm_status kvrm_package_get_info(const kvrm_package *package,
                                  kvrm_package_info *info) {
  if (!package)
    return nullArgument("package");
  if (!info)
    return nullArgument("info");
  const Manifest &m = package->package->manifest();
  info->name = m.modelName.c_str();
  info->architecture = m.architecture.c_str();
  info->is_paged = m.isPaged;
  info->vocabulary = m.vocabulary;
  info->layers = m.layers;
  info->heads = m.heads;
  info->kv_heads = m.kvHeads;
  info->head_dim = m.headDim;
  info->slots = m.slots;
  info->capacity = m.capacity;
  info->page_tokens = m.pageTokens;
  info->bos = m.bos;
  info->eos = m.eos;
  info->ends = m.ends.data();
  info->end_count = m.ends.size();
  return KVRM_OK;
}

kvrm_status kvrm_session_create(kvrm_package *package,
                                const kvrm_session_config *config,
                                kvrm_session **session) {
  if (!session)
    return nullArgument("session");
  *session = nullptr;
  if (!package)
    return nullArgument("package");
  return guarded([&]() -> Status {
    SessionConfig options;
    if (config) {
      options.poolPages = config->pool_pages;
      options.threads = config->threads;
      options.shares = config->shares;
      options.keptHistories = config->kept_histories;
      options.parkingPlaces = config->parking_places;
      options.parkingPages = config->parking_pages;
      options.device = config->device;
    }
    Expected<std::unique_ptr<Decoder>> made =
        createDecoder(package->package, options);
    KVRM_TRY(made.status());
    auto shared = std::make_shared<SharedDecoder>();
    shared->decoder = made.take();
    *session = new kvrm_session{std::move(shared)};
    return Status::ok();
  });
}

/// In another process there is nobody to end the threads: they are left.
static void release(std::shared_ptr<SharedDecoder> &shared) {
  if (!checkProcess(*shared).isOk())
    new std::shared_ptr<SharedDecoder>(std::move(shared));
}

void kvrm_session_destroy(kvrm_session *session) {
  if (session)
    release(session->shared);
  delete session;
}

kvrm_status kvrm_prefill(kvrm_session *session, int32_t slot,
                         const int32_t *tokens, size_t count, float *logits) {
  if (!session)
    return nullArgument("session");
  if (!tokens)
    return nullArgument("tokens");
  return guarded([&]() -> Status {
    KVRM_TRY(checkOwner(*session));
    return session->decoder().prefill(slot, {tokens, count}, logits);
  });
}

kvrm_status kvrm_decode(kvrm_session *session, const int32_t *tokens,
                        float *logits) {
  if (!session)
    return nullArgument("session");
  if (!tokens)
    return nullArgument("tokens");
  Decoder &target = session->decoder();
  return guarded([&]() -> Status {
    KVRM_TRY(checkOwner(*session));
    return target.decode({tokens, static_cast<size_t>(target.slots())}, logits);
  });
}

kvrm_status kvrm_release(kvrm_session *session, int32_t slot) {
  if (!session)
    return nullArgument("session");
  return guarded([&]() -> Status {
    KVRM_TRY(checkOwner(*session));
    return session->decoder().release(slot);
  });
}

kvrm_status kvrm_alias(kvrm_session *session, int32_t target, int32_t source,
                       int32_t tokens) {
  if (!session)
    return nullArgument("session");
  return guarded([&]() -> Status {
    KVRM_TRY(checkOwner(*session));
    return session->decoder().alias(target, source, tokens);
  });
}

kvrm_status kvrm_trim(kvrm_session *session, int32_t slot, int32_t length) {
  if (!session)
    return nullArgument("session");
  return guarded([&]() -> Status {
    KVRM_TRY(checkOwner(*session));
    return session->decoder().trim(slot, length);
  });
}

kvrm_status kvrm_length(kvrm_session *session, int32_t slot, int32_t *length) {
  if (!session)
    return nullArgument("session");
  if (!length)
    return nullArgument("length");
  const Decoder &target = session->decoder();
  if (slot < 0 || slot >= target.slots())
    return answer(
        invalidArgument("slot ", slot, " is outside 0..", target.slots() - 1));
  *length = target.length(slot);
  return KVRM_OK;
}

kvrm_status kvrm_session_get_stats(const kvrm_session *session,
                                   kvrm_session_stats *stats) {
  if (!session)
    return nullArgument("session");
  if (!stats)
    return nullArgument("stats");
  const Decoder &source = session->decoder();
  const StepStats &last = source.lastStep();
  stats->active_rows = last.activeRows;
  stats->groups = last.groups;
  stats->items = last.items;
  stats->segments = last.segments;
  stats->pages = last.pages;
  stats->page_copies = last.pageCopies;
  stats->steps = last.steps;
  stats->committed_bytes = last.committedBytes;
  stats->stage_copies = last.stageCopies;
  stats->stage_bytes = last.stageBytes;
  stats->plan_nanoseconds = last.planNanoseconds;
  stats->commit_nanoseconds = last.commitNanoseconds;
  stats->attend_nanoseconds = last.attendNanoseconds;
  stats->step_nanoseconds = last.stepNanoseconds;
  stats->reserved_kv_bytes = source.reservedKvBytes();
  stats->live_kv_bytes = source.liveKvBytes();
  stats->pool_pages = source.poolPages();
  stats->free_pages = source.freePages();
  return KVRM_OK;
}

//===----------------------------------------------------------------------===//
// Engine
//===----------------------------------------------------------------------===//

static_assert(KVRM_FINISH_FAILED == int(FinishReason::Failed) &&
              KVRM_FINISH_CANCELLED == int(FinishReason::Cancelled) &&
              KVRM_FINISH_CAPACITY == int(FinishReason::Capacity) &&
              KVRM_FINISH_MAX_TOKENS == int(FinishReason::MaxTokens) &&
              KVRM_FINISH_STOP == int(FinishReason::Stop));
static_assert(KVRM_PREEMPT_RECOMPUTE == int(PreemptionPolicy::Recompute) &&
              KVRM_PREEMPT_PARK == int(PreemptionPolicy::Park) &&
              KVRM_PREEMPT_CHEAPER == int(PreemptionPolicy::Cheaper));

namespace {

/// The caller's clock, or the machine's.
class CallerClock final : public Clock {
public:
  int64_t now() const override {
    return callback ? callback(context) : steady.now();
  }
  int64_t (*callback)(void *) = nullptr;
  void *context = nullptr;

private:
  SteadyClock steady;
};

class CallerObserver final : public EngineObserver {
public:
  void onToken(RequestId id, int32_t token,
               const TokenLogprobs *logprobs) override {
    if (logprobs && config.on_logprobs)
      tellLogprobs(id, token, *logprobs);
    if (config.on_token)
      config.on_token(config.context, id, token);
  }
  void onFinish(RequestResult &result) override {
    if (!config.on_finish)
      return;
    kvrm_result told{};
    told.request = result.id;
    told.finish = static_cast<kvrm_finish_reason>(result.finish);
    told.tokens = result.tokens.data();
    told.token_count = result.tokens.size();
    told.prompt_tokens = result.promptTokens;
    told.shared_tokens = result.sharedTokens;
    told.preemptions = result.preemptions;
    told.arrival = result.arrival;
    told.start = result.start;
    told.first_token = result.firstToken;
    told.end = result.end;
    config.on_finish(config.context, &told);
  }
  kvrm_engine_config config{};

private:
  void tellLogprobs(RequestId id, int32_t token, const TokenLogprobs &of) {
    std::array<kvrm_logprob, 1 + mostTopLogprobs> told{};
    told[0] = {token, of.logprob};
    std::ranges::transform(of.likeliest, told.begin() + 1,
                           [](const TokenLogprob &each) -> kvrm_logprob {
                             return {each.token, each.logprob};
                           });
    config.on_logprobs(config.context, id, told.data(),
                       1 + of.likeliest.size());
  }
};

} // namespace

struct kvrm_engine {
  explicit kvrm_engine(std::shared_ptr<SharedDecoder> shared)
      : shared(std::move(shared)) {}

  std::shared_ptr<SharedDecoder> shared;
  CallerClock clock;
  CallerObserver observer;
  std::unique_ptr<Engine> engine;
  bool isRunning = false; ///< inside a call, which may be in a callback
  bool isDoomed = false;  ///< destroyed by a callback
};

static void destroy(kvrm_engine *engine) {
  engine->engine.reset(); // empties the session, which is its user's again
  engine->shared->hasEngine = false;
  delete engine;
}

/// Runs `body`, which changes the engine, unless a callback of another such
/// call asks for it: what that one works on would change under it.
template <typename Body>
static kvrm_status driven(kvrm_engine *engine, Body body) {
  if (engine->isRunning)
    return answer(invalidArgument("the engine is in the middle of a call: a "
                                  "callback cannot change it"));
  if (Status status = checkProcess(*engine->shared); !status.isOk())
    return answer(status);
  engine->isRunning = true;
  kvrm_status status = guarded(body);
  engine->isRunning = false;
  if (engine->isDoomed)
    destroy(engine);
  return status;
}

kvrm_status kvrm_engine_create(kvrm_session *session,
                               const kvrm_engine_config *config,
                               kvrm_engine **engine) {
  if (!engine)
    return nullArgument("engine");
  *engine = nullptr;
  if (!session)
    return nullArgument("session");
  return guarded([&]() -> Status {
    KVRM_TRY(checkOwner(*session));
    auto made = std::make_unique<kvrm_engine>(session->shared);
    EngineConfig options;
    if (config) {
      if (config->preemption < KVRM_PREEMPT_CHEAPER ||
          config->preemption > KVRM_PREEMPT_RECOMPUTE)
        return invalidArgument("preemption: ", int32_t(config->preemption),
                               " is outside 0..2");
      made->observer.config = *config;
      made->clock.callback = config->now;
      made->clock.context = config->context;
      if (config->queue_limit != 0)
        options.queueLimit = config->queue_limit;
      if (config->stall_factor != 0)
        options.stallFactor = config->stall_factor;
      options.preemption = static_cast<PreemptionPolicy>(config->preemption);
      options.sharesPrefixes = config->shares_prefixes != 0;
    }
    Expected<std::unique_ptr<Engine>> inner = Engine::create(
        session->decoder(), made->clock, options, &made->observer);
    KVRM_TRY(inner.status());
    made->engine = inner.take();
    session->shared->hasEngine = true;
    *engine = made.release();
    return Status::ok();
  });
}

void kvrm_engine_destroy(kvrm_engine *engine) {
  if (!engine)
    return;
  if (engine->isRunning) {
    // What it is in the middle of ends first, and tells nobody any more.
    engine->isDoomed = true;
    engine->observer.config = {};
    engine->clock.callback = nullptr;
    return;
  }
  // In a child of fork() the engine is its parent's.
  if (checkProcess(*engine->shared).isOk())
    destroy(engine);
}

kvrm_status kvrm_engine_submit(kvrm_engine *engine, const kvrm_request *spec,
                               int64_t *request) {
  if (!engine)
    return nullArgument("engine");
  if (!spec)
    return nullArgument("spec");
  if (!request)
    return nullArgument("request");
  if (!spec->prompt && spec->prompt_count > 0)
    return nullArgument("prompt");
  if (!spec->stop_tokens && spec->stop_count > 0)
    return nullArgument("stop_tokens");
  return driven(engine, [&]() -> Status {
    RequestSpec own;
    own.prompt.assign(spec->prompt, spec->prompt + spec->prompt_count);
    own.maxTokens = spec->max_tokens;
    own.stopTokens.assign(spec->stop_tokens,
                          spec->stop_tokens + spec->stop_count);
    own.sampling.temperature = spec->temperature;
    own.sampling.topP = spec->top_p == 0 ? 1 : spec->top_p;
    own.sampling.topK = spec->top_k;
    own.sampling.seed = spec->seed;
    if (spec->logprobs != 0)
      own.topLogprobs = spec->top_logprobs;
    else if (spec->top_logprobs != 0)
      return invalidArgument("top_logprobs: ", spec->top_logprobs,
                             " is there without logprobs");
    Expected<RequestId> id = engine->engine->submit(std::move(own));
    KVRM_TRY(id.status());
    *request = *id;
    return Status::ok();
  });
}

kvrm_status kvrm_engine_cancel(kvrm_engine *engine, int64_t request) {
  if (!engine)
    return nullArgument("engine");
  return driven(engine, [&] { return engine->engine->cancel(request); });
}

kvrm_status kvrm_engine_step(kvrm_engine *engine) {
  if (!engine)
    return nullArgument("engine");
  return driven(engine, [&] { return engine->engine->step(); });
}

int32_t kvrm_engine_is_idle(const kvrm_engine *engine) {
  return !engine || engine->engine->isIdle();
}

kvrm_status kvrm_engine_get_stats(const kvrm_engine *engine,
                                  kvrm_engine_stats *stats) {
  if (!engine)
    return nullArgument("engine");
  if (!stats)
    return nullArgument("stats");
  const EngineStats &source = engine->engine->stats();
  stats->submitted = source.submitted;
  stats->refused = source.refused;
  stats->finished = source.finished;
  stats->cancelled = source.cancelled;
  stats->failed = source.failed;
  stats->steps = source.steps;
  stats->prefill_tokens = source.prefillTokens;
  stats->decode_tokens = source.decodeTokens;
  stats->shared_tokens = source.sharedTokens;
  stats->shared_pages = source.sharedPages;
  stats->parked = source.parked;
  stats->recomputed = source.recomputed;
  stats->evicted = source.evicted;
  stats->waiting = source.waiting;
  stats->preempted = source.preempted;
  stats->running = source.running;
  stats->kept = source.kept;
  return KVRM_OK;
}
