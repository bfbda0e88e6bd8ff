//===- ModeDecoder.cpp - A mode that serves ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ModeDecoder.h"
#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>

using namespace kvrm;
using namespace kvrm::replay;

//===----------------------------------------------------------------------===//
// Opening
//===----------------------------------------------------------------------===//

/// Fills slots in turn, chunk by chunk, until all KV memory was written or time
/// is up.
static Status fillSlots(Decoder &session, double seconds) {
  SteadyClock clock;
  int64_t end = clock.now() + static_cast<int64_t>(seconds * 1e9);
  bool isFull = false;
  while (!isFull && clock.now() <= end) {
    isFull = true;
    for (int32_t slot = 0; slot < session.slots() && clock.now() <= end;
         ++slot) {
      int32_t room = session.capacity() - session.length(slot);
      // Some tokens are left for the decode steps.
      int32_t count = std::min(room - 4, session.shape().prefillChunk);
      if (count < 1)
        continue;
      std::vector<int32_t> chunk(static_cast<size_t>(count), 0);
      Status status = session.prefill(slot, chunk, nullptr);
      if (status.code() == StatusCode::ResourceExhausted)
        break;
      KVRM_TRY(status);
      isFull = false;
    }
  }
  return Status::ok();
}

/// Takes a few decode steps of all slots, as far as there are pages.
static Status takeSteps(Decoder &session) {
  auto slots = static_cast<size_t>(session.slots());
  std::vector<float> logits(slots * static_cast<size_t>(session.vocabulary()));
  const std::vector<int32_t> tokens(slots, 1 % session.vocabulary());
  for (int32_t step = 0; step < 3; ++step) {
    for (int32_t slot = 0; slot < session.slots(); ++slot)
      if (session.length(slot) >= session.capacity())
        KVRM_TRY(session.release(slot));
    Status status = session.decode(tokens, logits.data());
    if (status.code() == StatusCode::ResourceExhausted)
      break;
    KVRM_TRY(status);
  }
  return Status::ok();
}

/// Touches all memory of a session, and leaves it empty.
static Status warmUp(Decoder &session, double seconds) {
  KVRM_TRY(fillSlots(session, seconds));
  // Pages for the decode steps.
  if (session.isPaged())
    for (int32_t slot = 1; slot < session.slots(); ++slot)
      KVRM_TRY(session.release(slot));
  KVRM_TRY(takeSteps(session));
  for (int32_t slot = 0; slot < session.slots(); ++slot)
    KVRM_TRY(session.release(slot));
  return Status::ok();
}

static Expected<std::unique_ptr<ModeDecoder>>
openBuckets(const ModeSpec &mode, double warmupSeconds) {
  std::vector<std::unique_ptr<StaticSession>> sessions;
  for (const std::string &path : mode.packages) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    KVRM_TRY(package.status());
    Expected<std::unique_ptr<StaticSession>> session =
        StaticSession::create(package.take(), mode.config.threads);
    KVRM_TRY(session.status());
    KVRM_TRY(warmUp(**session,
                    warmupSeconds / static_cast<double>(mode.packages.size())));
    sessions.push_back(session.take());
  }
  Expected<std::unique_ptr<BucketedDecoder>> buckets =
      BucketedDecoder::create(std::move(sessions));
  KVRM_TRY(buckets.status());
  const BucketedDecoder *same = buckets->get();
  return std::make_unique<ModeDecoder>(buckets.take(), nullptr, same);
}

Expected<std::unique_ptr<ModeDecoder>> replay::openMode(const ModeSpec &mode,
                                                        double warmupSeconds) {
  if (mode.name == "bucketed")
    return openBuckets(mode, warmupSeconds);
  Expected<std::shared_ptr<const Package>> package =
      Package::load(mode.packages.front());
  KVRM_TRY(package.status());
  Expected<std::unique_ptr<Decoder>> decoder =
      createDecoder(package.take(), mode.config);
  KVRM_TRY(decoder.status());
  KVRM_TRY(warmUp(**decoder, warmupSeconds));
  const auto *session = dynamic_cast<const Session *>(decoder->get());
  return std::make_unique<ModeDecoder>(
      decoder.take(), session ? &session->blockPager() : nullptr);
}

//===----------------------------------------------------------------------===//
// Use
//===----------------------------------------------------------------------===//

ModeDecoder::ModeDecoder(std::unique_ptr<Decoder> decoder,
                         const BlockPager *pager,
                         const BucketedDecoder *buckets)
    : served(std::move(decoder)), pager(pager), bucketed(buckets) {
  KVRM_CHECK(served->isPaged() == (pager != nullptr),
             "a paged decoder comes with its pager");
  filled.resize(static_cast<size_t>(served->shape().poolPages));
  touched.reserve(filled.size());
}

KvUse ModeDecoder::use(int32_t running) {
  if (pager)
    return usePaged();
  KvUse use;
  use.live = served->liveKvBytes();
  use.held = served->reservedKvBytes() / served->shape().slots * running;
  return use;
}

KvUse ModeDecoder::usePaged() {
  int32_t pageTokens = served->shape().pageTokens;
  int64_t live = 0;
  int64_t all = 0;
  touched.clear();
  for (int32_t slot = 0; slot < served->shape().slots; ++slot) {
    int32_t length = pager->length(slot);
    all += length;
    int32_t first = 0;
    for (int32_t page : pager->pages(slot)) {
      int32_t tokens = std::clamp(length - first, 0, pageTokens);
      first += pageTokens;
      int32_t &known = filled[static_cast<size_t>(page)];
      if (known == 0)
        touched.push_back(page);
      // A page that is reserved but empty is held all the same.
      int32_t now = std::max(known, tokens + 1);
      live += now - std::max(known, 1);
      known = now;
    }
  }
  for (int32_t page : touched)
    filled[static_cast<size_t>(page)] = 0;
  int64_t tokenBytes = served->tokenKvBytes();
  KvUse use;
  use.held = served->liveKvBytes();
  use.kept =
      use.held - static_cast<int64_t>(touched.size()) * pageTokens * tokenBytes;
  use.live = live * tokenBytes;
  use.sharedTokens = all - live;
  return use;
}
