//===- PackageText.h - What a package says of text --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_PACKAGETEXT_H
#define KVRM_TOOLS_RUN_PACKAGETEXT_H

#include "kvrm/runtime/package/Package.h"
#include "kvrm/text/Tokenizer.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace kvrm::run {

/// A package's tokenizer, or nothing if it has none. Errors: of
/// Tokenizer::load().
Expected<std::optional<Tokenizer>> loadTokenizer(const Package &package);

/// The tokens that end a text.
std::vector<int32_t> endsOfText(const Manifest &manifest,
                                const std::optional<Tokenizer> &tokenizer);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_PACKAGETEXT_H
