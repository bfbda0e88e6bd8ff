//===- Memory.cpp - Page-aligned memory taken once --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/Memory.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

using namespace kvrm;

void kvrm::detail::checkFailed(const char *condition, const char *message,
                               const char *file, int line) {
  std::fprintf(stderr, "kvrm: internal error: %s (%s) at %s:%d\n", message,
               condition, file, line);
  std::abort();
}

static constexpr int64_t smallPage = 4096;
static constexpr int64_t hugePage = 2 << 20;

AlignedBuffer::~AlignedBuffer() {
  if (mapping)
    munmap(mapping, static_cast<size_t>(mappedBytes));
}

Expected<AlignedBuffer> AlignedBuffer::create(int64_t bytes,
                                              const char *purpose) {
  KVRM_CHECK(bytes >= 0, "a size is not negative");
  AlignedBuffer buffer;
  if (bytes == 0)
    return buffer;
  constexpr int64_t limit = int64_t(1) << 46;
  if (bytes > limit)
    return makeError(StatusCode::ResourceExhausted, purpose, ": ", bytes,
                     " bytes are more than the limit ", limit);
  int64_t alignment = bytes >= hugePage ? hugePage : smallPage;
  int64_t rounded = (bytes + alignment - 1) / alignment * alignment;
  int64_t mapped = alignment == hugePage ? rounded + hugePage : rounded;
  void *memory =
      mmap(nullptr, static_cast<size_t>(mapped), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return makeError(StatusCode::ResourceExhausted, purpose,
                     ": cannot allocate ", bytes, " bytes");
  auto address = reinterpret_cast<uintptr_t>(memory);
  uintptr_t aligned = (address + static_cast<uintptr_t>(alignment) - 1) /
                      static_cast<uintptr_t>(alignment) *
                      static_cast<uintptr_t>(alignment);
  buffer.mapping = memory;
  buffer.mappedBytes = mapped;
  buffer.start = static_cast<uint8_t *>(memory) + (aligned - address);
  buffer.bytes = bytes;
  // Advice only: without huge pages everything works, with more TLB misses.
  if (alignment == hugePage)
    (void)madvise(buffer.start, static_cast<size_t>(rounded), MADV_HUGEPAGE);
  return buffer;
}
