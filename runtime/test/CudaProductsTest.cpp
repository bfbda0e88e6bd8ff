//===- CudaProductsTest.cpp - A product library that lies -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeMachine.h"
#include "ProductCase.h"

#include <atomic>
#include <cstdlib>

using namespace kvrm;
using namespace kvrm::test;

extern std::atomic<int64_t> allocations;

namespace {

class CudaProductsTest : public testing::Test {
protected:
  void SetUp() override {
    control().reset();
    unsetenv("KVRM_CUBLASLT");
  }
  void TearDown() override {
    EXPECT_EQ(control().live, 0) << "something was not given back";
    for (const std::string &violation : control().violations)
      ADD_FAILURE() << violation;
  }

  static Expected<std::unique_ptr<CudaProducts>>
  create(const std::shared_ptr<const CudaDevice> &device) {
    Expected<std::shared_ptr<const ProductLibrary>> library =
        ProductLibrary::load(KVRM_FAKE_CUDA);
    KVRM_TRY(library.status());
    return CudaProducts::create(library.take(), device);
  }
  static std::string findError(const std::string &choice) {
    return ProductLibrary::find(choice, 13000).status().message();
  }
};

} // namespace

TEST_F(CudaProductsTest, AreWhatTheySay) {
  std::shared_ptr<const CudaDevice> device = openDevice().take();
  CudaStream stream = CudaStream::create(device).take();
  std::unique_ptr<CudaProducts> products = create(device).take();
  EXPECT_EQ(products->name(), "cuBLASLt 12.4.5");
  EXPECT_EQ(products->deviceBytes(), 32 << 20);
  expectProducts(*products, stream, allProducts(10, 24, 40));
  expectProducts(*products, stream, allProducts(65, 8, 32));
  EXPECT_EQ(products->size(), 12u);
  expectProducts(*products, stream, allProducts(10, 24, 40));
  EXPECT_EQ(products->size(), 12u) << "a shape is prepared once";
  EXPECT_EQ(control().products, 36);
}

TEST_F(CudaProductsTest, CommandsSayTheirShape) {
  kvrm_program_command command{};
  command.kind = KVRM_COMMAND_PRODUCT;
  command.grid_rule = KVRM_PRODUCT_BF16_F32;
  command.grid[0] = 3;
  command.grid[1] = 4;
  command.grid[2] = 5;
  command.args = 4;
  EXPECT_EQ(ProductShape::of(command),
            (ProductShape{3, 4, 5, KVRM_PRODUCT_BF16_F32, true}));
  command.args = 3;
  EXPECT_FALSE(ProductShape::of(command).hasAddend);
}

TEST_F(CudaProductsTest, RunsDoNotAllocate) {
  std::shared_ptr<const CudaDevice> device = openDevice().take();
  CudaStream stream = CudaStream::create(device).take();
  std::unique_ptr<CudaProducts> products = create(device).take();
  ProductShape shape = allProducts(4, 8, 16).front();
  ProductCase matrices(stream, shape);
  size_t product = products->prepare(shape).take();
  control().isEager = true;
  int64_t before = allocations;
  for (int i = 0; i < 10; ++i)
    EXPECT_TRUE(products->run(stream, product, matrices.addresses()).isOk());
  // The fake's own launches have names of their own.
  EXPECT_EQ(allocations, before);
  matrices.expect("run");
}

TEST_F(CudaProductsTest, LibrariesAreLookedFor) {
  auto find = [](const std::string &choice) {
    return ProductLibrary::find(choice, 13000).take();
  };
  EXPECT_EQ(find("none"), nullptr);
  EXPECT_EQ(find(KVRM_FAKE_CUDA)->name(), "cuBLASLt 12.4.5");
  setenv("KVRM_CUBLASLT", "none", 1);
  EXPECT_EQ(find(""), nullptr);
  EXPECT_NE(find(KVRM_FAKE_CUDA), nullptr) << "the call says more";
  setenv("KVRM_CUBLASLT", KVRM_FAKE_CUDA, 1);
  EXPECT_NE(find(""), nullptr);
  setenv("KVRM_CUBLASLT", "/not/there.so", 1);
  std::string message = findError("");
  EXPECT_EQ(message.find("products: /not/there.so: "), 0u) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
  unsetenv("KVRM_CUBLASLT");
  // No library is for a driver that old.
  EXPECT_EQ(ProductLibrary::find("", 11080).take(), nullptr);
}

TEST_F(CudaProductsTest, LibrariesAreChecked) {
  control().productVersion = 110805;
  EXPECT_EQ(findError(KVRM_FAKE_CUDA), "products: " KVRM_FAKE_CUDA
                                       " is cuBLASLt 11.8.5; 12.0.0 is needed");
  std::string message = findError("libdl.so.2");
  EXPECT_EQ(message, "products: libdl.so.2 has no call cublasLtCreate");
}

/// The library's first choice stays unless another is clearly faster.
TEST_F(CudaProductsTest, TheFastestWayIsKept) {
  for (float milliseconds : {0.3f, 0.24f, 0.2f}) {
    control().reset();
    std::shared_ptr<const CudaDevice> device = openDevice().take();
    CudaStream stream = CudaStream::create(device).take();
    std::unique_ptr<CudaProducts> products = create(device).take();
    control().secondWayMilliseconds = milliseconds;
    ProductShape shape = allProducts(4, 8, 16).front();
    ProductCase matrices(stream, shape);
    size_t product = products->prepare(shape).take();
    ASSERT_TRUE(products->tune(stream, product, matrices.addresses()).isOk());
    ASSERT_TRUE(products->run(stream, product, matrices.addresses()).isOk());
    EXPECT_EQ(control().productWay, milliseconds < 0.225f ? 2 : 0);
    matrices.expect("run");
  }
}

TEST_F(CudaProductsTest, NoWayIsAnError) {
  std::shared_ptr<const CudaDevice> device = openDevice().take();
  std::unique_ptr<CudaProducts> products = create(device).take();
  control().hasNoProducts = true;
  Status status = products->prepare(allProducts(4, 8, 16).front()).status();
  EXPECT_EQ(status.code(), StatusCode::Incompatible);
  EXPECT_EQ(status.message(),
            "products: cuBLASLt 12.4.5 has no way for 4 x 8 x 16; "
            "KVRM_CUBLASLT=none does without it");
  EXPECT_EQ(products->size(), 0u);
  control().hasNoProducts = false;
  EXPECT_TRUE(products->prepare(allProducts(4, 8, 16).front()));
}

TEST_F(CudaProductsTest, MemoryThatIsNotThere) {
  std::shared_ptr<const CudaDevice> device = openDevice().take();
  control().memoryBytes = 1 << 20;
  EXPECT_EQ(create(device).status().message(),
            "products: cannot take 33554432 bytes on device 0, which has "
            "1048576 of 1073741824 free");
}

/// Nothing is kept of a call that fails, and the next works.
TEST_F(CudaProductsTest, AnyCallMayFailOnce) {
  ProductShape shape = allProducts(4, 8, 16).back();
  int failures = 0;
  for (int64_t n = 1;; ++n) {
    control().reset();
    std::shared_ptr<const CudaDevice> device = openDevice().take();
    CudaStream stream = CudaStream::create(device).take();
    ProductCase matrices(stream, shape);
    control().failAt = control().calls + n;
    std::unique_ptr<CudaProducts> products;
    auto make = [&] {
      Expected<std::unique_ptr<CudaProducts>> created = create(device);
      KVRM_TRY(created.status());
      products = created.take();
      return Status::ok();
    };
    size_t product = 0;
    auto prepare = [&] {
      Expected<size_t> prepared = products->prepare(shape);
      KVRM_TRY(prepared.status());
      product = *prepared;
      return Status::ok();
    };
    auto tune = [&] {
      return products->tune(stream, product, matrices.addresses());
    };
    auto run = [&] {
      return products->run(stream, product, matrices.addresses());
    };
    auto twice = [&](auto call) {
      Status status = call();
      if (status.isOk())
        return;
      ++failures;
      EXPECT_EQ(status.message().find('\n'), std::string::npos);
      status = call();
      ASSERT_TRUE(status.isOk()) << status.message();
    };
    twice(make);
    ASSERT_TRUE(products);
    twice(prepare);
    twice(tune);
    twice(run);
    bool isDone = control().calls < control().failAt;
    control().failAt = 0;
    matrices.expect("run");
    if (isDone)
      break;
  }
  EXPECT_GT(failures, 15);
}
