//===- Answer.h - How calls of the C API answer -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_ANSWER_H
#define KVRM_RUNTIME_SUPPORT_ANSWER_H

#include "kvrm/runtime/kvrm.h"
#include "kvrm/runtime/support/Status.h"

#include <exception>
#include <new>

namespace kvrm {

/// The status for the caller; of a failure, kvrm_last_error() has the message.
kvrm_status answer(StatusCode code, const char *message);
kvrm_status answer(const Status &status);
kvrm_status nullArgument(const char *name);

/// Runs `body`, which returns a Status, and lets no exception out.
template <typename Body> kvrm_status guarded(Body body) {
  try {
    return answer(body());
  } catch (const std::bad_alloc &) {
    return answer(StatusCode::ResourceExhausted, "out of memory");
  } catch (const std::exception &error) {
    return answer(StatusCode::Internal, error.what());
  } catch (...) {
    return answer(StatusCode::Internal, "unknown exception");
  }
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_ANSWER_H
