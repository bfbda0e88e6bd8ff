//===- BlockProductToHost.cpp - Products with weights in blocks -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Lanes are rows of a panel, so that there is no horizontal sum: a vector of
// bytes holds four codes of each row, and the four codes or values of an
// activation that belong to them are the same for all lanes.
//
// With quantised activations a stretch of 32 costs, a row of activations, eight
// dot products of bytes and four operations that scale their sum; codes are
// unpacked once for all rows of a block. At one row that is some 30 vector
// operations for 512 weights, three times what memory delivers meanwhile. With
// activations in f32 it is an operation and a half to make each vector of
// weights from codes, one to scale it, and one a row to multiply.
//
//===----------------------------------------------------------------------===//

#include "BlockKernels.h"
#include "RowBlocks.h"

#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/bit.h"

#include <algorithm>

using namespace mlir;
using namespace mlir::kvrm;
using kvrmblocks::ActivationRecord;
using kvrmblocks::BlockShape;
using kvrmblocks::kStretch;

/// Elements of a lane in a vector of bytes, and such vectors of a stretch.
static constexpr int64_t kQuad = 4;
static constexpr int64_t kQuads = kStretch / kQuad;

/// How far ahead of its use a weight is asked for: as in DenseToHost.cpp.
static constexpr int64_t kPrefetchBytes = 12 * 1024;

namespace {

class BlockKernel {
public:
  BlockKernel(BlockProductOp op, bool startsFromZero, int64_t lanes,
              CodeDot dot);
  void write();

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value plus(Value lhs, int64_t rhs) {
    return rhs ? arith::AddIOp::create(b, lhs, index(rhs)) : lhs;
  }
  Value times(Value lhs, int64_t rhs) {
    return arith::MulIOp::create(b, lhs, index(rhs));
  }
  Value splat(VectorType type, int64_t value) {
    return arith::ConstantOp::create(
        b, type,
        DenseElementsAttr::get(type,
                               b.getIntegerAttr(type.getElementType(), value)));
  }
  Value splat(float value) {
    return arith::ConstantOp::create(b, floats,
                                     DenseElementsAttr::get(floats, value));
  }
  Value shiftRight(VectorType type, Value value, int64_t by) {
    return by ? arith::ShRUIOp::create(b, value, splat(type, by)) : value;
  }
  Value keep(VectorType type, Value value, int64_t mask) {
    return arith::AndIOp::create(b, value, splat(type, mask));
  }

  /// The rows of activations that one pass over a panel multiplies with.
  struct RowBlock {
    Value first;
    int64_t count;
    int64_t chains; ///< sums that are independent, of each row
  };
  /// What a group of a block scales its codes by: value = scale * code + bias.
  struct Scales {
    Value scale, bias;
  };

  void contractBlock(Value firstRow, int64_t count);
  SmallVector<Value> startSums(const RowBlock &rows);
  void storeSums(const RowBlock &rows, ValueRange sums);
  SmallVector<Value> outputAt(const RowBlock &rows, int64_t row) {
    return {plus(rows.first, row), column};
  }
  SmallVector<Value> contractStretches(const RowBlock &rows, ValueRange sums);
  void contractStretch(const RowBlock &rows, Value stretch,
                       MutableArrayRef<Value> sums);
  void prefetch(Value base);

  Value loadBytes(Value at, int64_t count);
  Value loadHalves(int64_t at);
  Value loadSmall(Value at);
  Scales loadScales(Value group);
  Value unpack(Value base, int64_t quad);
  void multiplyExact(const RowBlock &rows, Value stretch, int64_t quad,
                     Value codes, Scales scales, MutableArrayRef<Value> sums);
  Value valueOf(Value codes);
  void multiplyQuantized(const RowBlock &rows, Value stretch, int64_t group,
                         ArrayRef<Value> codes, Scales scales,
                         MutableArrayRef<Value> sums);
  Value activationFloat(Value row, Value stretch, int64_t at);
  Value activationCodes(Value row, Value stretch, int64_t quad);
  Value dot(ArrayRef<Value> codes, ArrayRef<Value> activations);
  Value dotWithPairs(ArrayRef<Value> codes, ArrayRef<Value> activations,
                     int64_t mostCode);
  Value call(StringRef intrinsic, VectorType type, ValueRange operands) {
    return LLVM::CallIntrinsicOp::create(b, type, b.getStringAttr(intrinsic),
                                         operands)
        .getResult(0);
  }

  ImplicitLocOpBuilder b;
  BlockProductOp op;
  BlockShape shape;
  bool startsFromZero;
  int64_t lanes;
  CodeDot codeDot;
  VectorType floats, ints, bytes;
  Value panelIndex, column; ///< of the panel that is being contracted
  Value block;              ///< of it
  Value major, minor;       ///< halves of the block, in f32: scale, minimum
};

} // namespace

BlockKernel::BlockKernel(BlockProductOp op, bool startsFromZero, int64_t lanes,
                         CodeDot dot)
    : b(op.getLoc(), op), op(op), shape(getShape(op.getFormat())),
      startsFromZero(startsFromZero), lanes(lanes), codeDot(dot),
      floats(VectorType::get({lanes}, b.getF32Type())),
      ints(VectorType::get({lanes}, b.getI32Type())),
      bytes(VectorType::get({kQuad * lanes}, b.getI8Type())) {}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

void BlockKernel::write() {
  Value panels = b.createOrFold<memref::DimOp>(op.getWeight(), 0);
  auto panelLoop = scf::ForOp::create(b, index(0), panels, index(1));
  b.setInsertionPointToStart(panelLoop.getBody());
  panelIndex = panelLoop.getInductionVar();
  column = times(panelIndex, lanes);

  forEachRowBlock(b, op.getRows(), lanes, [&](Value firstRow, int64_t count) {
    contractBlock(firstRow, count);
  });
}

/// Accumulates in registers over all blocks of the panel, then stores.
void BlockKernel::contractBlock(Value firstRow, int64_t count) {
  // Exact products are one chain of additions a row, which would wait for each
  // other; those of codes start anew with every stretch.
  constexpr int64_t enough = 8;
  int64_t chains =
      op.isQuantized() || count >= enough
          ? 1
          : std::min<int64_t>(kQuad, llvm::bit_floor(uint64_t(enough / count)));
  RowBlock rows{firstRow, count, chains};
  auto loop = scf::ForOp::create(b, index(0), index(op.getBlocks()), index(1),
                                 startSums(rows));
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    block = loop.getInductionVar();
    major = loadHalves(shape.scalesAt(lanes));
    if (shape.hasMinima)
      minor = loadHalves(shape.minimaAt(lanes));
    scf::YieldOp::create(b, contractStretches(rows, loop.getRegionIterArgs()));
  }
  storeSums(rows, loop.getResults());
}

/// Of each chain of each row; further chains start from zero.
SmallVector<Value> BlockKernel::startSums(const RowBlock &rows) {
  SmallVector<Value> sums(rows.count * rows.chains, splat(0.0f));
  if (!startsFromZero)
    for (int64_t r = 0; r < rows.count; ++r)
      sums[r] =
          vector::LoadOp::create(b, floats, op.getOutput(), outputAt(rows, r));
  return sums;
}

void BlockKernel::storeSums(const RowBlock &rows, ValueRange sums) {
  for (int64_t r = 0; r < rows.count; ++r) {
    Value sum = sums[r];
    for (int64_t chain = 1; chain < rows.chains; ++chain)
      sum = arith::AddFOp::create(b, sum, sums[chain * rows.count + r]);
    vector::StoreOp::create(b, sum, op.getOutput(), outputAt(rows, r));
  }
}

SmallVector<Value> BlockKernel::contractStretches(const RowBlock &rows,
                                                  ValueRange start) {
  SmallVector<Value> sums(start);
  if (shape.stretches() == 1) {
    contractStretch(rows, index(0), sums);
    return sums;
  }
  auto loop = scf::ForOp::create(b, index(0), index(shape.stretches()),
                                 index(1), start);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  sums = SmallVector<Value>(loop.getRegionIterArgs());
  contractStretch(rows, loop.getInductionVar(), sums);
  scf::YieldOp::create(b, sums);
  return SmallVector<Value>(loop.getResults());
}

/// Adds the products of stretch `inBlock` of the block.
void BlockKernel::contractStretch(const RowBlock &rows, Value inBlock,
                                  MutableArrayRef<Value> sums) {
  Value base = times(inBlock, shape.stretchBytes(lanes));
  Value stretch =
      arith::AddIOp::create(b, times(block, shape.stretches()), inBlock);
  prefetch(base);
  // A group may be of several stretches; it is then the block's only one.
  int64_t quads = std::min(shape.group, kStretch) / kQuad;
  int64_t groups = kQuads / quads;
  for (int64_t group = 0; group < groups; ++group) {
    Scales scales = loadScales(plus(times(inBlock, groups), group));
    SmallVector<Value> codes;
    for (int64_t i = 0; i < quads; ++i) {
      int64_t quad = group * quads + i;
      codes.push_back(unpack(base, quad));
      if (!op.isQuantized())
        multiplyExact(rows, stretch, quad, codes.back(), scales, sums);
    }
    if (op.isQuantized())
      multiplyQuantized(rows, stretch, group, codes, scales, sums);
  }
}

/// The share of a stretch in its record, further on.
void BlockKernel::prefetch(Value base) {
  constexpr int64_t lineBytes = 64;
  int64_t share = shape.recordBytes(lanes) / shape.stretches();
  for (int64_t line = 0; line < share; line += lineBytes)
    memref::PrefetchOp::create(
        b, op.getWeight(),
        ValueRange{panelIndex, block, plus(base, kPrefetchBytes + line)},
        /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
}

//===----------------------------------------------------------------------===//
// Records
//===----------------------------------------------------------------------===//

Value BlockKernel::loadBytes(Value at, int64_t count) {
  return vector::LoadOp::create(b, VectorType::get({count}, b.getI8Type()),
                                op.getWeight(),
                                ValueRange{panelIndex, block, at});
}

/// A half of each row, in f32.
Value BlockKernel::loadHalves(int64_t at) {
  auto halves = VectorType::get({lanes}, b.getF16Type());
  Value cast =
      vector::BitCastOp::create(b, halves, loadBytes(index(at), 2 * lanes));
  return arith::ExtFOp::create(b, floats, cast);
}

/// An integer of eight bits of each row, in f32.
Value BlockKernel::loadSmall(Value at) {
  Value wide = arith::ExtSIOp::create(b, ints, loadBytes(at, lanes));
  return arith::SIToFPOp::create(b, floats, wide);
}

BlockKernel::Scales BlockKernel::loadScales(Value group) {
  Scales scales{major, minor};
  Value at = times(group, lanes);
  if (shape.hasSubScales)
    scales.scale = arith::MulFOp::create(
        b, major, loadSmall(plus(at, shape.subScalesAt(lanes))));
  if (!shape.hasMinima) {
    scales.bias = arith::MulFOp::create(
        b, scales.scale, splat(-static_cast<float>(shape.offset)));
  } else if (shape.hasSubScales) {
    Value taken = arith::MulFOp::create(
        b, minor, loadSmall(plus(at, shape.subMinimaAt(lanes))));
    scales.bias = arith::NegFOp::create(b, taken);
  }
  return scales;
}

/// The codes of elements 4 * quad to 4 * quad + 3, unsigned.
Value BlockKernel::unpack(Value base, int64_t quad) {
  int64_t vectorBytes = kQuad * lanes;
  if (shape.codeBits == 8)
    return loadBytes(plus(base, quad * vectorBytes), vectorBytes);
  constexpr int64_t half = kQuads / 2;
  Value packed = loadBytes(plus(base, quad % half * vectorBytes), vectorBytes);
  Value low =
      quad < half ? keep(bytes, packed, 15) : shiftRight(bytes, packed, 4);
  if (shape.codeBits == 4)
    return low;
  // Bits [bit, bit + highBits) of a byte become bits from 4 on.
  int64_t highBits = shape.codeBits - 4, perPlane = 8 / highBits;
  int64_t plane = half + quad / perPlane, bit = quad % perPlane * highBits;
  Value high = loadBytes(plus(base, plane * vectorBytes), vectorBytes);
  if (bit < 4)
    high = arith::ShLIOp::create(b, high, splat(bytes, 4 - bit));
  else
    high = shiftRight(bytes, high, bit - 4);
  high = keep(bytes, high, ((1 << highBits) - 1) << 4);
  return arith::OrIOp::create(b, low, high);
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// Makes the weights of four elements, and multiplies each with all rows.
void BlockKernel::multiplyExact(const RowBlock &rows, Value stretch,
                                int64_t quad, Value codes, Scales scales,
                                MutableArrayRef<Value> sums) {
  Value words = vector::BitCastOp::create(b, ints, codes);
  Value firstElement = plus(times(stretch, kStretch), quad * kQuad);
  for (int64_t i = 0; i < kQuad; ++i) {
    Value code = shiftRight(ints, words, 8 * i);
    if (i + 1 < kQuad)
      code = keep(ints, code, 255);
    Value weight =
        vector::FMAOp::create(b, valueOf(code), scales.scale, scales.bias);
    for (int64_t r = 0; r < rows.count; ++r) {
      Value scalar = memref::LoadOp::create(
          b, op.getInput(),
          ValueRange{plus(rows.first, r), plus(firstElement, i)});
      Value activation = vector::BroadcastOp::create(b, floats, scalar);
      Value &sum = sums[i % rows.chains * rows.count + r];
      sum = vector::FMAOp::create(b, activation, weight, sum);
    }
  }
}

/// What codes, of one byte in each of `ints`, stand for.
Value BlockKernel::valueOf(Value codes) {
  if (!shape.isFloat)
    return arith::SIToFPOp::create(b, floats, codes);
  Value stored = arith::TruncIOp::create(
      b, VectorType::get({lanes}, b.getI8Type()), codes);
  return widenElements(b, stored, Float8E4M3FNType::get(b.getContext()));
}

/// A float of an activation record, in all lanes.
Value BlockKernel::activationFloat(Value row, Value stretch, int64_t at) {
  Value loaded = vector::LoadOp::create(b, VectorType::get({4}, b.getI8Type()),
                                        op.getInput(),
                                        ValueRange{row, stretch, index(at)});
  Value word = vector::BitCastOp::create(
      b, VectorType::get({1}, b.getF32Type()), loaded);
  return vector::BroadcastOp::create(b, floats, word);
}

/// Four codes of an activation, in all lanes.
Value BlockKernel::activationCodes(Value row, Value stretch, int64_t quad) {
  Value loaded = vector::LoadOp::create(
      b, VectorType::get({kQuad}, b.getI8Type()), op.getInput(),
      ValueRange{row, stretch, index(quad * kQuad)});
  Value word = vector::BitCastOp::create(
      b, VectorType::get({1}, b.getI32Type()), loaded);
  return vector::BitCastOp::create(b, bytes,
                                   vector::BroadcastOp::create(b, ints, word));
}

/// Adds scale * s * dot(codes, x) + bias * s * sum(x) of each row, whose
/// activations are s * x.
void BlockKernel::multiplyQuantized(const RowBlock &rows, Value stretch,
                                    int64_t group, ArrayRef<Value> codes,
                                    Scales scales,
                                    MutableArrayRef<Value> sums) {
  auto quads = static_cast<int64_t>(codes.size());
  // The first sum is of the whole stretch, two others of its halves.
  int64_t sumAt =
      ActivationRecord::sumsAt + (quads == kQuads ? 0 : 4 + 4 * group);
  for (int64_t r = 0; r < rows.count; ++r) {
    Value row = plus(rows.first, r);
    SmallVector<Value> activations;
    for (int64_t i = 0; i < quads; ++i)
      activations.push_back(activationCodes(row, stretch, group * quads + i));
    Value product = arith::SIToFPOp::create(b, floats, dot(codes, activations));
    Value scale = arith::MulFOp::create(
        b, scales.scale,
        activationFloat(row, stretch, ActivationRecord::scaleAt));
    Value sum = vector::FMAOp::create(b, product, scale, sums[r]);
    sums[r] = vector::FMAOp::create(b, scales.bias,
                                    activationFloat(row, stretch, sumAt), sum);
  }
}

/// In i32, the sum of products of each lane.
Value BlockKernel::dot(ArrayRef<Value> codes, ArrayRef<Value> activations) {
  if (codeDot == CodeDot::Vnni) {
    StringRef intrinsic = lanes == 16 ? "llvm.x86.avx512.vpdpbusd.512"
                                      : "llvm.x86.avx512.vpdpbusd.256";
    Value sum = splat(ints, 0);
    for (auto [code, activation] : llvm::zip_equal(codes, activations))
      sum = call(intrinsic, ints, {sum, code, activation});
    return sum;
  }
  if (shape.codeBits < 8)
    return dotWithPairs(codes, activations, (1 << shape.codeBits) - 1);
  // Two products of eight bits by eight do not fit: their halves do.
  SmallVector<Value> low, high;
  for (Value code : codes) {
    low.push_back(keep(bytes, code, 15));
    high.push_back(shiftRight(bytes, code, 4));
  }
  Value upper = dotWithPairs(high, activations, 15);
  return arith::AddIOp::create(
      b, dotWithPairs(low, activations, 15),
      arith::ShLIOp::create(b, upper, splat(ints, 4)).getResult());
}

/// The same by products of pairs, which are summed up in 16 bits as long as
/// they fit.
Value BlockKernel::dotWithPairs(ArrayRef<Value> codes,
                                ArrayRef<Value> activations, int64_t mostCode) {
  bool isWide = lanes == 16;
  StringRef multiply =
      isWide ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw";
  StringRef add =
      isWide ? "llvm.x86.avx512.pmaddw.d.512" : "llvm.x86.avx2.pmadd.wd";
  auto shorts = VectorType::get({2 * lanes}, b.getI16Type());
  constexpr int64_t mostPair = 2 * 127;
  auto fit = static_cast<size_t>(INT16_MAX / (mostPair * mostCode));
  Value sum;
  for (size_t first = 0; first < codes.size(); first += fit) {
    Value pairs;
    for (size_t i = first; i < std::min(first + fit, codes.size()); ++i) {
      Value product = call(multiply, shorts, {codes[i], activations[i]});
      pairs = pairs ? arith::AddIOp::create(b, pairs, product).getResult()
                    : product;
    }
    Value wide = call(add, ints, {pairs, splat(shorts, 1)});
    sum = sum ? arith::AddIOp::create(b, sum, wide).getResult() : wide;
  }
  return sum;
}

LogicalResult kvrm::writeBlockProduct(BlockProductOp op, bool startsFromZero,
                                      int64_t lanes, CodeDot dot) {
  if (static_cast<int64_t>(op.getPanel()) != lanes)
    return op.emitOpError("has panels of ")
           << op.getPanel() << " rows, and vectors " << lanes << " lanes";
  if (op.isQuantized() && (dot == CodeDot::None || (lanes != 16 && lanes != 8)))
    return op.emitOpError("has quantized activations, which the target cannot "
                          "multiply");
  BlockKernel(op, startsFromZero, lanes, dot).write();
  return success();
}
