//===- Commands.h - The commands of kvrm-run --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_RUN_COMMANDS_H
#define KVRM_TOOLS_RUN_COMMANDS_H

#include "kvrm/runtime/serving/Sampler.h"
#include "kvrm/runtime/session/Session.h"
#include "kvrm/runtime/support/Status.h"

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

/// What `bench attention` takes.
struct AttentionBenchOptions {
  std::string kernels;                  ///< folder of a kernel set
  std::vector<std::string> rows{"all"}; ///< see parseRows()
  std::string pdl = "both";
  std::string schedules = "all";
  std::string calibration; ///< file; empty = the work queue always
  std::string pages = "scattered";
  std::vector<uint64_t> seeds{2, 3, 4, 5, 6}; ///< of serving
  uint64_t seed = 2;                          ///< of the rows
  double bandwidth = 3028;                    ///< of memory, in GB/s
  int32_t replays = 30;
  int32_t steps = 100;
  bool isServing = false;
  bool isStaged = false;
  bool isJson = false;
  bool isVerbose = false;
};

struct CalibrateOptions {
  std::string kernels; ///< folder of a kernel set
  std::string output;  ///< file to write
  bool isVerbose = false;
};

struct ScoreOptions {
  std::vector<std::string> tokenIds; ///< "1,2,3" each
  /// Tokens fed by prefill: one length for all, or one a sequence; none: 1.
  std::vector<int32_t> promptLengths;
  std::string logits; ///< .npy to write
};

/// What `replay` takes. 0 and empty are "not given" where nothing else is said.
struct ReplayOptions {
  std::string trace; ///< file or synthetic:...
  std::string format = "auto";
  std::vector<std::string> modes; ///< empty = all that have packages
  std::string staticPackage;
  std::vector<std::string> buckets;
  double duration = 0; ///< seconds of trace time
  int32_t requests = 0;
  double timeScale = 1;
  double load = 0; ///< of what kvrm serves when saturated
  bool isSaturated = false;
  double limitSeconds = 0; ///< of a mode
  double kvBudgetMebibytes = 0;
  int64_t kvBudgetBytes = 0; ///< the same, set by replay()
  int32_t maxPrompt = 0;
  double lengthScale = 1;
  double overload = 0;
  double overloadSeconds = 0;
  int32_t queueLimit = 256;
  double stallFactor = 1;
  bool sharesPrefixes = false;
  int32_t keptHistories = 0;
  int32_t parkingPlaces = 0;
  int64_t parkingPages = 0;
  std::string preemption = "cheaper";
  std::string verify; ///< a number or "all"
  uint64_t seed = 1;
  double warmupSeconds = 3;
  std::string output;
  std::string timeline;
  bool isQuiet = false;
};

Status generate(const CommonOptions &common, const GenerateOptions &options);
Status inspect(const CommonOptions &common);
Status bench(const CommonOptions &common, const BenchOptions &options);
Status benchAttention(const AttentionBenchOptions &options);
Status calibrate(const CalibrateOptions &options);
Status score(const CommonOptions &common, const ScoreOptions &options);
Status replay(const CommonOptions &common, const ReplayOptions &options);

/// Parses "1,2,3", the value of --token-ids.
Expected<std::vector<int32_t>> parseIds(const std::string &text);

/// The value below which `percent` of 100 of `values` lie; 0 without values.
double percentile(std::vector<int64_t> values, double percent);

} // namespace kvrm::run

#endif // KVRM_TOOLS_RUN_COMMANDS_H
