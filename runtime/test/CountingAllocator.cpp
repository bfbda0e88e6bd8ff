//===- CountingAllocator.cpp - Counts what a test allocates -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Replaces the global operator new, in a file of its own: where a compiler sees
// both it into its callers, it takes malloc and delete for a mismatch.
//
//===----------------------------------------------------------------------===//

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

extern std::atomic<int64_t> allocations;
std::atomic<int64_t> allocations{0};

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define KVRM_HAS_MALLOC_HOOK
#endif
#endif

#ifdef KVRM_HAS_MALLOC_HOOK
// Clang's thread sanitizer has an operator new of its own that cannot be
// replaced, and tells of each allocation.
extern "C" void __sanitizer_malloc_hook(const volatile void *, size_t);
extern "C" void __sanitizer_malloc_hook(const volatile void *, size_t) {
  allocations.fetch_add(1, std::memory_order_relaxed);
}
#else
void *operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void *memory = std::malloc(bytes ? bytes : 1))
    return memory;
  throw std::bad_alloc();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
#endif
