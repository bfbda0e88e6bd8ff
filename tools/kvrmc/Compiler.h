//===- Compiler.h - From a graph to a package -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_COMPILER_H
#define KVRM_TOOLS_KVRMC_COMPILER_H

#include "Target.h"

#include "kvrm/Frontend/Model.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/Error.h"

#include <optional>
#include <string>
#include <vector>

namespace kvrmc {

/// Where to stop.
enum class Emit { Static, Paged, Kernels, LLVM, PTX, Package };

/// What is compiled: a graph of phase 1, and what its package says of it.
struct Source {
  /// Builds the graph.
  llvm::unique_function<llvm::Expected<mlir::OwningOpRef<mlir::ModuleOp>>(
      mlir::MLIRContext &)>
      build;
  /// Weights and tokenizer; null for a graph without.
  const kvrm::DecoderModel *model = nullptr;
  kvrm::DecoderConfig config;
  int64_t slots = 0;
  int64_t capacity = 0;
  kvrm_element cache = KVRM_F16; ///< of KV
  /// For GPUs: of queries, of new keys and values and of what attention gives.
  std::optional<kvrm_element> io;
  bool isStatic = false;
  bool isSeeded = false; ///< weights as seeds, where the model has such
  struct Entry {
    std::string name; ///< of the step in the graph
    int64_t rows = 0;
    int64_t queries = 0;
    /// Entries before it whose batches it has, in their order; none: it has one
    /// of `rows` and `queries`.
    // Set, so that initializers may leave it out.
    // NOLINTNEXTLINE(readability-redundant-member-init)
    std::vector<std::string> batches = {};
  };
  std::vector<Entry> entries;
};

struct Output {
  std::string path;                ///< package, or file; empty: standard output
  std::vector<std::string> inputs; ///< files that are read meanwhile
  Emit emit = Emit::Package;
  bool isQuiet = false;
};

/// The one way from a graph to a package, whatever the target. An output that
/// cannot be written is refused before there is work.
llvm::Error compile(Source source, Target &target, const Output &output);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_COMPILER_H
