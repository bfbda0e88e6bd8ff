//===- Check.h - Assertions that stay on ------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Assertions of the runtime. They are on in every build type: what they guard
// is somebody's KV. They state what the runtime promises itself; input from
// outside is never checked with them, but answered with a Status.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_CHECK_H
#define KVRM_RUNTIME_SUPPORT_CHECK_H

namespace kvrm::detail {
/// Prints one line and aborts. Out of line, so that a check is a compare and a
/// jump.
[[noreturn]] void checkFailed(const char *condition, const char *message,
                              const char *file, int line);
} // namespace kvrm::detail

#define KVRM_CHECK(condition, message)                                         \
  do {                                                                         \
    if (!(condition)) [[unlikely]]                                             \
      ::kvrm::detail::checkFailed(#condition, message, __FILE__, __LINE__);    \
  } while (false)

#endif // KVRM_RUNTIME_SUPPORT_CHECK_H
