//===- ProductCase.h - A product and what it should be ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Random matrices on a device, their product by a library, and the same in
// float64.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_PRODUCTCASE_H
#define KVRM_TEST_PRODUCTCASE_H

#include "ToyModel.h"
#include "kvrm/runtime/cuda/CudaProducts.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace kvrm::test {

class ProductCase {
public:
  ProductCase(const CudaStream &stream, const ProductShape &shape)
      : stream(stream), shape(shape) {
    std::mt19937 random(7);
    auto fill = [&](std::vector<float> &matrix, int64_t size) {
      matrix.resize(static_cast<size_t>(size));
      for (float &value : matrix)
        value = (static_cast<float>(random() % 33) - 16) / 16;
    };
    // Sixteenths, which every element holds exactly.
    fill(in, shape.rows * shape.depth);
    fill(weight, shape.columns * shape.depth);
    fill(addend, shape.hasAddend ? shape.rows * shape.columns : 0);
    inBuffer = upload(in, isBF16() ? 1 : 0);
    weightBuffer = upload(weight, isBF16() ? 1 : 0);
    if (shape.hasAddend)
      addendBuffer = upload(addend, kindOfSum());
    outBuffer = take(shape.rows * shape.columns * sumBytes());
  }

  ProductAddresses addresses() const {
    return {.out = outBuffer.address(),
            .in = inBuffer.address(),
            .weight = weightBuffer.address(),
            .addend = shape.hasAddend ? addendBuffer.address() : 0};
  }
  /// The same, written where the addend is.
  ProductAddresses inPlace() const {
    ProductAddresses at = addresses();
    at.out = at.addend;
    return at;
  }

  /// Compares what is at `out` with float64.
  void expect(const char *what, bool isInPlace = false) const {
    const DeviceBuffer &buffer = isInPlace ? addendBuffer : outBuffer;
    std::vector<uint8_t> bytes(static_cast<size_t>(buffer.size()));
    ASSERT_TRUE(stream.copyOut(bytes.data(), buffer.span()).isOk());
    ASSERT_TRUE(stream.synchronize().isOk());
    for (int64_t row = 0; row < shape.rows; ++row)
      for (int64_t column = 0; column < shape.columns; ++column) {
        int64_t i = row * shape.columns + column;
        double want = reference(row, column);
        double error = std::fabs(load(bytes, i, kindOfSum()) - want);
        ASSERT_LE(error, tolerance(want))
            << what << ": row " << row << ", column " << column;
      }
  }

private:
  bool isBF16() const { return shape.type % 2 == KVRM_PRODUCT_BF16; }
  bool isF32() const { return shape.type >= KVRM_PRODUCT_F16_F32; }
  int kindOfSum() const { return isF32() ? 2 : isBF16() ? 1 : 0; }
  int64_t sumBytes() const { return isF32() ? 4 : 2; }
  /// Sums are f32, and rounded to the element once.
  double tolerance(double want) const {
    double step = isF32() ? 0x1p-18 : isBF16() ? 0x1p-8 : 0x1p-11;
    return (std::fabs(want) + 1) * step;
  }

  double reference(int64_t row, int64_t column) const {
    double sum = 0;
    for (int64_t k = 0; k < shape.depth; ++k)
      sum += double(in[size_t(row * shape.depth + k)]) *
             double(weight[size_t(column * shape.depth + k)]);
    return shape.hasAddend
               ? sum + double(addend[size_t(row * shape.columns + column)])
               : sum;
  }

  /// Elements by kind: f16, bf16, f32.
  static float load(const std::vector<uint8_t> &bytes, int64_t index,
                    int kind) {
    if (kind == 2) {
      float value;
      std::memcpy(&value, bytes.data() + index * 4, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + index * 2, 2);
    return kind == 1 ? std::bit_cast<float>(uint32_t(bits) << 16)
                     : toy::fromHalf(bits);
  }
  DeviceBuffer take(int64_t bytes) const {
    Expected<DeviceBuffer> buffer =
        DeviceBuffer::create(stream.device(), bytes, "matrix");
    EXPECT_TRUE(buffer) << buffer.status().message();
    return buffer.take();
  }
  DeviceBuffer upload(const std::vector<float> &matrix, int kind) const {
    std::vector<uint8_t> bytes;
    for (float value : matrix) {
      auto bits = std::bit_cast<uint32_t>(value);
      uint32_t half = kind == 1 ? bits >> 16 : toy::toHalf(value);
      if (kind != 2)
        bits = half;
      for (int i = 0; i < (kind == 2 ? 4 : 2); ++i)
        bytes.push_back(static_cast<uint8_t>(bits >> 8 * i));
    }
    DeviceBuffer buffer = take(static_cast<int64_t>(bytes.size()));
    EXPECT_TRUE(stream.copyIn(buffer.span(), bytes.data()).isOk());
    EXPECT_TRUE(stream.synchronize().isOk());
    return buffer;
  }

  const CudaStream &stream;
  ProductShape shape;
  std::vector<float> in, weight, addend;
  DeviceBuffer inBuffer, weightBuffer, addendBuffer, outBuffer;
};

/// Every type of one size, with and without an addend where there may be one.
inline std::vector<ProductShape> allProducts(int64_t rows, int64_t columns,
                                             int64_t depth) {
  std::vector<ProductShape> shapes;
  for (int type = 0; type < KVRM_PRODUCT_TYPES; ++type)
    for (bool hasAddend : {false, true}) {
      if (hasAddend && type < KVRM_PRODUCT_F16_F32)
        continue;
      shapes.push_back({.rows = rows,
                        .columns = columns,
                        .depth = depth,
                        .type = static_cast<kvrm_product_type>(type),
                        .hasAddend = hasAddend});
    }
  return shapes;
}

/// Runs products of these shapes, each once as it is and, with an addend, once
/// in place; and once more as one graph of them all.
inline void expectProducts(CudaProducts &products, const CudaStream &stream,
                           const std::vector<ProductShape> &shapes) {
  std::vector<std::unique_ptr<ProductCase>> cases;
  std::vector<size_t> numbers;
  for (const ProductShape &shape : shapes) {
    Expected<size_t> product = products.prepare(shape);
    ASSERT_TRUE(product) << product.status().message();
    numbers.push_back(*product);
    cases.push_back(std::make_unique<ProductCase>(stream, shape));
    Status status = products.run(stream, *product, cases.back()->addresses());
    ASSERT_TRUE(status.isOk()) << status.message();
    cases.back()->expect("run");
  }
  Expected<CudaCapture> capture = CudaCapture::begin(stream);
  ASSERT_TRUE(capture) << capture.status().message();
  for (size_t i = 0; i < shapes.size(); ++i) {
    const ProductCase &own = *cases[i];
    Status status =
        products.run(stream, numbers[i],
                     shapes[i].hasAddend ? own.inPlace() : own.addresses());
    ASSERT_TRUE(status.isOk()) << status.message();
  }
  Expected<CudaGraph> graph = capture->end();
  ASSERT_TRUE(graph) << graph.status().message();
  ASSERT_TRUE(graph->launch(stream).isOk());
  for (size_t i = 0; i < shapes.size(); ++i)
    cases[i]->expect("replayed", /*isInPlace=*/shapes[i].hasAddend);
}

} // namespace kvrm::test

#endif // KVRM_TEST_PRODUCTCASE_H
