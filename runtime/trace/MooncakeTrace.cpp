//===- MooncakeTrace.cpp - Mooncake traces ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TraceReader.h"

#include <nlohmann/json.hpp>

using namespace kvrm;

namespace {

/// Keeps the few fields of a line, and refuses any other shape while it is
/// read: no tree is built, so that nesting cannot exhaust the stack.
class LineHandler final : public nlohmann::json_sax<nlohmann::json> {
public:
  explicit LineHandler(std::vector<uint64_t> &ids) : ids(ids) {}

  enum Field { Timestamp, InputLength, OutputLength, HashIds, Other };
  static constexpr const char *names[] = {"timestamp", "input_length",
                                          "output_length", "hash_ids"};

  bool null() override { return wrong(); }
  bool boolean(bool) override { return wrong(); }
  bool number_integer(number_integer_t) override { return wrong(); }
  bool number_unsigned(number_unsigned_t value) override {
    if (isInList) {
      if (ids.size() - firstId >= maxIds)
        return refuse("hash_ids: more than the limit " +
                      std::to_string(maxIds));
      ids.push_back(value);
      return true;
    }
    if (depth != 1 || field >= HashIds)
      return wrong();
    values[field] = value;
    return true;
  }
  bool number_float(number_float_t, const string_t &) override {
    return wrong();
  }
  bool string(string_t &) override { return wrong(); }
  bool binary(binary_t &) override { return wrong(); }
  bool start_object(size_t) override {
    if (depth++ != 0)
      return wrong();
    return true;
  }
  bool key(string_t &name) override {
    for (int i = 0; i < Other; ++i)
      if (name == names[i]) {
        if (isSeen[i])
          return refuse(name + ": is there twice");
        isSeen[i] = true;
        field = static_cast<Field>(i);
        return true;
      }
    return refuse("'" + shown(name) + "' is not a known field");
  }
  bool end_object() override { return true; }
  bool start_array(size_t) override {
    if (depth != 1 || field != HashIds || isInList)
      return wrong();
    isInList = true;
    return true;
  }
  bool end_array() override {
    isInList = false;
    return true;
  }
  bool parse_error(size_t, const std::string &,
                   const nlohmann::detail::exception &) override {
    return refuse("is not valid JSON");
  }

  bool isSeen[Other] = {};
  uint64_t values[HashIds] = {};
  std::string error;

private:
  bool refuse(std::string text) {
    if (error.empty())
      error = std::move(text);
    return false;
  }
  bool wrong() {
    if (depth == 0)
      return refuse("is not a JSON object");
    return refuse(std::string(names[field]) +
                  (field == HashIds ? ": is not a list of numbers from 0 on"
                                    : ": is not a number from 0 on"));
  }

  static constexpr size_t maxIds = maxTraceTokens / mooncakeBlockTokens;
  std::vector<uint64_t> &ids;
  size_t firstId = ids.size();
  Field field = Timestamp;
  int depth = 0;
  bool isInList = false;
};

} // namespace

Expected<Trace> kvrm::parseMooncakeTrace(std::string_view text,
                                         const std::string &name) {
  KVRM_TRY(checkSize(text, name));
  Trace trace;
  trace.name = name;
  trace.format = "mooncake";
  trace.blockTokens = mooncakeBlockTokens;
  LineReader lines(text);
  uint64_t start = 0;
  while (std::optional<std::string_view> line = lines.next()) {
    auto bad = [&](const auto &...parts) {
      return badLine(name, lines.number, parts...);
    };
    if (line->empty())
      return bad("is empty");
    TraceRequest request;
    request.firstHash = static_cast<int64_t>(trace.hashIds.size());
    LineHandler handler(trace.hashIds);
    if (!nlohmann::json::sax_parse(line->begin(), line->end(), &handler) ||
        !handler.error.empty())
      return bad(handler.error.empty() ? "is not valid JSON" : handler.error);
    for (int i = 0; i < LineHandler::Other; ++i)
      if (!handler.isSeen[i])
        return bad(LineHandler::names[i], ": is missing");
    for (auto field : {LineHandler::InputLength, LineHandler::OutputLength})
      if (handler.values[field] < 1 ||
          handler.values[field] > static_cast<uint64_t>(maxTraceTokens))
        return bad(LineHandler::names[field], ": ", handler.values[field],
                   " is outside 1..", maxTraceTokens);
    request.promptTokens =
        static_cast<int32_t>(handler.values[LineHandler::InputLength]);
    request.outputTokens =
        static_cast<int32_t>(handler.values[LineHandler::OutputLength]);
    uint64_t time = handler.values[LineHandler::Timestamp];
    if (trace.requests.empty())
      start = time;
    if (time < start)
      return bad("arrives before the request of the line before it");
    if (time - start > static_cast<uint64_t>(maxTraceSeconds) * 1000)
      return bad("arrives more than ", maxTraceSeconds,
                 " s after the first request");
    request.arrival = static_cast<int64_t>(time - start) * 1'000'000;
    request.hashes = static_cast<int32_t>(
        static_cast<int64_t>(trace.hashIds.size()) - request.firstHash);
    int32_t blocks =
        (request.promptTokens + mooncakeBlockTokens - 1) / mooncakeBlockTokens;
    if (request.hashes != blocks)
      return bad("hash_ids: ", request.hashes, " ids for ", blocks,
                 " blocks of ", mooncakeBlockTokens, " tokens");
    KVRM_TRY(addRequest(trace, request, lines.number));
  }
  if (trace.requests.empty())
    return invalidArgument(name, ": has no requests");
  return trace;
}
