//===- CApi.cpp - The C API of the runtime ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/Package.h"
#include "kvrm/runtime/Session.h"
#include "kvrm/runtime/kvrm.h"

#include <cstdio>
#include <exception>
#include <new>

using namespace kvrm;

struct kvrm_package {
  std::shared_ptr<const Package> package;
};

struct kvrm_session {
  std::unique_ptr<Session> session;
};

/// Fixed room, so that an error can be told when memory is what is missing.
static thread_local char lastError[512] = "";

static kvrm_status answer(StatusCode code, const char *message) {
  std::snprintf(lastError, sizeof(lastError), "%s", message);
  return static_cast<kvrm_status>(code);
}

static kvrm_status answer(const Status &status) {
  if (status.isOk())
    return KVRM_OK;
  return answer(status.code(), status.message().c_str());
}

static kvrm_status nullArgument(const char *name) {
  return answer(invalidArgument(name, " is null"));
}

/// Runs `body`, which returns a Status, and lets no exception out.
template <typename Body> static kvrm_status guarded(Body body) {
  try {
    return answer(body());
  } catch (const std::bad_alloc &) {
    return answer(StatusCode::ResourceExhausted, "out of memory");
  } catch (const std::exception &error) {
    return answer(StatusCode::Internal, error.what());
  } catch (...) {
    return answer(StatusCode::Internal, "unknown exception");
  }
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

const char *kvrm_last_error(void) { return lastError; }

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
    }
    Expected<std::unique_ptr<Session>> made =
        Session::create(package->package, options);
    KVRM_TRY(made.status());
    *session = new kvrm_session{made.take()};
    return Status::ok();
  });
}

void kvrm_session_destroy(kvrm_session *session) { delete session; }

kvrm_status kvrm_prefill(kvrm_session *session, int32_t slot,
                         const int32_t *tokens, size_t count, float *logits) {
  if (!session)
    return nullArgument("session");
  if (!tokens)
    return nullArgument("tokens");
  return guarded(
      [&] { return session->session->prefill(slot, {tokens, count}, logits); });
}

kvrm_status kvrm_decode(kvrm_session *session, const int32_t *tokens,
                        float *logits) {
  if (!session)
    return nullArgument("session");
  if (!tokens)
    return nullArgument("tokens");
  Session &target = *session->session;
  return guarded([&] {
    return target.decode({tokens, static_cast<size_t>(target.slots())}, logits);
  });
}

kvrm_status kvrm_release(kvrm_session *session, int32_t slot) {
  if (!session)
    return nullArgument("session");
  return guarded([&] { return session->session->release(slot); });
}

kvrm_status kvrm_alias(kvrm_session *session, int32_t target, int32_t source,
                       int32_t tokens) {
  if (!session)
    return nullArgument("session");
  return guarded(
      [&] { return session->session->alias(target, source, tokens); });
}

kvrm_status kvrm_trim(kvrm_session *session, int32_t slot, int32_t length) {
  if (!session)
    return nullArgument("session");
  return guarded([&] { return session->session->trim(slot, length); });
}

kvrm_status kvrm_length(kvrm_session *session, int32_t slot, int32_t *length) {
  if (!session)
    return nullArgument("session");
  if (!length)
    return nullArgument("length");
  const Session &target = *session->session;
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
  const Session &source = *session->session;
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
