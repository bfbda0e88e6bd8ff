//===- Trace.h - Requests as they came in production ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A trace is when requests came and how long they were. What they said is not
// in it. Two public formats are read, and families of traces are made from a
// seed:
//
//   Azure     CSV: TIMESTAMP,ContextTokens,GeneratedTokens
//   Mooncake  JSON lines: timestamp in ms, input_length, output_length, and
//             hash_ids, one a block of 512 prompt tokens; requests whose ids
//             start alike have prompts that start alike
//   synthetic synthetic:family=chat,seed=1,requests=500,rate=5
//
// Every line is checked. Arrivals must not go back: a file out of order is
// damaged or several files in one, and sorting it would hide that.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TRACE_TRACE_H
#define KVRM_TRACE_TRACE_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// Limits of every trace.
constexpr int64_t maxTraceBytes = int64_t(1) << 30;
constexpr int64_t maxTraceRequests = int64_t(1) << 22;
constexpr int64_t maxTraceTokens = int64_t(1) << 20;  ///< of a prompt or output
constexpr int64_t maxTraceSeconds = int64_t(1) << 25; ///< over a year
constexpr int32_t mooncakeBlockTokens = 512;

struct TraceRequest {
  int64_t arrival = 0; ///< nanoseconds after the first request
  int32_t promptTokens = 0;
  int32_t outputTokens = 0;
  int64_t firstHash = 0; ///< in Trace::hashIds
  int32_t hashes = 0;
};

struct Trace {
  std::string name;
  std::string format;                 ///< "azure", "mooncake" or "synthetic"
  std::vector<TraceRequest> requests; ///< in order of arrival, one at least
  int32_t blockTokens = 0;            ///< tokens of a hash id; 0 = no ids
  std::vector<uint64_t> hashIds;      ///< of all requests

  /// One id a block of the request's prompt; empty without ids.
  std::span<const uint64_t> hashesOf(const TraceRequest &request) const {
    return std::span(hashIds).subspan(static_cast<size_t>(request.firstHash),
                                      static_cast<size_t>(request.hashes));
  }
};

/// Parse a file's text; `name` is what messages start with. Errors:
/// InvalidArgument, naming line, field and limit.
Expected<Trace> parseAzureTrace(std::string_view text, const std::string &name);
Expected<Trace> parseMooncakeTrace(std::string_view text,
                                   const std::string &name);

/// Makes a trace from `synthetic:key=value,...`: the same one everywhere.
/// Keys, all optional: family (chat, uniform, zipf, bimodal, bursty or
/// shared-prefix), seed, requests, rate (a second), prompt and output (mean
/// tokens), burst (how much denser arrivals are in a burst) and prefixes
/// (system prompts). Errors: InvalidArgument.
Expected<Trace> makeSyntheticTrace(std::string_view spec);
bool isSyntheticTrace(std::string_view spec);

enum class TraceFormat { Auto, Azure, Mooncake };
/// Loads a file, or makes a synthetic trace. Auto takes a file that starts with
/// an object as Mooncake. Errors: NotFound, IoError, InvalidArgument.
Expected<Trace> loadTrace(const std::string &source, TraceFormat format);

} // namespace kvrm

#endif // KVRM_TRACE_TRACE_H
