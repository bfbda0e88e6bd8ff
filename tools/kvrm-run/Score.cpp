//===- Score.cpp - kvrm-run score -------------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "kvrm/runtime/support/ReplaceFile.h"
#include "measure/Scorer.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

using namespace kvrm;
using namespace kvrm::run;
using measure::LogitsFile;
using measure::Scorer;
using measure::Sequence;
using nlohmann::json;

static constexpr size_t maxSequences = 65536;

namespace {

struct Arguments {
  CommonOptions common;
  std::vector<std::string> tokenIds; ///< "1,2,3" each
  /// Tokens fed by prefill: one length for all, or one a sequence; none: 1.
  std::vector<int32_t> promptLengths;
  std::string logits; ///< .npy to write
};

} // namespace

/// Reads and checks the sequences. One prompt length serves them all.
static Status readSequences(const Arguments &arguments, const Manifest &m,
                            std::vector<Sequence> &sequences) {
  size_t count = arguments.tokenIds.size();
  if (arguments.promptLengths.size() > 1 &&
      arguments.promptLengths.size() != count)
    return invalidArgument("--prompt-length: ", arguments.promptLengths.size(),
                           " lengths for ", count, " sequences");
  for (size_t i = 0; i < count; ++i) {
    Expected<std::vector<int32_t>> ids = parseIds(arguments.tokenIds[i]);
    KVRM_TRY(ids.status());
    Sequence sequence;
    sequence.ids = ids.take();
    for (int32_t id : sequence.ids)
      if (id < 0 || id >= m.vocabulary)
        return invalidArgument("sequence ", i, ": token ", id,
                               " is outside 0..", m.vocabulary - 1);
    if (sequence.ids.size() > static_cast<size_t>(m.capacity))
      return invalidArgument("sequence ", i, ": ", sequence.ids.size(),
                             " tokens exceed the capacity ", m.capacity);
    if (!arguments.promptLengths.empty())
      sequence.prompt =
          arguments.promptLengths[arguments.promptLengths.size() == 1 ? 0 : i];
    else
      sequence.prompt = 1;
    if (sequence.prompt < 1 ||
        static_cast<size_t>(sequence.prompt) > sequence.ids.size())
      return invalidArgument("sequence ", i,
                             ": --prompt-length: ", sequence.prompt,
                             " is outside 1..", sequence.ids.size());
    sequences.push_back(std::move(sequence));
  }
  return Status::ok();
}

/// Makes the file, and fills the steps that a sequence does not have.
static Expected<LogitsFile> createLogits(const std::string &path,
                                         const std::vector<Sequence> &sequences,
                                         int32_t vocabulary) {
  int64_t steps = 0;
  for (const Sequence &sequence : sequences)
    steps = std::max(steps, sequence.steps());
  Expected<LogitsFile> file = LogitsFile::create(
      path, static_cast<int64_t>(sequences.size()), steps, vocabulary);
  KVRM_TRY(file.status());
  const std::vector<float> none(static_cast<size_t>(vocabulary),
                                std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < sequences.size(); ++i)
    for (int64_t step = sequences[i].steps(); step < steps; ++step)
      KVRM_TRY(file->write(static_cast<int64_t>(i), step, none.data()));
  return file;
}

//===----------------------------------------------------------------------===//
// Printing
//===----------------------------------------------------------------------===//

namespace {

/// What was decoded, of one sequence or of all.
struct Likelihood {
  int64_t decoded = 0;
  double log = 0;

  double meanNegative() const { return -log / static_cast<double>(decoded); }
};

} // namespace

static Likelihood likelihoodOf(const Sequence &sequence) {
  return {sequence.decoded(), sequence.logLikelihood};
}

static Likelihood sumOf(const std::vector<Sequence> &sequences) {
  Likelihood sum;
  for (const Sequence &sequence : sequences) {
    sum.decoded += sequence.decoded();
    sum.log += sequence.logLikelihood;
  }
  return sum;
}

static json describe(const Likelihood &likelihood) {
  if (likelihood.decoded == 0)
    return {{"decoded", 0}, {"mean_nll", nullptr}, {"perplexity", nullptr}};
  double mean = likelihood.meanNegative();
  return {{"decoded", likelihood.decoded},
          {"mean_nll", mean},
          {"perplexity", std::exp(mean)}};
}

static void print(const std::string &who, const Likelihood &likelihood) {
  if (likelihood.decoded == 0) {
    std::printf("%s: no tokens after the prompt\n", who.c_str());
    return;
  }
  double mean = likelihood.meanNegative();
  std::printf("%s: %lld tokens, mean negative log likelihood %.6f, perplexity "
              "%.4f\n",
              who.c_str(), static_cast<long long>(likelihood.decoded), mean,
              std::exp(mean));
}

static void printText(const std::vector<Sequence> &sequences) {
  for (size_t i = 0; sequences.size() > 1 && i < sequences.size(); ++i)
    print("[" + std::to_string(i) + "]", likelihoodOf(sequences[i]));
  print("all", sumOf(sequences));
}

static void printJson(const Arguments &arguments, const Decoder &session,
                      const Scorer &scorer,
                      const std::vector<Sequence> &sequences) {
  json items = json::array();
  for (const Sequence &sequence : sequences) {
    json item = describe(likelihoodOf(sequence));
    item["prompt_length"] = sequence.prompt;
    item["choices"] = sequence.choices;
    items.push_back(std::move(item));
  }
  json out = describe(sumOf(sequences));
  out["package"] = arguments.common.package;
  out["mode"] = session.isPaged() ? "paged" : "static";
  out["sequences"] = std::move(items);
  out["kv"] = {{"peak_live_bytes", scorer.peakLiveBytes},
               {"reserved_bytes", session.reservedKvBytes()}};
  if (scorer.decodeSteps > 0)
    out["mean_step_ms"] = static_cast<double>(scorer.decodeNanoseconds) * 1e-6 /
                          static_cast<double>(scorer.decodeSteps);
  if (!arguments.logits.empty())
    out["logits"] = arguments.logits;
  std::cout << out.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  std::cout.flush();
}

//===----------------------------------------------------------------------===//
// The command
//===----------------------------------------------------------------------===//

static Status score(const Arguments &arguments) {
  const CommonOptions &common = arguments.common;
  KVRM_TRY(checkPackage(common));
  if (arguments.tokenIds.empty())
    return invalidArgument("nothing to score: give --token-ids");
  if (arguments.tokenIds.size() > maxSequences)
    return invalidArgument(arguments.tokenIds.size(),
                           " sequences are more than the limit ", maxSequences);
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  KVRM_TRY(checkOutput(arguments.logits,
                       {{common.package, common.session.calibration}}));
  const Manifest &m = (*package)->manifest();
  std::vector<Sequence> sequences;
  KVRM_TRY(readSequences(arguments, m, sequences));
  Expected<std::unique_ptr<Decoder>> session =
      createDecoder(*package, common.session);
  KVRM_TRY(session.status());

  std::optional<LogitsFile> file;
  if (!arguments.logits.empty()) {
    Expected<LogitsFile> created =
        createLogits(arguments.logits, sequences, m.vocabulary);
    KVRM_TRY(created.status());
    file.emplace(created.take());
  }
  Scorer scorer(**session, sequences, file ? &*file : nullptr);
  KVRM_TRY(scorer.run());
  if (file)
    KVRM_TRY(file->commit());
  if (common.isJson)
    printJson(arguments, **session, scorer, sequences);
  else
    printText(sequences);
  return Status::ok();
}

Command run::addScore(CLI::App &app) {
  CLI::App *command = app.add_subcommand(
      "score", "Feed given tokens; logits and likelihoods of those decoded");
  auto arguments = std::make_shared<Arguments>();
  addPackageOptions(*command, arguments->common);
  addSessionOptions(*command, arguments->common);
  setRepeatable(*command->add_option(
      "--token-ids", arguments->tokenIds,
      "A sequence \"1,2,3\"; repeat for several, which run together"));
  setRepeatable(*command->add_option(
      "--prompt-length", arguments->promptLengths,
      "Tokens fed by prefill (1), the others one by one; once, or once a "
      "sequence"));
  command->add_option("--logits", arguments->logits,
                      "Write float32 [sequence][step][vocabulary], .npy");
  return {command, [arguments] { return score(*arguments); }};
}
