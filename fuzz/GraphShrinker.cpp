//===- GraphShrinker.cpp - Decode steps of smaller sizes ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hidden sizes, capacities and vocabularies of exported steps are powers of
// two, and rows and heads are few. What is a multiple of 32 is taken to have
// one large factor, or two from 8192 on: of each, a sixteenth is left.
//
//===----------------------------------------------------------------------===//

#include "GraphInterpreter.h"
#include "GraphMutator.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/AttrTypeSubElements.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;
using namespace fuzz;

static int64_t shrunk(int64_t size) {
  if (size < 32 || size % 32 != 0)
    return size;
  return size >= 8192 && size % 256 == 0 ? size / 256 : size / 16;
}

static SmallVector<int64_t> shrunk(ArrayRef<int64_t> sizes) {
  return llvm::map_to_vector(sizes, [](int64_t size) { return shrunk(size); });
}

/// A size, or the last index of one.
static int64_t shrunkNumber(int64_t number) {
  int64_t size = shrunk(number + 1);
  return size != number + 1 ? size - 1 : shrunk(number);
}

/// The front of a table.
static Attribute shrunkTable(Attribute value) {
  auto type = cast<RankedTensorType>(cast<TypedAttr>(value).getType());
  auto to =
      RankedTensorType::get(shrunk(type.getShape()), type.getElementType());
  if (auto splat = dyn_cast<SplatElementsAttr>(value))
    return DenseElementsAttr::get(to, splat.getSplatValue<Attribute>());
  Tensor tensor = tensorOf(value);
  SmallVector<Attribute> elements;
  OpBuilder b(value.getContext());
  for (int64_t flat = 0; flat < to.getNumElements(); ++flat) {
    int64_t rest = flat, place = 0, stride = 1;
    for (int64_t dim = to.getRank() - 1; dim >= 0; --dim) {
      place += rest % to.getDimSize(dim) * stride;
      stride *= type.getDimSize(dim);
      rest /= to.getDimSize(dim);
    }
    Scalar scalar = tensor.elements[place];
    if (isa<FloatType>(to.getElementType()))
      elements.push_back(b.getFloatAttr(to.getElementType(), scalar.real));
    else
      elements.push_back(
          b.getIntegerAttr(to.getElementType(), shrunkNumber(scalar.integer)));
  }
  return DenseElementsAttr::get(to, elements);
}

static void shrinkConstant(arith::ConstantOp op) {
  if (isa<RankedTensorType>(op.getType()))
    op.setValueAttr(cast<TypedAttr>(shrunkTable(op.getValue())));
  else if (auto number = dyn_cast<IntegerAttr>(op.getValue()))
    if (number.getType().isIndex() || number.getValue().getBitWidth() <= 64)
      op.setValueAttr(
          IntegerAttr::get(number.getType(), shrunkNumber(number.getInt())));
}

bool fuzz::shrink(func::FuncOp func) {
  func->walk([](arith::ConstantOp op) { shrinkConstant(op); });
  AttrTypeReplacer replacer;
  replacer.addReplacement(
      [](RankedTensorType type) -> std::pair<Type, WalkResult> {
        return {RankedTensorType::get(shrunk(type.getShape()),
                                      type.getElementType(),
                                      type.getEncoding()),
                WalkResult::skip()};
      });
  // Offsets, sizes and shapes of ops; all else has small numbers.
  replacer.addReplacement([](DenseI64ArrayAttr list) -> Attribute {
    return DenseI64ArrayAttr::get(list.getContext(), shrunk(list));
  });
  // Tables have their new types already.
  replacer.addReplacement(
      [](ElementsAttr table) -> std::pair<Attribute, WalkResult> {
        return {table, WalkResult::skip()};
      });
  replacer.recursivelyReplaceElementsIn(func, /*replaceAttrs=*/true,
                                        /*replaceLocs=*/false,
                                        /*replaceTypes=*/true);
  return succeeded(verify(func));
}
