//===- SyntheticTrace.cpp - Traces from a seed ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Only whole numbers are computed with, but for the mean gap between arrivals,
// one division: functions of libm differ between platforms.
//
//===----------------------------------------------------------------------===//

#include "TraceReader.h"

#include "kvrm/runtime/support/SplitMix64.h"

#include <array>
#include <charconv>
#include <cmath>

using namespace kvrm;

namespace {

class Random {
public:
  explicit Random(uint64_t seed) : numbers(seed) {}

  uint64_t next() { return numbers.next(); }

  /// 0..limit-1, for limits so small that a remainder is fair.
  int64_t below(int64_t limit) {
    return static_cast<int64_t>(next() % static_cast<uint64_t>(limit));
  }

  /// Exponentially distributed with mean `mean`, which is below 2^42: -ln of a
  /// uniform number, whose binary logarithm is found bit by bit.
  int64_t exponential(int64_t mean) {
    uint64_t uniform = (next() >> 32) + 1; // 1..2^32
    int whole = 63;
    while (!(uniform >> whole))
      --whole;
    uint64_t mantissa =
        whole == 32 ? uint64_t(1) << 31 : uniform << (31 - whole);
    uint64_t fraction = 0;
    for (int bit = 0; bit < 16; ++bit) {
      mantissa = mantissa * mantissa >> 31;
      fraction <<= 1;
      if (mantissa >> 32) {
        fraction |= 1;
        mantissa >>= 1;
      }
    }
    constexpr uint64_t ln2 = 45426; // in 1/2^16
    uint64_t negativeLog2 = (uint64_t(32) << 16) -
                            ((static_cast<uint64_t>(whole) << 16) | fraction);
    uint64_t scaled = negativeLog2 * ln2 >> 16;
    return static_cast<int64_t>(static_cast<uint64_t>(mean) * scaled >> 16);
  }

private:
  SplitMix64 numbers;
};

constexpr std::array<const char *, 6> families{
    "chat", "uniform", "zipf", "bimodal", "bursty", "shared-prefix"};

struct Settings {
  size_t family = 0;
  int64_t seed = 1;
  int64_t requests = 500;
  double rate = 5;
  int64_t prompt = 1024;
  int64_t output = 256;
  int64_t burst = 5;
  int64_t prefixes = 4;
};

} // namespace

static constexpr std::string_view prefix = "synthetic:";

bool kvrm::isSyntheticTrace(std::string_view spec) {
  return spec.starts_with(prefix);
}

/// Calls `read` with each part of a list.
template <typename Read>
static Status forEachPart(std::string_view list, Read read) {
  while (!list.empty()) {
    size_t comma = list.find(',');
    KVRM_TRY(read(list.substr(0, comma)));
    list.remove_prefix(comma == list.npos ? list.size() : comma + 1);
  }
  return Status::ok();
}

/// Whether all of `text` is a number.
template <typename Number>
static bool parseAll(std::string_view text, Number &number) {
  auto [stop, error] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && stop == text.data() + text.size();
}

static Status parseFamily(std::string_view value, Settings &settings) {
  auto found = std::ranges::find(families, value);
  if (found == families.end()) {
    std::string known;
    for (const char *family : families)
      known += std::string(known.empty() ? "" : ", ") + family;
    return invalidArgument(prefix, " family: '", shown(value),
                           "' is not one of ", known);
  }
  settings.family = static_cast<size_t>(found - families.begin());
  return Status::ok();
}

static Status parseRate(std::string_view value, Settings &settings) {
  if (!parseAll(value, settings.rate) ||
      !(settings.rate >= 0.01 && settings.rate <= 1e6))
    return invalidArgument(prefix, " rate: '", shown(value),
                           "' is not a number in 0.01..1000000");
  return Status::ok();
}

static Status parseNumber(std::string_view key, std::string_view value,
                          Settings &settings) {
  struct Number {
    std::string_view key;
    int64_t *value;
    int64_t low;
    int64_t high;
  };
  const std::array<Number, 6> numbers{{
      {"seed", &settings.seed, 0, INT64_MAX},
      {"requests", &settings.requests, 1, maxTraceRequests},
      {"prompt", &settings.prompt, 1, maxTraceTokens / 32},
      {"output", &settings.output, 1, maxTraceTokens / 32},
      {"burst", &settings.burst, 1, 1000},
      {"prefixes", &settings.prefixes, 1, 65536},
  }};
  auto number = std::ranges::find(numbers, key, &Number::key);
  if (number == numbers.end())
    return invalidArgument(prefix, " '", shown(key),
                           "' is not one of family, seed, requests, rate, "
                           "prompt, output, burst, prefixes");
  if (!parseAll(value, *number->value) || *number->value < number->low ||
      *number->value > number->high)
    return invalidArgument(prefix, " ", key, ": '", shown(value),
                           "' is not a number in ", number->low, "..",
                           number->high);
  return Status::ok();
}

static Expected<Settings> parseSettings(std::string_view spec) {
  if (!isSyntheticTrace(spec))
    return invalidArgument("'", shown(spec), "' does not start with ", prefix);
  Settings settings;
  auto parsePart = [&](std::string_view part) -> Status {
    size_t equals = part.find('=');
    if (equals == part.npos)
      return invalidArgument(prefix, " '", shown(part), "' is not key=value");
    std::string_view key = part.substr(0, equals);
    std::string_view value = part.substr(equals + 1);
    if (key == "family")
      return parseFamily(value, settings);
    if (key == "rate")
      return parseRate(value, settings);
    return parseNumber(key, value, settings);
  };
  KVRM_TRY(forEachPart(spec.substr(prefix.size()), parsePart));
  return settings;
}

/// Deciles of lengths in a conversation service, as per mille of their mean.
/// Between two, lengths are even.
static int64_t drawChat(Random &random, int64_t mean, bool isPrompt) {
  static constexpr std::array<int64_t, 11> prompts{
      2, 179, 335, 349, 609, 883, 927, 979, 1139, 2368, 6000};
  static constexpr std::array<int64_t, 11> outputs{
      33, 256, 365, 431, 488, 611, 839, 1819, 1896, 2009, 2900};
  const auto &deciles = isPrompt ? prompts : outputs;
  auto part = static_cast<size_t>(random.below(10));
  int64_t low = deciles[part];
  int64_t mille = low + random.below(deciles[part + 1] - low + 1);
  return std::max<int64_t>(1, mean * mille / 1000);
}

static int64_t drawLength(Random &random, const Settings &settings,
                          bool isPrompt) {
  int64_t mean = isPrompt ? settings.prompt : settings.output;
  std::string_view family = families[settings.family];
  if (family == "uniform")
    return 1 + random.below(2 * mean - 1);
  if (family == "zipf") {
    // P(length > n) ~ 1/n between mean/4 and 32 mean.
    int64_t low = std::max<int64_t>(1, mean / 4);
    int64_t high = 32 * mean;
    constexpr int64_t one = 1 << 20;
    int64_t u = random.below(one);
    return low * high * one / ((one - u) * high + u * low);
  }
  if (family == "bimodal") {
    // Nine of ten are a third of the mean, the tenth is seven times it.
    int64_t centre =
        random.below(10) == 0 ? 7 * mean : std::max<int64_t>(1, mean / 3);
    return std::max<int64_t>(1, centre * (900 + random.below(201)) / 1000);
  }
  return drawChat(random, mean, isPrompt);
}

/// Blocks of the prompt: a system prompt that many requests have, then what
/// only this one has.
static void addHashes(Random &random, const Settings &settings,
                      uint64_t &nextHash, Trace &trace, TraceRequest &request) {
  // The first system prompt is as frequent as all after it, and so on.
  int64_t which = 0;
  while (which + 1 < settings.prefixes && random.below(2) == 0)
    ++which;
  // System prompts have 1 to 4 blocks, in front of the request's own.
  constexpr int32_t most = 4;
  auto shared = static_cast<int32_t>(1 + which % most);
  request.promptTokens = static_cast<int32_t>(std::min<int64_t>(
      request.promptTokens + int64_t(shared) * trace.blockTokens,
      maxTraceTokens));
  request.firstHash = static_cast<int64_t>(trace.hashIds.size());
  request.hashes =
      (request.promptTokens + trace.blockTokens - 1) / trace.blockTokens;
  for (int32_t i = 0; i < request.hashes; ++i)
    trace.hashIds.push_back(i < shared ? static_cast<uint64_t>(which * most + i)
                                       : nextHash++);
}

namespace {

/// When requests arrive: evenly at random, or in bursts of a mean of 20
/// requests at `burst` times the rate, then silence.
class Arrivals {
public:
  Arrivals(const Settings &settings, uint64_t seed)
      : random(seed), gap(std::llround(1e9 / settings.rate)),
        burst(families[settings.family] == std::string_view("bursty")
                  ? settings.burst
                  : 1) {}

  /// In nanoseconds; the first is 0.
  int64_t next() {
    if (burst == 1) {
      time += isFirst ? 0 : random.exponential(gap);
    } else {
      if (!isFirst) {
        time += std::max<int64_t>(1, random.exponential(gap / burst));
        if (time > burstEnd)
          time += random.exponential(gap * burstRequests * (burst - 1) / burst);
      }
      if (time > burstEnd)
        burstEnd = time + random.exponential(gap * burstRequests / burst);
    }
    isFirst = false;
    return time;
  }

private:
  static constexpr int64_t burstRequests = 20;
  Random random;
  int64_t gap;
  int64_t burst; ///< 1 = none
  int64_t burstEnd = 0;
  int64_t time = 0;
  bool isFirst = true;
};

} // namespace

Expected<Trace> kvrm::makeSyntheticTrace(std::string_view spec) {
  Expected<Settings> parsed = parseSettings(spec);
  KVRM_TRY(parsed.status());
  const Settings &settings = *parsed;
  Trace trace;
  trace.name = spec;
  trace.format = "synthetic";
  if (families[settings.family] == std::string_view("shared-prefix"))
    trace.blockTokens = mooncakeBlockTokens;
  // One generator for each kind of number, so that a change of one setting
  // leaves the others' numbers alone.
  auto seed = static_cast<uint64_t>(settings.seed);
  Arrivals arrivals(settings, seed * 4);
  Random lengths(seed * 4 + 1);
  Random hashes(seed * 4 + 2);
  uint64_t nextHash = uint64_t(1) << 32;
  for (int64_t i = 0; i < settings.requests; ++i) {
    TraceRequest request;
    request.arrival = arrivals.next();
    auto draw = [&](bool isPrompt) {
      return static_cast<int32_t>(std::clamp<int64_t>(
          drawLength(lengths, settings, isPrompt), 1, maxTraceTokens));
    };
    request.promptTokens = draw(/*isPrompt=*/true);
    request.outputTokens = draw(/*isPrompt=*/false);
    if (trace.blockTokens > 0)
      addHashes(hashes, settings, nextHash, trace, request);
    if (request.arrival > maxTraceSeconds * 1'000'000'000)
      return invalidArgument(prefix, " ", settings.requests,
                             " requests at this rate take more than ",
                             maxTraceSeconds, " s");
    trace.requests.push_back(request);
  }
  return trace;
}
