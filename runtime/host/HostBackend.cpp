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
    .commit = [](void *session) { from(session).commit(); },
    .stage = [](void *session, int32_t batch,
                int32_t transport) { from(session).stage(batch, transport); },
    .append =
        [](void *session, int32_t batch, int32_t layer,
           kvrm_append_kernel kernel, const float *k, const float *v) {
          from(session).append(batch, layer, kernel, k, v);
        },
    .attend =
        [](void *session, int32_t batch, int32_t layer,
           kvrm_attention_kernel kernel, const float *q,
           float *out) { from(session).attend(batch, layer, kernel, q, out); },
    .parallel =
        [](void *session, kvrm_parallel_fn fn, void *context, int64_t count) {
          HostBackend &backend = from(session);
          if (!fn || count < 0) {
            backend.violate("parallel() without a function or a count");
            return;
          }
          backend.pool->parallelFor(count, fn, context);
        },
    .all_reduce =
        [](void *session, const float *in, float *out, int64_t count) {
          from(session).meet(&HostGroup::allReduce, in, out, count);
        },
    .all_gather =
        [](void *session, const float *in, float *out, int64_t count) {
          from(session).meet(&HostGroup::allGather, in, out, count);
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
  facts.mixes = shape.mixed != nullptr;
  for (size_t i = 0; i < plannedEntries; ++i) {
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
  pageBytes =
      kvrm_page_layout_of(bounds.pageTokens, bounds.headDim, bounds.element)
          .bytes;
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
      stageBytes = std::max(
          stageBytes, kvrm_stage_layout_of(entry.plan.kvTile, bounds.pageTokens,
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
  int64_t arenaBytes =
      std::max<int64_t>(KVRM_ALIGNMENT, bounds.mixedArenaBytes);
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
  remaining = std::make_unique<std::atomic<int32_t>[]>(
      plannedEntries * static_cast<size_t>(segments));
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

void HostBackend::beginStep(const BackendStep &step) {
  KVRM_CHECK(batches == 0, "one step at a time");
  bool isMixed = step.entry == StepEntry::Mixed;
  KVRM_CHECK(step.descriptors.size() == (isMixed ? plannedEntries : 1),
             "every batch of a step is planned");
  for (StepDescriptor *descriptor : step.descriptors) {
    auto index = static_cast<size_t>(batches);
    KVRM_CHECK(descriptor, "a batch has a descriptor");
    perBatch[index] = {
        .descriptor = descriptor,
        .entry =
            &bounds.entries[isMixed ? index : static_cast<size_t>(step.entry)],
        .remaining = &remaining[index * static_cast<size_t>(segments)]};
    ++batches;
  }
  last = BackendStats();
  isCommitted = false;
  violation = nullptr;
  collectives = Status::ok();
  for (Worker &worker : perWorker)
    worker.copies = worker.bytes = 0;
}

/// Sums up what the workers did, and says whether the code kept the protocol.
Status HostBackend::endStep() {
  for (const Worker &worker : perWorker) {
    last.stageCopies += worker.copies;
    last.stageBytes += worker.bytes;
  }
  if (!violation && !isCommitted)
    violation = "a step without commit()";
  for (const Batch &batch :
       std::span(perBatch).first(static_cast<size_t>(batches))) {
    if (violation)
      break;
    if (!batch.isStaged)
      violation = "a step without stage()";
    else if (batch.appends != bounds.layers || batch.attends != bounds.layers)
      violation = "not one append() and one attend() a layer";
  }
  batches = 0;
  KVRM_TRY(collectives);
  if (violation)
    return makeError(StatusCode::Internal, "compiled step: ", violation);
  return Status::ok();
}

Status HostBackend::runStep(const BackendStep &step, BackendStats &stats) {
  kvrm_step_fn fn = step.entry == StepEntry::Mixed
                        ? bounds.mixed
                        : bounds.entries[static_cast<size_t>(step.entry)].fn;
  KVRM_CHECK(fn, "a step has code");
  beginStep(step);
  kvrm_step_args args{};
  args.api = &hostApi;
  args.session = this;
  args.weights = bounds.weights;
  args.arena = arena.data();
  for (size_t i = 0; i < step.descriptors.size(); ++i) {
    args.descriptors[i] = step.descriptors[i]->committed();
    args.tokens[i] = step.descriptors[i]->committedTokens().data();
  }
  args.logits = step.logits;
  fn(&args);
  KVRM_TRY(endStep());
  stats = last;
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Host API
//===----------------------------------------------------------------------===//

/// The batch that a call is for; null, and a violation, if it may not be made.
HostBackend::Batch *HostBackend::batchOf(int32_t index, const char *what) {
  if (batches == 0 || !isCommitted) {
    violate(what);
    return nullptr;
  }
  if (index < 0 || index >= batches) {
    violate("a call for a batch that the step has not");
    return nullptr;
  }
  return &perBatch[static_cast<size_t>(index)];
}

void HostBackend::commit() {
  if (batches == 0)
    return violate("commit() outside a step");
  if (isCommitted)
    return violate("commit() twice in a step");
  Stopwatch watch;
  isCommitted = true;
  for (Batch &batch : std::span(perBatch).first(static_cast<size_t>(batches)))
    commitBatch(batch);
  last.commitNanoseconds = watch.nanoseconds();
}

void HostBackend::commitBatch(Batch &batch) {
  last.committedBytes += batch.descriptor->commit();
  std::span<const kvrm_merge_segment> merges =
      batch.descriptor->committedSegments();
  KVRM_CHECK(static_cast<int64_t>(merges.size()) <= segments,
             "segments fit the backend");
  for (size_t i = 0; i < merges.size(); ++i)
    batch.remaining[i].store(merges[i].partials, std::memory_order_relaxed);
  int64_t queryRows =
      int64_t(batch.entry->plan.qTile) * (bounds.heads / bounds.kvHeads);
  int64_t floats = int64_t(batch.descriptor->committedHeader().partials) *
                   kvrm_partial_floats(queryRows, bounds.headDim);
  KVRM_CHECK(floats <= partialFloats, "partials fit the backend");
}

void HostBackend::stage(int32_t index, int32_t transport) {
  Batch *batch = batchOf(index, "stage() before commit()");
  if (!batch)
    return;
  if (batch->isStaged)
    violate("stage() twice in a step");
  if (transport != batch->entry->transport)
    violate("stage() of another transport than the manifest's");
  batch->isStaged = true;
}

kvrm_kernel_args HostBackend::argsOf(const Batch &batch, int32_t layer) const {
  kvrm_kernel_args args{};
  args.descriptor = batch.descriptor->committed();
  uint8_t *base = kv.data() + int64_t(layer) * 2 * bounds.kvHeads * headStride;
  args.k_pool = base;
  args.v_pool = base + bounds.kvHeads * headStride;
  args.head_stride = headStride;
  args.partials = reinterpret_cast<float *>(partials.data());
  return args;
}

void HostBackend::append(int32_t index, int32_t layer,
                         kvrm_append_kernel kernel, const float *k,
                         const float *v) {
  Batch *batch = batchOf(index, "append() before commit()");
  if (!batch)
    return;
  if (layer < 0 || layer >= bounds.layers || !kernel || !k || !v) {
    violate("append() with a bad argument");
    return;
  }
  ++batch->appends;
  kvrm_kernel_args args = argsOf(*batch, layer);
  args.k = k;
  args.v = v;
  kernel(&args);
}

/// After one that failed none is tried: the ranks would no more meet in the
/// same ones.
void HostBackend::meet(Collective collective, const float *in, float *out,
                       int64_t count) {
  if (batches == 0 || !bounds.group || !in || !out || count < 1)
    return violate("a collective with a bad argument, or without ranks");
  if (collectives.isOk())
    collectives =
        (bounds.group.get()->*collective)(bounds.rank, in, out, count);
}

void HostBackend::attend(int32_t index, int32_t layer,
                         kvrm_attention_kernel kernel, const float *q,
                         float *out) {
  Batch *batch = batchOf(index, "attend() before commit()");
  if (!batch)
    return;
  if (layer < 0 || layer >= bounds.layers || !kernel || !q || !out) {
    violate("attend() with a bad argument");
    return;
  }
  if (!batch->isStaged) {
    violate("attend() before stage()");
    return;
  }
  Stopwatch watch;
  ++batch->attends;
  attending = batch;
  attendArgs = argsOf(*batch, layer);
  attendArgs.q = q;
  attendArgs.out = out;
  if (batch->entry->transport == KVRM_TRANSPORT_STAGED)
    attendArgs.stage_tile = stageTile;
  attendKernel = kernel;
  std::span<const kvrm_share> planned = batch->descriptor->committedShares();
  KVRM_CHECK(static_cast<int64_t>(planned.size()) <= bounds.shares,
             "shares fit the backend");
  for (size_t i = 0; i < planned.size(); ++i) {
    shares[i].next.store(planned[i].item_begin, std::memory_order_relaxed);
    shares[i].end = planned[i].item_end;
  }
  // A single item gains nothing from a fork.
  if (batch->descriptor->committedHeader().items <= 1)
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
  int32_t count = attending->descriptor->limits().max_shares;
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
      attending->descriptor->committedItems()[static_cast<size_t>(index)];
  attendKernel(&args, &item, worker.scratch,
               args.stage_tile ? worker.stage : nullptr);
  if (item.segment < 0)
    return;
  // The last to finish sees what the others wrote.
  auto segmentIndex = static_cast<size_t>(item.segment);
  std::atomic<int32_t> &left = attending->remaining[segmentIndex];
  if (left.fetch_sub(1, std::memory_order_acq_rel) != 1)
    return;
  const kvrm_merge_segment &segment =
      attending->descriptor->committedSegments()[segmentIndex];
  mergeSegment(segment);
  // Ready for the next layer; the join orders it before.
  left.store(segment.partials, std::memory_order_relaxed);
}

void HostBackend::mergeSegment(const kvrm_merge_segment &segment) {
  const PlanShape &shape = attending->entry->plan;
  const kvrm_row &row =
      attending->descriptor->committedRows()[static_cast<size_t>(segment.row)];
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
  const PlanShape &shape = attending->entry->plan;
  const kvrm_row &row =
      attending->descriptor->committedRows()[static_cast<size_t>(item.row)];
  std::span<const int32_t> table =
      attending->descriptor->committedTable(item.row);
  int32_t tilePages = shape.kvTile / shape.pageTokens;
  KVRM_CHECK(tilePages > 0, "a staged tile is whole pages");
  int32_t first = tile * tilePages;
  int32_t end =
      std::min(first + tilePages,
               (row.length + shape.pageTokens - 1) / shape.pageTokens);
  kvrm_stage_layout layout = kvrm_stage_layout_of(
      shape.kvTile, shape.pageTokens, bounds.headDim, bounds.element);
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
