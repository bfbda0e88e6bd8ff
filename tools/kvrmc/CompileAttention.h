//===- CompileAttention.h - Attention kernels for a GPU ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_COMPILEATTENTION_H
#define KVRM_TOOLS_KVRMC_COMPILEATTENTION_H

#include "kvrm/Pipelines/Pipelines.h"

#include "llvm/Support/Error.h"

namespace kvrmc {

enum class AttentionEmit { Static, Kernels, LLVM, PTX, Package };

struct AttentionOptions {
  std::string output; ///< kernel set, or file; empty: standard output
  AttentionEmit emit = AttentionEmit::Package;
  std::string arch = "sm_90";
  int64_t heads = 32;
  int64_t kvHeads = 8;
  int64_t headDim = 128;
  int64_t queries = 1;
  bool isBF16 = false;
  mlir::kvrm::NVVMPipelineOptions pipeline;
  bool isStaged = false; ///< staged kernels too, to compare with native ones
  bool quiet = false;
  bool printsResources = false; ///< registers and spills, as ptxas has them
};

/// Compiles the attention kernels of one head shape, from a phase-1 graph that
/// appends and attends once, to a kernel set (docs/package.md). Kernels serve
/// any number of slots and layers.
llvm::Error compileAttention(const AttentionOptions &options);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_COMPILEATTENTION_H
