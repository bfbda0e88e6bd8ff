//===- Memory.h - Page-aligned memory taken once ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The runtime takes its memory at start-up, in a few large pieces: KV pool,
// weights, arena, descriptors. Each is one AlignedBuffer.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_MEMORY_H
#define KVRM_RUNTIME_SUPPORT_MEMORY_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <utility>

namespace kvrm {

/// Owns zeroed anonymous memory. From 2 MiB on it is aligned to 2 MiB and asks
/// for transparent huge pages, smaller ones are aligned to 4 KiB; both are more
/// than KVRM_ALIGNMENT. The kernel commits a page when it is first touched.
class AlignedBuffer {
public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer &&other) noexcept { swap(other); }
  AlignedBuffer &operator=(AlignedBuffer &&other) noexcept {
    swap(other);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer &) = delete;
  AlignedBuffer &operator=(const AlignedBuffer &) = delete;
  ~AlignedBuffer();

  /// `bytes` >= 0. Errors: ResourceExhausted, naming `purpose`.
  static Expected<AlignedBuffer> create(int64_t bytes, const char *purpose);

  /// Null when size() is 0.
  uint8_t *data() const { return start; }
  /// Bytes asked for.
  int64_t size() const { return bytes; }

private:
  void swap(AlignedBuffer &other) noexcept {
    std::swap(start, other.start);
    std::swap(bytes, other.bytes);
    std::swap(mapping, other.mapping);
    std::swap(mappedBytes, other.mappedBytes);
  }

  uint8_t *start = nullptr;
  int64_t bytes = 0;
  void *mapping = nullptr;
  int64_t mappedBytes = 0;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_MEMORY_H
