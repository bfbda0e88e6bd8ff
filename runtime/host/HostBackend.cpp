//===- HostBackend.cpp - The CPU backend ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/host/HostBackend.h"

#include <chrono>
#include <cmath>
#include <cstring>

using namespace kvrm;

static int64_t nanosecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now() - start)
      .count();
}

void kvrm::mergePartials(const float *partials, int32_t count,
                         int32_t queryRows, int32_t headDim, int32_t rows,
                         float *out, int64_t tokenStride, int32_t group) {
  KVRM_CHECK(count > 0 && rows >= 0 && rows <= queryRows && group > 0,
             "a merge has partials and rows");
  int64_t stride = kvrm_partial_floats(queryRows, headDim);
  for (int32_t r = 0; r < rows; ++r) {
    float *target =
        out + (r / group) * tokenStride + int64_t(r % group) * headDim;
    float most = partials[r];
    for (int32_t p = 1; p < count; ++p)
      most = std::max(most, partials[p * stride + r]);
    float sum = 0;
    for (int32_t p = 0; p < count; ++p)
      sum += std::exp2(partials[p * stride + r] - most) *
             partials[p * stride + queryRows + r];
    float scale = sum > 0 ? 1 / sum : 0;
    std::fill(target, target + headDim, 0.0f);
    for (int32_t p = 0; p < count; ++p) {
      float weight = std::exp2(partials[p * stride + r] - most) * scale;
      const float *acc =
          partials + p * stride + 2 * queryRows + int64_t(r) * headDim;
      for (int32_t d = 0; d < headDim; ++d)
        target[d] += weight * acc[d];
    }
  }
}

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

Expected<std::unique_ptr<HostBackend>>
HostBackend::create(const HostShape &shape) {
  std::unique_ptr<HostBackend> backend(new HostBackend());
  Expected<std::unique_ptr<ThreadPool>> pool =
      ThreadPool::create(shape.threads);
  KVRM_TRY(pool.status());
  backend->pool = pool.take();
  backend->bounds = shape;
  int32_t workers = backend->workers();
  backend->perWorker.resize(static_cast<size_t>(workers));

  int32_t shares = shape.shares > 0 ? shape.shares : workers;
  backend->shares = std::make_unique<Share[]>(static_cast<size_t>(shares));
  backend->bounds.shares = shares;

  backend->pageBytes = int64_t(shape.pageTokens) * shape.headDim * 2;
  backend->headStride = backend->pageBytes * shape.pages;
  Expected<AlignedBuffer> kv = AlignedBuffer::create(
      backend->headStride * shape.kvHeads * 2 * shape.layers, "KV pool");
  KVRM_TRY(kv.status());
  backend->kv = kv.take();
  backend->parkingStride = backend->pageBytes * shape.parkingPages;
  Expected<AlignedBuffer> parking = AlignedBuffer::create(
      backend->parkingStride * shape.kvHeads * 2 * shape.layers,
      "parking memory");
  KVRM_TRY(parking.status());
  backend->parking = parking.take();

  // Whole cache lines, and whole pages between workers.
  auto roundUp = [](int64_t bytes) { return (bytes + 4095) / 4096 * 4096; };
  int64_t scratchBytes = roundUp(shape.scratchBytes);
  int64_t stageBytes = roundUp(shape.stageBytes);
  Expected<AlignedBuffer> scratch = AlignedBuffer::create(
      (scratchBytes + stageBytes) * workers, "worker scratch");
  KVRM_TRY(scratch.status());
  backend->scratch = scratch.take();
  for (int32_t i = 0; i < workers; ++i) {
    Worker &worker = backend->perWorker[static_cast<size_t>(i)];
    uint8_t *start = backend->scratch.data() + i * (scratchBytes + stageBytes);
    worker.backend = backend.get();
    worker.scratch =
        scratchBytes > 0 ? reinterpret_cast<float *>(start) : nullptr;
    worker.stage = stageBytes > 0 ? start + scratchBytes : nullptr;
  }

  Expected<AlignedBuffer> partials = AlignedBuffer::create(
      shape.partialFloats * int64_t(sizeof(float)), "partials");
  KVRM_TRY(partials.status());
  backend->partials = partials.take();
  backend->remaining = std::make_unique<std::atomic<int32_t>[]>(
      static_cast<size_t>(shape.segments));
  return backend;
}

void HostBackend::copyPage(const PageCopy &copy) {
  KVRM_CHECK(copy.source >= 0 && copy.source < bounds.pages &&
                 copy.target >= 0 && copy.target < bounds.pages &&
                 copy.source != copy.target,
             "pages lie in the pool");
  int64_t heads = int64_t(bounds.layers) * 2 * bounds.kvHeads;
  for (int64_t head = 0; head < heads; ++head) {
    uint8_t *base = kv.data() + head * headStride;
    std::memcpy(base + copy.target * pageBytes, base + copy.source * pageBytes,
                static_cast<size_t>(pageBytes));
  }
}

void HostBackend::movePages(const ParkedRun &run, bool parks) {
  KVRM_CHECK(run.pages > 0 && run.poolPage >= 0 && run.parkingPage >= 0 &&
                 run.poolPage + run.pages <= bounds.pages &&
                 run.parkingPage + run.pages <= bounds.parkingPages,
             "the run lies in the pool and in parking memory");
  int64_t heads = int64_t(bounds.layers) * 2 * bounds.kvHeads;
  auto bytes = static_cast<size_t>(run.pages * pageBytes);
  for (int64_t head = 0; head < heads; ++head) {
    uint8_t *here = kv.data() + head * headStride + run.poolPage * pageBytes;
    uint8_t *there =
        parking.data() + head * parkingStride + run.parkingPage * pageBytes;
    std::memcpy(parks ? there : here, parks ? here : there, bytes);
  }
}

Status HostBackend::runStep(const HostStep &step) {
  KVRM_CHECK(!current, "one step at a time");
  KVRM_CHECK(step.fn, "a step has code");
  KVRM_CHECK(!step.descriptor || (step.planner && kv.data()),
             "a paged step has a plan and a pool");
  last = HostStepStats();
  isCommitted = isStaged = false;
  appends = attends = 0;
  violation = nullptr;
  for (Worker &worker : perWorker)
    worker.copies = worker.bytes = 0;
  current = &step;
  kvrm_step_args args = step.args;
  args.api = &hostApi;
  args.session = this;
  step.fn(&args);
  current = nullptr;

  for (const Worker &worker : perWorker) {
    last.stageCopies += worker.copies;
    last.stageBytes += worker.bytes;
  }
  if (!violation && step.descriptor) {
    if (!isCommitted)
      violation = "a step without commit()";
    else if (!isStaged)
      violation = "a step without stage()";
    else if (appends != bounds.layers || attends != bounds.layers)
      violation = "not one append() and one attend() a layer";
  }
  if (violation)
    return makeError(StatusCode::Internal, "compiled step: ", violation);
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Host API
//===----------------------------------------------------------------------===//

bool HostBackend::inPagedStep(const char *what) {
  if (!current || !current->descriptor || !isCommitted) {
    violate(what);
    return false;
  }
  return true;
}

const uint8_t *HostBackend::commit() {
  if (!current || !current->descriptor) {
    violate("commit() in a static step");
    return nullptr;
  }
  StepDescriptor &descriptor = *current->descriptor;
  if (isCommitted) {
    violate("commit() twice in a step");
    return descriptor.committed();
  }
  auto start = std::chrono::steady_clock::now();
  isCommitted = true;
  last.committedBytes = descriptor.commit();
  std::span<const kvrm_merge_segment> segments = descriptor.committedSegments();
  KVRM_CHECK(static_cast<int64_t>(segments.size()) <= bounds.segments,
             "segments fit the backend");
  for (size_t i = 0; i < segments.size(); ++i)
    remaining[i].store(segments[i].partials, std::memory_order_relaxed);
  const PlanShape &shape = current->planner->shape();
  int64_t floats = int64_t(descriptor.committedHeader().partials) *
                   kvrm_partial_floats(int64_t(shape.qTile) *
                                           (bounds.heads / bounds.kvHeads),
                                       bounds.headDim);
  KVRM_CHECK(floats <= bounds.partialFloats, "partials fit the backend");
  last.commitNanoseconds = nanosecondsSince(start);
  return descriptor.committed();
}

void HostBackend::stage(int32_t transport) {
  if (!inPagedStep("stage() before commit()"))
    return;
  if (isStaged)
    violate("stage() twice in a step");
  if (transport != current->transport)
    violate("stage() of another transport than the manifest's");
  isStaged = true;
}

kvrm_kernel_args HostBackend::argsOf(int32_t layer) const {
  kvrm_kernel_args args{};
  args.descriptor = current->descriptor->committed();
  uint8_t *base = kv.data() + int64_t(layer) * 2 * bounds.kvHeads * headStride;
  args.k_pool = base;
  args.v_pool = base + bounds.kvHeads * headStride;
  args.head_stride = headStride;
  args.partials = reinterpret_cast<float *>(partials.data());
  return args;
}

void HostBackend::append(int32_t layer, kvrm_append_kernel kernel,
                         const float *k, const float *v) {
  if (!inPagedStep("append() before commit()"))
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
  if (!inPagedStep("attend() before commit()"))
    return;
  if (layer < 0 || layer >= bounds.layers || !kernel || !q || !out) {
    violate("attend() with a bad argument");
    return;
  }
  if (!isStaged) {
    violate("attend() before stage()");
    return;
  }
  auto start = std::chrono::steady_clock::now();
  ++attends;
  attendArgs = argsOf(layer);
  attendArgs.q = q;
  attendArgs.out = out;
  if (current->transport == KVRM_TRANSPORT_STAGED)
    attendArgs.stage_tile = stageTile;
  attendKernel = kernel;
  std::span<const kvrm_share> planned = current->descriptor->committedShares();
  KVRM_CHECK(static_cast<int64_t>(planned.size()) <= bounds.shares,
             "shares fit the backend");
  for (size_t i = 0; i < planned.size(); ++i) {
    shares[i].next.store(planned[i].item_begin, std::memory_order_relaxed);
    shares[i].end = planned[i].item_end;
  }
  // A single item gains nothing from a fork.
  if (current->descriptor->committedHeader().items <= 1)
    attendOn(perWorker[0], 0);
  else
    pool->run(
        [](void *context, int32_t worker) {
          HostBackend &backend = *static_cast<HostBackend *>(context);
          backend.attendOn(backend.perWorker[static_cast<size_t>(worker)],
                           worker);
        },
        this);
  last.attendNanoseconds += nanosecondsSince(start);
}

void HostBackend::attendOn(Worker &worker, int32_t index) {
  kvrm_kernel_args args = attendArgs;
  args.context = &worker;
  int32_t count = current->descriptor->limits().max_shares;
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
  const StepDescriptor &descriptor = *current->descriptor;
  const kvrm_work_item &item =
      descriptor.committedItems()[static_cast<size_t>(index)];
  attendKernel(&args, &item, worker.scratch,
               args.stage_tile ? worker.stage : nullptr);
  if (item.segment < 0)
    return;
  // The last to finish sees what the others wrote.
  auto segmentIndex = static_cast<size_t>(item.segment);
  if (remaining[segmentIndex].fetch_sub(1, std::memory_order_acq_rel) != 1)
    return;
  const kvrm_merge_segment &segment =
      descriptor.committedSegments()[segmentIndex];
  mergeSegment(segment);
  // Ready for the next layer; the join orders it before.
  remaining[segmentIndex].store(segment.partials, std::memory_order_relaxed);
}

void HostBackend::mergeSegment(const kvrm_merge_segment &segment) {
  const PlanShape &shape = current->planner->shape();
  const kvrm_row &row =
      current->descriptor->committedRows()[static_cast<size_t>(segment.row)];
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
  const PlanShape &shape = current->planner->shape();
  const kvrm_row &row =
      current->descriptor->committedRows()[static_cast<size_t>(item.row)];
  std::span<const int32_t> table =
      current->descriptor->committedTable(item.row);
  int32_t tilePages = shape.kvTile / shape.pageTokens;
  KVRM_CHECK(tilePages > 0, "a staged tile is whole pages");
  int32_t first = tile * tilePages;
  int32_t end =
      std::min(first + tilePages,
               (row.length + shape.pageTokens - 1) / shape.pageTokens);
  int64_t area = int64_t(shape.kvTile) * bounds.headDim * 2;
  for (int which = 0; which < 2; ++which) {
    const uint8_t *pages = (which == 0 ? args.k_pool : args.v_pool) +
                           int64_t(item.kv_head) * args.head_stride;
    // The part of a transfer group that lies in the tile is a run of adjacent
    // entries of the table.
    for (int32_t p = first; p < end;) {
      int32_t physical = table[static_cast<size_t>(p)];
      KVRM_CHECK(physical >= 0 && physical < bounds.pages, "page in the pool");
      int32_t run = 1;
      while (p + run < end &&
             table[static_cast<size_t>(int64_t(p) + run)] == physical + run)
        ++run;
      std::memcpy(stage + which * area + (p - first) * pageBytes,
                  pages + physical * pageBytes,
                  static_cast<size_t>(run * pageBytes));
      ++worker.copies;
      worker.bytes += run * pageBytes;
      p += run;
    }
  }
}
