//===- CommandOptions.h - What commands of kvrmc share ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_COMMANDOPTIONS_H
#define KVRM_TOOLS_KVRMC_COMMANDOPTIONS_H

#include "kvrm/runtime/abi/limits.h"

#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Error.h"

namespace kvrmc {

/// Of all options that --help shows.
llvm::cl::OptionCategory &category();

/// Whether the value of --`option` is bf16; fails if it is not f16 either.
llvm::Expected<bool> isBF16(llvm::StringRef option, llvm::StringRef value);

/// The element that --cache-type names.
llvm::Expected<kvrm_element> cacheElement(llvm::StringRef value);

/// What a package may not say is refused before it is compiled, which takes
/// longer the larger a tile is.
llvm::Error checkTile(int64_t tokens);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_COMMANDOPTIONS_H
