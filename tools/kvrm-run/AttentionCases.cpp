//===- AttentionCases.cpp - Batches to measure attention with -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionCases.h"

#include "kvrm/runtime/abi/limits.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <random>

using namespace kvrm;
using namespace kvrm::run;

/// Of a history that --rows gives.
static constexpr int32_t mostTokens = 1 << 20;

namespace {
/// std's distributions differ between platforms; its engines do not.
class Random {
public:
  explicit Random(uint64_t seed) : engine(seed) {}
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(engine() %
                                      static_cast<uint64_t>(high - low + 1));
  }

private:
  std::mt19937_64 engine;
};
} // namespace

/// Calls `length` once a row, in order.
template <typename Length>
static AttentionCase familyCase(const char *family, int32_t rows, uint64_t seed,
                                Length length) {
  AttentionCase result{
      std::string(family) + "-B" + std::to_string(rows), family, seed, {}};
  Random random(seed);
  for (int32_t i = 0; i < rows; ++i)
    result.lengths.push_back(length(random, i));
  return result;
}

AttentionCase run::bimodalCase(int32_t rows, uint64_t seed) {
  return familyCase("bimodal", rows, seed, [](Random &random, int32_t i) {
    return i % 4 == 0 ? random.between(24576, 65536)
                      : random.between(2048, 12288);
  });
}

AttentionCase run::uniformCase(int32_t rows, uint64_t seed) {
  return familyCase("uniform", rows, seed, [](Random &random, int32_t) {
    return random.between(4096, 32768);
  });
}

AttentionCase run::zipfCase(int32_t rows, uint64_t seed) {
  return familyCase("zipf", rows, seed, [](Random &random, int32_t) {
    return 2048 +
           static_cast<int32_t>(65536 / std::sqrt(random.between(1, 32)));
  });
}

AttentionCase run::bucketedCase(uint64_t seed) {
  constexpr int32_t buckets[] = {8192, 16384, 32768, 65536};
  return {"bucketed-B1", "bucketed", seed, {buckets[seed % 4]}};
}

AttentionCase run::raggedCase(int32_t rows, int32_t low, int32_t high,
                              uint64_t seed) {
  return familyCase("ragged", rows, seed, [=](Random &random, int32_t) {
    return random.between(low, high);
  });
}

AttentionCase run::homogeneousCase(int32_t rows, int32_t length) {
  return {"B" + std::to_string(rows) + "x" + std::to_string(length),
          "homogeneous", 0,
          std::vector<int32_t>(static_cast<size_t>(rows), length)};
}

std::vector<AttentionCase> run::benchCases(uint64_t seed) {
  std::vector<AttentionCase> cases;
  auto add = [&](int32_t rows, std::initializer_list<int32_t> lengths) {
    for (int32_t length : lengths)
      cases.push_back(homogeneousCase(rows, length));
  };
  add(1, {2048, 8192, 32768, 65536});
  add(4, {2048, 8192, 32768});
  add(8, {2048, 8192, 32768});
  add(32, {2048, 8192});
  add(128, {2048, 8192});
  for (int32_t rows : {4, 8, 32})
    cases.push_back(bimodalCase(rows, seed));
  cases.push_back(uniformCase(8, seed));
  cases.push_back(zipfCase(8, seed));
  cases.push_back(bucketedCase(seed));
  return cases;
}

std::vector<AttentionCase>
run::servingCases(const std::vector<uint64_t> &seeds) {
  std::vector<AttentionCase> cases;
  auto add = [&](auto make) {
    for (uint64_t seed : seeds) {
      cases.push_back(make(seed));
      cases.back().name += "-seed" + std::to_string(seed);
    }
  };
  add([](uint64_t seed) { return bucketedCase(seed); });
  add([](uint64_t seed) { return bimodalCase(4, seed); });
  add([](uint64_t seed) { return bimodalCase(8, seed); });
  add([](uint64_t seed) { return uniformCase(8, seed); });
  add([](uint64_t seed) { return zipfCase(8, seed); });
  cases.push_back(homogeneousCase(4, 32768));
  return cases;
}

std::vector<AttentionCase> run::calibrationCases() {
  constexpr uint64_t seed = 1;
  std::vector<AttentionCase> cases = {
      homogeneousCase(1, 1024),      homogeneousCase(1, 6144),
      homogeneousCase(1, 20480),     homogeneousCase(1, 49152),
      homogeneousCase(2, 12288),     homogeneousCase(4, 3072),
      homogeneousCase(4, 20480),     homogeneousCase(8, 1024),
      homogeneousCase(8, 6144),      homogeneousCase(16, 3072),
      homogeneousCase(32, 1536),     homogeneousCase(64, 1024),
      bimodalCase(4, seed),          bimodalCase(8, seed),
      uniformCase(6, seed),          zipfCase(8, seed),
      uniformCase(16, seed),         homogeneousCase(16, 300),
      homogeneousCase(128, 100),     homogeneousCase(256, 300),
      raggedCase(32, 1, 1000, seed), raggedCase(96, 1, 5000, seed),
      raggedCase(48, 1, 10000, seed)};
  // One long history with short ones around.
  for (int32_t shorts : {1, 8, 24}) {
    AttentionCase mixed = raggedCase(shorts, 1, 400, seed);
    mixed.name = "long+" + mixed.name;
    mixed.lengths.insert(mixed.lengths.begin() + shorts / 2, 40000);
    cases.push_back(mixed);
  }
  return cases;
}

std::vector<std::string> run::splitList(std::string_view text, char between) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    size_t end = text.find(between);
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return parts;
}

//===----------------------------------------------------------------------===//
// --rows
//===----------------------------------------------------------------------===//

/// Removes what stands after the last `mark` and returns it; nothing without a
/// mark.
static std::optional<std::string_view> takeAfter(std::string_view &text,
                                                 std::string_view mark) {
  size_t at = text.rfind(mark);
  if (at == std::string_view::npos)
    return std::nullopt;
  std::string_view after = text.substr(at + mark.size());
  text = text.substr(0, at);
  return after;
}

/// A whole number in `low`..`high`, or nothing.
template <typename Number>
static std::optional<Number> numberIn(std::string_view text, Number low,
                                      Number high) {
  Number value = 0;
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low ||
      value > high)
    return std::nullopt;
  return value;
}

/// Adds the histories of "17", "17*8" or "1..4000*128@3". Returns false if it
/// is none of them.
static bool addLengths(std::string_view text, uint64_t seed,
                       std::vector<int32_t> &lengths) {
  auto lengthOf = [](std::string_view digits) {
    return numberIn<int32_t>(digits, 1, mostTokens);
  };
  std::optional<std::string_view> seedText = takeAfter(text, "@");
  std::optional<std::string_view> countText = takeAfter(text, "*");
  std::optional<std::string_view> highText = takeAfter(text, "..");
  std::optional<int32_t> low = lengthOf(text);
  std::optional<int32_t> high = highText ? lengthOf(*highText) : low;
  std::optional<int32_t> count =
      countText ? numberIn<int32_t>(*countText, 1, KVRM_MAX_ROWS) : 1;
  std::optional<uint64_t> drawnBy =
      seedText ? numberIn<uint64_t>(*seedText, 0, UINT64_MAX) : seed;
  if (!low || !high || *low > *high || !count || !drawnBy ||
      (seedText && !highText))
    return false;
  AttentionCase drawn = raggedCase(*count, *low, *high, *drawnBy);
  lengths.insert(lengths.end(), drawn.lengths.begin(), drawn.lengths.end());
  return true;
}

/// Parses "name=lengths".
static Expected<AttentionCase> givenCase(std::string_view entry, uint64_t seed,
                                         std::string_view option) {
  size_t equals = entry.find('=');
  AttentionCase row;
  row.name = entry.substr(0, equals);
  row.family = "given";
  if (row.name.empty())
    return invalidArgument(option, ": '", entry, "' has no name before its =");
  std::vector<std::string> parts = splitList(entry.substr(equals + 1));
  for (const std::string &part : parts) {
    if (!addLengths(part, seed, row.lengths))
      return invalidArgument(option, ": ", row.name, ": '", part,
                             "' is not LENGTH, LENGTH*COUNT or "
                             "LOW..HIGH*COUNT@SEED, of 1 to ",
                             mostTokens, " tokens and ", int32_t(KVRM_MAX_ROWS),
                             " rows");
    if (row.lengths.size() > KVRM_MAX_ROWS)
      return invalidArgument(option, ": ", row.name, ": has more than ",
                             int32_t(KVRM_MAX_ROWS), " rows");
  }
  if (row.lengths.empty())
    return invalidArgument(option, ": ", row.name, ": has no lengths");
  return row;
}

/// Adds the cases that "a,b,c" names.
static Status addNamed(std::string_view names,
                       const std::vector<AttentionCase> &known,
                       std::string_view option,
                       std::vector<AttentionCase> &rows) {
  for (const std::string &name : splitList(names)) {
    if (name == "all")
      rows.insert(rows.end(), known.begin(), known.end());
    if (name == "all" || name == "none")
      continue;
    auto found = std::ranges::find(known, name, &AttentionCase::name);
    if (found == known.end()) {
      std::string all = "all, none";
      for (const AttentionCase &one : known)
        all += ", " + one.name;
      return invalidArgument(option, ": '", name, "' is not one of ", all,
                             ", nor NAME=LENGTHS");
    }
    rows.push_back(*found);
  }
  return Status::ok();
}

Expected<std::vector<AttentionCase>>
run::parseRows(const std::vector<std::string> &texts, uint64_t seed,
               std::string_view option) {
  std::vector<AttentionCase> known = benchCases(seed);
  std::vector<AttentionCase> rows;
  for (const std::string &text : texts)
    for (const std::string &entry : splitList(text, ';')) {
      if (entry.find('=') == std::string::npos) {
        KVRM_TRY(addNamed(entry, known, option, rows));
        continue;
      }
      Expected<AttentionCase> row = givenCase(entry, seed, option);
      KVRM_TRY(row.status());
      rows.push_back(row.take());
    }
  return rows;
}
