//===- Commands.h - The commands of kvrm-run --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_COMMANDS_H
#define KVRM_TOOLS_RUN_COMMANDS_H

#include "kvrm/runtime/Sampler.h"
#include "kvrm/runtime/Session.h"
#include "kvrm/runtime/Status.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kvrm::run {

/// What every command that runs a model takes.
struct CommonOptions {
  std::string package;
  SessionConfig session;
  bool isJson = false;
  bool isVerbose = false;
};

struct GenerateOptions {
  std::vector<std::string> prompts;
  std::string promptsFile;
  std::vector<std::string> tokenIds; ///< "1,2,3" each
  std::string system;
  /// Most tokens to generate: one number for all, or one a prompt; none: 128.
  std::vector<int32_t> maxTokens;
  SamplingSettings sampling;
  bool isChat = false;
  bool ignoresEos = false;
};

struct BenchOptions {
  int32_t active = 0; ///< 0 = all slots
  std::vector<int32_t> contexts{128};
  int32_t steps = 50;
  int32_t warmup = 5;
  bool isRagged = false;
  uint64_t seed = 1;
};

struct ScoreOptions {
  std::vector<std::string> tokenIds; ///< "1,2,3" each
  /// Tokens fed by prefill: one length for all, or one a sequence; none: 1.
  std::vector<int32_t> promptLengths;
  std::string logits; ///< .npy to write
};

Status generate(const CommonOptions &common, const GenerateOptions &options);
Status inspect(const CommonOptions &common);
Status bench(const CommonOptions &common, const BenchOptions &options);
Status score(const CommonOptions &common, const ScoreOptions &options);

/// Parses "1,2,3", the value of --token-ids.
Expected<std::vector<int32_t>> parseIds(const std::string &text);

/// The value below which `percent` of 100 of `values` lie; 0 without values.
double percentile(std::vector<int64_t> values, double percent);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_COMMANDS_H
