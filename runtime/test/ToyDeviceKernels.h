//===- ToyDeviceKernels.h - The toy decoder's kernels -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYDEVICEKERNELS_H
#define KVRM_TEST_TOYDEVICEKERNELS_H

#include "FakeCuda.h"

#include <string_view>

namespace fake {

/// Parameters of a kernel; those that nobody knows are attention's.
int32_t parameterCount(std::string_view symbol);

/// Runs a launch of one of toy::deviceKernels but commit and append, and says
/// what is wrong with it, or null. Does not allocate.
const char *runToyKernel(const Launch &launch);

} // namespace fake

#endif // KVRM_TEST_TOYDEVICEKERNELS_H
