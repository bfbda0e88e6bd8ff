//===- LLVMStatistics.h - Included before all else --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Assertions are on here, and off in the LLVM that distributions build. The one
// thing in LLVM's headers whose layout follows NDEBUG is llvm::Statistic, which
// MLIR's passes hold: its constructor, in libMLIR, would fill one byte of the
// forty that a pass here reads. This makes it what libMLIR takes it for.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CMAKE_LLVMSTATISTICS_H
#define KVRM_CMAKE_LLVMSTATISTICS_H

#include "llvm/Support/Compiler.h"

#ifdef NDEBUG
#include "llvm/ADT/Statistic.h"
#else
#define NDEBUG
#include "llvm/ADT/Statistic.h"
#undef NDEBUG
#endif

#endif // KVRM_CMAKE_LLVMSTATISTICS_H
