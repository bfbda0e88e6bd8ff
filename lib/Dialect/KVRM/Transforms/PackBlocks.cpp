//===- PackBlocks.cpp - Weights in blocks, packed -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PackBlocks.h"

#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm;
using kvrmblocks::ActivationRecord;
using kvrmblocks::BlockShape;
using kvrmblocks::kStretch;

Value kvrm::widenColumns(ImplicitLocOpBuilder &b, Value init, int64_t columns) {
  auto type = cast<RankedTensorType>(init.getType());
  Value zero =
      arith::ConstantOp::create(b, b.getZeroAttr(type.getElementType()));
  Value empty = tensor::EmptyOp::create(
      b, ArrayRef<int64_t>{type.getDimSize(0), columns}, type.getElementType());
  Value filled = linalg::FillOp::create(b, zero, empty).getResult(0);
  if (init.getDefiningOp<linalg::FillOp>())
    return filled;
  SmallVector<OpFoldResult> offsets(2, b.getIndexAttr(0)),
      strides(2, b.getIndexAttr(1)),
      sizes = {b.getIndexAttr(type.getDimSize(0)),
               b.getIndexAttr(type.getDimSize(1))};
  return tensor::InsertSliceOp::create(b, init, filled, offsets, sizes,
                                       strides);
}

//===----------------------------------------------------------------------===//
// One element
//===----------------------------------------------------------------------===//

namespace {
/// Writes what reads one element of records `[panels][blocks][bytes]`.
class ElementReader {
public:
  ElementReader(ImplicitLocOpBuilder &b, Value records, BlockFormat format,
                int64_t panel)
      : b(b), records(records), shape(getShape(format)), panel(panel) {}

  /// The value, f32, of element `column` of `row`.
  Value read(Value row, Value column);

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value i32(int64_t value) {
    return arith::ConstantIntOp::create(b, b.getI32Type(), value);
  }
  Value divide(Value value, int64_t by) {
    return arith::DivUIOp::create(b, value, index(by));
  }
  Value remainder(Value value, int64_t by) {
    return arith::RemUIOp::create(b, value, index(by));
  }
  /// base + value * stride
  Value at(Value base, Value value, int64_t stride) {
    return arith::AddIOp::create(
        b, base, arith::MulIOp::create(b, value, index(stride)));
  }
  Value byte(Value place) {
    return tensor::ExtractOp::create(b, records,
                                     ValueRange{panelIndex, block, place});
  }
  Value toI32(Value value) {
    return arith::IndexCastOp::create(b, b.getI32Type(), value);
  }
  /// The `count` bits of `value`, an i8, from bit `first` on.
  Value bits(Value value, Value first, int64_t count);
  Value half(int64_t place);
  /// A sub-scale or sub-minimum, of those that start at `place`.
  Value ofGroup(int64_t place, Value group);
  Value code(Value element);
  Value worth(Value code);

  ImplicitLocOpBuilder &b;
  Value records;
  BlockShape shape;
  int64_t panel;
  Value panelIndex, block; ///< whose record it is
  Value row;               ///< in it
};
} // namespace

Value ElementReader::bits(Value value, Value first, int64_t count) {
  Value word = arith::ExtUIOp::create(b, b.getI32Type(), value);
  Value shifted = arith::ShRUIOp::create(b, word, toI32(first));
  return arith::AndIOp::create(b, shifted, i32((1 << count) - 1));
}

Value ElementReader::half(int64_t place) {
  Value first = at(index(place), row, 2);
  Type i16 = b.getI16Type();
  Value low = arith::ExtUIOp::create(b, i16, byte(first));
  Value high = arith::ExtUIOp::create(
      b, i16, byte(arith::AddIOp::create(b, first, index(1))));
  Value eight = arith::ConstantIntOp::create(b, i16, 8);
  Value word = arith::OrIOp::create(
      b, low, arith::ShLIOp::create(b, high, eight).getResult());
  Value cast = arith::BitcastOp::create(b, b.getF16Type(), word);
  return arith::ExtFOp::create(b, b.getF32Type(), cast);
}

Value ElementReader::ofGroup(int64_t place, Value group) {
  Value stored = byte(at(at(index(place), group, panel), row, 1));
  return arith::SIToFPOp::create(b, b.getF32Type(), stored);
}

/// As i32, the code of an element of a block.
Value ElementReader::code(Value element) {
  Value inStretch = remainder(element, kStretch);
  Value base =
      at(index(0), divide(element, kStretch), shape.stretchBytes(panel));
  // Of this row and this element of four.
  Value quad = at(remainder(inStretch, 4), row, 4);
  Value first = arith::AddIOp::create(b, base, quad);
  if (shape.codeBits == 8)
    return bits(byte(at(first, divide(inStretch, 4), 4 * panel)), index(0), 8);
  constexpr int64_t halfStretch = kStretch / 2;
  Value upper = divide(inStretch, halfStretch);
  Value inHalf = divide(remainder(inStretch, halfStretch), 4);
  Value low =
      bits(byte(at(first, inHalf, 4 * panel)), at(index(0), upper, 4), 4);
  if (shape.codeBits == 4)
    return low;
  Value plane = arith::AddIOp::create(b, first, index(halfStretch * panel));
  Value high = shape.codeBits == 5 ? bits(byte(plane), divide(inStretch, 4), 1)
                                   : bits(byte(at(plane, upper, 4 * panel)),
                                          at(index(0), inHalf, 2), 2);
  return arith::OrIOp::create(
      b, low, arith::ShLIOp::create(b, high, i32(4)).getResult());
}

/// What a code stands for, before it is scaled.
Value ElementReader::worth(Value code) {
  if (!shape.isFloat)
    return arith::SIToFPOp::create(
        b, b.getF32Type(),
        arith::SubIOp::create(b, code, i32(shape.offset)).getResult());
  Value stored = arith::TruncIOp::create(b, b.getI8Type(), code);
  return widenElements(b, stored, Float8E4M3FNType::get(b.getContext()));
}

Value ElementReader::read(Value matrixRow, Value column) {
  panelIndex = divide(matrixRow, panel);
  row = remainder(matrixRow, panel);
  block = divide(column, shape.elements);
  Value element = remainder(column, shape.elements);
  Value group = divide(element, shape.group);
  Value scale = half(shape.scalesAt(panel));
  if (shape.hasSubScales)
    scale = arith::MulFOp::create(b, scale,
                                  ofGroup(shape.subScalesAt(panel), group));
  Value product = arith::MulFOp::create(b, scale, worth(code(element)));
  if (!shape.hasMinima)
    return product;
  Value minimum = half(shape.minimaAt(panel));
  if (!shape.hasSubScales)
    return arith::AddFOp::create(b, product, minimum);
  Value taken = arith::MulFOp::create(b, minimum,
                                      ofGroup(shape.subMinimaAt(panel), group));
  return arith::SubFOp::create(b, product, taken);
}

//===----------------------------------------------------------------------===//
// The weight
//===----------------------------------------------------------------------===//

FailureOr<WeightAttr>
BlockPacker::pack(ml_program::GlobalOp global,
                  ArrayRef<ml_program::GlobalLoadConstOp> loads,
                  int64_t offset) {
  if (panel <= 0)
    return global.emitOpError("is in blocks, which the target has no code for");
  auto blocks = cast<RankedTensorType>(global.getType());
  MLIRContext *context = global.getContext();
  BlockFormat format = cast<BlockType>(blocks.getElementType()).getFormat();
  auto records = RankedTensorType::get(
      {static_cast<int64_t>(llvm::divideCeil(blocks.getDimSize(0), panel)),
       blocks.getDimSize(1), getShape(format).recordBytes(panel)},
      IntegerType::get(context, 8));
  for (ml_program::GlobalLoadConstOp load : loads) {
    SmallVector<Operation *> users(load->getUsers());
    for (Operation *user : users) {
      auto dequantize = dyn_cast<DequantizeOp>(user);
      if (!dequantize)
        return user->emitOpError("uses the weight '@")
               << global.getSymName()
               << "', which is in blocks and to be dequantized";
      load.getResult().setType(records);
      if (failed(rewriteUses(dequantize, format)))
        return failure();
      dequantize.erase();
    }
  }
  global.setTypeAttr(TypeAttr::get(records));
  global.setValueAttr(ml_program::ExternAttr::get(context, records));
  return WeightAttr::get(context, WeightFormat::Blocks, offset, panel,
                         blocks.getDimSize(0),
                         BlockFormatAttr::get(context, format));
}

/// Whether `use` is the right-hand side of a transposed matmul in f32.
static bool isWeightOfProduct(OpOperand &use) {
  auto matmul = dyn_cast<linalg::MatmulOp>(use.getOwner());
  return matmul && isa<linalg::MatmulTransposeBOp>(use.getOwner()) &&
         use.getOperandNumber() == 1 &&
         getElementTypeOrSelf(matmul.getDpsInputs()[0]).isF32() &&
         getElementTypeOrSelf(matmul.getDpsInits()[0]).isF32();
}

/// Whether `use` is the weight of a form, which reads records as they are.
static bool isWeightOfForm(OpOperand &use) {
  return llvm::TypeSwitch<Operation *, bool>(use.getOwner())
      .Case<LinearOp, QKVProjectionOp>([&](auto op) {
        return &use == &op.getWeightMutable() && !op.getFormat();
      })
      .Default(false);
}

/// A library reads elements.
static void unpackForLibrary(DequantizeOp dequantize, BlockFormatAttr format) {
  ImplicitLocOpBuilder b(dequantize.getLoc(), dequantize);
  auto type = cast<RankedTensorType>(dequantize.getType());
  Value init =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  Value values =
      UnpackBlocksOp::create(b, type, format, dequantize.getBlocks(), init)
          .getResult();
  dequantize.getResult().replaceAllUsesWith(values);
}

LogicalResult BlockPacker::rewriteUses(DequantizeOp dequantize,
                                       BlockFormat format) {
  Value records = dequantize.getBlocks();
  auto formatAttr = BlockFormatAttr::get(dequantize.getContext(), format);
  if (!getElementTypeOrSelf(dequantize.getResult()).isF32()) {
    unpackForLibrary(dequantize, formatAttr);
    return success();
  }
  SmallVector<OpOperand *> uses;
  for (OpOperand &use : dequantize->getUses())
    uses.push_back(&use);
  for (OpOperand *use : uses) {
    Operation *user = use->getOwner();
    if (isWeightOfProduct(*use)) {
      rewriteProduct(cast<linalg::MatmulOp>(user), format, records);
      continue;
    }
    if (isWeightOfForm(*use)) {
      use->set(records);
      user->setAttr("format", formatAttr);
      continue;
    }
    auto extract = dyn_cast<tensor::ExtractOp>(user);
    if (!extract)
      return user->emitOpError("reads a weight in blocks; only products, as "
                               "their transposed right-hand side, and "
                               "tensor.extract can");
    ImplicitLocOpBuilder b(extract.getLoc(), extract);
    Value element = ElementReader(b, records, format, panel)
                        .read(extract.getIndices()[0], extract.getIndices()[1]);
    extract.getResult().replaceAllUsesWith(element);
    extract.erase();
  }
  return success();
}

/// What the new op reads of the activations of `matmul`. Their codes are the
/// same for all products of a block.
Value BlockPacker::getInput(linalg::MatmulOp matmul, BlockFormat format) {
  Value activations = matmul.getDpsInputs()[0];
  // Floats are multiplied with floats.
  if (exactActivations || getShape(format).isFloat)
    return activations;
  for (Operation *user : activations.getUsers())
    if (auto known = dyn_cast<QuantizeRowsOp>(user);
        known && known->getBlock() == matmul->getBlock() &&
        known->isBeforeInBlock(matmul))
      return known.getResult();
  ImplicitLocOpBuilder b(activations.getLoc(), activations.getContext());
  b.setInsertionPointAfterValue(activations);
  auto type = cast<RankedTensorType>(activations.getType());
  const int64_t dims[] = {type.getDimSize(0), type.getDimSize(1) / kStretch,
                          ActivationRecord::bytes};
  Value empty = tensor::EmptyOp::create(b, dims, b.getI8Type());
  return QuantizeRowsOp::create(b, empty.getType(), activations, empty)
      .getResult();
}

void BlockPacker::rewriteProduct(linalg::MatmulOp matmul, BlockFormat format,
                                 Value records) {
  Value input = getInput(matmul, format);
  ImplicitLocOpBuilder b(matmul.getLoc(), matmul);
  Value init = matmul.getDpsInits()[0];
  int64_t columns = cast<RankedTensorType>(init.getType()).getDimSize(1);
  int64_t stored =
      cast<RankedTensorType>(records.getType()).getDimSize(0) * panel;
  if (stored != columns)
    init = widenColumns(b, init, stored);
  Value result =
      BlockProductOp::create(b, init.getType(),
                             BlockFormatAttr::get(b.getContext(), format),
                             input, records, init, b.getI64IntegerAttr(panel))
          .getResult();
  if (stored != columns)
    result = sliceColumns(b, result, 0, columns);
  matmul.getResult(0).replaceAllUsesWith(result);
  matmul.erase();
}
