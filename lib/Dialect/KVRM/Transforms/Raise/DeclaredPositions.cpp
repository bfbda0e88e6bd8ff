//===- DeclaredPositions.cpp - Arguments that are one position ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DeclaredPositions.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::kvrm::raise;

/// Elements of a position, of which at most one dim has more than one.
FailureOr<int64_t> DeclaredPositions::countOf(unsigned number) {
  auto refuse = [&](const Twine &text) {
    return func.emitError("argument ") << number << " " << text;
  };
  if (number >= func.getNumArguments())
    return refuse("is declared a position, and there is none");
  Type type = func.getArgument(number).getType();
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!getElementTypeOrSelf(type).isSignlessIntOrIndex() ||
      getElementTypeOrSelf(type).isInteger(1) ||
      (tensor ? !tensor.hasStaticShape() : isa<ShapedType>(type)))
    return refuse("is declared a position, and is no integers");
  if (!tensor)
    return 1;
  if (llvm::count_if(tensor.getShape(),
                     [](int64_t size) { return size != 1; }) > 1)
    return refuse("is declared a position, and has several dims");
  return tensor.getNumElements();
}

static Value castInteger(OpBuilder &builder, Location loc, Value value,
                         Type type) {
  if (value.getType() == type)
    return value;
  if (isa<IndexType>(type) || isa<IndexType>(value.getType()))
    return arith::IndexCastOp::create(builder, loc, type, value);
  if (value.getType().getIntOrFloatBitWidth() < type.getIntOrFloatBitWidth())
    return arith::ExtSIOp::create(builder, loc, type, value);
  return arith::TruncIOp::create(builder, loc, type, value);
}

/// `from` in `type`, which has as many elements, or else `from` has one.
Value DeclaredPositions::spread(OpBuilder &builder, BlockArgument from,
                                Type type) {
  Location loc = func.getLoc();
  auto keep = [&](Value value) {
    made.push_back(value.getDefiningOp());
    return value;
  };
  auto source = dyn_cast<RankedTensorType>(from.getType());
  auto target = dyn_cast<RankedTensorType>(type);
  Type element = getElementTypeOrSelf(type);
  if (!source || !target) {
    Value scalar = from;
    if (source) {
      Value zero =
          keep(arith::ConstantIndexOp::create(builder, loc, 0).getResult());
      scalar = keep(tensor::ExtractOp::create(
          builder, loc, from, SmallVector<Value>(source.getRank(), zero)));
    }
    if (scalar.getType() != element)
      scalar = keep(castInteger(builder, loc, scalar, element));
    return target ? keep(tensor::SplatOp::create(builder, loc, scalar, target))
                  : scalar;
  }
  // Rows are the one dim of each that has more than one element.
  auto rowsOf = [](RankedTensorType tensor) {
    return llvm::find_if(tensor.getShape(),
                         [](int64_t size) { return size != 1; }) -
           tensor.getShape().begin();
  };
  SmallVector<AffineExpr> index(source.getRank(),
                                builder.getAffineConstantExpr(0));
  if (source.getNumElements() > 1)
    index[rowsOf(source)] = builder.getAffineDimExpr(rowsOf(target));
  int64_t rank = target.getRank();
  auto map = AffineMap::get(rank, 0, index, builder.getContext());
  Value init =
      keep(tensor::EmptyOp::create(builder, loc, target.getShape(), element));
  SmallVector<utils::IteratorType> loops(rank, utils::IteratorType::parallel);
  return keep(
      linalg::GenericOp::create(
          builder, loc, TypeRange{target}, ValueRange{from}, ValueRange{init},
          ArrayRef{map, builder.getMultiDimIdentityMap(rank)}, loops,
          [&](OpBuilder &nested, Location at, ValueRange values) {
            linalg::YieldOp::create(
                nested, at, castInteger(nested, at, values.front(), element));
          })
          .getResult(0));
}

LogicalResult DeclaredPositions::unify(ArrayRef<unsigned> numbers) {
  SmallVector<int64_t> counts;
  for (unsigned number : numbers) {
    FailureOr<int64_t> count = countOf(number);
    if (failed(count))
      return failure();
    counts.push_back(*count);
  }
  if (numbers.empty())
    return success();
  size_t first = llvm::min_element(counts) - counts.begin();
  for (auto [number, count] : llvm::zip_equal(numbers, counts))
    if (counts[first] != 1 && count != counts[first])
      return func.emitError("arguments ")
             << numbers[first] << " and " << number
             << " are declared one position, and have " << counts[first]
             << " and " << count << " elements";
  BlockArgument from = func.getArgument(numbers[first]);
  auto builder = OpBuilder::atBlockBegin(&func.getBody().front());
  for (unsigned number : numbers) {
    BlockArgument argument = func.getArgument(number);
    if (argument == from || argument.use_empty())
      continue;
    SmallVector<OpOperand *> uses;
    for (OpOperand &use : argument.getUses())
      uses.push_back(&use);
    Value with = argument.getType() == from.getType()
                     ? from
                     : spread(builder, from, argument.getType());
    for (OpOperand *use : uses) {
      replaced.emplace_back(use, argument);
      use->set(with);
    }
  }
  return success();
}

void DeclaredPositions::undo() {
  for (auto [use, value] : replaced)
    use->set(value);
  for (Operation *op : llvm::reverse(made))
    op->erase();
  replaced.clear();
  made.clear();
}
