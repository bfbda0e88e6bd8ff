//===- kvrm-run.cpp - Run a package -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "kvrm/runtime/kvrm.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

using namespace kvrm;

/// Every failure is one line on standard error.
static int fail(const std::string &message) {
  std::string line = message;
  for (char &c : line)
    if (c == '\n')
      c = ' ';
  std::fprintf(stderr, "kvrm-run: error: %s\n", line.c_str());
  return 1;
}

static void addReplay(CLI::App &command, run::ReplayOptions &replay) {
  command.add_option("--trace", replay.trace,
                     "File, or synthetic:family=chat,seed=1,requests=500,...");
  command.add_option("--format", replay.format, "auto, azure or mooncake");
  command
      .add_option("--modes", replay.modes,
                  "Of kvrm, max, bucketed; without: all that have packages")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--static", replay.staticPackage,
                     "Static package, for the mode max");
  command
      .add_option("--bucket", replay.buckets,
                  "Static package of one capacity, for the mode bucketed; "
                  "repeat for each")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  command.add_option("--duration", replay.duration,
                     "Seconds of the trace, 0 = all");
  command.add_option("--requests", replay.requests,
                     "Most requests of the trace, 0 = all");
  command.add_option("--time-scale", replay.timeScale,
                     "Arrival times are multiplied by this");
  command.add_option("--load", replay.load,
                     "Scale time so that this much of what kvrm serves when "
                     "saturated is offered");
  command.add_flag("--saturation", replay.isSaturated,
                   "Submit as fast as the queue takes requests");
  command.add_option("--limit-seconds", replay.limitSeconds,
                     "End a mode after so long, 0 = never");
  command.add_option("--kv-budget", replay.kvBudgetMebibytes,
                     "KV memory of each mode in MiB, 0 = what static packages "
                     "reserve");
  command.add_option("--max-prompt", replay.maxPrompt,
                     "Clip prompts to so many tokens, 0 = to the capacity");
  command.add_option("--length-scale", replay.lengthScale,
                     "Prompt and output lengths are multiplied by this");
  command.add_option("--overload", replay.overload,
                     "How much denser arrivals are during --overload-seconds");
  command.add_option("--overload-seconds", replay.overloadSeconds,
                     "How long they are, from a third of the replay on");
  command.add_option("--queue-limit", replay.queueLimit,
                     "Requests that may wait; more are refused (256)");
  command.add_option("--stall-factor", replay.stallFactor,
                     "Prefill between two decode steps, in decode steps (1)");
  command.add_flag("--share-prefixes", replay.sharesPrefixes,
                   "Equal prompt prefixes share pages in the mode kvrm");
  command.add_option("--kept-histories", replay.keptHistories,
                     "Finished histories kept to be shared from");
  command.add_option("--parking-places", replay.parkingPlaces,
                     "Preempted histories that may be in host memory");
  command.add_option("--parking-pages", replay.parkingPages,
                     "Pages that they have there, 0 = enough");
  command.add_option("--preemption", replay.preemption,
                     "cheaper, park or recompute");
  command.add_option("--verify", replay.verify,
                     "Run so many requests, or all, again alone and compare "
                     "their tokens");
  command.add_option("--seed", replay.seed, "Seed of prompt tokens");
  command.add_option("--warm-up", replay.warmupSeconds,
                     "Most seconds to touch memory in before a run (3)");
  command.add_option("-o,--output", replay.output, "File to write JSON to");
  command.add_option("--timeline", replay.timeline,
                     "File to write trace events to, for ui.perfetto.dev");
  command.add_flag("-q,--quiet", replay.isQuiet, "No progress");
}

static int runMain(int argc, char **argv) {
  CLI::App app(
      "Runs a kvrm package: text, likelihoods, timings, or what it is.",
      "kvrm-run");
  app.set_version_flag("--version", std::string("kvrm-run ") + kvrm_version());
  app.require_subcommand(1);
  run::CommonOptions common;
  run::GenerateOptions generate;
  run::BenchOptions bench;
  run::ScoreOptions score;
  run::ReplayOptions replay;

  run::AttentionBenchOptions attention;
  run::CalibrateOptions calibrate;

  auto addCommon = [&](CLI::App *command, bool runs) {
    // Required, but for `bench attention`, which has none.
    command->add_option("package", common.package, "Package folder");
    command->add_flag("--json", common.isJson, "Print one JSON object");
    if (!runs)
      return;
    command->add_flag("-v,--verbose", common.isVerbose,
                      "Tell rates on standard error");
    command->add_option("--threads", common.session.threads,
                        "Worker threads, 0 = one a CPU");
    command->add_option("--shares", common.session.shares,
                        "Shares of the work queue, 0 = one a thread");
    command->add_option("--pool-pages", common.session.poolPages,
                        "Pages of the KV pool, 0 = enough for all slots");
  };

  CLI::App *generateCommand =
      app.add_subcommand("generate", "Generate text for prompts");
  addCommon(generateCommand, true);
  // One value an occurrence, so that a prompt may look like anything.
  generateCommand
      ->add_option("-p,--prompt", generate.prompts,
                   "Prompt; repeat for several, which run together")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  generateCommand->add_option("--prompts-file", generate.promptsFile,
                              "File with a prompt a line");
  generateCommand
      ->add_option("--token-ids", generate.tokenIds,
                   "Prompt as token ids \"1,2,3\"; repeat for several")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  generateCommand
      ->add_option("-n,--max-tokens", generate.maxTokens,
                   "Most tokens to generate (128); once, or once a prompt")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  generateCommand->add_option("--temperature", generate.sampling.temperature,
                              "0 = greedy");
  generateCommand->add_option("--top-p", generate.sampling.topP,
                              "Probability mass to sample from");
  generateCommand->add_option("--seed", generate.sampling.seed,
                              "Seed of sampling");
  generateCommand->add_flag("--chat", generate.isChat,
                            "Put prompts into the model's chat form");
  generateCommand->add_option("--system", generate.system,
                              "System message for --chat");
  generateCommand->add_flag("--ignore-eos", generate.ignoresEos,
                            "Do not stop at the end of text");

  CLI::App *inspectCommand =
      app.add_subcommand("inspect", "Show what a package is");
  addCommon(inspectCommand, false);

  CLI::App *benchCommand = app.add_subcommand("bench", "Time decode steps");
  addCommon(benchCommand, true);
  benchCommand->add_option("--slots-active", bench.active,
                           "Slots that decode, 0 = all");
  benchCommand
      ->add_option("--contexts,--context", bench.contexts,
                   "History lengths to start from, e.g. 128,1024")
      ->delimiter(',')
      ->allow_extra_args(false);
  benchCommand->add_option("--steps", bench.steps, "Timed steps a context");
  benchCommand->add_option("--warmup", bench.warmup, "Steps before those");
  benchCommand->add_flag("--ragged", bench.isRagged,
                         "Spread histories evenly over 1..context");
  benchCommand->add_option("--seed", bench.seed, "Seed of the histories");

  CLI::App *attentionCommand = benchCommand->add_subcommand(
      "attention", "Time attention kernels on a GPU");
  attentionCommand
      ->add_option("kernels", attention.kernels, "Kernel set, a folder")
      ->required();
  attentionCommand
      ->add_option("--rows", attention.rows,
                   "all, none, names as B1x2048,zipf-B8, or rows of your own "
                   "as 'mine=70001,17*8;ragged=1..4000*128@3'; repeat for more")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  attentionCommand->add_option("--pdl", attention.pdl,
                               "Programmatic dependent launch: on, off, both");
  attentionCommand->add_option("--schedules", attention.schedules,
                               "all, or e.g. workqueue,cluster8");
  attentionCommand->add_option("--calibration", attention.calibration,
                               "What `calibrate` wrote, for the policy");
  attentionCommand->add_option("--pages", attention.pages,
                               "State of the pool: fresh, holes, scattered");
  attentionCommand->add_option("--seed", attention.seed, "Seed of the rows");
  attentionCommand
      ->add_option("--seeds", attention.seeds, "Seeds of --serving, e.g. 2,3")
      ->delimiter(',')
      ->allow_extra_args(false);
  attentionCommand->add_option("--bandwidth", attention.bandwidth,
                               "Of the device's memory, in GB/s");
  attentionCommand->add_option("--replays", attention.replays,
                               "Replays that a time is the median of");
  attentionCommand->add_flag("--serving", attention.isServing,
                             "Time whole steps too");
  attentionCommand->add_option("--steps", attention.steps,
                               "Steps of each serving");
  attentionCommand->add_flag("--staged", attention.isStaged,
                             "Time the staged schedule too");
  attentionCommand->add_flag("--json", attention.isJson,
                             "Print one JSON object");
  attentionCommand->add_flag("-v,--verbose", attention.isVerbose,
                             "Tell what is measured on standard error");

  CLI::App *calibrateCommand = app.add_subcommand(
      "calibrate", "Measure what the choice of a schedule needs on a GPU");
  calibrateCommand
      ->add_option("kernels", calibrate.kernels, "Kernel set, a folder")
      ->required();
  calibrateCommand->add_option("-o,--output", calibrate.output,
                               "File to write");
  calibrateCommand->add_flag("-v,--verbose", calibrate.isVerbose,
                             "Tell what is measured on standard error");

  CLI::App *scoreCommand = app.add_subcommand(
      "score", "Feed given tokens; logits and likelihoods of those decoded");
  addCommon(scoreCommand, true);
  scoreCommand
      ->add_option("--token-ids", score.tokenIds,
                   "A sequence \"1,2,3\"; repeat for several, which run "
                   "together")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  scoreCommand
      ->add_option("--prompt-length", score.promptLengths,
                   "Tokens fed by prefill (1), the others one by one; once, or "
                   "once a sequence")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  scoreCommand->add_option("--logits", score.logits,
                           "Write float32 [sequence][step][vocabulary], .npy");

  CLI::App *replayCommand = app.add_subcommand(
      "replay", "Serve a trace of requests, beside static baselines");
  addCommon(replayCommand, true);
  addReplay(*replayCommand, replay);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp &request) {
    return app.exit(request);
  } catch (const CLI::CallForAllHelp &request) {
    return app.exit(request);
  } catch (const CLI::CallForVersion &request) {
    return app.exit(request);
  } catch (const CLI::Error &error) {
    return fail(std::string(error.what()) + " (see kvrm-run --help)");
  }

  if (common.package.empty() && !attentionCommand->parsed() &&
      !calibrateCommand->parsed())
    return fail("package is required (see kvrm-run --help)");
  Status status;
  if (attentionCommand->parsed())
    status = run::benchAttention(attention);
  else if (calibrateCommand->parsed())
    status = run::calibrate(calibrate);
  else if (generateCommand->parsed())
    status = run::generate(common, generate);
  else if (inspectCommand->parsed())
    status = run::inspect(common);
  else if (scoreCommand->parsed())
    status = run::score(common, score);
  else if (replayCommand->parsed())
    status = run::replay(common, replay);
  else
    status = run::bench(common, bench);
  if (!status.isOk())
    return fail(status.message());
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return fail("cannot write to standard output");
  return 0;
}

int main(int argc, char **argv) {
  try {
    return runMain(argc, argv);
  } catch (const std::exception &error) {
    return fail(error.what());
  }
}
