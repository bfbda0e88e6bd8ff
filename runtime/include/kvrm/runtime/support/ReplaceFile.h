//===- ReplaceFile.h - Whole files or none ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_REPLACEFILE_H
#define KVRM_RUNTIME_SUPPORT_REPLACEFILE_H

#include "kvrm/runtime/support/Status.h"

#include <string>
#include <string_view>

namespace kvrm {

/// Writes `text` under a temporary name beside `path`, then moves it there.
/// Errors: IoError; then a file that was at `path` is as it was.
Status replaceFile(const std::string &path, std::string_view text);

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_REPLACEFILE_H
