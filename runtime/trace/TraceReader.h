//===- TraceReader.h - Lines of a trace, each checked -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the parsers share. Private to kvrm_trace.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TRACE_TRACEREADER_H
#define KVRM_TRACE_TRACEREADER_H

#include "kvrm/trace/Trace.h"

#include <algorithm>
#include <optional>

namespace kvrm {

/// Hands out the lines of a text, without their ends.
class LineReader {
public:
  explicit LineReader(std::string_view text) : rest(text) {}

  std::optional<std::string_view> next() {
    if (rest.empty())
      return std::nullopt;
    size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
    if (!line.empty() && line.back() == '\r')
      line.remove_suffix(1);
    ++number;
    return line;
  }

  int64_t number = 0; ///< of the last line, from 1

private:
  std::string_view rest;
};

/// What a message shows of a bad value: one short line of visible characters.
inline std::string shown(std::string_view value) {
  constexpr size_t most = 40;
  std::string out(value.substr(0, most));
  for (char &c : out)
    if (c < ' ' || c > '~')
      c = '?';
  return value.size() > most ? out + "..." : out;
}

template <typename... Parts>
Status badLine(const std::string &name, int64_t line, const Parts &...parts) {
  return invalidArgument(name, ": line ", line, ": ", parts...);
}

/// Checks what all formats share before a request joins the trace.
inline Status addRequest(Trace &trace, const TraceRequest &request,
                         int64_t line) {
  if (static_cast<int64_t>(trace.requests.size()) >= maxTraceRequests)
    return badLine(trace.name, line, "more requests than the limit ",
                   maxTraceRequests);
  if (request.arrival > maxTraceSeconds * 1'000'000'000)
    return badLine(trace.name, line, "arrives more than ", maxTraceSeconds,
                   " s after the first request");
  if (request.arrival <
      (trace.requests.empty() ? 0 : trace.requests.back().arrival))
    return badLine(trace.name, line,
                   "arrives before the request of the line before it");
  trace.requests.push_back(request);
  return Status::ok();
}

inline Status checkSize(std::string_view text, const std::string &name) {
  if (static_cast<int64_t>(text.size()) > maxTraceBytes)
    return invalidArgument(name, ": ", text.size(),
                           " bytes are more than the limit ", maxTraceBytes);
  return Status::ok();
}

} // namespace kvrm

#endif // KVRM_TRACE_TRACEREADER_H
