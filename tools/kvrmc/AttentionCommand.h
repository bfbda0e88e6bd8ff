//===- AttentionCommand.h - kvrmc attention --------------------*- C++ -* -===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_ATTENTIONCOMMAND_H
#define KVRM_TOOLS_KVRMC_ATTENTIONCOMMAND_H

#include "llvm/Support/Error.h"

namespace kvrmc {

/// Whether the command line asks for attention kernels alone.
bool isAttentionCommand();

/// Compiles them, as its options say.
llvm::Error runAttention();

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_ATTENTIONCOMMAND_H
