//===- ProductKernel.h - A product with a weight on a GPU -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The part that every product with a weight has: streaming the weight,
// normalizing the input if that is asked for, matrix units. What becomes of the
// sums is an epilogue's business.
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
  std::optional<StridedBuffer> gain; ///< of the norm in front, if there is one
  float epsilon = 0;

  int64_t rows() const { return input.type.getDimSize(0); }
  int64_t depth() const { return input.type.getDimSize(1); }
  Type element() const { return weight.type.getElementType(); }
};

/// The operands of a product on buffers: the first pointers of `kernel`, in the
/// order input, weight, gain; without a kernel their types alone.
template <typename OpT>
ProductOperands getProductOperands(OpT op, DeviceKernel *kernel = nullptr) {
  auto bind = [&](size_t index, Value buffer) {
    return StridedBuffer{kernel ? kernel->pointer(index) : Value(),
                         cast<MemRefType>(buffer.getType())};
  };
  ProductOperands operands{bind(0, op.getInput()), bind(1, op.getWeight()),
                           std::nullopt};
  if (op.getGain()) {
    operands.gain = bind(2, op.getGain());
    operands.epsilon = op.getEpsilon()->convertToFloat();
  }
  return operands;
}

/// What becomes of the sums: `parts` rows of the weight make one column.
class ProductEpilogue {
public:
  ProductEpilogue(int64_t columns, int64_t parts)
      : columns(columns), parts(parts) {}
  virtual ~ProductEpilogue() = default;

  /// The row of the weight whose sum is `part` of `column`; both i32.
  virtual Value weightRow(Value part, Value column) = 0;
  /// Stores what the sums of one activation row, one a part, make; `row` and
  /// `column` are i32.
  virtual void store(Value row, Value column, ArrayRef<Value> sums) = 0;

  const int64_t columns, parts;
};

/// Whether matrix units take a product with such operands.
bool fitsMatrixUnits(const ProductOperands &operands);

/// Bytes of shared memory and threads that a product's kernel takes, and the
/// blocks that run it.
struct ProductLaunch {
  int64_t sharedBytes, threads;
  DenseLaunch grid;
};
ProductLaunch planProduct(const ProductOperands &operands, int64_t columns,
                          int64_t parts, const DeviceOptions &options);

/// Writes the body of a kernel that was made as `planProduct` says.
void writeProduct(const ProductOperands &operands, ProductEpilogue &epilogue,
                  DeviceKernel &kernel, const DeviceOptions &options);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_PRODUCTKERNEL_H
