//===- QKVProjectionToNVVM.cpp - Query, key and value on a GPU ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A column of the product is a pair of a head, the elements that turn with one
// another: two rows of the weight, half a head apart. So one thread has both
// sums, turns them, and stores two elements: of a query to its buffer, of a key
// or a value to the token's page, where the step appends them.
//
//===----------------------------------------------------------------------===//

#include "F8Codes.h"
#include "ProductKernel.h"
#include "WorkItems.h"

using namespace mlir;
using namespace mlir::kvrm;

DenseBuffers DenseBuffers::of(QKVProjectionOp op, const RowSquares &squares,
                              const std::optional<AppendTarget> &append) {
  DenseBuffers buffers{{op.getInput(), op.getWeight()}, {op.getQuery()}};
  if (op.getGain())
    buffers.inputs.push_back(op.getGain());
  if (squares.taken)
    buffers.inputs.push_back(squares.taken);
  if (op.getBias())
    buffers.inputs.push_back(op.getBias());
  buffers.inputs.append({op.getCosines(), op.getSines()});
  if (!append)
    buffers.outputs.append({op.getKey(), op.getValue()});
  return buffers;
}

namespace {

class ProjectionEpilogue final : public ProductEpilogue {
public:
  ProjectionEpilogue(QKVProjectionOp op,
                     const std::optional<AppendTarget> &append,
                     DeviceKernel &kernel, const DeviceOptions &options,
                     PointerCursor &pointers);

  Value weightRow(Value part, Value column) override {
    return b.add(b.mul(part, half), firstColumn(column));
  }
  Value store(Value row, Value column, ArrayRef<Value> sums) override;

private:
  /// Where the pair's head starts, and the pair in it: its first element.
  Value firstColumn(Value column) {
    return b.add(b.mul(b.div(column, half), 2 * half), b.rem(column, half));
  }
  using Pair = std::array<Value, 2>;
  Pair withBias(Value column, ArrayRef<Value> sums);
  Pair turn(Value row, Value inHead, const Pair &sums);
  void storePair(const StridedBuffer &buffer, Value row, Value column,
                 const Pair &pair);
  void storeKeyOrValue(Value row, Value column, const Pair &pair, bool isValue);
  void appendPair(Value row, Value column, const Pair &pair, bool isValue);

  DeviceKernel &kernel;
  DeviceBuilder &b;
  const std::optional<AppendTarget> &append;
  int64_t half;       ///< pairs of a head
  int64_t queryPairs; ///< of all query heads
  int64_t keyPairs;   ///< of all key heads
  Type element;
  F8Codes codes;
  std::optional<StridedBuffer> bias;
  StridedBuffer cosines, sines, query, key, value;
};

} // namespace

ProjectionEpilogue::ProjectionEpilogue(
    QKVProjectionOp op, const std::optional<AppendTarget> &append,
    DeviceKernel &kernel, const DeviceOptions &options, PointerCursor &pointers)
    : ProductEpilogue(op.getColumns() / 2, /*parts=*/2), kernel(kernel),
      b(kernel.b), append(append), half(op.getHeadDim() / 2),
      queryPairs(op.getQueryColumns() / 2), keyPairs(op.getKeyColumns() / 2),
      element(getElementTypeOrSelf(op.getQuery())),
      codes(kernel.b, options, element) {
  if (op.getBias())
    bias = pointers.next(op.getBias());
  cosines = pointers.next(op.getCosines());
  sines = pointers.next(op.getSines());
  query = pointers.next(op.getQuery());
  if (append)
    return;
  key = pointers.next(op.getKey());
  value = pointers.next(op.getValue());
}

/// A pair of the product, whose first element is in this column.
ProjectionEpilogue::Pair ProjectionEpilogue::withBias(Value column,
                                                      ArrayRef<Value> sums) {
  if (!bias)
    return {sums[0], sums[1]};
  auto add = [&](Value sum, Value at) {
    return b.fadd(sum, bias->load(b, b.widen(at)));
  };
  return {add(sums[0], column), add(sums[1], b.add(column, half))};
}

/// A pair turned by the angle of its token.
ProjectionEpilogue::Pair ProjectionEpilogue::turn(Value row, Value inHead,
                                                  const Pair &sums) {
  Value cosine = cosines.load(b, {b.widen(row), b.widen(inHead)});
  Value sine = sines.load(b, {b.widen(row), b.widen(inHead)});
  return {b.fsub(b.fmul(sums[0], cosine), b.fmul(sums[1], sine)),
          b.fadd(b.fmul(sums[1], cosine), b.fmul(sums[0], sine))};
}

void ProjectionEpilogue::storePair(const StridedBuffer &buffer, Value row,
                                   Value column, const Pair &pair) {
  for (auto [i, each] : llvm::enumerate(pair)) {
    Value at = b.add(column, static_cast<int64_t>(i) * half);
    buffer.store(b, b.round(each, element), {b.widen(row), b.widen(at)});
  }
}

/// Stores to the page of the row's token. Idle rows have none.
void ProjectionEpilogue::appendPair(Value row, Value column, const Pair &pair,
                                    bool isValue) {
  Value tokenRow = b.div(row, append->queries);
  PageSlot slot(b, append->pool,
                {kernel.appendArgument(KVRM_BASE_ROWS),
                 kernel.appendArgument(KVRM_BASE_TABLES),
                 kernel.appendArgument(KVRM_BASE_PAGES_PER_SLOT)},
                tokenRow, b.sub(row, b.mul(tokenRow, append->queries)));
  b.ifThen(slot.isThere(), [&] {
    Value head = b.div(column, 2 * half);
    Value pool = b.at(
        kernel.appendArgument(isValue ? KVRM_BASE_V_POOL : KVRM_BASE_K_POOL),
        b.mul(b.widen(head), kernel.appendArgument(KVRM_BASE_HEAD_STRIDE)));
    Value inHead = b.rem(column, 2 * half);
    for (auto [i, each] : llvm::enumerate(pair)) {
      Value offset =
          slot.offsetOf(b.add(inHead, static_cast<int64_t>(i) * half));
      Value rounded = b.round(each, element);
      // As where a kernel of its own appends, which is given elements.
      if (append->pool.getElement() != element)
        rounded = codes.narrow(
            arith::ExtFOp::create(b, b.getF32Type(), rounded).getResult());
      b.store(rounded, b.at(pool, offset));
    }
  });
}

void ProjectionEpilogue::storeKeyOrValue(Value row, Value column,
                                         const Pair &pair, bool isValue) {
  if (append)
    appendPair(row, column, pair, isValue);
  else
    storePair(isValue ? value : key, row, column, pair);
}

Value ProjectionEpilogue::store(Value row, Value column, ArrayRef<Value> sums) {
  Value first = firstColumn(column), inHead = b.rem(column, half);
  Pair pair = withBias(first, sums);
  b.ifThenElse(
      b.lessThan(column, queryPairs),
      [&] { storePair(query, row, first, turn(row, inHead, pair)); },
      [&] {
        first = b.sub(first, 2 * queryPairs);
        b.ifThenElse(
            b.lessThan(column, queryPairs + keyPairs),
            [&] {
              storeKeyOrValue(row, first, turn(row, inHead, pair),
                              /*isValue=*/false);
            },
            [&] {
              storeKeyOrValue(row, b.sub(first, 2 * keyPairs), pair,
                              /*isValue=*/true);
            });
      });
  return {};
}

FailureOr<DenseLaunch>
kvrm::writeQKVProjectionKernel(QKVProjectionOp op, const RowSquares &squares,
                               const std::optional<AppendTarget> &append,
                               StringRef name, gpu::GPUModuleOp module,
                               const DeviceOptions &options) {
  if (!fitsMatrixUnits(getProductOperands(op)))
    return op.emitOpError("is no product for matrix units; run "
                          "kvrm-split-products first");
  ProductLaunch plan = planProduct(getProductOperands(op), op.getColumns() / 2,
                                   /*parts=*/2, options);
  DeviceKernel kernel(module, op.getLoc(), name,
                      DenseBuffers::of(op, squares, append).size(),
                      plan.threads, plan.sharedBytes, DeviceRole::Dense,
                      /*appends=*/append.has_value());
  PointerCursor pointers(kernel);
  ProductOperands operands = pointers.nextOperands(op, squares.taken);
  ProjectionEpilogue epilogue(op, append, kernel, options, pointers);
  writeProduct(operands, epilogue, kernel, options);
  return plan.grid;
}
