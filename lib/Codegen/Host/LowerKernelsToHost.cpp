//===- LowerKernelsToHost.cpp - Tile programs to vector code ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// One KernelLowering turns one kvrm.kernel into one function: the loops of its
// tile program, and vector code for what they do to a tile. Fragments are not
// values here: keys and values stay in their pages and queries in the
// activation buffer, while scores, weights and the softmax state live in
// scratch memory.
//
// Cost per KV tile of T tokens, R query rows and head_dim d, in vectors of V
// lanes: 2 * T * d / V widening loads (the tile's bytes, once) and 2 * R * T *
// d / V fused multiply-adds. At R = 4 and f16 that is 4 FLOP a byte: the limit
// is the memory. Of f8E4M3FN there are half the bytes, and seven instructions
// to widen a vector in place of one; of i8 there are two. Scales of i8 are
// multiplied with scores, and with weights once their sum is taken.
//
//===----------------------------------------------------------------------===//

#include "../MaskedScore.h"
#include "../ScoreScale.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/IR/TileProgram.h"
#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"
#include "kvrm/runtime/abi/host.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>

namespace mlir::kvrm {
#define GEN_PASS_DEF_LOWERKERNELSTOHOSTPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// Bytes that one prefetch brings in.
static constexpr int64_t kCacheLine = 64;

namespace {

/// Where an attention kernel keeps what in its scratch memory, in floats.
struct ScratchLayout {
  ScratchLayout(int64_t rows, int64_t headDim, int64_t tokens, int64_t lanes) {
    int64_t paddedRows = llvm::alignTo(rows, lanes);
    maximum = 0;
    rescale = maximum + paddedRows;
    sumLanes = rescale + paddedRows;
    scores = sumLanes + rows * lanes;
    accumulator = scores + rows * tokens;
    size = accumulator + rows * headDim;
  }
  int64_t maximum;     ///< [rows, padded to lanes] m
  int64_t rescale;     ///< [rows, padded to lanes] 2^(m - m') of this tile
  int64_t sumLanes;    ///< [rows][lanes] l, summed over lanes at the end
  int64_t scores;      ///< [rows][tokens] scores, then weights
  int64_t accumulator; ///< [rows][head_dim]
  int64_t size;
};

class KernelLowering {
public:
  KernelLowering(KernelOp kernel, int64_t lanes)
      : kernel(kernel), pool(kernel.getPool()), b(kernel.getLoc(), kernel),
        lanes(lanes), rows(kernel.getQueryRows()), headDim(pool.getHeadDim()),
        tokens(kernel.getTile().getKv()), page(pool.getPage()),
        elementBytes(pool.getElement().getIntOrFloatBitWidth() / 8),
        scratchLayout(rows, headDim, tokens, lanes),
        descriptorLayout(kvrm_descriptor_layout_of(
            {static_cast<int32_t>(kernel.getDescriptorType().getRows()),
             static_cast<int32_t>(kernel.getDescriptorType().getQueries()),
             static_cast<int32_t>(kernel.getDescriptorType().getPages()), 0, 0,
             0, 0, static_cast<int32_t>(summaries())})),
        pageLayout(pool.getPageLayout()),
        stageLayout(kvrm_stage_layout_of(tokens, page, headDim,
                                         *getCacheElement(pool.getElement()))),
        prefetches(kernel.getTransport() == Transport::Native) {}

  void lower(const TileProgram &program);

private:
  // Small emitters. Integers are i64, addresses !llvm.ptr.
  Value constant(int64_t value) {
    return arith::ConstantOp::create(b, b.getI64IntegerAttr(value));
  }
  Value floatConstant(float value) {
    return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
  }
  Value add(Value lhs, Value rhs) { return arith::AddIOp::create(b, lhs, rhs); }
  Value add(Value lhs, int64_t rhs) {
    return rhs ? add(lhs, constant(rhs)) : lhs;
  }
  Value sub(Value lhs, Value rhs) { return arith::SubIOp::create(b, lhs, rhs); }
  Value mul(Value lhs, int64_t rhs) {
    return arith::MulIOp::create(b, lhs, constant(rhs));
  }
  Value min(Value lhs, Value rhs) {
    return arith::MinSIOp::create(b, lhs, rhs);
  }
  Value max(Value lhs, Value rhs) {
    return arith::MaxSIOp::create(b, lhs, rhs);
  }
  Value notNegative(Value value) { return max(value, constant(int64_t{0})); }
  /// Of non-negative integers, by a power of two.
  Value divide(Value lhs, int64_t rhs) {
    return arith::ShRUIOp::create(b, lhs, constant(llvm::Log2_64(rhs)));
  }
  Value divideUp(Value lhs, int64_t rhs) {
    return divide(add(lhs, rhs - 1), rhs);
  }
  Value at(Value base, Value byteOffset) {
    return LLVM::GEPOp::create(b, pointerType(), b.getI8Type(), base,
                               ArrayRef<LLVM::GEPArg>{byteOffset});
  }
  Value at(Value base, int64_t byteOffset) {
    return at(base, constant(byteOffset));
  }
  Value load(Type type, Value pointer) {
    return LLVM::LoadOp::create(b, type, pointer, alignmentOf(type));
  }
  void store(Value value, Value pointer) {
    LLVM::StoreOp::create(b, value, pointer, alignmentOf(value.getType()));
  }
  unsigned alignmentOf(Type type) {
    if (isa<LLVM::LLVMPointerType>(type))
      return 8;
    return getElementTypeOrSelf(type).getIntOrFloatBitWidth() / 8;
  }
  Value loadField32(Value base, int64_t byteOffset) {
    Value field = load(b.getI32Type(), at(base, byteOffset));
    return arith::ExtSIOp::create(b, b.getI64Type(), field);
  }
  Type pointerType() { return LLVM::LLVMPointerType::get(b.getContext()); }
  VectorType vectorOf(Type element) {
    return VectorType::get({lanes}, element);
  }
  VectorType floatVector() { return vectorOf(b.getF32Type()); }
  Value splat(Value scalar) {
    return vector::BroadcastOp::create(b, vectorOf(scalar.getType()), scalar);
  }
  Value splat(float value) { return splat(floatConstant(value)); }
  Value splatFrom(Value pointer) {
    return splat(load(b.getF32Type(), pointer));
  }
  /// `lanes` pool elements from `pointer`, widened.
  Value loadWidened(Value pointer) {
    Type stored = vectorOf(getStoredType(pool.getElement()));
    return widenElements(b, load(stored, pointer), pool.getElement());
  }
  /// Scales of `lanes` tokens from number `inPage` of a page on, in f32.
  Value loadScales(Value pageAddress, Value inPage) {
    Value scales = load(vectorOf(b.getI16Type()), scaleAt(pageAddress, inPage));
    return widenScales(b, scales);
  }
  Value exp2(Value x);
  Value capped(Value x);
  /// A loop over [0, end) in steps of `step` that carries `values`.
  SmallVector<Value>
  loop(Value end, int64_t step, ValueRange values,
       function_ref<SmallVector<Value>(Value index, ValueRange carried)> body);
  void loop(Value end, int64_t step, function_ref<void(Value index)> body) {
    loop(end, step, {}, [&](Value index, ValueRange) {
      body(index);
      return SmallVector<Value>();
    });
  }

  /// Asks for `bytes` from `pointer` on.
  void prefetch(Value pointer, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += kCacheLine)
      LLVM::Prefetch::create(b, at(pointer, line), /*rw=*/0, /*hint=*/3,
                             /*cache=*/1);
  }

  // Far history.
  int64_t summaries() { return kernel.getSessionType().getSummaries(); }
  /// The place of the row's first new token in its table.
  Value firstPlace(Value rowData) {
    if (!kernel.getSessionType().getFarHistory())
      return loadField32(rowData, offsetof(kvrm_row, position));
    return sub(loadField32(rowData, offsetof(kvrm_row, length)),
               loadField32(rowData, offsetof(kvrm_row, count)));
  }
  Value biasesAt(Value tile, Value firstInTile);

  // Addresses.
  Value scratchAt(int64_t floats) { return at(scratch, floats * 4); }
  Value rowAddress(Value row) {
    return at(descriptor,
              add(mul(row, sizeof(kvrm_row)), descriptorLayout.rows));
  }
  /// Pool offset, in bytes, of the page that holds logical page `logical`.
  Value pageOffset(Value row, Value logical) {
    int64_t pages = kernel.getDescriptorType().getPages();
    Value entry = add(mul(row, pages), logical);
    Value physical = loadField32(
        at(descriptor, add(mul(entry, 4), descriptorLayout.tables)), 0);
    return mul(physical, pool.getPageBytes());
  }
  /// Keys, or values, of page `index` of tile `tile`.
  Value tilePage(bool values, Value tile, Value index);
  Value scaleAt(Value pageAddress, Value inPage) {
    return at(at(pageAddress, pageLayout.scales),
              mul(inPage, pool.getScaleBytes()));
  }
  /// Bytes from a query tile's first row to query row `r`: its token and head.
  int64_t queryRowOffset(int64_t r) {
    int64_t group = kernel.getGroupSize();
    return ((r / group) * kernel.getHeads() + r % group) * headDim * 4;
  }
  /// Tokens of `tile` that any query row may see.
  Value visibleInTile(Value tile) {
    return min(constant(tokens), sub(visibleEnd, mul(tile, tokens)));
  }
  /// Widest number of vectors that divides `count` and, with `rows`
  /// accumulators each, leaves registers for operands.
  int64_t vectorsAtOnce(int64_t count) {
    int64_t accumulators = lanes >= 16 ? 24 : 12;
    int64_t width = 1;
    for (int64_t candidate = 1; candidate <= count; ++candidate)
      if (count % candidate == 0 && candidate * rows <= accumulators)
        width = candidate;
    return width;
  }

  Value pointerField(int64_t offset) {
    return load(pointerType(), at(args, offset));
  }
  /// What append and attention alike find in their arguments.
  void bindPool() {
    descriptor = pointerField(offsetof(kvrm_kernel_args, descriptor));
    keyPool = pointerField(offsetof(kvrm_kernel_args, k_pool));
    valuePool = pointerField(offsetof(kvrm_kernel_args, v_pool));
    headStride =
        load(b.getI64Type(), at(args, offsetof(kvrm_kernel_args, head_stride)));
  }

  // The tile program.
  void beginAttention(func::FuncOp func);
  void lowerAttention(const TileProgram &program);
  void lowerLoop(const TileLoop &tiles);
  Value boundOf(TileBound bound);
  void loadTile(Value tile);
  void initSoftmax();
  void score(Value tile, const TileLoop &tiles);
  void scoreVectors(Value tile, Value firstVector, int64_t count,
                    const TileLoop &tiles);
  void updateSoftmax();
  void scaleWeights(Value tile, bool masked);
  void accumulate(Value tile, bool masked);
  void storeSoftmax();
  void lowerAppend(func::FuncOp func);
  /// The scale of the row of a token and head that `pointer` names, an i16.
  Value scaleOf(Value pointer);
  Value narrowed(Value values, Value scale);

  KernelOp kernel;
  PoolType pool;
  ImplicitLocOpBuilder b;
  int64_t lanes, rows, headDim, tokens, page;
  int64_t elementBytes; ///< of the pool
  ScratchLayout scratchLayout;
  kvrm_descriptor_layout descriptorLayout;
  kvrm_page_layout pageLayout;
  kvrm_stage_layout stageLayout; ///< of a staged tile

  float scoreScale = 0; ///< of all scores: to base 2, or to the softcap
  float softcap = 0;    ///< to base 2, of all scores; 0: none
  Value args, item, scratch, stage;
  Value descriptor, keyPool, valuePool, headStride;
  Value row, kvHead, queryTile, length;
  Value place;                   ///< of the row's first new token
  Value queryBase, outputOffset; ///< of the query tile's first row
  Value headOffset;              ///< of the KV head in a pool, bytes
  Value visibleEnd;              ///< one past the last token any row sees
  Value tileBegin;               ///< the item's first tile
  Value tileEnd;                 ///< one past the item's last tile
  Value tileFull;                ///< one past the last that needs no mask
  Value tileWindowEdge;          ///< one past the last tile before tileFull
                                 ///< that a window cuts; only with a window
  Value summaryEnd;              ///< one past the place of the row's last
                                 ///< summary; only of a session with some
  Value tileSummaryEnd;          ///< one past the last tile before tileFull
                                 ///< that holds summaries; only with some
  bool prefetches; ///< pages are read where they lie, by address known early
};

} // namespace

//===----------------------------------------------------------------------===//
// Small emitters
//===----------------------------------------------------------------------===//

/// 2^x to 2 ulp for x <= 0: Taylor of 2^f on [-1/2, 1/2] after rounding off the
/// integer part, which goes into the exponent. Anything below 2^-126 is 0.
Value KernelLowering::exp2(Value x) {
  static const double ln2 = std::log(2.0);
  x = arith::MaximumFOp::create(b, x, splat(-127.0f));
  Value whole = math::RoundEvenOp::create(b, x);
  Value fraction = arith::SubFOp::create(b, x, whole);
  double coefficient = std::pow(ln2, 6) / 720;
  Value sum = splat(static_cast<float>(coefficient));
  for (int64_t degree = 5; degree >= 0; --degree) {
    coefficient *= static_cast<double>(degree + 1) / ln2;
    sum = vector::FMAOp::create(b, sum, fraction,
                                splat(static_cast<float>(coefficient)));
  }
  auto intVector = vectorOf(b.getI32Type());
  Value bits = arith::FPToSIOp::create(b, intVector, whole);
  Value bias = splat(arith::ConstantOp::create(b, b.getI32IntegerAttr(127)));
  Value shift = splat(arith::ConstantOp::create(b, b.getI32IntegerAttr(23)));
  bits = arith::ShLIOp::create(b, arith::AddIOp::create(b, bits, bias), shift);
  Value power = arith::BitcastOp::create(b, floatVector(), bits);
  return arith::MulFOp::create(b, sum, power);
}

/// softcap * tanh(x) to base 2. By the exponential of -2 |x|, which is at most
/// 1: (1 - e) / (1 + e), with the sign of x.
Value KernelLowering::capped(Value x) {
  Value size = math::AbsFOp::create(b, x);
  Value power = exp2(arith::MulFOp::create(b, size, splat(kMinusTwoLog2e)));
  Value one = splat(1.0f);
  Value tanh = arith::DivFOp::create(b, arith::SubFOp::create(b, one, power),
                                     arith::AddFOp::create(b, one, power));
  return arith::MulFOp::create(b, math::CopySignOp::create(b, tanh, x),
                               splat(softcap));
}

SmallVector<Value>
KernelLowering::loop(Value end, int64_t step, ValueRange values,
                     function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto op =
      scf::ForOp::create(b, constant(int64_t{0}), end, constant(step), values);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(op.getBody());
  SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
  if (!values.empty())
    scf::YieldOp::create(b, next);
  return llvm::to_vector_of<Value>(op.getResults());
}

Value KernelLowering::tilePage(bool values, Value tile, Value index) {
  if (kernel.getTransport() == Transport::Staged) {
    Value offset = mul(index, pool.getPageBytes());
    return at(stage, add(offset, values ? stageLayout.v : stageLayout.k));
  }
  Value logical = add(mul(tile, tokens / page), index);
  Value offset = add(headOffset, pageOffset(row, logical));
  return at(values ? valuePool : keyPool, offset);
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

void KernelLowering::beginAttention(func::FuncOp func) {
  args = func.getArgument(0);
  item = func.getArgument(1);
  scratch = func.getArgument(2);
  stage = func.getArgument(3);
  bindPool();
  row = loadField32(item, offsetof(kvrm_work_item, row));
  kvHead = loadField32(item, offsetof(kvrm_work_item, kv_head));
  queryTile = loadField32(item, offsetof(kvrm_work_item, query_tile));
  Value rowData = rowAddress(row);
  place = firstPlace(rowData);
  length = loadField32(rowData, offsetof(kvrm_row, length));
  if (summaries() > 0) {
    // A row whose history is all exact has no pages of summaries.
    Value inUse = loadField32(rowData, offsetof(kvrm_row, summaries));
    Value hasSome = arith::CmpIOp::create(b, arith::CmpIPredicate::sgt, inUse,
                                          constant(int64_t{0}));
    summaryEnd = arith::SelectOp::create(b, hasSome, constant(summaries()),
                                         constant(int64_t{0}));
  }

  int64_t queries = kernel.getDescriptorType().getQueries();
  int64_t queriesPerTile = kernel.getTile().getQ();
  // [rows][queries][heads][head_dim], see kvrm_kernel_args.
  Value firstToken = add(mul(row, queries), mul(queryTile, queriesPerTile));
  Value firstHead = add(mul(firstToken, kernel.getHeads()),
                        mul(kvHead, kernel.getGroupSize()));
  outputOffset = mul(firstHead, headDim * 4);
  queryBase = at(pointerField(offsetof(kvrm_kernel_args, q)), outputOffset);
  headOffset = arith::MulIOp::create(b, kvHead, headStride);
  Value firstPlaceOfTile = add(place, mul(queryTile, queriesPerTile));
  visibleEnd = min(add(firstPlaceOfTile, queriesPerTile), length);

  tileBegin = loadField32(item, offsetof(kvrm_work_item, tile_begin));
  tileEnd = loadField32(item, offsetof(kvrm_work_item, tile_end));
  // The first query row sees the fewest tokens.
  Value seen = add(firstPlaceOfTile, 1);
  if (std::optional<uint64_t> window = kernel.getWindow()) {
    // The first query row sees the oldest token of all, the last sees all
    // tokens from `edge` on.
    auto size = static_cast<int64_t>(*window);
    Value oldest = notNegative(sub(seen, constant(size)));
    Value edge = notNegative(sub(visibleEnd, constant(size)));
    tileBegin = max(tileBegin, divide(oldest, tokens));
    tileWindowEdge = divideUp(edge, tokens);
  }
  tileFull = max(tileBegin, min(tileEnd, divide(seen, tokens)));
  if (tileWindowEdge)
    tileWindowEdge = min(max(tileBegin, tileWindowEdge), tileFull);
}

Value KernelLowering::boundOf(TileBound bound) {
  switch (bound) {
  case TileBound::Begin:
    return tileBegin;
  case TileBound::WindowEdge:
    return tileWindowEdge;
  case TileBound::SummaryEnd:
    return tileSummaryEnd;
  case TileBound::Full:
    return tileFull;
  case TileBound::End:
    return tileEnd;
  }
  llvm_unreachable("no such bound");
}

/// The biases of a vector of the tile's tokens: of the summaries, or zeros if
/// the vector lies behind them. No vector holds both, since pages are whole
/// vectors.
Value KernelLowering::biasesAt(Value tile, Value firstInTile) {
  Value first = add(mul(tile, tokens), firstInTile);
  Value isSummary =
      arith::CmpIOp::create(b, arith::CmpIPredicate::slt, first, summaryEnd);
  auto branch = scf::IfOp::create(b, TypeRange{floatVector()}, isSummary,
                                  /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.elseBlock());
  scf::YieldOp::create(b, splat(0.0f));
  b.setInsertionPointToStart(branch.thenBlock());
  Value offset = mul(add(mul(row, summaries()), first), 4);
  Value biases =
      load(floatVector(),
           at(descriptor, add(offset, descriptorLayout.summary_biases)));
  scf::YieldOp::create(b, biases);
  return branch.getResult(0);
}

void KernelLowering::initSoftmax() {
  Value masked = splat(kMaskedScore), zero = splat(0.0f);
  for (int64_t i = scratchLayout.maximum; i < scratchLayout.rescale; i += lanes)
    store(masked, scratchAt(i));
  for (int64_t i = scratchLayout.sumLanes; i < scratchLayout.scores; i += lanes)
    store(zero, scratchAt(i));
  loop(constant(rows * headDim * 4), lanes * 4, [&](Value offset) {
    store(zero, at(scratchAt(scratchLayout.accumulator), offset));
  });
}

void KernelLowering::loadTile(Value tile) {
  if (kernel.getTransport() == Transport::Native)
    return;
  Value callee =
      load(pointerType(), at(args, offsetof(kvrm_kernel_args, stage_tile)));
  Value index = arith::TruncIOp::create(b, b.getI32Type(), tile);
  auto type = LLVM::LLVMFunctionType::get(
      LLVM::LLVMVoidType::get(b.getContext()),
      {pointerType(), pointerType(), b.getI32Type(), pointerType()});
  LLVM::CallOp::create(b, type, ValueRange{callee, args, item, index, stage});
}

/// Scores of `count` vectors of tokens from `firstVector` on. Each element of
/// the keys is widened once and multiplied into every query row.
void KernelLowering::scoreVectors(Value tile, Value firstVector, int64_t count,
                                  const TileLoop &tiles) {
  bool masked = tiles.masked;
  int64_t perPage = page / lanes;
  Value scale = splat(scoreScale);
  SmallVector<Value> keys, scales;
  for (int64_t i = 0; i < count; ++i) {
    Value vectorIndex = add(firstVector, i);
    Value pageIndex = divide(vectorIndex, perPage);
    Value inPage = sub(vectorIndex, mul(pageIndex, perPage));
    Value pageAddress = tilePage(/*values=*/false, tile, pageIndex);
    keys.push_back(at(pageAddress, mul(inPage, lanes * elementBytes)));
    scales.push_back(scale);
    if (pool.hasScales())
      scales.back() = arith::MulFOp::create(
          b, loadScales(pageAddress, mul(inPage, lanes)), scale);
  }
  // The values of the tile arrive while its keys are multiplied: page i of this
  // vector's pages, a little an iteration.
  constexpr int64_t unroll = 4;
  SmallVector<Value> ahead;
  if (prefetches && !masked)
    for (int64_t i = 0; i < count; i += std::max<int64_t>(perPage, 1))
      ahead.push_back(tilePage(/*values=*/true, tile,
                               divide(add(firstVector, i), perPage)));
  int64_t aheadBytes = pageLayout.scales / (headDim / unroll);
  SmallVector<Value> zeros(count * rows, splat(0.0f));
  SmallVector<Value> sums =
      loop(constant(headDim), unroll, zeros, [&](Value d, ValueRange carried) {
        SmallVector<Value> acc(carried);
        Value keyOffset = mul(d, page * elementBytes), queryOffset = mul(d, 4);
        for (Value pageAhead : ahead)
          prefetch(at(pageAhead, mul(d, aheadBytes / unroll)), aheadBytes);
        for (int64_t u = 0; u < unroll; ++u) {
          SmallVector<Value> widened;
          for (Value key : keys)
            widened.push_back(
                loadWidened(at(at(key, keyOffset), u * page * elementBytes)));
          for (int64_t r = 0; r < rows; ++r) {
            Value q = splatFrom(
                at(at(queryBase, queryOffset), queryRowOffset(r) + u * 4));
            for (int64_t i = 0; i < count; ++i)
              acc[i * rows + r] =
                  vector::FMAOp::create(b, q, widened[i], acc[i * rows + r]);
          }
        }
        return acc;
      });

  Value scores = scratchAt(scratchLayout.scores);
  for (int64_t i = 0; i < count; ++i) {
    Value firstInTile = mul(add(firstVector, i), lanes);
    Value token;
    if (masked) {
      Value first = add(mul(tile, tokens), firstInTile);
      Value step = vector::StepOp::create(b, vectorOf(b.getIndexType()));
      token = arith::AddIOp::create(
          b, arith::IndexCastOp::create(b, vectorOf(b.getI64Type()), step),
          splat(first));
    }
    Value biases = tiles.summaries ? biasesAt(tile, firstInTile) : Value();
    for (int64_t r = 0; r < rows; ++r) {
      Value score = arith::MulFOp::create(b, sums[i * rows + r], scales[i]);
      if (softcap > 0)
        score = capped(score);
      if (biases)
        score = arith::AddFOp::create(b, score, biases);
      if (masked) {
        // Query token t sees places up to its own.
        Value own = add(add(place, mul(queryTile, kernel.getTile().getQ())),
                        r / kernel.getGroupSize() + 1);
        Value visible = arith::CmpIOp::create(b, arith::CmpIPredicate::slt,
                                              token, splat(min(own, length)));
        if (std::optional<uint64_t> window = kernel.getWindow()) {
          Value oldest = sub(own, constant(static_cast<int64_t>(*window)));
          visible = arith::AndIOp::create(
              b, visible,
              arith::CmpIOp::create(b, arith::CmpIPredicate::sge, token,
                                    splat(oldest)));
        }
        score = arith::SelectOp::create(b, visible, score, splat(kMaskedScore));
      }
      store(score, at(at(scores, r * tokens * 4), mul(firstInTile, 4)));
    }
  }
}

void KernelLowering::score(Value tile, const TileLoop &tiles) {
  int64_t vectors = tokens / lanes;
  if (!tiles.masked) {
    int64_t count = vectorsAtOnce(vectors);
    for (int64_t first = 0; first < vectors; first += count)
      scoreVectors(tile, constant(first), count, tiles);
    return;
  }
  // Vectors past the last visible token have no page to read.
  loop(constant(rows * tokens * 4), lanes * 4, [&](Value offset) {
    store(splat(kMaskedScore), at(scratchAt(scratchLayout.scores), offset));
  });
  loop(divideUp(visibleInTile(tile), lanes), 1,
       [&](Value index) { scoreVectors(tile, index, 1, tiles); });
}

void KernelLowering::updateSoftmax() {
  int64_t vectors = tokens / lanes;
  auto scoreAt = [&](int64_t r, int64_t i) {
    return scratchAt(scratchLayout.scores + r * tokens + i * lanes);
  };
  // All rows' maxima side by side: one exponential rescales them all.
  for (int64_t first = 0; first < rows; first += lanes) {
    Value old = load(floatVector(), scratchAt(scratchLayout.maximum + first));
    Value maxima = old;
    for (int64_t r = first; r < std::min(rows, first + lanes); ++r) {
      Value best = load(floatVector(), scoreAt(r, 0));
      for (int64_t i = 1; i < vectors; ++i)
        best = arith::MaximumFOp::create(b, best,
                                         load(floatVector(), scoreAt(r, i)));
      Value highest =
          vector::ReductionOp::create(b, vector::CombiningKind::MAXIMUMF, best);
      Value before = vector::ExtractOp::create(b, old, r - first);
      maxima = vector::InsertOp::create(
          b, arith::MaximumFOp::create(b, before, highest), maxima, r - first);
    }
    store(maxima, scratchAt(scratchLayout.maximum + first));
    store(exp2(arith::SubFOp::create(b, old, maxima)),
          scratchAt(scratchLayout.rescale + first));
  }
  for (int64_t r = 0; r < rows; ++r) {
    Value maximum = splatFrom(scratchAt(scratchLayout.maximum + r));
    Value rescale = splatFrom(scratchAt(scratchLayout.rescale + r));
    Value sumAddress = scratchAt(scratchLayout.sumLanes + r * lanes);
    Value sum =
        arith::MulFOp::create(b, load(floatVector(), sumAddress), rescale);
    for (int64_t i = 0; i < vectors; ++i) {
      Value weight = exp2(arith::SubFOp::create(
          b, load(floatVector(), scoreAt(r, i)), maximum));
      store(weight, scoreAt(r, i));
      sum = arith::AddFOp::create(b, sum, weight);
    }
    store(sum, sumAddress);
  }
}

/// What values' codes are multiplied with: weights, which have been added up,
/// times the tokens' scales.
void KernelLowering::scaleWeights(Value tile, bool masked) {
  Value end = masked ? visibleInTile(tile) : constant(tokens);
  Value weights = scratchAt(scratchLayout.scores);
  // Weights of a vector's tokens past the last visible one are never read.
  loop(end, lanes, [&](Value token) {
    Value pageIndex = divide(token, page);
    Value inPage = sub(token, mul(pageIndex, page));
    Value scales =
        loadScales(tilePage(/*values=*/true, tile, pageIndex), inPage);
    for (int64_t r = 0; r < rows; ++r) {
      Value address = at(at(weights, mul(token, 4)), r * tokens * 4);
      Value weight = load(floatVector(), address);
      store(arith::MulFOp::create(b, weight, scales), address);
    }
  });
}

/// acc = acc * rescale + weights . values, a few vectors of head_dim at a time
/// over all tokens of the tile, so that accumulators stay in registers.
void KernelLowering::accumulate(Value tile, bool masked) {
  int64_t vectors = headDim / lanes, count = vectorsAtOnce(vectors);
  Value visible = masked ? visibleInTile(tile) : constant(tokens);
  Value pages = masked ? divideUp(visible, page) : constant(tokens / page);
  int64_t unroll = masked ? 1 : 4;
  Value weights = scratchAt(scratchLayout.scores);
  // The next tile's keys arrive meanwhile; the last tile asks for its own.
  Value lastTile = sub(tileEnd, constant(int64_t{1}));
  Value nextTile = min(add(tile, 1), lastTile);

  for (int64_t first = 0; first < vectors; first += count) {
    auto accumulatorAt = [&](int64_t r, int64_t i) {
      return scratchAt(scratchLayout.accumulator + r * headDim +
                       (first + i) * lanes);
    };
    SmallVector<Value> start;
    for (int64_t r = 0; r < rows; ++r) {
      Value rescale = splatFrom(scratchAt(scratchLayout.rescale + r));
      for (int64_t i = 0; i < count; ++i)
        start.push_back(arith::MulFOp::create(
            b, load(floatVector(), accumulatorAt(r, i)), rescale));
    }
    auto overPages = [&](Value pageIndex, ValueRange carried) {
      Value values = at(tilePage(/*values=*/true, tile, pageIndex),
                        first * lanes * elementBytes);
      Value firstToken = mul(pageIndex, page);
      Value inPage = masked ? min(constant(page), sub(visible, firstToken))
                            : constant(page);
      Value ahead;
      if (prefetches && !masked && first == 0)
        ahead = tilePage(/*values=*/false, nextTile, pageIndex);
      int64_t aheadBytes = pageLayout.scales / (page / unroll);
      return loop(inPage, unroll, carried, [&](Value t, ValueRange inner) {
        SmallVector<Value> acc(inner);
        if (ahead)
          prefetch(at(ahead, mul(t, aheadBytes / unroll)), aheadBytes);
        Value weightOffset = mul(add(firstToken, t), 4);
        Value valueOffset = mul(t, headDim * elementBytes);
        for (int64_t u = 0; u < unroll; ++u) {
          SmallVector<Value> widened;
          for (int64_t i = 0; i < count; ++i)
            widened.push_back(
                loadWidened(at(at(values, valueOffset),
                               (u * headDim + i * lanes) * elementBytes)));
          for (int64_t r = 0; r < rows; ++r) {
            Value weight =
                splatFrom(at(at(weights, weightOffset), (r * tokens + u) * 4));
            for (int64_t i = 0; i < count; ++i)
              acc[r * count + i] = vector::FMAOp::create(b, weight, widened[i],
                                                         acc[r * count + i]);
          }
        }
        return acc;
      });
    };
    SmallVector<Value> result = loop(pages, 1, start, overPages);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < count; ++i)
        store(result[r * count + i], accumulatorAt(r, i));
  }
}

void KernelLowering::storeSoftmax() {
  Value partial = loadField32(item, offsetof(kvrm_work_item, partial));
  Value whole = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, partial,
                                      constant(int64_t{0}));
  auto sumOf = [&](int64_t r) -> Value {
    Value sumVector =
        load(floatVector(), scratchAt(scratchLayout.sumLanes + r * lanes));
    return vector::ReductionOp::create(b, vector::CombiningKind::ADD,
                                       sumVector);
  };
  auto copyRow = [&](int64_t r, Value destination, Value factor) {
    for (int64_t d = 0; d < headDim; d += lanes) {
      Value value = load(floatVector(), scratchAt(scratchLayout.accumulator +
                                                  r * headDim + d));
      if (factor)
        value = arith::MulFOp::create(b, value, factor);
      store(value, at(destination, d * 4));
    }
  };
  auto branch = scf::IfOp::create(b, whole, /*withElseRegion=*/true);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    Value out = at(pointerField(offsetof(kvrm_kernel_args, out)), outputOffset);
    for (int64_t r = 0; r < rows; ++r) {
      Value inverse = arith::DivFOp::create(b, floatConstant(1.0f), sumOf(r));
      copyRow(r, at(out, queryRowOffset(r)), splat(inverse));
    }
  }
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.elseBlock());
  Value partials = pointerField(offsetof(kvrm_kernel_args, partials));
  Value base =
      at(partials, mul(partial, kvrm_partial_floats(rows, headDim) * 4));
  for (int64_t r = 0; r < rows; ++r) {
    store(load(b.getF32Type(), scratchAt(scratchLayout.maximum + r)),
          at(base, r * 4));
    store(sumOf(r), at(base, (rows + r) * 4));
    copyRow(r, at(base, (2 * rows + r * headDim) * 4), Value());
  }
}

void KernelLowering::lowerLoop(const TileLoop &tiles) {
  // The state is in scratch memory: nothing is carried.
  auto loop = scf::ForOp::create(b, boundOf(tiles.begin), boundOf(tiles.end),
                                 constant(int64_t{1}));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Value tile = loop.getInductionVar();
  loadTile(tile);
  score(tile, tiles);
  updateSoftmax();
  if (pool.hasScales())
    scaleWeights(tile, tiles.masked);
  accumulate(tile, tiles.masked);
}

void KernelLowering::lowerAttention(const TileProgram &program) {
  ScoreScale scale(program);
  scoreScale = scale.score;
  softcap = scale.softcap;
  initSoftmax();
  if (summaries() > 0) {
    Value last =
        arith::MaxSIOp::create(b, tileBegin, divideUp(summaryEnd, tokens));
    tileSummaryEnd = min(last, tileFull);
  }
  for (const TileLoop &tiles : program.loops)
    lowerLoop(tiles);
  storeSoftmax();
}

//===----------------------------------------------------------------------===//
// Append
//===----------------------------------------------------------------------===//

Value KernelLowering::scaleOf(Value pointer) {
  Value zero =
      splat(arith::ConstantOp::create(b, b.getI32IntegerAttr(0)).getResult());
  SmallVector<Value> largest =
      loop(constant(headDim), lanes, zero, [&](Value d, ValueRange carried) {
        Value values = load(floatVector(), at(pointer, mul(d, 4)));
        Value magnitudes = magnitudesOf(b, values);
        return SmallVector<Value>{
            arith::MaxSIOp::create(b, carried[0], magnitudes)};
      });
  return scaleOfRow(b, vector::ReductionOp::create(
                           b, vector::CombiningKind::MAXSI, largest[0]));
}

/// What the pool has of values; `scale` is that of their row, if it has some.
Value KernelLowering::narrowed(Value values, Value scale) {
  return scale ? narrowScaled(b, values, scale)
               : narrowElements(b, values, pool.getElement());
}

/// For every row, new token and KV head: narrow a vector of head_dim at a time;
/// values go out as they are, keys one element a token column.
void KernelLowering::lowerAppend(func::FuncOp func) {
  args = func.getArgument(0);
  bindPool();
  Value keys = pointerField(offsetof(kvrm_kernel_args, k));
  Value values = pointerField(offsetof(kvrm_kernel_args, v));
  DescriptorType type = kernel.getDescriptorType();
  // The scale of a row, in f32, which is also written to the page.
  auto writeScale = [&](Value source, Value pageAddress,
                        Value inPage) -> Value {
    if (!pool.hasScales())
      return {};
    Value scale = scaleOf(source);
    store(scale, scaleAt(pageAddress, inPage));
    return widenScales(b, scale);
  };

  loop(constant(type.getRows()), 1, [&](Value rowIndex) {
    Value rowData = rowAddress(rowIndex);
    Value first = firstPlace(rowData);
    Value count = loadField32(rowData, offsetof(kvrm_row, count));
    loop(count, 1, [&](Value t) {
      Value tokenPlace = add(first, t);
      Value logical = divide(tokenPlace, page);
      Value inPage = sub(tokenPlace, mul(logical, page));
      Value offset = pageOffset(rowIndex, logical);
      Value token = add(mul(rowIndex, type.getQueries()), t);
      loop(constant(pool.getKvHeads()), 1, [&](Value head) {
        Value source =
            mul(add(mul(token, pool.getKvHeads()), head), headDim * 4);
        Value destination =
            add(arith::MulIOp::create(b, head, headStride), offset);
        Value keyPage = at(keyPool, destination);
        Value valuePage = at(valuePool, destination);
        Value keyColumn = at(keyPage, mul(inPage, elementBytes));
        Value valueRow = at(valuePage, mul(inPage, headDim * elementBytes));
        Value keyScale = writeScale(at(keys, source), keyPage, inPage);
        Value valueScale = writeScale(at(values, source), valuePage, inPage);
        auto loadNew = [&](Value from, Value offset, Value scale) {
          return narrowed(load(floatVector(), at(from, offset)), scale);
        };
        loop(constant(headDim), lanes, [&](Value d) {
          Value sourceOffset = add(source, mul(d, 4));
          Value key = loadNew(keys, sourceOffset, keyScale);
          for (int64_t i = 0; i < lanes; ++i)
            store(vector::ExtractOp::create(b, key, i),
                  at(keyColumn, mul(add(d, i), page * elementBytes)));
          store(loadNew(values, sourceOffset, valueScale),
                at(valueRow, mul(d, elementBytes)));
        });
      });
    });
  });
}

void KernelLowering::lower(const TileProgram &program) {
  SmallVector<Type> inputs(program.attends() ? 4 : 1, pointerType());
  auto func = func::FuncOp::create(b, kernel.getSymName(),
                                   b.getFunctionType(inputs, {}));
  func.setPrivate();
  b.setInsertionPointToStart(func.addEntryBlock());
  if (program.attends()) {
    beginAttention(func);
    lowerAttention(program);
  } else {
    lowerAppend(func);
  }
  func::ReturnOp::create(b);
  kernel.erase();
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

int64_t kvrm::getHostScratchBytes(int64_t queryRows, int64_t headDim,
                                  int64_t kvTile, int64_t lanes) {
  return ScratchLayout(queryRows, headDim, kvTile, lanes).size * 4;
}

namespace {
class LowerKernelsToHostPass
    : public kvrm::impl::LowerKernelsToHostPassBase<LowerKernelsToHostPass> {
public:
  using LowerKernelsToHostPassBase::LowerKernelsToHostPassBase;

  void runOnOperation() override {
    if (lanes != 4 && lanes != 8 && lanes != 16) {
      getOperation().emitError("lanes is ")
          << lanes.getValue() << ", none of 4, 8 and 16";
      return signalPassFailure();
    }
    for (auto func : getOperation().getOps<FunctionOpInterface>())
      for (StepPlanAttr plan : getStepPlans(func))
        if (plan.getSchedule().getKind() == ScheduleKind::Cluster) {
          func.emitOpError("has the schedule cluster; the host has no thread "
                           "blocks");
          return signalPassFailure();
        }
    for (KernelOp kernel :
         llvm::make_early_inc_range(getOperation().getOps<KernelOp>())) {
      FailureOr<TileProgram> program = TileProgram::match(kernel);
      if (failed(program) || failed(check(kernel)))
        return signalPassFailure();
      KernelLowering(kernel, lanes).lower(*program);
    }
  }

private:
  LogicalResult check(KernelOp kernel) {
    PoolType pool = kernel.getPool();
    if (pool.getLayout() != Layout::TransposedKeys)
      return kernel.emitOpError("for the host needs a pool of layout "
                                "transposed_keys, got ")
             << stringifyLayout(pool.getLayout());
    if (kernel.getSessionType().getIsPadded())
      return kernel.emitOpError("is of a padded session; the host's static "
                                "baseline is kvrm-static-baseline");
    if (!kernel.getIo().isF32())
      return kernel.emitOpError("for the host needs io f32, got ")
             << kernel.getIo();
    if (pool.getPage() % lanes)
      return kernel.emitOpError("for the host needs pages of whole vectors: ")
             << pool.getPage() << " tokens are not a multiple of "
             << lanes.getValue() << " lanes";
    if (pool.getHeadDim() % lanes)
      return kernel.emitOpError("for the host needs heads of whole vectors: ")
             << pool.getHeadDim() << " elements are not a multiple of "
             << lanes.getValue() << " lanes";
    return success();
  }
};
} // namespace
