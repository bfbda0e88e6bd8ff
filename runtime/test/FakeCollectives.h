//===- FakeCollectives.h - NCCL over host memory ----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the driver and the library of collectives of FakeCuda.h know of each
// other.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_FAKECOLLECTIVES_H
#define KVRM_TEST_FAKECOLLECTIVES_H

#include "FakeCuda.h"

#include <mutex>

namespace fake {

// Of the driver (FakeCuda.cpp).
/// Held by every call; who waits for another thread lets go of it.
std::mutex &mutex();

// Of the library (FakeCollectives.cpp).
/// Runs a launch of a collective: waits until all ranks do, or the group is
/// aborted.
void runCollective(const Launch &launch);

} // namespace fake

#endif // KVRM_TEST_FAKECOLLECTIVES_H
