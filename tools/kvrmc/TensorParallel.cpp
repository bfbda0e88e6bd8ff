//===- TensorParallel.cpp - How many ranks a package is for ---------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TensorParallel.h"

#include "kvrm/Frontend/CheckRange.h"
#include "kvrm/runtime/abi/limits.h"

using namespace kvrmc;
namespace cl = llvm::cl;

RanksOption::RanksOption(cl::OptionCategory &category,
                         cl::SubCommand &synthCommand)
    : option("tensor-parallel",
             cl::desc("GPUs, or groups of a CPU's threads, that share the KV "
                      "heads and run each step together (1)"),
             cl::init(1), cl::cat(category),
             cl::sub(cl::SubCommand::getTopLevel()), cl::sub(synthCommand)) {}

llvm::Error RanksOption::check(const kvrm::DecoderConfig &config,
                               bool isStaticHost) const {
  if (llvm::Error error =
          kvrm::checkRange("--tensor-parallel", ranks(), 1, KVRM_MAX_RANKS))
    return error;
  if (config.kvHeads % ranks() != 0)
    return llvm::createStringError(
        "--tensor-parallel: %lld ranks do not divide the model's %lld KV heads",
        static_cast<long long>(ranks()),
        static_cast<long long>(config.kvHeads));
  if (ranks() > 1 && isStaticHost)
    return llvm::createStringError(
        "--tensor-parallel: the static baseline of a CPU is for one rank");
  return llvm::Error::success();
}

llvm::Error RanksOption::checkGraph() const {
  if (ranks() == 1)
    return llvm::Error::success();
  return llvm::createStringError("--tensor-parallel: graphs of other frontends "
                                 "are compiled for one rank alone");
}
