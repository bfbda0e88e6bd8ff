//===- AttentionCases.cpp - Batches to measure attention with -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionCases.h"

#include <algorithm>
#include <cmath>
#include <random>

using namespace kvrm;
using namespace kvrm::run;

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
      homogeneousCase(1, 1024),  homogeneousCase(1, 6144),
      homogeneousCase(1, 20480), homogeneousCase(1, 49152),
      homogeneousCase(2, 12288), homogeneousCase(4, 3072),
      homogeneousCase(4, 20480), homogeneousCase(8, 1024),
      homogeneousCase(8, 6144),  homogeneousCase(16, 3072),
      homogeneousCase(32, 1536), homogeneousCase(64, 1024),
      bimodalCase(4, seed),      bimodalCase(8, seed),
      uniformCase(6, seed),      zipfCase(8, seed),
      uniformCase(16, seed)};
  return cases;
}

std::vector<std::string> run::splitList(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    size_t comma = text.find(',');
    parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(comma == std::string_view::npos ? text.size()
                                                       : comma + 1);
  }
  return parts;
}

Expected<std::vector<AttentionCase>>
run::selectCases(std::vector<AttentionCase> cases, std::string_view names,
                 std::string_view option) {
  if (names == "all")
    return cases;
  if (names == "none")
    return std::vector<AttentionCase>();
  std::vector<AttentionCase> chosen;
  for (const std::string &name : splitList(names)) {
    auto found = std::ranges::find(cases, name, &AttentionCase::name);
    if (found == cases.end()) {
      std::string known = "all, none";
      for (const AttentionCase &one : cases)
        known += ", " + one.name;
      return invalidArgument(option, ": '", name, "' is not one of ", known);
    }
    chosen.push_back(*found);
  }
  return chosen;
}
