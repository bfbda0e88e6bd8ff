//===- FakeBackend.h - A backend whose KV is the tokens ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Keeps to Backend.h over pages that hold tokens, so that a page that is wrong
// changes what a step answers. Fails the one call that it is told to, and then
// leaves garbage in all that this call was to write.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_FAKEBACKEND_H
#define KVRM_TEST_FAKEBACKEND_H

#include "kvrm/runtime/session/Backend.h"

#include <map>
#include <string>
#include <vector>

namespace kvrm::test {

class FakeBackend final : public Backend {
public:
  FakeBackend(int32_t pages, int32_t parkingPages, int32_t pageTokens,
              const std::vector<int32_t> &schedules = {0});

  /// Of a row: a hash of its exact tokens in order, and the sum of all tokens.
  static constexpr int32_t vocabulary = 256;
  static int32_t hash(std::span<const int32_t> tokens);

  /// The call that fails, counted from 1, and whether it does some work first.
  void failAt(int64_t call, bool worksFirst) {
    failing = call;
    failsLate = worksFirst;
  }
  int64_t calls() const { return callCount; }
  const std::map<std::string, int32_t> &callsByName() const { return names; }
  int32_t lastSchedule() const { return schedule; }

  const BackendInfo &info() const override { return facts; }
  Status copyPage(const PageCopy &copy) override;
  Status movePages(std::span<const PageRun> runs,
                   MoveDirection direction) override;
  Status collapsePage(const PageCollapse &collapse) override;
  Status runStep(const BackendStep &step, BackendStats &stats) override;

private:
  using Page = std::vector<double>;

  bool strikes(const char *name);
  double &cell(std::span<const int32_t> table, int32_t place) {
    return pool[static_cast<size_t>(table[size_t(place / pageTokens)])]
               [size_t(place % pageTokens)];
  }
  void runRow(const StepDescriptor &descriptor, int32_t index, float *logits,
              bool isSpoilt);

  BackendInfo facts;
  int32_t pageTokens;
  std::vector<Page> pool;
  std::vector<Page> parking;
  std::map<std::string, int32_t> names;
  int64_t callCount = 0;
  int64_t failing = 0;
  bool failsLate = false;
  int32_t schedule = -1;
};

} // namespace kvrm::test

#endif // KVRM_TEST_FAKEBACKEND_H
