//===- AttentionGraph.h - A graph that only attends -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_ATTENTIONGRAPH_H
#define KVRM_TOOLS_KVRMC_ATTENTIONGRAPH_H

#include "Compiler.h"

namespace kvrmc {

/// One head shape and its pages.
struct AttentionShape {
  int64_t heads = 32;
  int64_t kvHeads = 8;
  int64_t headDim = 128;
  int64_t pageTokens = 16;
  int64_t queries = 1;           ///< query tokens of a slot and step
  kvrm_element cache = KVRM_F16; ///< of the pool
  kvrm_element io = KVRM_F16;    ///< of queries, new keys and values, outputs
};

/// One layer of that shape which appends and attends, as a model without
/// logits. Errors name the option that is out of range.
llvm::Expected<Source> attentionSource(const AttentionShape &shape);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_ATTENTIONGRAPH_H
