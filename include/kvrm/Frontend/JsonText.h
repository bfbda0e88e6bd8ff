//===- JsonText.h - JSON that comes from outside ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_JSONTEXT_H
#define KVRM_FRONTEND_JSONTEXT_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/JSON.h"

namespace kvrm {

/// The JSON object that `text` is. Fails, in one line that starts with
/// `origin`, on text that is none and on nesting of more than 64 levels, which
/// the parser would follow into the end of the stack.
llvm::Expected<llvm::json::Object> parseJsonObject(llvm::StringRef text,
                                                   llvm::StringRef origin);

/// The same of the file at `path`, of at most `limit` bytes.
llvm::Expected<llvm::json::Object> readJsonObject(llvm::StringRef path,
                                                  uint64_t limit = 256 << 20);

} // namespace kvrm

#endif // KVRM_FRONTEND_JSONTEXT_H
