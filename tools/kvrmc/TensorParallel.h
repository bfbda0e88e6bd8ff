//===- TensorParallel.h - How many ranks a package is for -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_TENSORPARALLEL_H
#define KVRM_TOOLS_KVRMC_TENSORPARALLEL_H

#include "kvrm/Frontend/Model.h"

#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Error.h"

#include <cstdint>

namespace kvrmc {

/// --tensor-parallel, of kvrmc and of kvrmc synth.
class RanksOption {
public:
  RanksOption(llvm::cl::OptionCategory &category,
              llvm::cl::SubCommand &synthCommand);

  int64_t ranks() const { return option; }
  /// What cannot be split among so many, before anything is compiled. The
  /// static baseline of a CPU is run by none but one.
  llvm::Error check(const kvrm::DecoderConfig &config, bool isStaticHost) const;
  /// Graphs of other frontends are of one rank.
  llvm::Error checkGraph() const;

private:
  llvm::cl::opt<int64_t> option;
};

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_TENSORPARALLEL_H
