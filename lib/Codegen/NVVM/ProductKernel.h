//===- ProductKernel.h - A product with a weight on a GPU -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The part that every product with a weight has: streaming the weight,
// normalizing the input if that is asked for, matrix units, sums of squares for
// the norm of another. What becomes of the sums is an epilogue's business.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_PRODUCTKERNEL_H
#define KVRM_CODEGEN_NVVM_PRODUCTKERNEL_H

#include "DenseKernels.h"

namespace mlir::kvrm {

/// What a product reads. Of types: f16 or bf16, a depth of whole slices of 32,
/// rows that start at 16 bytes.
struct ProductOperands {
  StridedBuffer input;
  StridedBuffer weight;
  Type element;                         ///< that matrix units multiply
  std::optional<BlockFormat> format;    ///< of a weight in blocks
  std::optional<StridedBuffer> gain;    ///< of the norm in front, if any
  std::optional<StridedBuffer> squares; ///< of the input, for that norm
  float epsilon = 0;
  bool isWeightMade = false; ///< by a kernel of the step

  int64_t rows() const { return input.type.getDimSize(0); }
  int64_t depth() const { return input.type.getDimSize(1); }
};

/// The types of a product's operands, which are buffers; without squares.
template <typename OpT> ProductOperands getProductOperands(OpT op) {
  auto bind = [](Value buffer) {
    return StridedBuffer{Value(), cast<MemRefType>(buffer.getType())};
  };
  ProductOperands operands{
      bind(op.getInput()), bind(op.getWeight()), op.getMultiplicandElement(),
      op.getFormat(),      std::nullopt,         std::nullopt};
  operands.isWeightMade = op->hasAttr(kMadeWeightAttrName);
  if (op.getGain()) {
    operands.gain = bind(op.getGain());
    operands.epsilon = op.getEpsilon()->convertToFloat();
  }
  return operands;
}

/// Hands out the pointers of a product's kernel, in the order of DenseBuffers.
class PointerCursor {
public:
  explicit PointerCursor(DeviceKernel &kernel) : kernel(kernel) {}

  StridedBuffer next(Value buffer) {
    return {kernel.pointer(index++), cast<MemRefType>(buffer.getType())};
  }
  /// The operands of a product that takes these squares, or none.
  template <typename OpT> ProductOperands nextOperands(OpT op, Value squares) {
    ProductOperands operands = getProductOperands(op);
    operands.input = next(op.getInput());
    operands.weight = next(op.getWeight());
    if (op.getGain())
      operands.gain = next(op.getGain());
    if (squares)
      operands.squares = next(squares);
    return operands;
  }

private:
  DeviceKernel &kernel;
  size_t index = 0;
};

/// What becomes of the sums: `parts` rows of the weight make one column.
class ProductEpilogue {
public:
  ProductEpilogue(int64_t columns, int64_t parts)
      : columns(columns), parts(parts) {}
  virtual ~ProductEpilogue() = default;

  /// The row of the weight whose sum is `part` of `column`; both i32.
  virtual Value weightRow(Value part, Value column) = 0;
  /// Stores what the sums of one activation row, one a part, make, and returns
  /// it, in f32, if there are squares of it to be made; `row` and `column` are
  /// i32.
  virtual Value store(Value row, Value column, ArrayRef<Value> sums) = 0;

  const int64_t columns, parts;
  /// Where the sums of the squares of what is stored go, [rows, tiles], of a
  /// product of one part.
  std::optional<StridedBuffer> squares;
};

/// Whether matrix units take a product with such operands.
bool fitsMatrixUnits(const ProductOperands &operands);

/// Bytes of shared memory and threads that a product's kernel takes, the blocks
/// that run it, and the tiles of columns that they share.
struct ProductLaunch {
  int64_t sharedBytes, threads;
  DenseLaunch grid;
  int64_t tiles;
};
ProductLaunch planProduct(const ProductOperands &operands, int64_t columns,
                          int64_t parts, const DeviceOptions &options);

/// Writes the body of a kernel that was made as `planProduct` says.
void writeProduct(const ProductOperands &operands, ProductEpilogue &epilogue,
                  DeviceKernel &kernel, const DeviceOptions &options);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_PRODUCTKERNEL_H
