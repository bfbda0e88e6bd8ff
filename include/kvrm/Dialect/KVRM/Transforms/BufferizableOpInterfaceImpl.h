//===- BufferizableOpInterfaceImpl.h - Bufferization of kvrm ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H
#define KVRM_DIALECT_KVRM_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H

namespace mlir {
class DialectRegistry;

namespace kvrm {
/// Teaches one-shot bufferization the ops of a step in phase 3.
void registerBufferizableOpInterfaceExternalModels(DialectRegistry &registry);
} // namespace kvrm
} // namespace mlir

#endif // KVRM_DIALECT_KVRM_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H
