//===- SessionPair.h - A session beside float64 -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What tests of sessions share over backends: SessionTest.cpp is built with
// HostSessionTest.cpp and, with TOY_DEVICE, with CudaSessionTest.cpp. Each of
// these defines what is declared here.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_SESSIONPAIR_H
#define KVRM_TEST_SESSIONPAIR_H

#include "ToyModel.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

namespace kvrm::test {

/// A backend, and a way to use it.
struct Case {
  std::string mode = "paged";
  std::string schedule = "workqueue";
  std::string transport = "native";
  int threads = 1;
  int shares = 0;
  bool mixes = false; ///< a package with a mixed step

  bool isPaged() const { return mode == "paged"; }
};

/// What SessionTest.cpp runs all of its tests over.
std::vector<Case> allCases();

/// Logits may differ from float64 so much.
extern const double tolerance;

/// A package of a case, made once and removed at exit.
std::shared_ptr<const Package> packageOf(const Case &on);
/// `config` as a case and a machine want it.
SessionConfig configOf(const Case &on, SessionConfig config);

inline std::unique_ptr<Decoder> makeDecoder(const Case &on = {},
                                            const SessionConfig &config = {}) {
  Expected<std::unique_ptr<Decoder>> decoder =
      createDecoder(packageOf(on), configOf(on, config));
  EXPECT_TRUE(decoder) << decoder.status().message();
  return decoder.take();
}

/// Writes NaN to all of the pool of a session over a backend.
void poisonPool(Decoder &decoder);

/// What a machine starts and ends a test with.
class Machine : public testing::Test {
protected:
  void SetUp() override;
  void TearDown() override;
  /// From here on the machine itself does not allocate.
  static void stopAllocating();
};

/// A session and, beside it, every history in float64.
class Pair {
public:
  explicit Pair(const Case &on = {}, const SessionConfig &config = {})
      : session(makeDecoder(on, config)),
        paged(dynamic_cast<Session *>(session.get())),
        out(size_t(toy::slots + 1) * toy::vocabulary) {
    EXPECT_EQ(paged != nullptr, on.isPaged());
    // NaN in every place that nothing should come of.
    poisonPool(*session);
  }

  void expectNear(const std::vector<double> &want, const float *got) {
    for (int i = 0; i < toy::vocabulary; ++i)
      ASSERT_NEAR(got[i], want[size_t(i)], tolerance) << "logit " << i;
  }
  void poison() { std::ranges::fill(out, NAN); }

  void prefill(int slot, const std::vector<int32_t> &tokens) {
    poison();
    Status status = session->prefill(slot, tokens, out.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    std::vector<double> want;
    for (int32_t token : tokens)
      want = references[slot].append(token);
    expectNear(want, out.data());
  }

  void decode(const std::vector<int32_t> &tokens) {
    poison();
    Status status = session->decode(tokens, out.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    for (int slot = 0; slot < toy::slots; ++slot)
      if (tokens[size_t(slot)] >= 0)
        expectNear(references[slot].append(tokens[size_t(slot)]),
                   out.data() + slot * toy::vocabulary);
  }

  void mixedStep(const std::vector<int32_t> &tokens, int slot,
                 const std::vector<int32_t> &prompt) {
    poison();
    Status status = session->mixedStep(tokens, slot, prompt, out.data());
    ASSERT_TRUE(status.isOk()) << status.message();
    for (int i = 0; i < toy::slots; ++i)
      if (tokens[size_t(i)] >= 0)
        expectNear(references[i].append(tokens[size_t(i)]),
                   out.data() + i * toy::vocabulary);
    std::vector<double> want;
    for (int32_t token : prompt)
      want = references[slot].append(token);
    expectNear(want, out.data() + toy::slots * toy::vocabulary);
  }

  void release(int slot) {
    ASSERT_TRUE(session->release(slot).isOk());
    references[slot] = toy::Reference();
  }
  void alias(int target, int source, int tokens) {
    Status status = session->alias(target, source, tokens);
    ASSERT_TRUE(status.isOk()) << status.message();
    references[target] = references[source];
    references[target].trim(tokens);
  }
  void trim(int slot, int length) {
    ASSERT_TRUE(session->trim(slot, length).isOk());
    references[slot].trim(length);
  }
  void checkLengths() {
    for (int slot = 0; slot < toy::slots; ++slot)
      ASSERT_EQ(session->length(slot), references[slot].length);
    if (paged) {
      Status status = paged->blockPager().checkInvariants();
      ASSERT_TRUE(status.isOk()) << status.message();
    }
  }

  std::unique_ptr<Decoder> session;
  Session *paged; ///< null for a static package
  std::vector<float> out;
  toy::Reference references[toy::slots];
};

} // namespace kvrm::test

#endif // KVRM_TEST_SESSIONPAIR_H
