//===- FakeMachine.h - A test's way to the fake driver ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For tests that are built with KVRM_FAKE_CUDA, the path of FakeCuda.h's
// library.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_FAKEMACHINE_H
#define KVRM_TEST_FAKEMACHINE_H

#include "FakeCuda.h"

#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/CudaDriver.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <memory>

namespace kvrm::test {

/// What the library that the driver's loader opens pretends and saw.
inline fake::Control &control() {
  static auto *found = [] {
    void *library = dlopen(KVRM_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    auto *entry = reinterpret_cast<fake::Control *(*)()>(
        dlsym(library, "fakeCudaControl"));
    return entry();
  }();
  return *found;
}

/// Its first device.
inline Expected<std::shared_ptr<const CudaDevice>> openDevice() {
  Expected<std::shared_ptr<const CudaDriver>> driver =
      CudaDriver::load(KVRM_FAKE_CUDA);
  KVRM_TRY(driver.status());
  return CudaDevice::create(driver.take());
}

} // namespace kvrm::test

#endif // KVRM_TEST_FAKEMACHINE_H
