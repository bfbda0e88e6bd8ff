//===- Generate.cpp - kvrm-run generate -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "PackageText.h"

#include "kvrm/runtime/serving/Engine.h"
#include "kvrm/runtime/support/StandardStreams.h"
#include "kvrm/text/Chat.h"
#include "kvrm/text/Tokenizer.h"
#include "measure/Percentile.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unistd.h>
#include <utility>

using namespace kvrm;
using namespace kvrm::run;
using nlohmann::json;

static constexpr size_t maxRequests = 65536;

namespace {

struct Arguments {
  CommonOptions common;
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

} // namespace

//===----------------------------------------------------------------------===//
// Requests
//===----------------------------------------------------------------------===//

static Status readPrompts(const std::string &path,
                          std::vector<std::string> &prompts) {
  std::ifstream file(path);
  if (!file)
    return makeError(StatusCode::NotFound, path, ": cannot open");
  std::string line;
  bool isFirst = true;
  while (std::getline(file, line)) {
    // A byte-order mark says what the file is, and is none of the prompt.
    if (std::exchange(isFirst, false) && line.starts_with("\xef\xbb\xbf"))
      line.erase(0, 3);
    if (!line.empty() && line.back() == '\r')
      line.pop_back();
    if (!line.empty())
      prompts.push_back(line);
  }
  if (file.bad())
    return makeError(StatusCode::IoError, path, ": cannot read");
  return Status::ok();
}

static Status checkArguments(const Arguments &arguments) {
  size_t count = arguments.prompts.size() + arguments.tokenIds.size();
  if (count == 0)
    return invalidArgument(
        "nothing to generate: give --prompt, --prompts-file or --token-ids");
  if (count > maxRequests)
    return invalidArgument(count, " prompts are more than the limit ",
                           maxRequests);
  if (arguments.maxTokens.size() > 1 && arguments.maxTokens.size() != count)
    return invalidArgument("--max-tokens: ", arguments.maxTokens.size(),
                           " numbers for ", count, " prompts");
  if (!arguments.system.empty() && !arguments.isChat)
    return invalidArgument("--system needs --chat");
  return Status::ok();
}

static Expected<std::vector<int32_t>> promptIds(const Tokenizer &tokenizer,
                                                const Arguments &arguments,
                                                const std::string &prompt) {
  if (!arguments.isChat)
    return encodePrompt(tokenizer, prompt);
  std::vector<ChatMessage> messages;
  if (!arguments.system.empty())
    messages.push_back({"system", arguments.system});
  messages.push_back({"user", prompt});
  Expected<std::vector<int32_t>> ids = encodeChat(tokenizer, messages);
  if (!ids)
    return makeError(ids.status().code(), "--chat: ", ids.status().message());
  return ids;
}

static Expected<std::vector<RequestSpec>>
makeRequests(const Manifest &manifest,
             const std::optional<Tokenizer> &tokenizer,
             const Arguments &arguments) {
  std::vector<RequestSpec> specs;
  auto add = [&](Expected<std::vector<int32_t>> ids) -> Status {
    KVRM_TRY(ids.status());
    RequestSpec spec;
    spec.prompt = ids.take();
    if (const auto &most = arguments.maxTokens; !most.empty())
      spec.maxTokens = most[most.size() == 1 ? 0 : specs.size()];
    spec.sampling = arguments.sampling;
    // Equal prompts of one run are to differ when sampled.
    spec.sampling.seed += specs.size();
    if (!arguments.ignoresEos)
      spec.stopTokens = endsOfText(manifest, tokenizer);
    specs.push_back(std::move(spec));
    return Status::ok();
  };
  for (const std::string &prompt : arguments.prompts)
    KVRM_TRY(add(promptIds(*tokenizer, arguments, prompt)));
  for (const std::string &list : arguments.tokenIds)
    KVRM_TRY(add(parseIds(list)));
  return specs;
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

namespace {

/// Prints tokens of the only request as they come, else each text as it ends.
class Printer final : public EngineObserver {
public:
  Printer(const Decoder &session, const Tokenizer *tokenizer, size_t requests,
          bool isJson)
      : results(requests), session(session), tokenizer(tokenizer),
        isJson(isJson) {
    if (tokenizer)
      stream.emplace(*tokenizer, /*skipSpecial=*/true);
  }

  void onToken(RequestId, int32_t token, const TokenLogprobs *) override {
    // Here, as a request that ends with this token is gone after the round.
    peakLiveBytes = std::max(peakLiveBytes, session.liveKvBytes());
    if (isJson || results.size() > 1)
      return;
    std::string piece = stream ? stream->push(token)
                               : (isFirst ? "" : ",") + std::to_string(token);
    isFirst = false;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }

  void onFinish(RequestResult &result) override {
    RequestResult &own = results[static_cast<size_t>(result.id)];
    own = std::move(result);
    if (isJson)
      return;
    if (results.size() > 1) {
      std::string all = text(own.tokens);
      std::printf("[%lld] ", static_cast<long long>(own.id));
      std::fwrite(all.data(), 1, all.size(), stdout);
    } else if (stream) {
      std::string rest = stream->finish();
      std::fwrite(rest.data(), 1, rest.size(), stdout);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  std::string text(const std::vector<int32_t> &tokens) const {
    if (tokenizer)
      return tokenizer->decode(tokens, /*skipSpecial=*/true);
    std::string ids;
    for (int32_t token : tokens)
      ids += (ids.empty() ? "" : ",") + std::to_string(token);
    return ids;
  }

  bool hasText() const { return tokenizer != nullptr; }

  std::vector<RequestResult> results; ///< by id
  int64_t peakLiveBytes = 0;          ///< of KV

private:
  const Decoder &session;
  const Tokenizer *tokenizer;
  std::optional<StreamDecoder> stream;
  bool isJson;
  bool isFirst = true;
};

/// What prefill and decode took.
struct Timing {
  int64_t prefillTokens = 0;
  int64_t mixedTokens = 0; ///< of these, computed in decode steps
  int64_t prefillNanoseconds = 0;
  int64_t decodeTokens = 0;
  std::vector<int64_t> steps; ///< nanoseconds

  double prefillRate() const {
    return rate(prefillTokens - mixedTokens, prefillNanoseconds);
  }
  double decodeRate() const {
    return rate(decodeTokens,
                std::accumulate(steps.begin(), steps.end(), int64_t(0)));
  }
  double stepMs(double percent) const {
    return measure::percentile(steps, percent) / 1e6;
  }

private:
  static double rate(int64_t tokens, int64_t nanoseconds) {
    return nanoseconds > 0 ? static_cast<double>(tokens) * 1e9 /
                                 static_cast<double>(nanoseconds)
                           : 0.0;
  }
};

} // namespace

/// Serves all requests, and keeps what decode steps took.
static Status serve(Engine &engine, const std::vector<RequestSpec> &specs,
                    Timing &timing) {
  for (const RequestSpec &spec : specs) {
    Status submitted = engine.submit(spec).status();
    if (!submitted.isOk())
      return makeError(submitted.code(), "request ", engine.stats().submitted,
                       ": ", submitted.message());
  }
  while (!engine.isIdle()) {
    KVRM_TRY(engine.step());
    // Nobody is left to generate for, be the text printed now or at the end.
    if (std::ferror(stdout) || !hasReader())
      return makeError(StatusCode::IoError, "cannot write to standard output");
    const RoundStats &round = engine.lastRound();
    timing.prefillNanoseconds += round.prefillNanoseconds;
    if (round.decodeTokens > 0)
      timing.steps.push_back(round.decodeNanoseconds);
  }
  timing.prefillTokens = engine.stats().prefillTokens;
  timing.mixedTokens = engine.stats().mixedTokens;
  timing.decodeTokens = engine.stats().decodeTokens;
  return Status::ok();
}

//===----------------------------------------------------------------------===//
// Printing
//===----------------------------------------------------------------------===//

static json requestJson(const RequestSpec &spec, const RequestResult &result) {
  auto ms = [](int64_t nanoseconds) {
    return static_cast<double>(nanoseconds) / 1e6;
  };
  return {{"prompt_tokens", spec.prompt},
          {"tokens", result.tokens},
          {"finish", finishReasonName(result.finish)},
          {"wait_ms", ms(result.start - result.arrival)},
          {"prefill_ms", ms(result.firstToken - result.start)},
          {"first_token_ms", ms(result.firstToken - result.arrival)},
          {"total_ms", ms(result.end - result.arrival)}};
}

static json timingJson(const Timing &timing) {
  return {{"prefill_tokens", timing.prefillTokens},
          {"mixed_tokens", timing.mixedTokens},
          {"prefill_tokens_per_s", timing.prefillRate()},
          {"decode_tokens", timing.decodeTokens},
          {"decode_tokens_per_s", timing.decodeRate()},
          {"decode_steps", timing.steps.size()},
          {"step_ms",
           {{"p50", timing.stepMs(50)},
            {"p90", timing.stepMs(90)},
            {"p99", timing.stepMs(99)},
            {"p99.9", timing.stepMs(99.9)},
            {"max", timing.stepMs(100)}}}};
}

static void printJson(const CommonOptions &common, const Decoder &session,
                      const std::vector<RequestSpec> &specs,
                      const Printer &printer, const Timing &timing) {
  json requests = json::array();
  for (size_t i = 0; i < specs.size(); ++i) {
    json item = requestJson(specs[i], printer.results[i]);
    if (printer.hasText())
      item["text"] = printer.text(printer.results[i].tokens);
    requests.push_back(std::move(item));
  }
  json out = {{"package", common.package},
              {"mode", session.isPaged() ? "paged" : "static"},
              {"threads", common.session.workers()},
              {"products", session.products()},
              {"requests", std::move(requests)},
              {"timing", timingJson(timing)},
              {"kv",
               {{"reserved_bytes", session.reservedKvBytes()},
                {"peak_live_bytes", printer.peakLiveBytes}}}};
  std::cout << out.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  std::cout.flush();
}

static void printRates(const Timing &timing) {
  std::fprintf(stderr,
               "kvrm-run: prefill %lld tokens, %.1f tok/s; decode %lld "
               "tokens, %.1f tok/s, step p50 %.2f ms, p99 %.2f ms\n",
               static_cast<long long>(timing.prefillTokens),
               timing.prefillRate(),
               static_cast<long long>(timing.decodeTokens), timing.decodeRate(),
               timing.stepMs(50), timing.stepMs(99));
}

//===----------------------------------------------------------------------===//
// The command
//===----------------------------------------------------------------------===//

static Status generate(Arguments arguments) {
  const CommonOptions &common = arguments.common;
  KVRM_TRY(checkPackage(common));
  if (!arguments.promptsFile.empty())
    KVRM_TRY(readPrompts(arguments.promptsFile, arguments.prompts));
  KVRM_TRY(checkArguments(arguments));
  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  Expected<std::optional<Tokenizer>> tokenizer = loadTokenizer(**package);
  KVRM_TRY(tokenizer.status());
  if (!*tokenizer && !arguments.prompts.empty())
    return makeError(StatusCode::NotFound, common.package,
                     ": has no tokenizer.json: give prompts as --token-ids");
  Expected<std::unique_ptr<Decoder>> session =
      createDecoder(*package, common.session);
  KVRM_TRY(session.status());
  Expected<std::vector<RequestSpec>> specs =
      makeRequests((*package)->manifest(), *tokenizer, arguments);
  KVRM_TRY(specs.status());

  Printer printer(**session, *tokenizer ? &**tokenizer : nullptr, specs->size(),
                  common.isJson);
  SteadyClock clock;
  EngineConfig config;
  config.queueLimit = static_cast<int32_t>(specs->size());
  Expected<std::unique_ptr<Engine>> engine =
      Engine::create(**session, clock, config, &printer);
  KVRM_TRY(engine.status());
  Timing timing;
  KVRM_TRY(serve(**engine, *specs, timing));
  for (const RequestResult &result : printer.results)
    if (result.finish == FinishReason::Failed)
      return makeError(StatusCode::Internal, "request ", result.id, ": ",
                       result.error);
  if (common.isJson)
    printJson(common, **session, *specs, printer, timing);
  else if (common.isVerbose || isatty(2))
    printRates(timing);
  return Status::ok();
}

static void addPromptOptions(CLI::App &command, Arguments &arguments) {
  setRepeatable(
      *command.add_option("-p,--prompt", arguments.prompts,
                          "Prompt; repeat for several, which run together"));
  command.add_option("--prompts-file", arguments.promptsFile,
                     "File with a prompt a line");
  setRepeatable(
      *command.add_option("--token-ids", arguments.tokenIds,
                          "Prompt as token ids \"1,2,3\"; repeat for several"));
}

Command run::addGenerate(CLI::App &app) {
  CLI::App *command =
      app.add_subcommand("generate", "Generate text for prompts");
  auto arguments = std::make_shared<Arguments>();
  SamplingSettings &sampling = arguments->sampling;
  addPackageOptions(*command, arguments->common);
  addSessionOptions(*command, arguments->common);
  addPromptOptions(*command, *arguments);
  setRepeatable(*command->add_option(
      "-n,--max-tokens", arguments->maxTokens,
      "Most tokens to generate (128); once, or once a prompt"));
  command->add_option("--temperature", sampling.temperature, "0 = greedy");
  command->add_option("--top-k", sampling.topK,
                      "Keep so many of the likeliest tokens; 0 = all");
  command->add_option("--top-p", sampling.topP,
                      "Probability mass to sample from");
  addSeedOption(*command, "--seed", sampling.seed, "Seed of sampling");
  command->add_flag("--chat", arguments->isChat,
                    "Put prompts into the model's chat form");
  command->add_option("--system", arguments->system,
                      "System message for --chat");
  command->add_flag("--ignore-eos", arguments->ignoresEos,
                    "Do not stop at the end of text");
  return {command, [arguments] { return generate(*arguments); }};
}
