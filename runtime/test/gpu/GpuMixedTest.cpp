//===- GpuMixedTest.cpp - Mixed steps on a GPU ----------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A mixed step gives what a decode step and a prefill step give. Environment:
// KVRM_DECODERS (folders of packages, a colon between), KVRM_GPU_SEED.
//
//===----------------------------------------------------------------------===//

#include "GpuSupport.h"

#include "kvrm/runtime/cuda/CudaDriver.h"
#include "kvrm/runtime/session/CreateDecoder.h"
#include "kvrm/runtime/session/TokenChoice.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <random>

using namespace kvrm;

namespace {

/// Two sessions of one package that are given the same tokens: one in mixed
/// steps, one in two steps each.
class MixedPair {
public:
  explicit MixedPair(const std::shared_ptr<const Package> &package)
      : vocabulary(static_cast<size_t>(package->manifest().vocabulary)),
        slots(static_cast<size_t>(package->manifest().slots)),
        mixed(createSession(package, {}).take()),
        apart(createSession(package, {}).take()), tokens(slots),
        got((slots + 1) * vocabulary), want((slots + 1) * vocabulary),
        how(slots + 1), next(slots + 1) {}

  /// Slots that are full start anew.
  void makeRoom() {
    int32_t most = mixed->capacity() - mixed->shape().prefillChunk;
    for (int32_t slot = 0; slot < mixed->slots(); ++slot)
      if (mixed->length(slot) >= most || random() % 40 == 0)
        for (Session *session : {&*mixed, &*apart})
          gpu::expectOk(session->release(slot));
  }

  /// Draws a step. False if nobody decodes in it.
  bool draw() {
    slot = static_cast<int32_t>(random() % slots);
    prompt.resize(1 +
                  random() % static_cast<size_t>(mixed->shape().prefillChunk));
    std::ranges::generate(prompt, [&] { return anyToken(); });
    for (size_t i = 0; i < slots; ++i)
      tokens[i] = random() % 4 && mixed->length(static_cast<int32_t>(i)) > 0
                      ? anyToken()
                      : -1;
    tokens[static_cast<size_t>(slot)] = -1;
    for (kvrm_sampling &one : how)
      one = {.scale = static_cast<float>(random() % 4),
             .top_p = 0,
             .top_k = static_cast<int32_t>(random() % 9),
             .random = static_cast<uint32_t>(random())};
    return std::ranges::any_of(tokens,
                               [](int32_t token) { return token >= 0; });
  }

  void start() {
    for (Session *session : {&*mixed, &*apart})
      gpu::expectOk(session->prefill(slot, prompt, {}));
  }

  void step() {
    std::ranges::fill(got, NAN);
    StepOutputs outputs(how.data(), next.data());
    outputs.logits = got.data();
    gpu::expectOk(mixed->mixedStep(tokens, slot, prompt, outputs));
    gpu::expectOk(apart->decode(tokens, want.data()));
    gpu::expectOk(
        apart->prefill(slot, prompt, want.data() + slots * vocabulary));
  }

  /// The largest difference of logits, of the largest logit; tokens are those
  /// that the logits give.
  double check() const {
    double worst = 0, largest = 0;
    for (size_t row = 0; row <= slots; ++row) {
      if (row < slots && tokens[row] < 0)
        continue;
      auto logits = std::span(got).subspan(row * vocabulary, vocabulary);
      EXPECT_EQ(next[row], chooseToken(logits, how[row])) << "row " << row;
      for (size_t i = row * vocabulary; i < (row + 1) * vocabulary; ++i) {
        double error = std::abs(double(got[i]) - double(want[i]));
        worst = error <= worst ? worst : error; // a NaN is the worst
        largest = std::max(largest, std::abs(double(want[i])));
      }
    }
    return worst / largest;
  }

private:
  int32_t anyToken() { return static_cast<int32_t>(random() % vocabulary); }

  std::mt19937_64 random{gpu::seed()};
  size_t vocabulary, slots;
  std::unique_ptr<Session> mixed, apart;
  int32_t slot = 0;
  std::vector<int32_t> prompt, tokens;
  std::vector<float> got, want;
  std::vector<kvrm_sampling> how;
  std::vector<int32_t> next;
};

} // namespace

TEST(MixedDecoders, StepAsTheyDoApart) {
  Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
  if (!driver)
    GTEST_SKIP() << driver.status().message();
  bool isThere = false;
  for (const std::string &path : gpu::foldersOf("KVRM_DECODERS")) {
    Expected<std::shared_ptr<const Package>> package = Package::load(path);
    ASSERT_TRUE(package) << package.status().message();
    const Manifest &m = (*package)->manifest();
    if (!m.hasMixed())
      continue;
    isThere = true;
    // Activations are rounded to 8 or to 11 bits, and K and V that differ by
    // as much may be rounded to other neighbours of 4, or of 8.
    const double tolerance =
        kvrm_element_is_code(m.element) || m.io == KVRM_BF16 ? 3e-2 : 4e-3;
    MixedPair pair(*package);
    for (int step = 0; step < 200; ++step) {
      pair.makeRoom();
      if (!pair.draw()) {
        pair.start();
        continue;
      }
      pair.step();
      ASSERT_LE(pair.check(), tolerance) << path << ", step " << step;
    }
  }
  if (!isThere)
    GTEST_SKIP() << "KVRM_DECODERS names no package with a mixed step";
}
