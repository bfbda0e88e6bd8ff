//===- AzureTrace.cpp - Azure LLM inference traces --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TraceReader.h"

#include <array>
#include <charconv>

using namespace kvrm;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (H.
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms").
static int64_t daysOf(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  int64_t era = year / 400;
  int64_t yearOfEra = year - era * 400;
  int64_t dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  int64_t dayOfEra =
      yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear;
  return era * 146097 + dayOfEra - 719468;
}

static int64_t daysIn(int64_t year, int64_t month) {
  constexpr std::array<int64_t, 12> days{31, 28, 31, 30, 31, 30,
                                         31, 31, 30, 31, 30, 31};
  bool isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  return days[static_cast<size_t>(month - 1)] + (month == 2 && isLeap);
}

/// Takes `digits` digits off the front of `text`; -1 if they are not there.
static int64_t takeDigits(std::string_view &text, size_t digits) {
  if (text.size() < digits)
    return -1;
  int64_t value = 0;
  for (char c : text.substr(0, digits)) {
    if (c < '0' || c > '9')
      return -1;
    value = value * 10 + (c - '0');
  }
  text.remove_prefix(digits);
  return value;
}

static bool take(std::string_view &text, std::string_view prefix) {
  if (!text.starts_with(prefix))
    return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// Nanoseconds since 1970 of `2023-11-16 18:15:46.6805900`: up to nine digits
/// of a second, and UTC if a zone is given (the traces of 2024 have +00:00).
static std::optional<int64_t> parseTimestamp(std::string_view text) {
  int64_t year = takeDigits(text, 4);
  if (!take(text, "-"))
    return std::nullopt;
  int64_t month = takeDigits(text, 2);
  if (!take(text, "-"))
    return std::nullopt;
  int64_t day = takeDigits(text, 2);
  if (!take(text, " ") && !take(text, "T"))
    return std::nullopt;
  int64_t hour = takeDigits(text, 2);
  if (!take(text, ":"))
    return std::nullopt;
  int64_t minute = takeDigits(text, 2);
  if (!take(text, ":"))
    return std::nullopt;
  int64_t second = takeDigits(text, 2);
  // The years in which nanoseconds fit.
  if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 ||
      day > daysIn(year, month) || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 59)
    return std::nullopt;
  int64_t nanoseconds = 0;
  if (take(text, ".")) {
    int64_t unit = 100'000'000;
    size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
      if (unit == 0)
        return std::nullopt;
      nanoseconds += (text[digits++] - '0') * unit;
      unit /= 10;
    }
    if (digits == 0)
      return std::nullopt;
    text.remove_prefix(digits);
  }
  if (!take(text, "+00:00"))
    (void)take(text, "Z");
  if (!text.empty())
    return std::nullopt;
  int64_t seconds =
      ((daysOf(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
  return seconds * 1'000'000'000 + nanoseconds;
}

static Status parseTokens(std::string_view text, const char *field,
                          const std::string &name, int64_t line, int32_t &out) {
  int64_t value = 0;
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 ||
      value > maxTraceTokens)
    return badLine(name, line, field, ": '", shown(text),
                   "' is not a number in 1..", maxTraceTokens);
  out = static_cast<int32_t>(value);
  return Status::ok();
}

Expected<Trace> kvrm::parseAzureTrace(std::string_view text,
                                      const std::string &name) {
  constexpr std::string_view header = "TIMESTAMP,ContextTokens,GeneratedTokens";
  KVRM_TRY(checkSize(text, name));
  Trace trace;
  trace.name = name;
  trace.format = "azure";
  LineReader lines(text);
  // Spreadsheets put a byte order mark in front.
  std::optional<std::string_view> first = lines.next();
  if (first)
    (void)take(*first, "\xef\xbb\xbf");
  if (!first || *first != header)
    return badLine(name, 1, "'", shown(first.value_or("")), "' is not '",
                   header, "'");
  int64_t start = 0;
  while (std::optional<std::string_view> line = lines.next()) {
    if (line->empty())
      return badLine(name, lines.number, "is empty");
    if (std::ranges::count(*line, ',') != 2)
      return badLine(name, lines.number, "'", shown(*line),
                     "' does not have 3 fields");
    size_t comma = line->find(',');
    size_t second = line->find(',', comma + 1);
    std::string_view stamp = line->substr(0, comma);
    std::optional<int64_t> time = parseTimestamp(stamp);
    if (!time)
      return badLine(name, lines.number, "TIMESTAMP: '", shown(stamp),
                     "' is not a time such as 2023-11-16 18:15:46.6805900");
    TraceRequest request;
    KVRM_TRY(parseTokens(line->substr(comma + 1, second - comma - 1),
                         "ContextTokens", name, lines.number,
                         request.promptTokens));
    KVRM_TRY(parseTokens(line->substr(second + 1), "GeneratedTokens", name,
                         lines.number, request.outputTokens));
    if (trace.requests.empty())
      start = *time;
    request.arrival = *time - start;
    KVRM_TRY(addRequest(trace, request, lines.number));
  }
  if (trace.requests.empty())
    return invalidArgument(name, ": has no requests");
  return trace;
}
