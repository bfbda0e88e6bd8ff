//===- CompletionRequest.cpp - What a client asks for ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompletionRequest.h"

#include "kvrm/runtime/serving/LogSoftmax.h"
#include "kvrm/runtime/support/OneLine.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

using namespace kvrm;
using namespace kvrm::serve;
using nlohmann::json;

std::string serve::errorBody(const ApiError &error) {
  const char *type = error.status == 429   ? "rate_limit_error"
                     : error.status >= 500 ? "server_error"
                                           : "invalid_request_error";
  json out = {{"message", error.message}, {"type", type}};
  out["param"] = error.param.empty() ? json() : json(error.param);
  out["code"] = error.code ? json(error.code) : json();
  return json{{"error", std::move(out)}}.dump(-1, ' ', false,
                                              json::error_handler_t::replace) +
         "\n";
}

//===----------------------------------------------------------------------===//
// Fields that are not read
//===----------------------------------------------------------------------===//

/// Fields that have no bearing on an answer.
constexpr std::array ignoredFields = {"user",
                                      "metadata",
                                      "store",
                                      "service_tier",
                                      "safety_identifier",
                                      "prompt_cache_key",
                                      "parallel_tool_calls"};

namespace {
/// A field of what is not done here. It may say so itself, with null or this.
struct NeutralField {
  const char *name;
  const char *neutral; ///< JSON
};
} // namespace

constexpr std::array<NeutralField, 14> neutralFields = {{
    {"n", "1"},
    {"best_of", "1"},
    {"echo", "false"},
    {"suffix", "\"\""},
    {"top_logprobs", "0"},
    {"presence_penalty", "0"},
    {"frequency_penalty", "0"},
    {"logit_bias", "{}"},
    {"tools", "[]"},
    {"tool_choice", "\"none\""},
    {"functions", "[]"},
    {"function_call", "\"none\""},
    {"modalities", "[\"text\"]"},
    {"response_format", "{\"type\": \"text\"}"},
}};

/// A name that only a client knows, as an error tells it.
static std::string shown(const std::string &name) { return name.substr(0, 64); }

//===----------------------------------------------------------------------===//
// FieldReader
//===----------------------------------------------------------------------===//

namespace {

/// Reads the fields of a body, keeps the first error, and knows in the end
/// which fields nobody has asked for. A null is as good as no field.
class FieldReader {
public:
  explicit FieldReader(const json &object) : object(object) {}

  const json *find(const char *name) {
    known.emplace_back(name);
    auto at = object.find(name);
    return error || at == object.end() || at->is_null() ? nullptr : &*at;
  }

  void fail(const char *name, const std::string &message,
            const char *code = "invalid_value") {
    if (!error)
      error = ApiError{400, oneLine(std::string(name) + ": " + message), name,
                       code};
  }

  bool boolean(const char *name) {
    const json *value = find(name);
    if (value && !value->is_boolean())
      fail(name, "is not true or false");
    return value && value->is_boolean() && value->get<bool>();
  }

  std::optional<int32_t> integer(const char *name, int32_t low,
                                 int32_t high = INT32_MAX) {
    const json *value = find(name);
    if (!value)
      return std::nullopt;
    if (!isInteger(*value, low, high)) {
      fail(name, "is not a whole number of " + std::to_string(low) + " to " +
                     std::to_string(high));
      return std::nullopt;
    }
    return value->get<int32_t>();
  }

  float number(const char *name, float otherwise, int32_t most) {
    const json *value = find(name);
    if (!value)
      return otherwise;
    double number = value->is_number() ? value->get<double>() : -1;
    if (!(number >= 0 && number <= most))
      fail(name, "is not a number of 0 to " + std::to_string(most));
    return static_cast<float>(number);
  }

  std::string string(const char *name) {
    const json *value = find(name);
    if (value && !value->is_string())
      fail(name, "is not a string");
    return value && value->is_string() ? value->get<std::string>()
                                       : std::string();
  }

  /// Refuses what is not done here, unless somebody has read it, and then what
  /// nobody knows.
  void refuseOthers() {
    for (const auto &[name, neutral] : neutralFields)
      if (const json *value = isKnown(name) ? nullptr : find(name);
          value && *value != json::parse(neutral))
        fail(name, "is not supported, but for " + std::string(neutral),
             "unsupported_parameter");
    known.insert(known.end(), ignoredFields.begin(), ignoredFields.end());
    for (const auto &[name, value] : object.items())
      if (!isKnown(name))
        fail(shown(name).c_str(), "is no field that is known here",
             "unknown_parameter");
  }

  static bool isInteger(const json &value, int64_t low, int64_t high) {
    if (value.is_number_unsigned() &&
        value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
      return false;
    return value.is_number_integer() && value.get<int64_t>() >= low &&
           value.get<int64_t>() <= high;
  }

  std::optional<ApiError> error;

private:
  bool isKnown(std::string_view name) const {
    return std::ranges::find(known, name) != known.end();
  }

  const json &object;
  std::vector<std::string_view> known;
};

} // namespace

//===----------------------------------------------------------------------===//
// Prompts
//===----------------------------------------------------------------------===//

static void readIds(const json &list, FieldReader &fields,
                    CompletionRequest &out) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json &id : list) {
    if (!FieldReader::isInteger(id, 0, INT32_MAX))
      return fields.fail("prompt", "is not a text or a list of token ids");
    ids.push_back(id.get<int32_t>());
  }
  out.promptIds = std::move(ids);
}

/// A text, a list of ids, or a list of one of these.
static void readPrompt(FieldReader &fields, CompletionRequest &out) {
  const json *prompt = fields.find("prompt");
  if (!prompt)
    return fields.fail("prompt", "is missing", "missing_required_parameter");
  if (prompt->is_array() && !prompt->empty() &&
      (prompt->front().is_string() || prompt->front().is_array())) {
    if (prompt->size() > 1)
      return fields.fail("prompt",
                         "has " + std::to_string(prompt->size()) +
                             " prompts; a request is of one",
                         "unsupported_value");
    prompt = &prompt->front();
  }
  if (prompt->is_string())
    out.prompt = prompt->get<std::string>();
  else if (prompt->is_array())
    readIds(*prompt, fields, out);
  else
    fields.fail("prompt", "is not a text or a list of token ids");
}

/// Text, or a list of parts that are text.
static std::optional<std::string> contentOf(const json &message) {
  auto content = message.find("content");
  if (content == message.end())
    return std::nullopt;
  if (content->is_string())
    return content->get<std::string>();
  if (!content->is_array())
    return std::nullopt;
  std::string text;
  for (const json &part : *content) {
    if (!part.is_object() || part.size() != 2 ||
        part.value("type", json()) != "text" || !part.contains("text") ||
        !part["text"].is_string())
      return std::nullopt;
    text += part["text"].get_ref<const std::string &>();
  }
  return text;
}

static std::optional<std::string> roleOf(const json &message) {
  auto role = message.find("role");
  if (role == message.end() || !role->is_string())
    return std::nullopt;
  if (*role == "developer") // what OpenAI calls it now
    return "system";
  if (*role == "system" || *role == "user" || *role == "assistant")
    return role->get<std::string>();
  return std::nullopt;
}

static void readMessages(FieldReader &fields, CompletionRequest &out) {
  const json *messages = fields.find("messages");
  if (!messages)
    return fields.fail("messages", "is missing", "missing_required_parameter");
  if (!messages->is_array() || messages->empty() ||
      messages->size() > maxMessages)
    return fields.fail("messages", "is not a list of 1 to " +
                                       std::to_string(maxMessages) +
                                       " messages");
  for (size_t i = 0; i < messages->size(); ++i) {
    const json &message = (*messages)[i];
    std::string name = "messages[" + std::to_string(i) + "]";
    if (!message.is_object())
      return fields.fail("messages", name + " is not an object");
    std::optional<std::string> role = roleOf(message);
    if (!role)
      return fields.fail("messages", name + ".role is not system, developer, "
                                            "user or assistant");
    std::optional<std::string> content = contentOf(message);
    if (!content)
      return fields.fail("messages", name + ".content is not text");
    for (const auto &[key, value] : message.items())
      if (key != "role" && key != "content" && !value.is_null())
        return fields.fail("messages",
                           name + "." + shown(key) + " is not supported",
                           "unsupported_parameter");
    out.messages.push_back({*role, std::move(*content)});
  }
}

//===----------------------------------------------------------------------===//
// The rest
//===----------------------------------------------------------------------===//

static void readStops(FieldReader &fields, CompletionRequest &out) {
  const json *stop = fields.find("stop");
  if (!stop)
    return;
  const json list = stop->is_string() ? json::array({*stop}) : *stop;
  if (!list.is_array() || list.size() > maxStops)
    return fields.fail("stop", "is not a text or a list of up to " +
                                   std::to_string(maxStops));
  for (const json &text : list) {
    size_t bytes =
        text.is_string() ? text.get_ref<const std::string &>().size() : 0;
    if (bytes < 1 || bytes > maxStopBytes)
      return fields.fail("stop", "is not of texts of 1 to " +
                                     std::to_string(maxStopBytes) + " bytes");
    out.stops.push_back(text.get<std::string>());
  }
}

static void readSeed(FieldReader &fields, CompletionRequest &out) {
  const json *seed = fields.find("seed");
  if (!seed)
    return;
  if (!seed->is_number_integer())
    return fields.fail("seed", "is not a whole number of 64 bits");
  out.seed = seed->is_number_unsigned()
                 ? seed->get<uint64_t>()
                 : static_cast<uint64_t>(seed->get<int64_t>());
}

/// Chat has two names for it.
static void readMaxTokens(FieldReader &fields, CompletionRequest &out) {
  out.maxTokens = fields.integer("max_tokens", 1);
  if (out.api != Api::Chat)
    return;
  std::optional<int32_t> other = fields.integer("max_completion_tokens", 1);
  if (other && out.maxTokens && *other != *out.maxTokens)
    fields.fail("max_completion_tokens", "is not what max_tokens says");
  if (other)
    out.maxTokens = other;
}

/// A chat asks by two fields, a completion by a number, of which false is none.
static void readLogprobs(FieldReader &fields, CompletionRequest &out) {
  if (out.api == Api::Completions) {
    const json *asked = fields.find("logprobs");
    if (asked && *asked != false)
      out.topLogprobs = fields.integer("logprobs", 0, maxCompletionLogprobs);
    return;
  }
  bool isAsked = fields.boolean("logprobs");
  int32_t count =
      fields.integer("top_logprobs", 0, mostTopLogprobs).value_or(0);
  if (isAsked)
    out.topLogprobs = count;
  else if (count > 0)
    fields.fail("top_logprobs", "is there without logprobs");
}

static void readStreaming(FieldReader &fields, CompletionRequest &out) {
  out.streams = fields.boolean("stream");
  const json *options = fields.find("stream_options");
  if (!options)
    return;
  if (!out.streams)
    return fields.fail("stream_options", "is there without stream");
  if (!options->is_object())
    return fields.fail("stream_options", "is not an object");
  for (const auto &[name, value] : options->items()) {
    if (name == "include_obfuscation" && value == false)
      continue;
    if (name != "include_usage" || !value.is_boolean())
      return fields.fail("stream_options", shown(name) + " is not supported",
                         "unsupported_parameter");
    out.includesUsage = value.get<bool>();
  }
}

/// nlohmann's parser has no stack, but a level of nesting takes memory.
static bool isTooDeep(std::string_view text) {
  int32_t depth = 0;
  bool isInString = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (isInString && c == '\\')
      ++i;
    else if (c == '"')
      isInString = !isInString;
    else if (!isInString && (c == '[' || c == '{') && ++depth > maxJsonDepth)
      return true;
    else if (!isInString && (c == ']' || c == '}'))
      --depth;
  }
  return false;
}

static std::optional<ApiError> parseBody(std::string_view body, json &out) {
  auto refuse = [](const std::string &message) {
    return ApiError{400, "the body " + message, "", "invalid_json"};
  };
  if (isTooDeep(body))
    return refuse("is nested deeper than " + std::to_string(maxJsonDepth));
  try {
    out = json::parse(body);
  } catch (const json::parse_error &error) {
    bool isText =
        std::string_view(error.what()).find("UTF-8") == std::string_view::npos;
    return refuse((isText ? "is not valid JSON, at byte "
                          : "is not valid UTF-8, at byte ") +
                  std::to_string(error.byte));
  } catch (const json::exception &) { // a number out of range
    return refuse("is not valid JSON");
  }
  // To nlohmann's parser a zero byte is the end, and what follows is nothing.
  if (size_t zero = body.find('\0'); zero != std::string_view::npos)
    return refuse("is not valid JSON, at byte " + std::to_string(zero + 1));
  if (!out.is_object())
    return refuse("is not a JSON object");
  return std::nullopt;
}

std::optional<ApiError> serve::parseCompletionRequest(Api api,
                                                      std::string_view body,
                                                      CompletionRequest &out) {
  json object;
  if (std::optional<ApiError> error = parseBody(body, object))
    return error;
  out = CompletionRequest();
  out.api = api;
  FieldReader fields(object);
  out.model = fields.string("model");
  if (api == Api::Chat)
    readMessages(fields, out);
  else
    readPrompt(fields, out);
  readMaxTokens(fields, out);
  // OpenAI's defaults, which are not those of `kvrm-run generate`.
  out.sampling.temperature = fields.number("temperature", 1, 2);
  out.sampling.topP = fields.number("top_p", 1, 1);
  out.sampling.topK = fields.integer("top_k", 0).value_or(0);
  readSeed(fields, out);
  readStops(fields, out);
  readLogprobs(fields, out);
  readStreaming(fields, out);
  out.ignoresEos = fields.boolean("ignore_eos");
  out.returnsTokenIds = fields.boolean("return_token_ids");
  fields.refuseOthers();
  return fields.error;
}
