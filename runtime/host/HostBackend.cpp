//===- HostBackend.cpp - The CPU backend ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/HostBackend.h"
#include "kvrm/runtime/host/MergePartials.h"
#include "kvrm/runtime/support/Clock.h"

#include <algorithm>
#include <cstring>

using namespace kvrm;

constinit const kvrm_host_api HostBackend::hostApi = {
    .commit = [](void *session) { return from(session).commit(); },
    .stage = [](void *session,
                int32_t transport) { from(session).stage(transport); },
    .append = [](void *session, int32_t layer, kvrm_append_kernel kernel,
                 const float *k,
                 const float *v) { from(session).append(layer, kernel, k, v); },
    .attend = [](void *session, int32_t layer, kvrm_attention_kernel kernel,
                 const float *q,
                 float *out) { from(session).attend(layer, kernel, q, out); },
    .parallel =
        [](void *session, kvrm_parallel_fn fn, void *context, int64_t count) {
          HostBackend &backend = from(session);
          if (!fn || count < 0) {
            backend.violate("parallel() without a function or a count");
            return;
          }
          backend.pool->parallelFor(count, fn, context);
        },
};

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<HostBackend>>
HostBackend::create(const HostShape &shape) {
  std::unique_ptr<HostBackend> backend(new HostBackend());
  Expected<std::unique_ptr<ThreadPool>> pool =
      ThreadPool::create(shape.threads);
  KVRM_TRY(pool.status());
  backend->pool = pool.take();
  backend->bounds = shape;
  if (shape.shares == 0)
    backend->bounds.shares = backend->workers();
  BackendInfo &facts = backend->facts;
  facts.pages = shape.pages;
  facts.parkingPages = shape.parkingPages;
  facts.canCollapse = true;
  for (size_t i = 0; i < stepEntries; ++i) {
    facts.entries[i].shares = backend->bounds.shares;
    backend->bounds.entries[i].plan.shares = backend->bounds.shares;
  }
  KVRM_TRY(backend->takePools());
  KVRM_TRY(backend->takeWorkerMemory());
  KVRM_TRY(backend->takeStepMemory());
  return backend;
}

static Status take(AlignedBuffer &buffer, int64_t bytes, const char *purpose) {
  Expected<AlignedBuffer> taken = AlignedBuffer::create(bytes, purpose);
  KVRM_TRY(taken.status());
  buffer = taken.take();
  return Status::ok();
}

Status HostBackend::takePools() {
  pageBytes = int64_t(bounds.pageTokens) * bounds.headDim *
              kvrm_element_bytes(bounds.element);
  facts.pageBytes = pageBytes * heads();
  headStride = pageBytes * bounds.pages;
  KVRM_TRY(take(kv, headStride * heads(), "KV pool"));
  parkingStride = pageBytes * bounds.parkingPages;
  return take(parking, parkingStride * heads(), "parking memory");
}

Status HostBackend::takeWorkerMemory() {
  int64_t scratchBytes = 0;
  int64_t stageBytes = 0;
  for (const HostEntry &entry : bounds.entries) {
    scratchBytes = std::max(scratchBytes, entry.scratchBytes);
    if (entry.transport == KVRM_TRANSPORT_STAGED)
      stageBytes = std::max(stageBytes,
                            kvrm_stage_layout_of(entry.plan.kvTile,
                                                 bounds.headDim, bounds.element)
                                .bytes);
  }
  // Whole cache lines, and whole pages between workers.
  auto roundUp = [](int64_t bytes) { return (bytes + 4095) / 4096 * 4096; };
  scratchBytes = roundUp(scratchBytes);
  stageBytes = roundUp(stageBytes);
  KVRM_TRY(
      take(scratch, (scratchBytes + stageBytes) * workers(), "worker scratch"));
  perWorker.resize(static_cast<size_t>(workers()));
  uint8_t *start = scratch.data();
  for (Worker &worker : perWorker) {
    worker.backend = this;
    if (scratchBytes > 0)
      worker.scratch = reinterpret_cast<float *>(start);
    if (stageBytes > 0)
      worker.stage = start + scratchBytes;
    start += scratchBytes + stageBytes;
  }
  return Status::ok();
}

/// What holds any plan of any entry.
Status HostBackend::takeStepMemory() {
  int64_t arenaBytes = KVRM_ALIGNMENT;
  for (const HostEntry &entry : bounds.entries) {
    Expected<PlanCapacity> room = Planner::capacityOf(entry.plan);
    KVRM_TRY(room.status());
    int64_t queryRows =
        int64_t(entry.plan.qTile) * (bounds.heads / bounds.kvHeads);
    partialFloats = std::max(
        partialFloats,
        room->partials * kvrm_partial_floats(queryRows, bounds.headDim));
    segments = std::max(segments, room->limits.max_segments);
    arenaBytes = std::max(arenaBytes, entry.arenaBytes);
  }
  KVRM_TRY(take(arena, arenaBytes, "arena"));
  KVRM_TRY(take(partials, partialFloats * int64_t(sizeof(float)), "partials"));
  remaining =
      std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(segments));
  shares = std::make_unique<Share[]>(static_cast<size_t>(bounds.shares));
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

Status HostBackend::copyPage(const PageCopy &copy) {
  KVRM_CHECK(copy.source >= 0 && copy.source < bounds.pages &&
                 copy.target >= 0 && copy.target < bounds.pages &&
                 copy.source != copy.target,
             "pages lie in the pool");
  for (int64_t head = 0; head < heads(); ++head) {
    uint8_t *base = kv.data() + head * headStride;
    std::memcpy(base + copy.target * pageBytes, base + copy.source * pageBytes,
                static_cast<size_t>(pageBytes));
  }
  return Status::ok();
}

Status HostBackend::movePages(std::span<const PageRun> runs,
                              MoveDirection direction) {
  for (const PageRun &run : runs)
    moveRun(run, direction);
  return Status::ok();
}

void HostBackend::moveRun(const PageRun &run, MoveDirection direction) {
  KVRM_CHECK(run.pages > 0 && run.poolPage >= 0 && run.parkingPage >= 0 &&
                 run.poolPage + run.pages <= bounds.pages &&
                 run.parkingPage + run.pages <= bounds.parkingPages,
             "the run lies in the pool and in parking memory");
  auto bytes = static_cast<size_t>(run.pages * pageBytes);
  for (int64_t head = 0; head < heads(); ++head) {
    uint8_t *here = kv.data() + head * headStride + run.poolPage * pageBytes;
    uint8_t *there =
        parking.data() + head * parkingStride + run.parkingPage * pageBytes;
    if (direction == MoveDirection::ToParking)
      std::memcpy(there, here, bytes);
    else
      std::memcpy(here, there, bytes);
  }
}

Status HostBackend::collapsePage(const PageCollapse &collapse) {
  HostPool target{kvPool(),       bounds.layers,     bounds.kvHeads,
                  bounds.headDim, bounds.pageTokens, bounds.pages,
                  bounds.element};
  if (collapse.isFirst)
    clearPages(target, collapse.summaries, *pool);
  writeSummaries(target, collapse.writes, collapse.source, collapse.summaries,
                 *pool);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

Status HostBackend::runStep(const BackendStep &step, BackendStats &stats) {
  KVRM_CHECK(!descriptor, "one step at a time");
  KVRM_CHECK(step.descriptor, "a step is planned");
  currentEntry = &bounds.entries[static_cast<size_t>(step.entry)];
  KVRM_CHECK(currentEntry->fn, "a step has code");
  last = BackendStats();
  isCommitted = isStaged = false;
  appends = attends = 0;
  violation = nullptr;
  for (Worker &worker : perWorker)
    worker.copies = worker.bytes = 0;
  descriptor = step.descriptor;
  kvrm_step_args args{};
  args.api = &hostApi;
  args.session = this;
  args.weights = bounds.weights;
  args.arena = arena.data();
  args.tokens = step.descriptor->committedTokens().data();
  args.logits = step.logits;
  currentEntry->fn(&args);
  descriptor = nullptr;

  for (const Worker &worker : perWorker) {
    last.stageCopies += worker.copies;
    last.stageBytes += worker.bytes;
  }
  if (!violation) {
    if (!isCommitted)
      violation = "a step without commit()";
    else if (!isStaged)
      violation = "a step without stage()";
    else if (appends != bounds.layers || attends != bounds.layers)
      violation = "not one append() and one attend() a layer";
  }
  if (violation)
    return makeError(StatusCode::Internal, "compiled step: ", violation);
  stats = last;
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Host API
//===----------------------------------------------------------------------===//

bool HostBackend::inStep(const char *what) {
  if (!descriptor || !isCommitted) {
    violate(what);
    return false;
  }
  return true;
}

const uint8_t *HostBackend::commit() {
  if (!descriptor) {
    violate("commit() outside a step");
    return nullptr;
  }
  if (isCommitted) {
    violate("commit() twice in a step");
    return descriptor->committed();
  }
  Stopwatch watch;
  isCommitted = true;
  last.committedBytes = descriptor->commit();
  std::span<const kvrm_merge_segment> merges = descriptor->committedSegments();
  KVRM_CHECK(static_cast<int64_t>(merges.size()) <= segments,
             "segments fit the backend");
  for (size_t i = 0; i < merges.size(); ++i)
    remaining[i].store(merges[i].partials, std::memory_order_relaxed);
  int64_t floats = int64_t(descriptor->committedHeader().partials) *
                   kvrm_partial_floats(int64_t(plan().qTile) *
                                           (bounds.heads / bounds.kvHeads),
                                       bounds.headDim);
  KVRM_CHECK(floats <= partialFloats, "partials fit the backend");
  last.commitNanoseconds = watch.nanoseconds();
  return descriptor->committed();
}

void HostBackend::stage(int32_t transport) {
  if (!inStep("stage() before commit()"))
    return;
  if (isStaged)
    violate("stage() twice in a step");
  if (transport != currentEntry->transport)
    violate("stage() of another transport than the manifest's");
  isStaged = true;
}

kvrm_kernel_args HostBackend::argsOf(int32_t layer) const {
  kvrm_kernel_args args{};
  args.descriptor = descriptor->committed();
  uint8_t *base = kv.data() + int64_t(layer) * 2 * bounds.kvHeads * headStride;
  args.k_pool = base;
  args.v_pool = base + bounds.kvHeads * headStride;
  args.head_stride = headStride;
  args.partials = reinterpret_cast<float *>(partials.data());
  return args;
}

void HostBackend::append(int32_t layer, kvrm_append_kernel kernel,
                         const float *k, const float *v) {
  if (!inStep("append() before commit()"))
    return;
  if (layer < 0 || layer >= bounds.layers || !kernel || !k || !v) {
    violate("append() with a bad argument");
    return;
  }
  ++appends;
  kvrm_kernel_args args = argsOf(layer);
  args.k = k;
  args.v = v;
  kernel(&args);
}

void HostBackend::attend(int32_t layer, kvrm_attention_kernel kernel,
                         const float *q, float *out) {
  if (!inStep("attend() before commit()"))
    return;
  if (layer < 0 || layer >= bounds.layers || !kernel || !q || !out) {
    violate("attend() with a bad argument");
    return;
  }
  if (!isStaged) {
    violate("attend() before stage()");
    return;
  }
  Stopwatch watch;
  ++attends;
  attendArgs = argsOf(layer);
  attendArgs.q = q;
  attendArgs.out = out;
  if (currentEntry->transport == KVRM_TRANSPORT_STAGED)
    attendArgs.stage_tile = stageTile;
  attendKernel = kernel;
  std::span<const kvrm_share> planned = descriptor->committedShares();
  KVRM_CHECK(static_cast<int64_t>(planned.size()) <= bounds.shares,
             "shares fit the backend");
  for (size_t i = 0; i < planned.size(); ++i) {
    shares[i].next.store(planned[i].item_begin, std::memory_order_relaxed);
    shares[i].end = planned[i].item_end;
  }
  // A single item gains nothing from a fork.
  if (descriptor->committedHeader().items <= 1)
    attendOn(perWorker[0], 0);
  else
    pool->run(
        [](void *context, int32_t worker) {
          HostBackend &backend = *static_cast<HostBackend *>(context);
          backend.attendOn(backend.perWorker[static_cast<size_t>(worker)],
                           worker);
        },
        this);
  last.attendNanoseconds += watch.nanoseconds();
}

void HostBackend::attendOn(Worker &worker, int32_t index) {
  kvrm_kernel_args args = attendArgs;
  args.context = &worker;
  int32_t count = descriptor->limits().max_shares;
  auto own = static_cast<int32_t>(int64_t(index) * count / workers());
  for (int32_t i = 0; i < count; ++i) {
    int32_t next = (own + i) % count;
    Share &share = shares[static_cast<size_t>(next)];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      int32_t item = share.next.fetch_add(1, std::memory_order_relaxed);
      if (item >= share.end)
        break;
      runItem(worker, args, item);
    }
  }
}

void HostBackend::runItem(Worker &worker, const kvrm_kernel_args &args,
                          int32_t index) {
  const kvrm_work_item &item =
      descriptor->committedItems()[static_cast<size_t>(index)];
  attendKernel(&args, &item, worker.scratch,
               args.stage_tile ? worker.stage : nullptr);
  if (item.segment < 0)
    return;
  // The last to finish sees what the others wrote.
  auto segmentIndex = static_cast<size_t>(item.segment);
  if (remaining[segmentIndex].fetch_sub(1, std::memory_order_acq_rel) != 1)
    return;
  const kvrm_merge_segment &segment =
      descriptor->committedSegments()[segmentIndex];
  mergeSegment(segment);
  // Ready for the next layer; the join orders it before.
  remaining[segmentIndex].store(segment.partials, std::memory_order_relaxed);
}

void HostBackend::mergeSegment(const kvrm_merge_segment &segment) {
  const PlanShape &shape = plan();
  const kvrm_row &row =
      descriptor->committedRows()[static_cast<size_t>(segment.row)];
  int32_t group = bounds.heads / bounds.kvHeads;
  int32_t queryRows = shape.qTile * group;
  int32_t firstToken = segment.query_tile * shape.qTile;
  int32_t tokens = std::min(shape.qTile, row.count - firstToken);
  int64_t tokenStride = int64_t(bounds.heads) * bounds.headDim;
  float *out =
      attendArgs.out +
      (int64_t(segment.row) * shape.queries + firstToken) * tokenStride +
      int64_t(segment.kv_head) * group * bounds.headDim;
  mergePartials(attendArgs.partials +
                    segment.first_partial *
                        kvrm_partial_floats(queryRows, bounds.headDim),
                segment.partials, queryRows, bounds.headDim, tokens * group,
                out, tokenStride, group);
}

void HostBackend::stageTile(const kvrm_kernel_args *args,
                            const kvrm_work_item *item, int32_t tile,
                            uint8_t *stage) {
  Worker &worker = *static_cast<Worker *>(args->context);
  worker.backend->stageTileFor(worker, *args, *item, tile, stage);
}

void HostBackend::stageTileFor(Worker &worker, const kvrm_kernel_args &args,
                               const kvrm_work_item &item, int32_t tile,
                               uint8_t *stage) {
  const PlanShape &shape = plan();
  const kvrm_row &row =
      descriptor->committedRows()[static_cast<size_t>(item.row)];
  std::span<const int32_t> table = descriptor->committedTable(item.row);
  int32_t tilePages = shape.kvTile / shape.pageTokens;
  KVRM_CHECK(tilePages > 0, "a staged tile is whole pages");
  int32_t first = tile * tilePages;
  int32_t end =
      std::min(first + tilePages,
               (row.length + shape.pageTokens - 1) / shape.pageTokens);
  kvrm_stage_layout layout =
      kvrm_stage_layout_of(shape.kvTile, bounds.headDim, bounds.element);
  for (bool isValue : {false, true}) {
    const uint8_t *pages = (isValue ? args.v_pool : args.k_pool) +
                           int64_t(item.kv_head) * args.head_stride;
    uint8_t *target = stage + (isValue ? layout.v : layout.k);
    // The part of a transfer group that lies in the tile is a run of adjacent
    // entries of the table.
    for (int32_t p = first; p < end;) {
      int32_t physical = table[static_cast<size_t>(p)];
      KVRM_CHECK(physical >= 0 && physical < bounds.pages, "page in the pool");
      int32_t run = 1;
      while (p + run < end &&
             table[static_cast<size_t>(int64_t(p) + run)] == physical + run)
        ++run;
      std::memcpy(target + (p - first) * pageBytes,
                  pages + physical * pageBytes,
                  static_cast<size_t>(run * pageBytes));
      ++worker.copies;
      worker.bytes += run * pageBytes;
      p += run;
    }
  }
}
