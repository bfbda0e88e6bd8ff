//===- ConstantTable.cpp - Constants at symbolic indices ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ConstantTable.h"

#include "mlir/Dialect/Utils/IndexingUtils.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Endian.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

/// A table with more elements is not looked through.
static constexpr int64_t maxElements = int64_t{1} << 24;

/// Whether numbers of the type are an int64_t.
static bool isNarrow(Type element) {
  return element.isIndex() ||
         (element.isIntOrIndex() && element.getIntOrFloatBitWidth() <= 64);
}

static int64_t valueOf(const llvm::APInt &value) {
  return value.getBitWidth() == 1 ? static_cast<int64_t>(value.getZExtValue())
                                  : value.getSExtValue();
}

/// The integers of a blob, little-endian, a truth value a byte.
static SmallVector<int64_t> integersOf(ArrayRef<char> data, unsigned width,
                                       int64_t count) {
  using namespace llvm::support;
  unsigned bytes = width == 1 ? 1 : width / 8;
  if (static_cast<int64_t>(data.size()) != count * bytes)
    return {};
  SmallVector<int64_t> integers;
  for (int64_t i = 0; i < count; ++i) {
    const char *at = data.data() + i * bytes;
    switch (width) {
    case 1:
      integers.push_back(*at != 0);
      break;
    case 8:
      integers.push_back(static_cast<int8_t>(*at));
      break;
    case 32:
      integers.push_back(static_cast<int32_t>(endian::read32le(at)));
      break;
    case 64:
      integers.push_back(static_cast<int64_t>(endian::read64le(at)));
      break;
    default:
      return {};
    }
  }
  return integers;
}

ConstantTable::ConstantTable(ElementsAttr attr) : attr(attr) {
  ShapedType type = attr.getShapedType();
  Type element = type.getElementType();
  if (!isNarrow(element) || !type.hasStaticShape() ||
      type.getNumElements() > maxElements ||
      (isa<DenseElementsAttr>(attr) && attr.isSplat()))
    return;
  if (auto dense = dyn_cast<DenseIntElementsAttr>(attr)) {
    for (const llvm::APInt &value : dense.getValues<llvm::APInt>())
      integers.push_back(valueOf(value));
  } else if (auto resource = dyn_cast<DenseResourceElementsAttr>(attr)) {
    unsigned width = element.isIndex() ? 64 : element.getIntOrFloatBitWidth();
    integers = integersOf(resource.getData(), width, type.getNumElements());
  }
  if (!integers.empty() && !isAffine())
    isTriangle();
}

/// Wraps, as all of this does: a law that wraps is none that `at` can state,
/// and its range would say so.
static int64_t subtract(int64_t lhs, int64_t rhs) {
  return static_cast<int64_t>(static_cast<uint64_t>(lhs) -
                              static_cast<uint64_t>(rhs));
}

bool ConstantTable::isAffine() {
  ArrayRef<int64_t> shape = attr.getShapedType().getShape();
  SmallVector<int64_t> strides = computeStrides(shape), found;
  for (auto [size, stride] : llvm::zip_equal(shape, strides))
    found.push_back(size > 1 ? subtract(integers[stride], integers[0]) : 0);
  for (auto [flat, value] : llvm::enumerate(integers)) {
    auto expected = static_cast<uint64_t>(integers[0]);
    for (auto [size, stride, coefficient] :
         llvm::zip_equal(shape, strides, found))
      expected +=
          static_cast<uint64_t>(static_cast<int64_t>(flat) / stride % size) *
          static_cast<uint64_t>(coefficient);
    if (static_cast<int64_t>(expected) != value)
      return false;
  }
  coefficients = std::move(found);
  return true;
}

bool ConstantTable::isTriangle() {
  ArrayRef<int64_t> shape = attr.getShapedType().getShape();
  SmallVector<unsigned> dims;
  for (auto [dim, size] : llvm::enumerate(shape))
    if (size > 1)
      dims.push_back(dim);
  if (dims.size() != 2)
    return false;
  int64_t columns = shape[dims[1]];
  const auto *firstZero = llvm::find(integers, 0);
  int64_t found = firstZero - integers.begin() - 1;
  for (auto [flat, value] : llvm::enumerate(integers)) {
    int64_t row = static_cast<int64_t>(flat) / columns;
    int64_t column = static_cast<int64_t>(flat) % columns;
    if (value != (column <= row + found ? 1 : 0))
      return false;
  }
  rowDim = dims[0];
  columnDim = dims[1];
  shift = found;
  return true;
}

const Expr *ConstantTable::at(ExprPool &pool,
                              ArrayRef<const Expr *> index) const {
  Type element = attr.getShapedType().getElementType();
  if (isa<FloatType>(element)) {
    auto dense = dyn_cast<DenseFPElementsAttr>(attr);
    if (!dense || !dense.isSplat())
      return nullptr;
    llvm::APFloat value = dense.getSplatValue<llvm::APFloat>();
    bool losesInfo = false;
    value.convert(llvm::APFloat::IEEEdouble(),
                  llvm::APFloat::rmNearestTiesToEven, &losesInfo);
    return pool.real(value.convertToDouble());
  }
  if (auto dense = dyn_cast<DenseIntElementsAttr>(attr);
      dense && dense.isSplat() && isNarrow(element))
    return pool.integer(valueOf(dense.getSplatValue<llvm::APInt>()));
  if (!coefficients.empty()) {
    const Expr *value = pool.integer(integers[0]);
    for (auto [at, coefficient] : llvm::zip_equal(index, coefficients))
      value = pool.add(value, at, coefficient);
    return value;
  }
  if (shift)
    return pool.lessOrEqual(index[columnDim],
                            pool.add(index[rowDim], pool.integer(*shift)));
  return nullptr;
}
