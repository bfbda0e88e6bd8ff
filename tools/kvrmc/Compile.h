//===- Compile.h - From a model to a package --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_COMPILE_H
#define KVRM_TOOLS_KVRMC_COMPILE_H

#include "kvrm/Frontend/DecoderBuilder.h"
#include "kvrm/Frontend/Model.h"
#include "kvrm/Pipelines/Pipelines.h"

#include "llvm/Support/Error.h"

namespace kvrmc {

/// Where compilation stops.
enum class Emit { Static, Paged, Kernels, LLVM, Package };

struct CompileOptions {
  std::string output; ///< package, or file; empty: standard output
  Emit emit = Emit::Package;
  std::string arch = "native";
  kvrm::GraphShape shape;
  mlir::kvrm::HostPipelineOptions pipeline;
  bool quiet = false;
};

/// Compiles `model`. Errors are one line.
llvm::Error compile(const kvrm::DecoderModel &model,
                    const CompileOptions &options);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_COMPILE_H
