//===- Session.cpp - A model with its KV, one step at a time ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/Session.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

using namespace kvrm;

static int64_t nanosecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now() - start)
      .count();
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

Status Session::createEntry(Entry &entry, const EntryInfo &info,
                            kvrm_step_fn fn, int32_t shares) {
  const Manifest &m = manifest();
  entry.info = &info;
  entry.fn = fn;
  auto rows = static_cast<size_t>(info.rows);
  entry.rows.resize(rows);
  entry.tokens.resize(rows * static_cast<size_t>(info.queries));
  entry.positions.resize(rows);
  entry.counts.resize(rows);
  entry.slots.resize(rows);
  if (!m.isPaged)
    return Status::ok();
  PlanShape shape;
  shape.rows = info.rows;
  shape.queries = info.queries;
  shape.kvHeads = m.kvHeads;
  shape.qTile = info.qTile;
  shape.kvTile = info.kvTile;
  shape.pageTokens = m.pageTokens;
  shape.pagesPerSlot = m.pagesPerSlot;
  shape.schedule = info.schedule;
  shape.splits = info.splits;
  shape.shares = shares;
  shape.summaries = m.summaries;
  Expected<Planner> planner = Planner::create(shape);
  KVRM_TRY(planner.status());
  Expected<StepDescriptor> descriptor =
      StepDescriptor::create(planner->capacity().limits);
  KVRM_TRY(descriptor.status());
  entry.planner.emplace(planner.take());
  entry.descriptor.emplace(descriptor.take());
  return Status::ok();
}

Expected<std::unique_ptr<Session>>
Session::create(std::shared_ptr<const Package> package,
                const SessionConfig &config) {
  KVRM_CHECK(package, "a session has a package");
  std::unique_ptr<Session> session(new Session());
  session->package = std::move(package);
  const Manifest &m = session->manifest();
  int64_t allPages = int64_t(m.slots) * m.pagesPerSlot;
  int64_t pages = config.poolPages == 0 ? allPages : config.poolPages;
  if (m.isPaged && (pages < 1 || pages > KVRM_MAX_POOL_PAGES))
    return invalidArgument("pool_pages: ", pages, " is outside 1..",
                           int32_t(KVRM_MAX_POOL_PAGES));
  if (config.shares < 0 || config.shares > 4096)
    return invalidArgument("shares: ", config.shares, " is outside 0..4096");
  if (config.threads < 0 || config.threads > KVRM_MAX_THREADS)
    return invalidArgument("threads: ", config.threads, " is outside 0..",
                           int32_t(KVRM_MAX_THREADS));

  if (m.isPaged) {
    if (m.window > 0 &&
        (config.keptHistories != 0 || config.parkingPlaces != 0))
      return invalidArgument("a package with far history has neither kept "
                             "histories nor parking places");
    if (config.keptHistories < 0 ||
        config.keptHistories > KVRM_MAX_ROWS - m.slots)
      return invalidArgument("kept histories: ", config.keptHistories,
                             " is outside 0..", KVRM_MAX_ROWS - m.slots);
    if (config.parkingPlaces < 0 || config.parkingPlaces > KVRM_MAX_ROWS)
      return invalidArgument("parking places: ", config.parkingPlaces,
                             " is outside 0..", int32_t(KVRM_MAX_ROWS));
    int64_t leastPages = config.parkingPlaces > 0 ? 1 : 0;
    if (config.parkingPages < leastPages ||
        config.parkingPages > KVRM_MAX_POOL_PAGES)
      return invalidArgument("parking pages: ", config.parkingPages,
                             " is outside ", leastPages, "..",
                             int32_t(KVRM_MAX_POOL_PAGES));
  }
  DecoderShape &bounds = session->bounds;
  bounds.slots = bounds.histories = m.slots;
  bounds.capacity = m.capacity;
  bounds.vocabulary = m.vocabulary;
  bounds.prefillChunk = m.prefill.queries;
  if (m.isPaged) {
    bounds.histories += config.keptHistories;
    bounds.parkingPlaces = config.parkingPlaces;
    bounds.pageTokens = m.pageTokens;
    bounds.poolPages = static_cast<int32_t>(pages);
    bounds.window = m.window;
    bounds.historyPages = m.pagesPerSlot;
  }

  // Workers first: shares follow their number.
  HostShape shape;
  shape.layers = m.layers;
  shape.heads = m.heads;
  shape.kvHeads = m.kvHeads;
  shape.headDim = m.headDim;
  shape.pageTokens = m.pageTokens;
  shape.pages = bounds.poolPages;
  if (bounds.parkingPlaces > 0)
    shape.parkingPages = static_cast<int32_t>(config.parkingPages);
  shape.threads = config.threads > 0 ? config.threads : usableCpus();
  shape.shares = config.shares > 0 ? config.shares : shape.threads;
  const Package &loaded = *session->package;
  KVRM_TRY(session->createEntry(session->decodeEntry, m.decode,
                                loaded.decodeStep(), shape.shares));
  KVRM_TRY(session->createEntry(session->prefillEntry, m.prefill,
                                loaded.prefillStep(), shape.shares));
  int64_t arenaBytes = 64;
  for (const Entry *entry : {&session->decodeEntry, &session->prefillEntry}) {
    const EntryInfo &info = *entry->info;
    arenaBytes = std::max(arenaBytes, info.arenaBytes);
    shape.scratchBytes = std::max(shape.scratchBytes, info.scratchBytes);
    if (!m.isPaged)
      continue;
    if (info.transport == KVRM_TRANSPORT_STAGED)
      shape.stageBytes =
          std::max(shape.stageBytes, int64_t(2) * info.kvTile * m.headDim * 2);
    const PlanCapacity &room = entry->planner->capacity();
    int64_t queryRows = int64_t(info.qTile) * (m.heads / m.kvHeads);
    shape.partialFloats =
        std::max(shape.partialFloats,
                 room.partials * kvrm_partial_floats(queryRows, m.headDim));
    shape.segments = std::max(shape.segments, room.limits.max_segments);
  }
  Expected<std::unique_ptr<HostBackend>> backend = HostBackend::create(shape);
  KVRM_TRY(backend.status());
  session->backend = backend.take();

  Expected<AlignedBuffer> arena = AlignedBuffer::create(arenaBytes, "arena");
  KVRM_TRY(arena.status());
  session->arena = arena.take();
  Expected<AlignedBuffer> logits = AlignedBuffer::create(
      int64_t(m.vocabulary) * int64_t(sizeof(float)), "logits");
  KVRM_TRY(logits.status());
  session->spareLogits = logits.take();
  session->requests.reserve(static_cast<size_t>(m.slots));
  session->copies.resize(static_cast<size_t>(m.slots));

  if (m.isPaged) {
    Expected<BlockPager> pager = BlockPager::create(
        {shape.pages, bounds.histories, m.pagesPerSlot, m.pageTokens});
    KVRM_TRY(pager.status());
    session->pager.emplace(pager.take());
    if (bounds.parkingPlaces > 0) {
      Expected<BlockPager> parking =
          BlockPager::create({shape.parkingPages, bounds.parkingPlaces,
                              m.pagesPerSlot, m.pageTokens});
      KVRM_TRY(parking.status());
      session->parking.emplace(parking.take());
    }
    KVRM_TRY(session->createFarHistory());
    session->reservedBytes = shape.pages * session->backend->tokenPageBytes();
  } else {
    session->staticLengths.resize(static_cast<size_t>(m.slots));
    int64_t bytes = int64_t(m.layers) * m.slots * m.kvHeads * m.capacity *
                    int64_t(m.headDim) * 2;
    for (AlignedBuffer *cache : {&session->kCache, &session->vCache}) {
      Expected<AlignedBuffer> buffer = AlignedBuffer::create(bytes, "KV cache");
      KVRM_TRY(buffer.status());
      *cache = buffer.take();
    }
    session->reservedBytes = 2 * bytes;
  }
  return session;
}

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

Status Session::checkSlot(int32_t slot) const {
  if (slot < 0 || slot >= slots())
    return invalidArgument("slot ", slot, " is outside 0..", slots() - 1);
  return Status::ok();
}

Status Session::checkHistory(int32_t history) const {
  if (history < 0 || history >= bounds.histories)
    return invalidArgument("history ", history, " is outside 0..",
                           bounds.histories - 1);
  return Status::ok();
}

Status Session::checkPlace(int32_t place, bool isTaken) const {
  if (place < 0 || place >= bounds.parkingPlaces)
    return invalidArgument("parking place ", place, " is outside 0..",
                           bounds.parkingPlaces - 1);
  if ((parking->length(place) > 0) != isTaken)
    return invalidArgument("parking place ", place,
                           isTaken ? " is empty" : " is taken");
  return Status::ok();
}

Status Session::checkToken(int32_t token, int32_t slot) const {
  if (token < 0 || token >= vocabulary())
    return invalidArgument("slot ", slot, ": token ", token, " is outside 0..",
                           vocabulary() - 1);
  return Status::ok();
}

Status Session::exhausted(int64_t needed) const {
  return makeError(StatusCode::ResourceExhausted, "the step needs ", needed,
                   " KV pages, ", freePages(), " of ", poolPages(),
                   " are free");
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

/// Runs one step of an entry whose rows and tokens are filled in and whose
/// histories, if paged, are extended.
Status Session::runEntry(Entry &entry, float *logits) {
  HostStep step;
  step.fn = entry.fn;
  step.args.weights = package->weights();
  step.args.arena = arena.data();
  step.args.tokens = entry.tokens.data();
  step.args.logits = logits;
  if (manifest().isPaged) {
    const PlanStats &plan =
        entry.planner->plan(entry.rows, *pager, *entry.descriptor);
    last.activeRows = plan.activeRows;
    last.pages = plan.pages;
    last.groups = plan.groups;
    last.items = plan.items;
    last.segments = plan.segments;
    last.tiles = plan.tiles;
    last.planNanoseconds += plan.nanoseconds;
    step.descriptor = &*entry.descriptor;
    step.planner = &*entry.planner;
    step.transport = entry.info->transport;
  } else {
    step.args.positions = entry.positions.data();
    step.args.counts = entry.counts.data();
    step.args.slots = entry.slots.data();
    step.args.k_cache = kCache.data();
    step.args.v_cache = vCache.data();
  }
  last.collapsedPages += std::exchange(collapsedPages, 0);
  last.collapseNanoseconds += std::exchange(collapseNanoseconds, 0);
  KVRM_TRY(backend->runStep(step));
  const HostStepStats &moved = backend->stats();
  last.committedBytes += moved.committedBytes;
  last.commitNanoseconds += moved.commitNanoseconds;
  last.stageCopies += moved.stageCopies;
  last.stageBytes += moved.stageBytes;
  last.attendNanoseconds += moved.attendNanoseconds;
  ++last.steps;
  return Status::ok();
}

Status Session::prefill(int32_t slot, std::span<const int32_t> tokens,
                        float *logits) {
  auto start = std::chrono::steady_clock::now();
  KVRM_TRY(checkSlot(slot));
  int32_t before = length(slot);
  if (tokens.empty())
    return invalidArgument("slot ", slot, ": a prompt has at least one token");
  if (tokens.size() > static_cast<size_t>(capacity() - before)) {
    if (before == 0)
      return invalidArgument("prompt of ", tokens.size(),
                             " tokens exceeds the capacity ", capacity());
    return invalidArgument("slot ", slot, ": ", tokens.size(), " tokens after ",
                           before, " exceed the capacity ", capacity());
  }
  for (int32_t token : tokens)
    KVRM_TRY(checkToken(token, slot));
  auto count = static_cast<int32_t>(tokens.size());
  if (pager) {
    // All pages at once: a prompt that cannot end does not begin, and one whose
    // length is known gets one run.
    int32_t needed = pagesNeeded(slot, count);
    if (needed > pager->freePages())
      return exhausted(needed);
    Status reserved = pager->reserve(
        slot, pager->length(slot) + tokensBeforeCollapse(slot, count));
    KVRM_CHECK(reserved.isOk(), "pages were counted");
  }

  last = StepStats();
  float *target =
      logits ? logits : reinterpret_cast<float *>(spareLogits.data());
  Entry &entry = prefillEntry;
  int32_t queries = entry.info->queries;
  for (int32_t done = 0; done < count;) {
    int32_t chunk = std::min(queries, count - done);
    int32_t position = before + done;
    std::ranges::fill(entry.tokens, 0);
    std::copy_n(tokens.begin() + done, chunk, entry.tokens.begin());
    if (pager) {
      collapse(slot);
      PageCopy copy;
      Status appended = pager->append(slot, chunk, copy);
      KVRM_CHECK(appended.isOk(), "pages were counted");
      if (copy.isNeeded()) {
        backend->copyPage(copy);
        ++last.pageCopies;
      }
      entry.rows[0] = planRow(slot, position, chunk);
    } else {
      last.activeRows = 1;
      entry.positions[0] = position;
      entry.counts[0] = chunk;
      entry.slots[0] = slot;
    }
    Status status = runEntry(entry, target);
    if (!status.isOk()) {
      if (pager) {
        // What was there before may have collapsed meanwhile.
        Status undone = trim(slot, far && before > 0
                                       ? std::max(before, far->collapsed(slot))
                                       : before);
        KVRM_CHECK(undone.isOk(), "a history can be cut to what it was");
      } else {
        staticLengths[static_cast<size_t>(slot)] = before;
      }
      return status;
    }
    done += chunk;
    if (!pager)
      staticLengths[static_cast<size_t>(slot)] = before + done;
  }
  last.stepNanoseconds = nanosecondsSince(start);
  return Status::ok();
}

Status Session::decode(std::span<const int32_t> tokens, float *logits) {
  auto start = std::chrono::steady_clock::now();
  if (tokens.size() != static_cast<size_t>(slots()))
    return invalidArgument("decode: ", tokens.size(), " tokens for ", slots(),
                           " slots");
  if (!logits)
    return invalidArgument("decode: logits are null");
  requests.clear();
  int64_t needed = 0;
  for (int32_t slot = 0; slot < slots(); ++slot) {
    int32_t token = tokens[static_cast<size_t>(slot)];
    if (token == -1)
      continue;
    KVRM_TRY(checkToken(token, slot));
    if (length(slot) >= capacity())
      return invalidArgument("slot ", slot, ": its history of ", length(slot),
                             " tokens fills the capacity ", capacity());
    requests.push_back({slot, 1});
    needed += pagesNeeded(slot, 1);
  }
  if (requests.empty())
    return Status::ok();

  Entry &entry = decodeEntry;
  int32_t copyCount = 0;
  if (pager) {
    Status status = collapseFor(requests);
    if (status.isOk())
      status = pager->appendAll(requests, copies, copyCount);
    if (status.code() == StatusCode::ResourceExhausted)
      return exhausted(needed);
    KVRM_TRY(status);
    for (int32_t i = 0; i < copyCount; ++i)
      backend->copyPage(copies[static_cast<size_t>(i)]);
  }
  last = StepStats();
  last.pageCopies = copyCount;
  last.activeRows = static_cast<int32_t>(requests.size());
  for (int32_t slot = 0; slot < slots(); ++slot) {
    auto row = static_cast<size_t>(slot);
    bool isActive = tokens[row] != -1;
    entry.tokens[row] = isActive ? tokens[row] : 0;
    if (pager) {
      entry.rows[row] =
          isActive ? planRow(slot, length(slot) - 1, 1) : PlanRow{};
    } else {
      // An idle row writes too: to where its next token will overwrite it, or,
      // in a full slot, to the position `capacity`, which code never writes.
      entry.positions[row] = length(slot);
      entry.counts[row] = isActive ? 1 : 0;
      entry.slots[row] = slot;
    }
  }
  Status status = runEntry(entry, logits);
  if (!status.isOk()) {
    for (const AppendRequest &request : requests)
      if (pager) {
        Status undone = trim(request.slot, length(request.slot) - 1);
        KVRM_CHECK(undone.isOk(), "a history can be cut to what it was");
      }
    return status;
  }
  if (!pager)
    for (const AppendRequest &request : requests)
      ++staticLengths[static_cast<size_t>(request.slot)];
  last.stepNanoseconds = nanosecondsSince(start);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Histories
//===----------------------------------------------------------------------===//

int32_t Session::length(int32_t history) const {
  KVRM_CHECK(history >= 0 && history < bounds.histories, "history in range");
  if (!pager)
    return staticLengths[static_cast<size_t>(history)];
  return pager->length(history) + (far ? far->placesSaved(history) : 0);
}

int32_t Session::pagesNeeded(int32_t slot, int32_t tokens) const {
  if (far)
    return static_cast<int32_t>(farPagesNeeded(slot, tokens));
  return pager ? pager->pagesNeeded(slot, tokens) : 0;
}

void Session::expect(int32_t slot, int32_t tokens) {
  KVRM_CHECK(slot >= 0 && slot < slots(), "slot in range");
  if (pager)
    pager->expect(slot, tokens);
}

Status Session::release(int32_t history) {
  KVRM_TRY(checkHistory(history));
  if (far)
    far->forget(history);
  if (pager)
    return pager->release(history);
  staticLengths[static_cast<size_t>(history)] = 0;
  return Status::ok();
}

Status Session::trim(int32_t history, int32_t newLength) {
  KVRM_TRY(checkHistory(history));
  if (far && newLength == 0)
    return release(history);
  if (far && far->collapsed(history) > 0) {
    KVRM_TRY(checkTrim(history, newLength));
    newLength -= far->placesSaved(history);
  }
  if (pager)
    return pager->trim(history, newLength);
  if (newLength < 0 || newLength > length(history))
    return invalidArgument("slot ", history, ": cannot trim to ", newLength,
                           " tokens, outside 0..", length(history));
  staticLengths[static_cast<size_t>(history)] = newLength;
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Parking
//===----------------------------------------------------------------------===//

/// Copies the pages of `history` to those of `place`, or back: run by run,
/// where pages are adjacent on both sides.
void Session::movePages(int32_t history, int32_t place, bool parks) {
  std::span<const int32_t> here = pager->pages(history);
  std::span<const int32_t> there = parking->pages(place);
  auto count = static_cast<size_t>(pager->filledPages(history));
  for (size_t first = 0; first < count;) {
    size_t run = 1;
    while (first + run < count &&
           here[first + run] == here[first] + static_cast<int32_t>(run) &&
           there[first + run] == there[first] + static_cast<int32_t>(run))
      ++run;
    backend->movePages({here[first], there[first], static_cast<int32_t>(run)},
                       parks);
    first += run;
  }
}

Status Session::park(int32_t slot, int32_t place) {
  KVRM_TRY(checkSlot(slot));
  KVRM_TRY(checkPlace(place, /*isTaken=*/false));
  if (length(slot) == 0)
    return invalidArgument("slot ", slot, " is empty");
  PageCopy copy;
  parking->expect(place, length(slot));
  Status status = parking->append(place, length(slot), copy);
  if (status.code() == StatusCode::ResourceExhausted)
    return makeError(StatusCode::ResourceExhausted, "slot ", slot, ": its ",
                     pager->filledPages(slot), " pages cannot be parked, ",
                     parking->freePages(), " of ", parking->limits().pages,
                     " are free");
  KVRM_TRY(status);
  movePages(slot, place, /*parks=*/true);
  return pager->release(slot);
}

Status Session::unpark(int32_t place, int32_t slot) {
  KVRM_TRY(checkSlot(slot));
  KVRM_TRY(checkPlace(place, /*isTaken=*/true));
  if (length(slot) != 0)
    return invalidArgument("slot ", slot, " is not empty");
  int32_t tokens = parking->length(place);
  int32_t needed = pager->pagesNeeded(slot, tokens);
  if (needed > pager->freePages())
    return exhausted(needed);
  PageCopy copy;
  pager->expect(slot, tokens);
  KVRM_TRY(pager->append(slot, tokens, copy));
  movePages(slot, place, /*parks=*/false);
  return parking->release(place);
}

Status Session::discard(int32_t place) {
  KVRM_TRY(checkPlace(place, /*isTaken=*/true));
  return parking->release(place);
}

//===----------------------------------------------------------------------===//
// Static caches and sizes
//===----------------------------------------------------------------------===//

/// Bytes of one token of one head, K or V.
int64_t Session::staticTokenBytes() const {
  return int64_t(manifest().headDim) * 2;
}

/// Where the rows of a slot and head lie in a static cache.
int64_t Session::staticOffset(int64_t layer, int32_t slot, int64_t head) const {
  const Manifest &m = manifest();
  int64_t index = (layer * m.slots + slot) * m.kvHeads + head;
  return index * m.capacity * staticTokenBytes();
}

Status Session::alias(int32_t target, int32_t source, int32_t tokens) {
  KVRM_TRY(checkHistory(target));
  KVRM_TRY(checkHistory(source));
  KVRM_TRY(checkShare(target, source));
  if (pager)
    return pager->alias(target, source, tokens);
  if (target == source)
    return invalidArgument("slot ", target, " cannot share with itself");
  if (length(target) != 0)
    return invalidArgument("slot ", target, " is not empty");
  if (tokens < 0 || tokens > length(source))
    return invalidArgument("slot ", source, ": cannot share ", tokens,
                           " tokens, outside 0..", length(source));
  const Manifest &m = manifest();
  auto bytes = static_cast<size_t>(tokens * staticTokenBytes());
  for (uint8_t *cache : {kCache.data(), vCache.data()})
    for (int64_t layer = 0; layer < m.layers; ++layer)
      for (int64_t head = 0; head < m.kvHeads; ++head)
        std::memcpy(cache + staticOffset(layer, target, head),
                    cache + staticOffset(layer, source, head), bytes);
  staticLengths[static_cast<size_t>(target)] = tokens;
  return Status::ok();
}

Status Session::copyHistory(const Session &source, int32_t slot) {
  const Manifest &m = manifest();
  const Manifest &from = source.manifest();
  if (pager || source.pager)
    return invalidArgument("histories are copied between static sessions");
  if (m.layers != from.layers || m.kvHeads != from.kvHeads ||
      m.headDim != from.headDim || m.slots != from.slots)
    return invalidArgument("sessions of different models");
  KVRM_TRY(checkSlot(slot));
  if (length(slot) != 0)
    return invalidArgument("slot ", slot, " is not empty");
  int32_t tokens = source.length(slot);
  if (tokens > capacity())
    return invalidArgument("history of ", tokens,
                           " tokens exceeds the capacity ", capacity());
  auto bytes = static_cast<size_t>(tokens * staticTokenBytes());
  for (int64_t layer = 0; layer < m.layers; ++layer)
    for (int64_t head = 0; head < m.kvHeads; ++head) {
      int64_t to = staticOffset(layer, slot, head);
      int64_t at = source.staticOffset(layer, slot, head);
      std::memcpy(kCache.data() + to, source.kCache.data() + at, bytes);
      std::memcpy(vCache.data() + to, source.vCache.data() + at, bytes);
    }
  staticLengths[static_cast<size_t>(slot)] = tokens;
  return Status::ok();
}

int64_t Session::tokenKvBytes() const {
  const Manifest &m = manifest();
  return int64_t(m.layers) * m.kvHeads * 2 * staticTokenBytes();
}

int64_t Session::liveKvBytes() const {
  if (pager)
    return pager->usedPages() * backend->tokenPageBytes();
  int64_t tokens = 0;
  for (int32_t length : staticLengths)
    tokens += length;
  return tokens * tokenKvBytes();
}
