//===- Generate.cpp - kvrm-run generate -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Commands.h"

#include "kvrm/runtime/serving/Engine.h"
#include "kvrm/text/Tokenizer.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unistd.h>

using namespace kvrm;
using nlohmann::json;

static constexpr size_t maxRequests = 65536;

double run::percentile(std::vector<int64_t> values, double percent) {
  if (values.empty())
    return 0;
  std::ranges::sort(values);
  auto index =
      static_cast<size_t>(percent / 100 * static_cast<double>(values.size()));
  return static_cast<double>(values[std::min(index, values.size() - 1)]);
}

Expected<std::vector<int32_t>> run::parseIds(const std::string &text) {
  std::vector<int32_t> ids;
  const char *at = text.data();
  const char *end = at + text.size();
  while (true) {
    while (at < end && *at == ' ')
      ++at;
    int32_t id = 0;
    auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc())
      return invalidArgument("--token-ids: '", text,
                             "' is not a list of ids such as 1,2,3");
    ids.push_back(id);
    at = next;
    while (at < end && *at == ' ')
      ++at;
    if (at == end)
      return ids;
    if (*at++ != ',')
      return invalidArgument("--token-ids: '", text,
                             "' is not a list of ids such as 1,2,3");
  }
}

static Status readPrompts(const std::string &path,
                          std::vector<std::string> &prompts) {
  std::ifstream file(path);
  if (!file)
    return makeError(StatusCode::NotFound, path, ": cannot open");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.empty() && line.back() == '\r')
      line.pop_back();
    if (!line.empty())
      prompts.push_back(line);
  }
  if (file.bad())
    return makeError(StatusCode::IoError, path, ": cannot read");
  return Status::ok();
}

/// The system message that a ChatML template starts with when a conversation
/// has none: the literal between its system header and the next <|im_end|>.
static std::string defaultSystem(const std::string &chatTemplate) {
  for (const char *newline : {"\n", "\\n"}) {
    std::string header = std::string("<|im_start|>system") + newline;
    size_t begin = chatTemplate.find(header);
    if (begin == std::string::npos)
      continue;
    begin += header.size();
    size_t end = chatTemplate.find("<|im_end|>", begin);
    if (end == std::string::npos)
      continue;
    std::string text = chatTemplate.substr(begin, end - begin);
    if (!text.empty() && text.find_first_of("'\"{}\\") == std::string::npos)
      return text;
  }
  return {};
}

/// Puts a prompt into the chat form of the model. Templates are Jinja programs,
/// which are not run; the two common forms are known by their marks.
static Expected<std::string> chatPrompt(const Tokenizer &tokenizer,
                                        const std::string &system,
                                        const std::string &prompt) {
  const std::string &form = tokenizer.chatTemplate();
  if (form.find("<|im_start|>") != std::string::npos) {
    std::string text;
    std::string first = system.empty() ? defaultSystem(form) : system;
    if (!first.empty())
      text = "<|im_start|>system\n" + first + "<|im_end|>\n";
    return text + "<|im_start|>user\n" + prompt +
           "<|im_end|>\n<|im_start|>assistant\n";
  }
  if (form.find("<|start_header_id|>") != std::string::npos) {
    auto message = [](const std::string &role, const std::string &content) {
      return "<|start_header_id|>" + role + "<|end_header_id|>\n\n" + content +
             "<|eot_id|>";
    };
    std::string text;
    if (!system.empty())
      text = message("system", system);
    return text + message("user", prompt) +
           "<|start_header_id|>assistant<|end_header_id|>\n\n";
  }
  return invalidArgument("--chat: the package has no chat template of a form "
                         "that kvrm-run knows (ChatML, Llama 3)");
}

namespace {

/// Prints tokens of the only request as they come, else each text as it ends.
class Printer final : public EngineObserver {
public:
  Printer(const Session &session, const Tokenizer *tokenizer, size_t requests,
          bool isJson)
      : results(requests), session(session), tokenizer(tokenizer),
        isJson(isJson) {
    if (tokenizer)
      stream.emplace(*tokenizer, /*skipSpecial=*/true);
  }

  void onToken(RequestId, int32_t token) override {
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

  std::vector<RequestResult> results; ///< by id
  int64_t peakLiveBytes = 0;          ///< of KV

private:
  const Session &session;
  const Tokenizer *tokenizer;
  std::optional<StreamDecoder> stream;
  bool isJson;
  bool isFirst = true;
};

} // namespace

Status run::generate(const CommonOptions &common,
                     const GenerateOptions &options) {
  std::vector<std::string> prompts = options.prompts;
  if (!options.promptsFile.empty())
    KVRM_TRY(readPrompts(options.promptsFile, prompts));
  if (prompts.empty() && options.tokenIds.empty())
    return invalidArgument(
        "nothing to generate: give --prompt, --prompts-file or --token-ids");
  if (prompts.size() + options.tokenIds.size() > maxRequests)
    return invalidArgument(prompts.size() + options.tokenIds.size(),
                           " prompts are more than the limit ", maxRequests);
  if (options.maxTokens.size() > 1 &&
      options.maxTokens.size() != prompts.size() + options.tokenIds.size())
    return invalidArgument(
        "--max-tokens: ", options.maxTokens.size(), " numbers for ",
        prompts.size() + options.tokenIds.size(), " prompts");
  if (!options.system.empty() && !options.isChat)
    return invalidArgument("--system needs --chat");

  Expected<std::shared_ptr<const Package>> package =
      Package::load(common.package);
  KVRM_TRY(package.status());
  const Manifest &manifest = (*package)->manifest();
  std::optional<Tokenizer> tokenizer;
  if (std::string path = (*package)->tokenizerPath(); !path.empty()) {
    Expected<Tokenizer> loaded = Tokenizer::load(path);
    KVRM_TRY(loaded.status());
    tokenizer.emplace(loaded.take());
  } else if (!prompts.empty()) {
    return makeError(StatusCode::NotFound, common.package,
                     ": has no tokenizer.json: give prompts as --token-ids");
  }
  Expected<std::unique_ptr<Session>> session =
      Session::create(*package, common.session);
  KVRM_TRY(session.status());

  std::vector<int32_t> stops;
  if (!options.ignoresEos) {
    if (manifest.eos >= 0)
      stops.push_back(manifest.eos);
    if (tokenizer && tokenizer->eos() >= 0)
      stops.push_back(tokenizer->eos());
  }
  std::vector<RequestSpec> specs;
  auto add = [&](std::vector<int32_t> ids) {
    RequestSpec spec;
    spec.prompt = std::move(ids);
    if (!options.maxTokens.empty())
      spec.maxTokens =
          options.maxTokens[options.maxTokens.size() == 1 ? 0 : specs.size()];
    spec.sampling = options.sampling;
    // Equal prompts of one run are to differ when sampled.
    spec.sampling.seed += specs.size();
    spec.stopTokens = stops;
    specs.push_back(std::move(spec));
  };
  for (const std::string &prompt : prompts) {
    std::string text = prompt;
    if (options.isChat) {
      Expected<std::string> chat =
          chatPrompt(*tokenizer, options.system, prompt);
      KVRM_TRY(chat.status());
      text = chat.take();
    }
    Expected<std::vector<int32_t>> ids = tokenizer->encode(text);
    KVRM_TRY(ids.status());
    if (tokenizer->addBos() && tokenizer->bos() >= 0)
      ids->insert(ids->begin(), tokenizer->bos());
    add(ids.take());
  }
  for (const std::string &list : options.tokenIds) {
    Expected<std::vector<int32_t>> ids = parseIds(list);
    KVRM_TRY(ids.status());
    add(ids.take());
  }

  // One request streams; of several each is printed when it ends.
  bool isTelling = common.isVerbose || (isatty(2) && !common.isJson);
  Printer printer(**session, tokenizer ? &*tokenizer : nullptr, specs.size(),
                  common.isJson);
  SteadyClock clock;
  EngineConfig config;
  config.queueLimit = static_cast<int32_t>(specs.size());
  Expected<std::unique_ptr<Engine>> engine =
      Engine::create(**session, clock, config, &printer);
  KVRM_TRY(engine.status());
  for (const RequestSpec &spec : specs) {
    Status submitted = (*engine)->submit(spec).status();
    if (!submitted.isOk())
      return makeError(submitted.code(), "request ",
                       (*engine)->stats().submitted, ": ", submitted.message());
  }
  int64_t prefillNanoseconds = 0;
  std::vector<int64_t> steps;
  while (!(*engine)->isIdle()) {
    KVRM_TRY((*engine)->step());
    const RoundStats &round = (*engine)->lastRound();
    prefillNanoseconds += round.prefillNanoseconds;
    if (round.decodeTokens > 0)
      steps.push_back(round.decodeNanoseconds);
  }
  for (const RequestResult &result : printer.results)
    if (result.finish == FinishReason::Failed)
      return makeError(StatusCode::Internal, "request ", result.id, ": ",
                       result.error);

  const EngineStats &totals = (*engine)->stats();
  int64_t decodeNanoseconds =
      std::accumulate(steps.begin(), steps.end(), int64_t(0));
  auto rate = [](int64_t tokens, int64_t nanoseconds) {
    return nanoseconds > 0 ? static_cast<double>(tokens) * 1e9 /
                                 static_cast<double>(nanoseconds)
                           : 0.0;
  };
  double prefillRate = rate(totals.prefillTokens, prefillNanoseconds);
  double decodeRate = rate(totals.decodeTokens, decodeNanoseconds);
  auto stepMs = [&](double percent) {
    return percentile(steps, percent) / 1e6;
  };
  if (common.isJson) {
    json requests = json::array();
    for (size_t i = 0; i < specs.size(); ++i) {
      const RequestResult &result = printer.results[i];
      auto ms = [](int64_t nanoseconds) {
        return static_cast<double>(nanoseconds) / 1e6;
      };
      json item = {{"prompt_tokens", specs[i].prompt},
                   {"tokens", result.tokens},
                   {"finish", finishReasonName(result.finish)},
                   {"wait_ms", ms(result.start - result.arrival)},
                   {"prefill_ms", ms(result.firstToken - result.start)},
                   {"first_token_ms", ms(result.firstToken - result.arrival)},
                   {"total_ms", ms(result.end - result.arrival)}};
      if (tokenizer)
        item["text"] = printer.text(result.tokens);
      requests.push_back(std::move(item));
    }
    json out = {{"package", common.package},
                {"mode", manifest.isPaged ? "paged" : "static"},
                {"threads", (*session)->workers()},
                {"requests", std::move(requests)},
                {"timing",
                 {{"prefill_tokens", totals.prefillTokens},
                  {"prefill_tokens_per_s", prefillRate},
                  {"decode_tokens", totals.decodeTokens},
                  {"decode_tokens_per_s", decodeRate},
                  {"decode_steps", steps.size()},
                  {"step_ms",
                   {{"p50", stepMs(50)},
                    {"p90", stepMs(90)},
                    {"p99", stepMs(99)},
                    {"p99.9", stepMs(99.9)},
                    {"max", stepMs(100)}}}}},
                {"kv",
                 {{"reserved_bytes", (*session)->reservedKvBytes()},
                  {"peak_live_bytes", printer.peakLiveBytes}}}};
    std::cout << out.dump(2, ' ', false, json::error_handler_t::replace)
              << "\n";
    std::cout.flush();
  } else if (isTelling) {
    std::fprintf(stderr,
                 "kvrm-run: prefill %lld tokens, %.1f tok/s; decode %lld "
                 "tokens, %.1f tok/s, step p50 %.2f ms, p99 %.2f ms\n",
                 static_cast<long long>(totals.prefillTokens), prefillRate,
                 static_cast<long long>(totals.decodeTokens), decodeRate,
                 stepMs(50), stepMs(99));
  }
  return Status::ok();
}
