//===- ScorerTest.cpp - Tests of given tokens fed to a model --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "measure/Scorer.h"
#include "SimulatedDecoder.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>

using namespace kvrm;
using namespace kvrm::measure;
using simulation::SimulatedDecoder;

static constexpr int32_t vocabulary = 20;

static DecoderShape makeShape() {
  DecoderShape shape;
  shape.slots = shape.histories = 3;
  shape.capacity = 40;
  shape.vocabulary = vocabulary;
  shape.pageTokens = 4;
  shape.poolPages = 30;
  shape.historyPages = 10;
  shape.prefillChunk = 40;
  return shape;
}

/// More sequences than slots, of all lengths.
static std::vector<Sequence> makeSequences() {
  simulation::Random random(5);
  std::vector<Sequence> sequences;
  for (int32_t length : {1, 9, 30, 4, 4, 17, 2, 40}) {
    Sequence sequence;
    for (int32_t i = 0; i < length; ++i)
      sequence.ids.push_back(random.below(vocabulary));
    sequence.prompt = random.between(1, length);
    sequences.push_back(sequence);
  }
  return sequences;
}

/// What follows the first `length` tokens.
static int32_t choiceAfter(const Sequence &sequence, int64_t length) {
  return SimulatedDecoder::follows(
      std::span(sequence.ids).first(static_cast<size_t>(length)), vocabulary);
}

/// Of the token behind the first `length`.
static double logProbabilityAfter(const Sequence &sequence, int64_t length) {
  auto at = static_cast<size_t>(length);
  std::vector<float> logits = SimulatedDecoder::logitsAfter(
      std::span(sequence.ids).first(at), vocabulary);
  double sum = 0;
  for (float logit : logits)
    sum += std::exp(static_cast<double>(logit));
  return logits[static_cast<size_t>(sequence.ids[at])] - std::log(sum);
}

TEST(Scorer, ScoresEverySequenceAsAlone) {
  VirtualClock clock;
  SimulatedDecoder decoder(makeShape(), 0, clock, 1);
  std::vector<Sequence> sequences = makeSequences();
  Scorer scorer(decoder, sequences, nullptr);
  Status status = scorer.run();
  ASSERT_TRUE(status.isOk()) << status.message();
  int64_t longest = 0;
  for (const Sequence &sequence : sequences) {
    ASSERT_EQ(static_cast<int64_t>(sequence.choices.size()), sequence.steps());
    longest = std::max(longest, sequence.decoded());
    double logLikelihood = 0;
    for (int64_t i = 0; i < sequence.steps(); ++i) {
      int64_t length = sequence.prompt + i;
      EXPECT_EQ(sequence.choices[static_cast<size_t>(i)],
                choiceAfter(sequence, length));
      if (i < sequence.decoded())
        logLikelihood += logProbabilityAfter(sequence, length);
    }
    EXPECT_NEAR(sequence.logLikelihood, logLikelihood, 1e-6);
  }
  EXPECT_GE(scorer.decodeSteps, longest);
  EXPECT_GT(scorer.peakLiveBytes, 0);
  for (int32_t slot = 0; slot < decoder.shape().slots; ++slot)
    EXPECT_EQ(decoder.length(slot), 0);
}

TEST(Scorer, StopsAtAnErrorOfTheDecoder) {
  VirtualClock clock;
  DecoderShape shape = makeShape();
  shape.poolPages = 5;
  SimulatedDecoder decoder(shape, 0, clock, 1);
  std::vector<Sequence> sequences = makeSequences();
  Scorer scorer(decoder, sequences, nullptr);
  EXPECT_EQ(scorer.run().code(), StatusCode::ResourceExhausted);
}

namespace {

class LogitsFileTest : public testing::Test {
protected:
  void SetUp() override {
    folder = testing::TempDir() + "logits" + std::to_string(::getpid());
    std::filesystem::create_directory(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string folder;
};

} // namespace

TEST_F(LogitsFileTest, IsWhatNumPyReads) {
  std::string path = folder + "/l.npy";
  {
    Expected<LogitsFile> file = LogitsFile::create(path, 2, 3, 4);
    ASSERT_TRUE(file) << file.status().message();
    // In any order.
    for (int index : {5, 0, 3, 1, 4, 2}) {
      const float row[4] = {float(index), 0, -1, 0.5f};
      ASSERT_TRUE(file->write(index / 3, index % 3, row).isOk());
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    ASSERT_TRUE(file->commit().isOk());
  }
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  ASSERT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  size_t header = 10 + static_cast<unsigned char>(bytes[8]) +
                  256 * static_cast<unsigned char>(bytes[9]);
  EXPECT_EQ(header % 64, 0u);
  EXPECT_NE(bytes.find("'shape': (2, 3, 4)"), std::string::npos);
  ASSERT_EQ(bytes.size(), header + 2 * 3 * 4 * sizeof(float));
  for (size_t index = 0; index < 6; ++index) {
    float row[4];
    std::memcpy(row, bytes.data() + header + index * sizeof(row), sizeof(row));
    EXPECT_EQ(row[0], float(index));
    EXPECT_EQ(row[3], 0.5f);
  }
}

TEST_F(LogitsFileTest, LeavesNothingUnlessItIsWhole) {
  ASSERT_TRUE(LogitsFile::create(folder + "/l.npy", 1, 1, 1));
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  EXPECT_EQ(LogitsFile::create(folder + "/l.npy", 1 << 20, 1 << 20, 1 << 10)
                .status()
                .message(),
            "--logits: 1048576 x 1048576 x 1024 floats are over the limit of "
            "1099511627776 bytes");
}
