//===- InitAll.h - Register all dialects and passes of kvrm -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What every tool that reads kvrm IR calls first, and all that a plugin has to
// hand to its host.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_INITALL_H
#define KVRM_INITALL_H

namespace mlir {
class DialectRegistry;
} // namespace mlir

namespace mlir::kvrm {

/// Adds the kvrm dialect, and the interfaces it attaches to it, to `registry`.
void registerAllKVRMDialects(DialectRegistry &registry);

/// Registers the passes and pipelines of kvrm.
void registerAllKVRMPasses();

} // namespace mlir::kvrm

#endif // KVRM_INITALL_H
