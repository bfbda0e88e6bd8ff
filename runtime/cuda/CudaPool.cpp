//===- CudaPool.cpp - The KV pool of a GPU --------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaPool.h"

#include "kvrm/runtime/abi/pool.h"

#include <cstring>

using namespace kvrm;

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

/// Calls `move(row, page)` with the byte offsets of each chunk on both sides.
template <typename Move>
static void eachChunk(const PoolShape &shape, Move move) {
  int64_t rowBytes = shape.headDim * kvrm_element_bytes(shape.element);
  int64_t chunks = rowBytes / KVRM_CHUNK_BYTES;
  for (int64_t t = 0; t < shape.pageTokens; ++t)
    for (int64_t c = 0; c < chunks; ++c)
      move(t * rowBytes + c * KVRM_CHUNK_BYTES,
           t * rowBytes +
               kvrm_swizzled_chunk(rowBytes, t, c) * KVRM_CHUNK_BYTES);
  // Scales are in the order of tokens on both sides.
  kvrm_page_layout layout = shape.pageLayout();
  for (int64_t at = layout.scales; at < layout.bytes; at += KVRM_CHUNK_BYTES)
    move(at, at);
}

static void checkPage(const PoolShape &shape, size_t rows, size_t page) {
  KVRM_CHECK(kvrm_head_shape_of(shape.headDim), "a device's head dimension");
  KVRM_CHECK(static_cast<int64_t>(rows) == shape.pageBytes() && rows == page,
             "a page holds its rows");
}

void kvrm::packPage(const PoolShape &shape, std::span<const uint8_t> rows,
                    std::span<uint8_t> page) {
  checkPage(shape, rows.size(), page.size());
  eachChunk(shape, [&](int64_t row, int64_t at) {
    std::memcpy(page.data() + at, rows.data() + row, KVRM_CHUNK_BYTES);
  });
}

void kvrm::unpackPage(const PoolShape &shape, std::span<const uint8_t> page,
                      std::span<uint8_t> rows) {
  checkPage(shape, rows.size(), page.size());
  eachChunk(shape, [&](int64_t row, int64_t at) {
    std::memcpy(rows.data() + row, page.data() + at, KVRM_CHUNK_BYTES);
  });
}

//===----------------------------------------------------------------------===//
// CudaPool
//===----------------------------------------------------------------------===//

Expected<CudaPool> CudaPool::create(std::shared_ptr<const CudaDevice> device,
                                    const PoolShape &shape) {
  CudaPool pool;
  pool.bounds = shape;
  Expected<PinnedBuffer> scratch =
      PinnedBuffer::create(device, shape.pageBytes(), "page import");
  KVRM_TRY(scratch.status());
  pool.scratch = scratch.take();
  Expected<DeviceBuffer> memory = DeviceBuffer::create(
      std::move(device), 2 * shape.sideBytes() * shape.layers, "KV pool");
  KVRM_TRY(memory.status());
  pool.memory = memory.take();
  return pool;
}

DeviceSpan CudaPool::page(const CudaPage &where) const {
  KVRM_CHECK(where.layer >= 0 && where.layer < bounds.layers &&
                 where.head >= 0 && where.head < bounds.kvHeads &&
                 where.page >= 0 && where.page < bounds.pages,
             "a page of the pool");
  int64_t row =
      (int64_t(where.layer) * 2 + where.isValue) * bounds.kvHeads + where.head;
  return memory.span().part(row * bounds.headStride() +
                                where.page * bounds.pageBytes(),
                            bounds.pageBytes());
}

Status CudaPool::copyPage(const CudaStream &stream,
                          const PageCopy &copy) const {
  KVRM_CHECK(copy.source >= 0 && copy.source < bounds.pages &&
                 copy.target >= 0 && copy.target < bounds.pages &&
                 copy.source != copy.target,
             "pages lie in the pool");
  auto addressOf = [&](int32_t page) {
    return memory.address() + static_cast<uint64_t>(page * bounds.pageBytes());
  };
  return stream.copyRuns(addressOf(copy.target), addressOf(copy.source),
                         {.toPitch = bounds.headStride(),
                          .fromPitch = bounds.headStride(),
                          .width = bounds.pageBytes(),
                          .height = bounds.pageRuns()});
}

/// Waits for a copy that failed to be waited for.
Status CudaPool::takeScratch(const CudaStream &stream) {
  if (isScratchBusy)
    KVRM_TRY(stream.synchronize());
  isScratchBusy = true;
  return Status::ok();
}

Status CudaPool::importPage(const CudaStream &stream, const CudaPage &where,
                            std::span<const uint8_t> rows) {
  DeviceSpan target = page(where);
  KVRM_TRY(takeScratch(stream));
  packPage(bounds, rows, {scratch.data(), rows.size()});
  KVRM_TRY(stream.copyIn(target, scratch.data()));
  KVRM_TRY(stream.synchronize());
  isScratchBusy = false;
  return Status::ok();
}

Status CudaPool::exportPage(const CudaStream &stream, const CudaPage &where,
                            std::span<uint8_t> rows) {
  KVRM_TRY(takeScratch(stream));
  KVRM_TRY(stream.copyOut(scratch.data(), page(where)));
  KVRM_TRY(stream.synchronize());
  isScratchBusy = false;
  unpackPage(bounds, {scratch.data(), rows.size()}, rows);
  return Status::ok();
}
