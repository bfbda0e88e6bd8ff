//===- LinearBody.cpp - The body of a linear on its own -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LinearBody.h"

#include "kvrm/Dialect/KVRM/Utils/Columns.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::kvrm;
using utils::IteratorType;

/// The columns of each part.
static SmallVector<Value> sliceParts(ImplicitLocOpBuilder &b, LinearOp op,
                                     Value product) {
  auto parts = static_cast<int64_t>(op.getParts());
  if (parts == 1)
    return {product};
  SmallVector<Value> slices;
  for (int64_t part = 0; part < parts; ++part)
    slices.push_back(
        sliceColumns(b, product, part * op.getColumns(), op.getColumns()));
  return slices;
}

/// Clones the body for the elements `args`, the output's last.
static void cloneBody(OpBuilder &b, Location loc, LinearOp op,
                      ValueRange args) {
  IRMapping mapping;
  for (auto [from, to] :
       llvm::zip_equal(op.getBody().getArguments(), args.drop_back())) {
    Value value = to;
    if (llvm::is_contained(op.getSums(), from) && !value.getType().isF32())
      value = arith::ExtFOp::create(b, loc, b.getF32Type(), value);
    mapping.map(from, value);
  }
  Block &body = op.getBody().front();
  for (Operation &each : body.without_terminator())
    b.clone(each, mapping);
  Value yielded = cast<YieldOp>(body.getTerminator()).getValue();
  linalg::YieldOp::create(b, loc, mapping.lookup(yielded));
}

Value kvrm::writeLinearBody(ImplicitLocOpBuilder &b, LinearOp op,
                            Value product) {
  SmallVector<Value> inputs = sliceParts(b, op, product);
  llvm::append_range(inputs, op.getExtras());
  AffineMap whole = b.getMultiDimIdentityMap(2);
  SmallVector<AffineMap> maps;
  for (Value input : inputs)
    maps.push_back(cast<ShapedType>(input.getType()).getRank() == 2
                       ? whole
                       : AffineMap::get(2, 0, b.getAffineDimExpr(1)));
  maps.push_back(whole);
  SmallVector<IteratorType> iterators(2, IteratorType::parallel);
  return linalg::GenericOp::create(
             b, TypeRange{op.getOutput().getType()}, inputs,
             ValueRange{op.getOutput()}, maps, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange args) {
               cloneBody(nested, loc, op, args);
             })
      .getResult(0);
}
