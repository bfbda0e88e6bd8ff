//===- abi.h - What the compiler and the runtime share ----------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// All that both sides of kvrm include, a subject a header; include the ones
// that you need. The compiler takes every offset and size from them (offsetof,
// sizeof, kvrm_descriptor_layout_of), so that generated code and runtime cannot
// drift. Plain C11; no dependency.
//
// Words used throughout:
//   slot     a fixed place for one request in the decode batch
//   row      one line of one step: decode has a row per slot, prefill has one
//   page     page_tokens consecutive tokens of one request, all layers
//   tile     kv_tile consecutive tokens that a kernel attends to at once
//   place    where a token stands in its row's block table: token t of table
//            entry p is at place p * page_tokens + t
//   summary  one KV entry that stands for several tokens of the far history
//   partial  the softmax state (m, l, acc) of one work item, not yet merged
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_H
#define KVRM_RUNTIME_ABI_H

#include "kvrm/runtime/abi/descriptor.h"
#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/abi/host.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/model.h"
#include "kvrm/runtime/abi/partial.h"
#include "kvrm/runtime/abi/pool.h"
#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/abi/sampling.h"
#include "kvrm/runtime/abi/version.h"

#endif // KVRM_RUNTIME_ABI_H
