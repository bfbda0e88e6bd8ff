//===- CudaProducts.h - Products by a library -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Products of step programs, prepared once for a size and then started on a
// stream, or recorded, any number of times. They share one workspace: those of
// one CudaProducts run in one stream, one after another.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDAPRODUCTS_H
#define KVRM_RUNTIME_CUDA_CUDAPRODUCTS_H

#include "kvrm/runtime/abi/program.h"
#include "kvrm/runtime/cuda/CudaDevice.h"
#include "kvrm/runtime/cuda/ProductLibrary.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace kvrm {

/// What a product is prepared for.
struct ProductShape {
  int64_t rows = 0;    ///< M
  int64_t columns = 0; ///< N
  int64_t depth = 0;   ///< K
  kvrm_product_type type = KVRM_PRODUCT_F16;
  bool hasAddend = false;

  /// Of a command of that kind, verified.
  static ProductShape of(const kvrm_program_command &command);
  bool operator==(const ProductShape &) const = default;
};

/// Device addresses, as the arguments of a product.
struct ProductAddresses {
  uint64_t out = 0;
  uint64_t in = 0;
  uint64_t weight = 0;
  uint64_t addend = 0; ///< 0 without one
};

class CudaProducts {
public:
  /// Of device memory that products may use while they run.
  static constexpr int64_t workspaceBytes = int64_t(32) << 20;

  /// Errors: those of the library, ResourceExhausted for the workspace.
  static Expected<std::unique_ptr<CudaProducts>>
  create(std::shared_ptr<const ProductLibrary> library,
         std::shared_ptr<const CudaDevice> device);
  ~CudaProducts();
  CudaProducts(const CudaProducts &) = delete;
  CudaProducts &operator=(const CudaProducts &) = delete;

  /// Prepares products of `shape`, run in the way that the library expects to
  /// be fastest, and returns their number; the same for the same shape. Errors:
  /// Incompatible where the library has no way.
  Expected<size_t> prepare(const ProductShape &shape);
  /// Times the ways that the library has for a product, and keeps the fastest;
  /// what was expected stays unless another is faster by a tenth, so that the
  /// order of sums seldom changes from one process to the next. The product's
  /// output holds anything afterwards.
  Status tune(const CudaStream &stream, size_t product,
              const ProductAddresses &at);
  /// Starts a product that is prepared. Does not allocate.
  Status run(const CudaStream &stream, size_t product,
             const ProductAddresses &at) const;

  /// Shapes that are prepared.
  size_t size() const { return products.size(); }
  const std::string &name() const { return library->name(); }
  int64_t deviceBytes() const { return workspace.size(); }

private:
  struct Product;

  CudaProducts() = default;
  Status findWays(Product &product) const;
  Expected<double> time(const CudaStream &stream, const Product &product,
                        const ProductAddresses &at) const;
  Status start(const CudaStream &stream, const Product &product,
               const ProductAddresses &at) const;

  std::shared_ptr<const ProductLibrary> library;
  std::shared_ptr<const CudaDevice> device;
  DeviceBuffer workspace;
  CudaEvent before, after; ///< of what is timed
  cuda::LtHandle *handle = nullptr;
  std::vector<std::unique_ptr<Product>> products;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDAPRODUCTS_H
