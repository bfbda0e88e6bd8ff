//===- CheckRange.h - Refuse numbers out of range ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_CHECKRANGE_H
#define KVRM_FRONTEND_CHECKRANGE_H

#include "llvm/ADT/Twine.h"
#include "llvm/Support/Error.h"

#include <cstdint>

namespace kvrm {

/// Refuses a number outside `low`..`high`, in the words of the runtime's
/// checkRange(): "slots: 0 is outside 1..1024".
inline llvm::Error checkRange(const llvm::Twine &name, int64_t value,
                              int64_t low, int64_t high) {
  if (value >= low && value <= high)
    return llvm::Error::success();
  return llvm::createStringError(name + ": " + llvm::Twine(value) +
                                 " is outside " + llvm::Twine(low) + ".." +
                                 llvm::Twine(high));
}

} // namespace kvrm

#endif // KVRM_FRONTEND_CHECKRANGE_H
