//===- GpuProductsTest.cpp - Products on a GPU, if there is one -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What CudaProductsTest.cpp sees on a fake library, on the system's.
//
//===----------------------------------------------------------------------===//

#include "ProductCase.h"

using namespace kvrm;
using namespace kvrm::test;

TEST(GpuProducts, AreWhatTheySay) {
  Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
  if (!driver)
    GTEST_SKIP() << driver.status().message();
  Expected<std::shared_ptr<const ProductLibrary>> library =
      ProductLibrary::find("", (*driver)->version());
  ASSERT_TRUE(library) << library.status().message();
  if (!*library)
    GTEST_SKIP() << "there is no library of products";
  std::shared_ptr<const CudaDevice> device = CudaDevice::create(*driver).take();
  CudaStream stream = CudaStream::create(device).take();
  Expected<std::unique_ptr<CudaProducts>> products =
      CudaProducts::create(*library, device);
  ASSERT_TRUE(products) << products.status().message();
  std::printf("products: %s\n", (*products)->name().c_str());
  for (const auto &[rows, columns, depth] : {std::array<int64_t, 3>{65, 8, 32},
                                             {128, 960, 576},
                                             {256, 768, 512},
                                             {100, 200, 352}})
    expectProducts(**products, stream, allProducts(rows, columns, depth));
}
