//===- version.h - The version of the contract --------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Any change of a struct, an enum or a meaning in this folder raises it. A
// package records the version it was compiled for and is refused on a mismatch.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_VERSION_H
#define KVRM_RUNTIME_ABI_VERSION_H

#define KVRM_ABI_VERSION 12

#endif // KVRM_RUNTIME_ABI_VERSION_H
