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
static void eachChunk(size_t bytes, int64_t rowBytes, Move move) {
  auto tokens = static_cast<int64_t>(bytes) / rowBytes;
  int64_t chunks = rowBytes / KVRM_CHUNK_BYTES;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < chunks; ++c)
      move(t * rowBytes + c * KVRM_CHUNK_BYTES,
           t * rowBytes +
               kvrm_swizzled_chunk(rowBytes, t, c) * KVRM_CHUNK_BYTES);
}

static void checkPage(size_t rows, size_t page, int32_t headDim) {
  KVRM_CHECK(rows == page, "a page holds its rows");
  KVRM_CHECK(kvrm_head_shape_of(headDim) &&
                 rows % static_cast<size_t>(headDim) == 0,
             "a page is whole tokens of a device's head dimension");
}

template <typename Element>
static void pack(std::span<const Element> rows, int32_t headDim,
                 std::span<Element> page) {
  checkPage(rows.size(), page.size(), headDim);
  const auto *from = reinterpret_cast<const uint8_t *>(rows.data());
  auto *to = reinterpret_cast<uint8_t *>(page.data());
  eachChunk(rows.size_bytes(), headDim * int64_t(sizeof(Element)),
            [&](int64_t row, int64_t at) {
              std::memcpy(to + at, from + row, KVRM_CHUNK_BYTES);
            });
}

template <typename Element>
static void unpack(std::span<const Element> page, int32_t headDim,
                   std::span<Element> rows) {
  checkPage(rows.size(), page.size(), headDim);
  const auto *from = reinterpret_cast<const uint8_t *>(page.data());
  auto *to = reinterpret_cast<uint8_t *>(rows.data());
  eachChunk(rows.size_bytes(), headDim * int64_t(sizeof(Element)),
            [&](int64_t row, int64_t at) {
              std::memcpy(to + row, from + at, KVRM_CHUNK_BYTES);
            });
}

void kvrm::packPage(std::span<const uint16_t> rows, int32_t headDim,
                    std::span<uint16_t> page) {
  pack(rows, headDim, page);
}

void kvrm::packPage(std::span<const uint8_t> rows, int32_t headDim,
                    std::span<uint8_t> page) {
  pack(rows, headDim, page);
}

void kvrm::unpackPage(std::span<const uint16_t> page, int32_t headDim,
                      std::span<uint16_t> rows) {
  unpack(page, headDim, rows);
}

void kvrm::unpackPage(std::span<const uint8_t> page, int32_t headDim,
                      std::span<uint8_t> rows) {
  unpack(page, headDim, rows);
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

template <typename Element>
Status CudaPool::importElements(const CudaStream &stream, const CudaPage &where,
                                std::span<const Element> rows) {
  KVRM_CHECK(static_cast<int64_t>(rows.size_bytes()) == bounds.pageBytes(),
             "rows have the pool's elements");
  DeviceSpan target = page(where);
  KVRM_TRY(takeScratch(stream));
  packPage(rows, bounds.headDim,
           {reinterpret_cast<Element *>(scratch.data()), rows.size()});
  KVRM_TRY(stream.copyIn(target, scratch.data()));
  KVRM_TRY(stream.synchronize());
  isScratchBusy = false;
  return Status::ok();
}

template <typename Element>
Status CudaPool::exportElements(const CudaStream &stream, const CudaPage &where,
                                std::span<Element> rows) {
  KVRM_CHECK(static_cast<int64_t>(rows.size_bytes()) == bounds.pageBytes(),
             "rows have the pool's elements");
  KVRM_TRY(takeScratch(stream));
  KVRM_TRY(stream.copyOut(scratch.data(), page(where)));
  KVRM_TRY(stream.synchronize());
  isScratchBusy = false;
  unpackPage({reinterpret_cast<const Element *>(scratch.data()), rows.size()},
             bounds.headDim, rows);
  return Status::ok();
}

Status CudaPool::importPage(const CudaStream &stream, const CudaPage &where,
                            std::span<const uint16_t> rows) {
  return importElements(stream, where, rows);
}

Status CudaPool::importPage(const CudaStream &stream, const CudaPage &where,
                            std::span<const uint8_t> rows) {
  return importElements(stream, where, rows);
}

Status CudaPool::exportPage(const CudaStream &stream, const CudaPage &where,
                            std::span<uint16_t> rows) {
  return exportElements(stream, where, rows);
}

Status CudaPool::exportPage(const CudaStream &stream, const CudaPage &where,
                            std::span<uint8_t> rows) {
  return exportElements(stream, where, rows);
}
