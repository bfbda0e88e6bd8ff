//===- FakeBackend.cpp - A backend whose KV is the tokens -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeBackend.h"

#include <cmath>

using namespace kvrm;
using namespace kvrm::test;

static Status injected() { return makeError(StatusCode::Internal, "injected"); }

FakeBackend::FakeBackend(int32_t pages, int32_t parkingPages,
                         int32_t pageTokens,
                         const std::vector<int32_t> &schedules)
    : pageTokens(pageTokens),
      pool(size_t(pages), Page(size_t(pageTokens), NAN)),
      parking(size_t(parkingPages), Page(size_t(pageTokens), NAN)) {
  facts.device = "fake";
  facts.pages = pages;
  facts.parkingPages = parkingPages;
  facts.pageBytes = pageTokens;
  facts.canCollapse = true;
  facts.mixes = true;
  for (BackendInfo::Entry &entry : facts.entries)
    entry = {.shares = 3, .schedules = schedules};
}

int32_t FakeBackend::hash(std::span<const int32_t> tokens) {
  int32_t hash = 0;
  for (int32_t token : tokens)
    hash = (hash * 31 + token + 1) % 9973;
  return hash;
}

bool FakeBackend::strikes(const char *name) {
  ++names[name];
  return ++callCount == failing;
}

Status FakeBackend::copyPage(const PageCopy &copy) {
  Page &target = pool.at(size_t(copy.target));
  if (strikes("copyPage")) {
    target.assign(target.size(), NAN);
    return injected();
  }
  target = pool.at(size_t(copy.source));
  return Status::ok();
}

Status FakeBackend::movePages(std::span<const PageRun> runs,
                              MoveDirection direction) {
  bool isStruck = strikes("movePages");
  bool parks = direction == MoveDirection::ToParking;
  for (const PageRun &run : runs)
    for (int32_t i = 0; i < run.pages; ++i) {
      Page &here = pool.at(size_t(run.poolPage) + size_t(i));
      Page &there = parking.at(size_t(run.parkingPage) + size_t(i));
      if (isStruck)
        (parks ? there : here).assign(size_t(pageTokens), NAN);
      else if (parks)
        there = here;
      else
        here = there;
    }
  return isStruck ? injected() : Status::ok();
}

Status FakeBackend::collapsePage(const PageCollapse &collapse) {
  if (strikes("collapsePage"))
    return injected(); // all or nothing
  if (collapse.isFirst)
    for (int32_t page : collapse.summaries)
      pool.at(size_t(page)).assign(size_t(pageTokens), 0);
  const Page &source = pool.at(size_t(collapse.source));
  for (const SummaryWrite &write : collapse.writes) {
    double &entry = cell(collapse.summaries, write.entry);
    if (write.mergeInto >= 0) {
      double &into = cell(collapse.summaries, write.mergeInto);
      into = write.keep * into + write.add * entry;
    }
    double sum = 0;
    for (int32_t t = 0; t < write.tokens; ++t)
      sum += source.at(size_t(write.firstToken) + size_t(t));
    entry = sum / write.tokens;
  }
  return Status::ok();
}

void FakeBackend::runRow(const StepDescriptor &descriptor, int32_t index,
                         float *logits, bool isSpoilt) {
  const kvrm_row &row = descriptor.committedRows()[size_t(index)];
  if (row.count == 0)
    return;
  std::span<const int32_t> table = descriptor.committedTable(index);
  std::span<const int32_t> tokens = descriptor.committedTokens().subspan(
      size_t(index) * size_t(descriptor.limits().queries));
  for (int32_t t = 0; t < row.count; ++t)
    cell(table, row.length - row.count + t) =
        isSpoilt ? NAN : tokens[size_t(t)];
  int32_t firstExact =
      row.summaries > 0 ? descriptor.limits().max_summaries : 0;
  double sum = 0;
  for (int32_t entry = 0; entry < firstExact; ++entry)
    sum += std::exp2(descriptor.committedSummaryBiases(index)[size_t(entry)]) *
           cell(table, entry);
  std::vector<int32_t> exact;
  for (int32_t place = firstExact; place < row.length; ++place) {
    double token = cell(table, place);
    sum += token;
    exact.push_back(std::isnan(token) ? -1000 : static_cast<int32_t>(token));
  }
  logits[0] = static_cast<float>(hash(exact));
  logits[1] = static_cast<float>(sum);
}

Status FakeBackend::runStep(const BackendStep &step, BackendStats &stats) {
  bool isStruck = strikes(step.entry == StepEntry::Decode    ? "decode"
                          : step.entry == StepEntry::Prefill ? "prefill"
                                                             : "mixed");
  if (isStruck && !failsLate)
    return injected();
  schedule = step.schedule;
  stats = BackendStats();
  float *logits = step.logits;
  for (StepDescriptor *descriptor : step.descriptors) {
    stats.committedBytes += descriptor->commit();
    for (int32_t row = 0; row < descriptor->limits().rows; ++row) {
      runRow(*descriptor, row, logits, isStruck);
      logits += vocabulary;
    }
  }
  return isStruck ? injected() : Status::ok();
}
