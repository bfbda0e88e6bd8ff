//===- GpuAheadTest.cpp - Steps ahead of the host on a GPU ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Steps that are started before others end choose what steps choose that are
// waited for. Environment: KVRM_DECODERS (folders of packages, a colon
// between), KVRM_GPU_SEED, KVRM_GPU_STEPS.
//
//===----------------------------------------------------------------------===//

#include "../AheadTwins.h"
#include "GpuSupport.h"

#include "kvrm/runtime/cuda/CudaDriver.h"
#include "kvrm/runtime/session/CreateDecoder.h"

#include <gtest/gtest.h>

using namespace kvrm;
using namespace kvrm::test;

/// Kernels of the package alone: a library may take another way for the twin.
static std::unique_ptr<Decoder>
makeDecoder(const std::shared_ptr<const Package> &package) {
  SessionConfig config;
  config.products = "none";
  if (package->manifest().isPaged) {
    config.keptHistories = 1;
    config.parkingPlaces = 2;
    config.parkingPages = 256;
  }
  return createDecoder(package, config).take();
}

TEST(AheadDecoders, ChooseWhatPatientOnesDo) {
  if (!CudaDriver::load())
    GTEST_SKIP() << "no driver";
  std::vector<std::string> folders = gpu::foldersOf("KVRM_DECODERS");
  if (folders.empty())
    GTEST_SKIP() << "KVRM_DECODERS names no decoders";
  for (const std::string &folder : folders) {
    Expected<std::shared_ptr<const Package>> package = Package::load(folder);
    ASSERT_TRUE(package) << package.status().message();
    Twins twins(makeDecoder(*package), makeDecoder(*package));
    twins.wander(
        {.steps = static_cast<int32_t>(gpu::numberOf("KVRM_GPU_STEPS", 300)),
         .longestPrompt = 40,
         .seed = static_cast<uint32_t>(gpu::seed())});
    std::printf("%s: %lld steps\n", folder.c_str(),
                static_cast<long long>(twins.stepsTaken()));
  }
}
