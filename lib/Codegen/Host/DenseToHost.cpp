//===- DenseToHost.cpp - The dense part as vector code and loops --------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// The kernel of a contraction with a weight in panels, per panel of P rows of
// the weight and block of M rows of the activation: K * P widened weights, read
// once and in address order, against M * K broadcast activations from the
// first-level cache; M * P / lanes accumulators in registers. At M = 1 it is a
// stream of the weights at 1 FLOP a byte, limited by memory; at M = 8 on
// AVX-512 it is 16 fused multiply-adds to 2 widening loads and 8 broadcasts,
// limited by the multipliers.
//
//===----------------------------------------------------------------------===//

#include "BlockKernels.h"
#include "RowBlocks.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"

#include "llvm/ADT/StringSwitch.h"

#include <algorithm>
#include <optional>

namespace mlir::kvrm {
#define GEN_PASS_DEF_LOWERDENSETOHOSTPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// How far ahead of its use a weight is asked for. The multiplications between
/// two loads of weights leave the hardware prefetcher too little in flight: on
/// a Zen 5 core, 134 M f16 weights against eight rows took 22 ms a step without
/// prefetch, 12 ms at 4 KiB, 10 ms from 8 to 16 KiB; against one row 7 ms all
/// the same (the time of the memory).
static constexpr int64_t kPrefetchBytes = 12 * 1024;

//===----------------------------------------------------------------------===//
// Contractions with a weight in panels
//===----------------------------------------------------------------------===//

namespace {

/// `out[m, p * panel + j] += x[m, k] * weight[p, k, j]` in f32. What it is
/// shows in its maps and body; no attribute has to say it.
struct PanelContraction {
  Value x, weight, out;
  int64_t panel;

  static std::optional<PanelContraction> match(linalg::LinalgOp op);
};

/// Writes the loops of a contraction before it.
class PanelKernel {
public:
  /// Sums start from zero, or else from what the output holds.
  PanelKernel(Location loc, Operation *before, PanelContraction contraction,
              bool startsFromZero, int64_t lanes);
  void write();

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value plus(Value lhs, int64_t rhs) {
    return rhs ? arith::AddIOp::create(b, lhs, index(rhs)) : lhs;
  }
  /// Where the output of a row of a block and a vector of the panel is.
  SmallVector<Value> outputAt(Value firstRow, int64_t row, int64_t vector) {
    return {plus(firstRow, row), plus(column, vector * lanes)};
  }
  void contractBlock(Value firstRow, int64_t blockRows);
  SmallVector<Value> startSums(Value firstRow, int64_t blockRows,
                               int64_t chains);
  void multiplyStep(Value step, Value firstRow, int64_t blockRows,
                    MutableArrayRef<Value> sums);

  ImplicitLocOpBuilder b;
  PanelContraction contraction;
  bool startsFromZero;
  int64_t lanes, rows, depth, vectors, unroll, prefetchRows;
  VectorType wide, narrow;
  Value panelIndex, column; ///< of the panel that is being contracted
};

} // namespace

/// Whether `body` yields `out + x * widened(weight)`.
static bool isWidenedProductSum(Block &body) {
  Value x = body.getArgument(0), out = body.getArgument(2);
  auto sum = body.getTerminator()->getOperand(0).getDefiningOp<arith::AddFOp>();
  if (!sum || (sum.getLhs() != out && sum.getRhs() != out))
    return false;
  Value added = sum.getLhs() == out ? sum.getRhs() : sum.getLhs();
  auto product = added.getDefiningOp<arith::MulFOp>();
  if (!product || (product.getLhs() != x && product.getRhs() != x))
    return false;
  Value weight = product.getLhs() == x ? product.getRhs() : product.getLhs();
  if (auto widened = weight.getDefiningOp<arith::ExtFOp>())
    weight = widened.getIn();
  return weight == body.getArgument(1);
}

std::optional<PanelContraction> PanelContraction::match(linalg::LinalgOp op) {
  using utils::IteratorType;
  if (op.getNumDpsInputs() != 2 || op.getNumDpsInits() != 1 ||
      op.getIteratorTypesArray() !=
          SmallVector<IteratorType>{
              IteratorType::parallel, IteratorType::parallel,
              IteratorType::parallel, IteratorType::reduction})
    return std::nullopt;
  Value x = op.getDpsInputs()[0], weight = op.getDpsInputs()[1],
        out = op.getDpsInits()[0];
  auto weightType = dyn_cast<MemRefType>(weight.getType());
  if (!weightType || weightType.getRank() != 3 ||
      !getElementTypeOrSelf(x).isF32() || !getElementTypeOrSelf(out).isF32())
    return std::nullopt;
  int64_t panel = weightType.getDimSize(2);
  AffineExpr p, m, j, k;
  bindDims(op.getContext(), p, m, j, k);
  SmallVector<AffineMap> maps = {
      AffineMap::get(4, 0, {m, k}, op.getContext()),
      AffineMap::get(4, 0, {p, k, j}, op.getContext()),
      AffineMap::get(4, 0, {m, p * panel + j}, op.getContext())};
  if (op.getIndexingMapsArray() != maps ||
      !cast<MemRefType>(x.getType()).hasStaticShape() ||
      !isWidenedProductSum(*op.getBlock()))
    return std::nullopt;
  return PanelContraction{x, weight, out, panel};
}

PanelKernel::PanelKernel(Location loc, Operation *before,
                         PanelContraction contraction, bool startsFromZero,
                         int64_t lanes)
    : b(loc, before), contraction(contraction), startsFromZero(startsFromZero),
      lanes(lanes) {
  auto xType = cast<MemRefType>(contraction.x.getType());
  auto weightType = cast<MemRefType>(contraction.weight.getType());
  rows = xType.getDimSize(0);
  depth = xType.getDimSize(1);
  vectors = contraction.panel / lanes;
  unroll = depth % 4 == 0 ? 4 : 1;
  wide = VectorType::get({lanes}, b.getF32Type());
  narrow = VectorType::get({lanes}, weightType.getElementType());
  int64_t rowBytes =
      contraction.panel * weightType.getElementTypeBitWidth() / 8;
  prefetchRows = kPrefetchBytes / rowBytes;
}

void PanelKernel::write() {
  Value panels = b.createOrFold<memref::DimOp>(contraction.weight, 0);
  auto panelLoop = scf::ForOp::create(b, index(0), panels, index(1));
  b.setInsertionPointToStart(panelLoop.getBody());
  panelIndex = panelLoop.getInductionVar();
  column = arith::MulIOp::create(b, panelIndex, index(contraction.panel));

  forEachRowBlock(b, rows, lanes, [&](Value firstRow, int64_t count) {
    contractBlock(firstRow, count);
  });
}

/// Accumulates in registers over the depth, then stores.
void PanelKernel::contractBlock(Value firstRow, int64_t blockRows) {
  // Few accumulators would wait for each other: unrolled steps then get
  // accumulators of their own.
  int64_t accumulators = blockRows * vectors;
  int64_t chains = accumulators < 8 ? unroll : 1;
  auto loop = scf::ForOp::create(b, index(0), index(depth), index(unroll),
                                 startSums(firstRow, blockRows, chains));
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    SmallVector<Value> sums(loop.getRegionIterArgs());
    for (int64_t u = 0; u < unroll; ++u)
      multiplyStep(plus(loop.getInductionVar(), u), firstRow, blockRows,
                   MutableArrayRef(sums).slice((u % chains) * accumulators,
                                               accumulators));
    scf::YieldOp::create(b, sums);
  }
  for (int64_t i = 0; i < accumulators; ++i) {
    Value sum = loop.getResult(i);
    for (int64_t chain = 1; chain < chains; ++chain)
      sum = arith::AddFOp::create(b, sum,
                                  loop.getResult(chain * accumulators + i));
    vector::StoreOp::create(b, sum, contraction.out,
                            outputAt(firstRow, i / vectors, i % vectors));
  }
}

/// Of each row and vector of a block; further chains start from zero.
SmallVector<Value> PanelKernel::startSums(Value firstRow, int64_t blockRows,
                                          int64_t chains) {
  Value zero = arith::ConstantOp::create(b, wide, b.getZeroAttr(wide));
  int64_t accumulators = blockRows * vectors;
  SmallVector<Value> sums(accumulators * chains, zero);
  if (!startsFromZero)
    for (int64_t i = 0; i < accumulators; ++i)
      sums[i] =
          vector::LoadOp::create(b, wide, contraction.out,
                                 outputAt(firstRow, i / vectors, i % vectors));
  return sums;
}

/// Adds the products of element `step` of each row with a row of the panel.
void PanelKernel::multiplyStep(Value step, Value firstRow, int64_t blockRows,
                               MutableArrayRef<Value> sums) {
  memref::PrefetchOp::create(
      b, contraction.weight,
      ValueRange{panelIndex, plus(step, prefetchRows), index(0)},
      /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
  SmallVector<Value> weights;
  for (int64_t v = 0; v < vectors; ++v) {
    Value weight =
        vector::LoadOp::create(b, narrow, contraction.weight,
                               ValueRange{panelIndex, step, index(v * lanes)});
    if (narrow != wide)
      weight = arith::ExtFOp::create(b, wide, weight);
    weights.push_back(weight);
  }
  for (int64_t r = 0; r < blockRows; ++r) {
    Value scalar = memref::LoadOp::create(b, contraction.x,
                                          ValueRange{plus(firstRow, r), step});
    Value activation = vector::BroadcastOp::create(b, wide, scalar);
    for (int64_t v = 0; v < vectors; ++v)
      sums[r * vectors + v] = vector::FMAOp::create(b, activation, weights[v],
                                                    sums[r * vectors + v]);
  }
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// Sums may be reordered, and so vectorised; NaNs and infinities stay.
static void relaxSums(Operation *loop) {
  auto flags = arith::FastMathFlags::reassoc | arith::FastMathFlags::contract |
               arith::FastMathFlags::nsz;
  loop->walk([&](arith::ArithFastMathInterface math) {
    math->setAttr(math.getFastMathAttrName(),
                  arith::FastMathFlagsAttr::get(loop->getContext(), flags));
  });
}

static LogicalResult lowerToLoops(linalg::LinalgOp op) {
  IRRewriter rewriter(op.getContext());
  rewriter.setInsertionPoint(op);
  FailureOr<linalg::LinalgLoops> loops = linalg::linalgOpToLoops(rewriter, op);
  if (failed(loops))
    return op.emitOpError("cannot be lowered to loops");
  op.erase();
  if (!loops->empty())
    relaxSums(loops->front());
  return success();
}

namespace {
class LowerDenseToHostPass
    : public kvrm::impl::LowerDenseToHostPassBase<LowerDenseToHostPass> {
public:
  using LowerDenseToHostPassBase::LowerDenseToHostPassBase;

  void runOnOperation() override {
    if (lanes < 1 || lanes > 64) {
      getOperation().emitError("lanes is ")
          << lanes.getValue() << ", outside 1..64";
      return signalPassFailure();
    }
    codeDot = llvm::StringSwitch<std::optional<CodeDot>>(dot)
                  .Case("vnni", CodeDot::Vnni)
                  .Case("maddubs", CodeDot::Maddubs)
                  .Case("none", CodeDot::None)
                  .Default(std::nullopt);
    if (!codeDot) {
      getOperation().emitError("dot is '")
          << dot << "', none of vnni, maddubs and none";
      return signalPassFailure();
    }
    SymbolTable symbols(getOperation());
    llvm::SetVector<func::FuncOp> callees;
    for (func::FuncOp step : getSteps(getOperation()))
      step.walk([&](DispatchOp op) {
        if (auto callee = symbols.lookup<func::FuncOp>(op.getCallee()))
          callees.insert(callee);
      });
    for (func::FuncOp callee : callees)
      if (failed(lower(callee)))
        return signalPassFailure();
  }

private:
  LogicalResult lower(func::FuncOp func) {
    if (failed(lowerBlocks(func)))
      return failure();
    SmallVector<linalg::LinalgOp> ops;
    func.walk([&](linalg::LinalgOp op) { ops.push_back(op); });
    for (linalg::LinalgOp op : ops) {
      if (!op.hasPureBufferSemantics())
        return op.emitOpError("is not on buffers");
      std::optional<PanelContraction> contraction = PanelContraction::match(op);
      if (!contraction)
        continue;
      if (contraction->panel % lanes)
        return op.emitOpError("has panels of ")
               << contraction->panel << " rows, not a multiple of "
               << lanes.getValue() << " lanes";
      linalg::FillOp zero = zeroFillBefore(op);
      PanelKernel(op.getLoc(), op, *contraction, zero != nullptr, lanes)
          .write();
      if (zero)
        zero.erase();
      op.erase();
    }
    ops.clear();
    func.walk([&](linalg::LinalgOp op) { ops.push_back(op); });
    for (linalg::LinalgOp op : ops)
      if (failed(lowerToLoops(op)))
        return failure();
    return success();
  }

  LogicalResult lowerBlocks(func::FuncOp func) {
    SmallVector<DestinationStyleOpInterface> ops;
    func.walk([&](DestinationStyleOpInterface op) {
      if (isa<BlockProductOp, QuantizeRowsOp>(*op))
        ops.push_back(op);
    });
    for (DestinationStyleOpInterface op : ops) {
      if (!op.hasPureBufferSemantics())
        return op->emitOpError("is not on buffers");
      if (auto product = dyn_cast<BlockProductOp>(*op)) {
        linalg::FillOp zero = zeroFillBefore(op);
        if (failed(
                writeBlockProduct(product, zero != nullptr, lanes, *codeDot)))
          return failure();
        if (zero)
          zero.erase();
      } else {
        writeQuantizeRows(cast<QuantizeRowsOp>(*op), lanes);
      }
      op->erase();
    }
    return success();
  }

  /// The op just before `op`, if all that it does is to make its output zero.
  static linalg::FillOp zeroFillBefore(DestinationStyleOpInterface op) {
    auto fill = dyn_cast_or_null<linalg::FillOp>(op->getPrevNode());
    if (!fill || fill.getOutputs().front() != op.getDpsInits()[0] ||
        !matchPattern(fill.getInputs().front(), m_AnyZeroFloat()))
      return {};
    return fill;
  }

  std::optional<CodeDot> codeDot;
};
} // namespace
