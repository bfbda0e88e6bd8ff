//===- TileReference.h - What a kernel computes, by its ops -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Takes the ops of a tile program as they stand, one after the other, for items
// of a few tiles, and tells whether they add up to attention: every tile once,
// in order, masked and with summaries where that is due, and stored once. It
// knows nothing of the form that the verifier asks for, so that a kernel which
// verifies and says something else is found.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FUZZ_TILEREFERENCE_H
#define KVRM_FUZZ_TILEREFERENCE_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

namespace fuzz {

/// Whether a kernel appends and nothing else, or attends as it should.
bool isAppendOrAttention(mlir::kvrm::KernelOp kernel);

} // namespace fuzz

#endif // KVRM_FUZZ_TILEREFERENCE_H
