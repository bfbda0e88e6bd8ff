//===- FileError.h - Errors of a file that is read --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_FILEERROR_H
#define KVRM_FRONTEND_FILEERROR_H

#include "kvrm/runtime/support/OneLine.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/Error.h"

namespace kvrm {

/// What is to be said of a file: one line, whatever of it `message` repeats.
inline std::string fileLine(llvm::StringRef file, const llvm::Twine &message) {
  return oneLine((file + ": " + message).str());
}

/// An error of a file.
inline llvm::Error fileError(llvm::StringRef file, const llvm::Twine &message) {
  return llvm::createStringError(fileLine(file, message));
}

} // namespace kvrm

#endif // KVRM_FRONTEND_FILEERROR_H
