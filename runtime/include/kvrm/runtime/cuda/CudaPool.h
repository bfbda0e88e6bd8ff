//===- CudaPool.h - The KV pool of a GPU ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// [layer][K or V][kv_head][page][page bytes] of device memory, as abi/pool.h
// says. What moves pages goes through a stream, in order with the steps on it.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDAPOOL_H
#define KVRM_RUNTIME_CUDA_CUDAPOOL_H

#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/package/Manifest.h"
#include "kvrm/runtime/paging/BlockPager.h"

#include <cstdint>
#include <memory>
#include <span>

namespace kvrm {

/// One page of one head in the pool.
struct CudaPage {
  int32_t layer = 0;
  bool isValue = false; ///< V, else K
  int32_t head = 0;     ///< KV head
  int32_t page = 0;     ///< physical
};

/// What fixes a pool for its life.
struct PoolShape {
  int32_t layers = 0;
  int32_t kvHeads = 0;
  int32_t headDim = 0;
  int32_t pageTokens = 0;
  int32_t pages = 0;
  kvrm_element element = KVRM_F16;

  kvrm_page_layout pageLayout() const {
    return kvrm_page_layout_of(pageTokens, headDim, element);
  }
  /// Bytes of one page of one head, K or V.
  int64_t pageBytes() const { return pageLayout().bytes; }
  /// Bytes from one KV head's pages to the next's.
  int64_t headStride() const { return pageBytes() * pages; }
  /// Bytes of K, or of V, of a layer.
  int64_t sideBytes() const { return headStride() * kvHeads; }
  /// Places that a page has: one a layer, K and V, and head, each a head's
  /// stride after the last.
  int64_t pageRuns() const { return int64_t(layers) * 2 * kvHeads; }
  /// Bytes of one page in all of them.
  int64_t allPageBytes() const { return pageBytes() * pageRuns(); }
};

/// The rows of a page, [page_tokens][head_dim] elements and behind them their
/// scales, if they have some, to the bytes of a page, whose chunks lie where
/// kvrm_swizzled_chunk says. Both are shape.pageBytes() long.
void packPage(const PoolShape &shape, std::span<const uint8_t> rows,
              std::span<uint8_t> page);
/// The way back.
void unpackPage(const PoolShape &shape, std::span<const uint8_t> page,
                std::span<uint8_t> rows);

class CudaPool {
public:
  CudaPool() = default;
  /// Errors: ResourceExhausted.
  static Expected<CudaPool> create(std::shared_ptr<const CudaDevice> device,
                                   const PoolShape &shape);

  const PoolShape &shape() const { return bounds; }
  DeviceSpan span() const { return memory.span(); }
  DeviceSpan page(const CudaPage &where) const;

  /// Starts a copy of a page in all layers, K and V, all heads.
  Status copyPage(const CudaStream &stream, const PageCopy &copy) const;
  /// Writes a page from rows as packPage() takes them, and reads one. Both wait
  /// for the stream.
  Status importPage(const CudaStream &stream, const CudaPage &where,
                    std::span<const uint8_t> rows);
  Status exportPage(const CudaStream &stream, const CudaPage &where,
                    std::span<uint8_t> rows);

private:
  Status takeScratch(const CudaStream &stream);

  PoolShape bounds;
  DeviceBuffer memory;
  PinnedBuffer scratch;       ///< a page
  bool isScratchBusy = false; ///< a copy may still use it
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDAPOOL_H
