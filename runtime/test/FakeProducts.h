//===- FakeProducts.h - A product library over host memory ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the two halves of the fake, driver and product library, know of each
// other.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_FAKEPRODUCTS_H
#define KVRM_TEST_FAKEPRODUCTS_H

#include "FakeCuda.h"

#include "../cuda/DriverApi.h"

namespace fake {

// Of the driver (FakeCuda.cpp).
Control &machine();
/// Whether a call is to fail now.
bool isFailing(const char *call);
void violate(const std::string &what);
bool hasContext();
bool isOnDevice(uint64_t address, size_t bytes);
/// Starts work on a stream, or records it.
kvrm::cuda::Result launch(kvrm::cuda::StreamObject *stream, Launch launch);
/// What a call that fails does to a capture.
void invalidate(kvrm::cuda::StreamObject *stream);

// Of the library (FakeProducts.cpp).
/// Runs a launch of a product. Does not allocate.
void runProduct(const Launch &launch);

} // namespace fake

#endif // KVRM_TEST_FAKEPRODUCTS_H
