//===- Lookup.h - Lookups in turn -------------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_LOOKUP_H
#define KVRM_FRONTEND_LOOKUP_H

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/Error.h"

#include <initializer_list>
#include <utility>

namespace kvrm {

/// Stores a lookup's value, or returns its error.
template <typename T, typename U>
llvm::Error assign(T &place, llvm::Expected<U> value) {
  if (!value)
    return value.takeError();
  place = T(std::move(*value));
  return llvm::Error::success();
}

/// Takes steps up to the first that fails, and returns its error.
inline llvm::Error
firstOf(std::initializer_list<llvm::function_ref<llvm::Error()>> steps) {
  for (llvm::function_ref<llvm::Error()> step : steps)
    if (llvm::Error error = step())
      return error;
  return llvm::Error::success();
}

} // namespace kvrm

#endif // KVRM_FRONTEND_LOOKUP_H
