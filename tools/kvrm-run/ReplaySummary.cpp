//===- ReplaySummary.cpp - A replay as a table ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ReplaySummary.h"

#include "replay/Figures.h"

#include <cstdio>
#include <functional>

using namespace kvrm;
using namespace kvrm::run;
using namespace kvrm::replay;

static constexpr double mebibyte = 1 << 20;

//===----------------------------------------------------------------------===//
// Rows of the table
//===----------------------------------------------------------------------===//

namespace {

enum class Ratio { No, ToKvrm };

struct Row {
  const char *name;
  const char *format;
  Ratio ratio;
  std::function<double(const Figures &)> value;
};

} // namespace

static auto of(Distribution Figures::*member, double percent) {
  return [member, percent](const Figures &f) {
    return (f.*member).percentile(percent);
  };
}

static auto mean(Distribution Figures::*member) {
  return [member](const Figures &f) { return (f.*member).mean(); };
}

template <typename T> static auto sum(T ModeResult::*member) {
  return [member](const Figures &f) {
    return static_cast<double>(f.result.*member);
  };
}

template <typename T> static auto mib(T ModeResult::*member) {
  return [member](const Figures &f) {
    return static_cast<double>(f.result.*member) / mebibyte;
  };
}

static auto stat(int64_t EngineStats::*member) {
  return [member](const Figures &f) {
    return static_cast<double>(f.result.stats.*member);
  };
}

static const std::vector<Row> &servingRows() {
  static const std::vector<Row> rows = {
      {"slots", "%.0f", Ratio::No, sum(&ModeResult::slots)},
      {"KV reserved at most, MiB", "%.2f", Ratio::No,
       mib(&ModeResult::budgetBytes)},
      {"requests done", "%.0f", Ratio::ToKvrm, sum(&ModeResult::done)},
      {"  refused", "%.0f", Ratio::No, sum(&ModeResult::refused)},
      {"  unfinished", "%.0f", Ratio::No, sum(&ModeResult::unfinished)},
      {"  failed", "%.0f", Ratio::No, sum(&ModeResult::failed)},
      {"time, s", "%.1f", Ratio::ToKvrm, sum(&ModeResult::seconds)},
      {"generated tok/s", "%.1f", Ratio::ToKvrm,
       [](const Figures &f) { return f.result.tokensPerSecond(); }},
      {"prompt + generated tok/s", "%.1f", Ratio::ToKvrm,
       [](const Figures &f) { return f.result.allTokensPerSecond(); }},
  };
  return rows;
}

static const std::vector<Row> &latencyRows() {
  static const std::vector<Row> rows = {
      {"TTFT p50, ms", "%.1f", Ratio::ToKvrm, of(&Figures::ttft, 50)},
      {"TTFT p90, ms", "%.1f", Ratio::ToKvrm, of(&Figures::ttft, 90)},
      {"TTFT p99, ms", "%.1f", Ratio::ToKvrm, of(&Figures::ttft, 99)},
      {"TTFT max, ms", "%.1f", Ratio::ToKvrm, of(&Figures::ttft, 100)},
      {"inter-token p50, ms", "%.2f", Ratio::ToKvrm, of(&Figures::itl, 50)},
      {"inter-token p99, ms", "%.2f", Ratio::ToKvrm, of(&Figures::itl, 99)},
      {"inter-token p99.9, ms", "%.2f", Ratio::ToKvrm, of(&Figures::itl, 99.9)},
      {"inter-token max, ms", "%.2f", Ratio::ToKvrm, of(&Figures::itl, 100)},
      {"  p99 / p50", "%.2f", Ratio::No,
       [](const Figures &f) { return f.itl.ratio(99, 50); }},
      {"  max / p50", "%.2f", Ratio::No,
       [](const Figures &f) { return f.itl.ratio(100, 50); }},
      {"decode step p50, ms", "%.2f", Ratio::ToKvrm, of(&Figures::step, 50)},
      {"decode step p99, ms", "%.2f", Ratio::ToKvrm, of(&Figures::step, 99)},
      {"decode step max, ms", "%.2f", Ratio::ToKvrm, of(&Figures::step, 100)},
      {"queue wait p50, ms", "%.1f", Ratio::No, of(&Figures::wait, 50)},
      {"queue wait p99, ms", "%.1f", Ratio::No, of(&Figures::wait, 99)},
  };
  return rows;
}

static const std::vector<Row> &memoryRows() {
  static const std::vector<Row> rows = {
      {"KV held, mean MiB", "%.2f", Ratio::ToKvrm,
       mib(&ModeResult::meanHeldBytes)},
      {"KV live, mean MiB", "%.2f", Ratio::ToKvrm,
       mib(&ModeResult::meanLiveBytes)},
      {"KV live, peak MiB", "%.2f", Ratio::ToKvrm,
       mib(&ModeResult::peakLiveBytes)},
      {"held / (live + page), max", "%.3f", Ratio::No,
       sum(&ModeResult::worstHeld)},
      {"preempted, parked", "%.0f", Ratio::No, stat(&EngineStats::parked)},
      {"preempted, recomputed", "%.0f", Ratio::No,
       stat(&EngineStats::recomputed)},
  };
  return rows;
}

static double parkedMib(const Figures &f) {
  return static_cast<double>(f.result.stats.parkedTokens *
                             f.result.tokenKvBytes) /
         mebibyte;
}

static double sharedPercent(const Figures &f) {
  int64_t prompts = f.result.promptTokens;
  return prompts > 0
             ? 100.0 * static_cast<double>(f.result.stats.sharedTokens) /
                   static_cast<double>(prompts)
             : 0;
}

/// Static modes have none of these.
static const std::vector<Row> &pagedRows() {
  using enum Figures::Tenth;
  static const std::vector<Row> rows = {
      {"parked, MiB", "%.2f", Ratio::No, parkedMib},
      {"prompt tokens shared, %", "%.1f", Ratio::No, sharedPercent},
      {"groups a step", "%.1f", Ratio::No, mean(&Figures::groups)},
      {"pages a group", "%.2f", Ratio::No, mean(&Figures::pagesPerGroup)},
      {"  first tenth", "%.2f", Ratio::No,
       [](const Figures &f) {
         return f.mean(First, Figures::pagesPerGroupOf);
       }},
      {"  last tenth", "%.2f", Ratio::No,
       [](const Figures &f) { return f.mean(Last, Figures::pagesPerGroupOf); }},
      {"committed bytes a step", "%.0f", Ratio::No, mean(&Figures::committed)},
      {"stage copies a step", "%.1f", Ratio::No, mean(&Figures::stageCopies)},
      {"plan p50, us", "%.2f", Ratio::No, of(&Figures::plan, 50)},
      {"plan p99, us", "%.2f", Ratio::No, of(&Figures::plan, 99)},
  };
  return rows;
}

static const std::vector<Row> &bucketRows() {
  static const std::vector<Row> rows = {
      {"bucket moves", "%.0f", Ratio::No, sum(&ModeResult::bucketMoves)},
  };
  return rows;
}

//===----------------------------------------------------------------------===//
// The table
//===----------------------------------------------------------------------===//

namespace {

/// Modes side by side, with quotients to kvrm's figures.
class Table {
public:
  explicit Table(const std::vector<ModeResult> &results) {
    columns.reserve(results.size());
    for (const ModeResult &result : results)
      columns.emplace_back(result);
    for (const Figures &column : columns)
      if (column.result.mode == "kvrm")
        base = &column;
  }

  void printHead() const;
  enum class Cells { All, PagedOnly };
  void print(const std::vector<Row> &rows, Cells cells = Cells::All) const;

private:
  void printCell(const Row &row, const Figures &column) const;

  std::vector<Figures> columns;
  const Figures *base = nullptr;
};

} // namespace

void Table::printHead() const {
  std::printf("\n%-26s", "");
  for (const Figures &column : columns)
    std::printf(" %12s%-8s", column.result.mode.c_str(),
                base && &column != base ? " / kvrm" : "");
  std::printf("\n");
}

void Table::print(const std::vector<Row> &rows, Cells cells) const {
  for (const Row &row : rows) {
    std::printf("%-26s", row.name);
    for (const Figures &column : columns)
      if (cells == Cells::PagedOnly && column.result.poolPages == 0)
        std::printf(" %12s%-8s", "-", "");
      else
        printCell(row, column);
    std::printf("\n");
  }
}

void Table::printCell(const Row &row, const Figures &column) const {
  char text[32];
  std::snprintf(text, sizeof(text), row.format, row.value(column));
  char ratio[32] = "";
  if (row.ratio == Ratio::ToKvrm && base && &column != base &&
      row.value(*base) > 0)
    std::snprintf(ratio, sizeof(ratio), "  %.2fx",
                  row.value(column) / row.value(*base));
  std::printf(" %12s%-8s", text, ratio);
}

static void printWork(const Report &report) {
  const Options &options = report.options;
  const Workload &work = report.work;
  std::printf("%s: %zu requests over %.1f s, %lld prompt and %lld output "
              "tokens; %lld clipped (%lld tokens cut)\n",
              work.source().name.c_str(), work.items.size(),
              work.sliceSeconds(), static_cast<long long>(work.promptTokens),
              static_cast<long long>(work.outputTokens),
              static_cast<long long>(work.clipped),
              static_cast<long long>(work.clippedTokens));
  std::printf("%s: KV budget %.2f MiB, %lld bytes a token, requests up to %d "
              "tokens, %d threads\n",
              oneLine(report.set.modelName).c_str(),
              static_cast<double>(report.set.budgetBytes) / mebibyte,
              static_cast<long long>(report.results.front().tokenKvBytes),
              report.set.capacity, report.threads);
  if (options.isSaturated)
    std::printf(
        "saturated: requests are submitted as the queue takes them, and "
        "due when submitted\n");
  else if (report.saturation)
    std::printf("load %.2f of kvrm's %.1f tok/s when saturated: arrivals x "
                "%.4g\n",
                options.load, report.saturation->tokensPerSecond(),
                report.timeScale);
  else
    std::printf("arrivals x %.4g\n", report.timeScale);
  if (work.overloadEnd > work.overloadBegin)
    std::printf(
        "overload: arrivals %.3g times as dense from %.1f s to %.1f s\n",
        options.overload, work.overloadBegin, work.overloadEnd);
}

void run::printSummary(const Report &report) {
  printWork(report);
  const Table table(report.results);
  table.printHead();
  table.print(servingRows());
  table.print(latencyRows());
  table.print(memoryRows());
  table.print(pagedRows(), Table::Cells::PagedOnly);
  table.print(bucketRows());
  for (const ModeResult &result : report.results)
    if (result.isCut)
      std::printf("%s was cut after %.1f s, the limit\n", result.mode.c_str(),
                  result.seconds);
  if (report.verification)
    std::printf("verified: %lld requests alone, %lld differ%s%s\n",
                static_cast<long long>(report.verification->requests),
                static_cast<long long>(report.verification->mismatches),
                report.verification->first.empty() ? "" : "; ",
                report.verification->first.c_str());
  std::fflush(stdout);
}
