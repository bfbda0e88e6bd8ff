//===- Curves.cpp - What a report draws -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Curves.h"

#include <algorithm>
#include <cmath>

using namespace kvrm;
using namespace kvrm::replay;
using nlohmann::json;

static constexpr size_t mostPoints = 2000;

/// Four digits that count are enough to draw; files stay small.
static double rounded(double value) {
  if (value == 0 || !std::isfinite(value))
    return 0;
  double scale = std::pow(10.0, 5 - std::ceil(std::log10(std::fabs(value))));
  return std::round(value * scale) / scale;
}

json replay::tailOf(const Distribution &all) {
  json points = json::array();
  if (all.count() == 0)
    return points;
  // Twenty shares a decade, down to one sample.
  double least = 1.0 / static_cast<double>(all.count());
  for (int i = 0; static_cast<size_t>(i) < mostPoints; ++i) {
    double above = std::pow(10.0, -i / 20.0);
    if (above < least * 0.999)
      break;
    points.push_back(
        {rounded(all.percentile(100 * (1 - above))), rounded(above)});
  }
  points.push_back({rounded(all.max()), 0});
  return points;
}

json replay::histogramOf(const Distribution &all) {
  constexpr int perDecade = 20;
  constexpr int bins = 9 * perDecade; // to 1000 s
  std::vector<int64_t> counts(bins);
  for (float value : all.sorted()) {
    double position =
        (std::log10(std::max(double(value), 1e-3)) + 3) * perDecade;
    counts[static_cast<size_t>(std::clamp(position, 0.0, bins - 1.0))]++;
  }
  size_t first = 0;
  size_t end = counts.size();
  while (first < end && counts[first] == 0)
    ++first;
  while (end > first && counts[end - 1] == 0)
    --end;
  json edges = json::array();
  for (size_t i = first; i <= end; ++i)
    edges.push_back(
        rounded(std::pow(10.0, static_cast<double>(i) / perDecade - 3)));
  return {{"edges_ms", edges},
          {"counts",
           std::vector<int64_t>(counts.begin() + static_cast<int64_t>(first),
                                counts.begin() + static_cast<int64_t>(end))}};
}

json replay::windowsOf(const std::vector<Sample> &samples, double seconds) {
  constexpr size_t windows = 200;
  std::vector<std::vector<float>> parts(windows);
  double width = std::max(seconds, 1e-9) / windows;
  for (const Sample &sample : samples)
    parts[static_cast<size_t>(
              std::clamp(sample.time / width, 0.0, windows - 1.0))]
        .push_back(sample.value);
  json out = {{"t_s", json::array()},
              {"count", json::array()},
              {"p50_ms", json::array()},
              {"p99_ms", json::array()},
              {"max_ms", json::array()}};
  for (size_t i = 0; i < windows; ++i) {
    if (parts[i].empty())
      continue;
    Distribution part(std::move(parts[i]));
    out["t_s"].push_back(rounded((static_cast<double>(i) + 0.5) * width));
    out["count"].push_back(part.count());
    out["p50_ms"].push_back(rounded(part.percentile(50)));
    out["p99_ms"].push_back(rounded(part.percentile(99)));
    out["max_ms"].push_back(rounded(part.max()));
  }
  return out;
}

json replay::pointsOf(std::vector<Sample> samples) {
  std::ranges::stable_sort(samples, {}, &Sample::time);
  size_t stride = (samples.size() + mostPoints - 1) / mostPoints;
  json times = json::array();
  json values = json::array();
  for (size_t i = 0; i < samples.size(); i += stride) {
    auto begin = samples.begin() + static_cast<int64_t>(i);
    auto end = samples.begin() +
               static_cast<int64_t>(std::min(i + stride, samples.size()));
    auto largest = std::ranges::max_element(begin, end, {}, &Sample::value);
    times.push_back(rounded(largest->time));
    values.push_back(rounded(largest->value));
  }
  return {{"t_s", times}, {"ms", values}};
}

json replay::seriesOf(const std::vector<StatePoint> &points) {
  size_t stride = (points.size() + mostPoints - 1) / mostPoints;
  json out;
  auto add = [&](const char *name, auto member) {
    json &values = out[name] = json::array();
    for (size_t i = 0; i < points.size(); i += stride)
      values.push_back(points[i].*member);
  };
  json &times = out["t_s"] = json::array();
  for (size_t i = 0; i < points.size(); i += stride)
    times.push_back(rounded(points[i].time));
  add("waiting", &StatePoint::waiting);
  add("running", &StatePoint::running);
  add("preempted", &StatePoint::preempted);
  add("done", &StatePoint::done);
  add("refused", &StatePoint::refused);
  add("pool_bytes", &StatePoint::poolBytes);
  add("held_bytes", &StatePoint::heldBytes);
  add("kept_bytes", &StatePoint::keptBytes);
  add("live_bytes", &StatePoint::liveBytes);
  add("shared_tokens", &StatePoint::sharedTokens);
  json &groups = out["groups"] = json::array();
  json &pages = out["pages"] = json::array();
  for (size_t i = 0; i < points.size(); i += stride) {
    groups.push_back(rounded(points[i].groups));
    pages.push_back(rounded(points[i].pages));
  }
  return out;
}
