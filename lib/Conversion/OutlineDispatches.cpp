//===- OutlineDispatches.cpp - The dense part as functions --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// The kernel of a packed contraction, per panel of P rows of the weight and
// block of M rows of the activation: K * P widened weights, read once and in
// address order, against M * K broadcast activations from the first-level
// cache; M * P / lanes accumulators in registers. At M = 1 it is a stream of
// the weights at 1 FLOP a byte, limited by memory; at M = 8 on AVX-512 it is 16
// fused multiply-adds to 2 widening loads and 8 broadcasts, limited by the
// multipliers.
//
//===----------------------------------------------------------------------===//

#include "kvrm/Conversion/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/ViewLikeInterface.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/StringMap.h"

#include <algorithm>

namespace mlir::kvrm {
#define GEN_PASS_DEF_OUTLINEDISPATCHESPASS
#include "kvrm/Conversion/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

/// How far ahead of its use a weight is asked for. The multiplications between
/// two loads of weights leave the hardware prefetcher too little in flight: on
/// a Zen 5 core, 134 M f16 weights against eight rows took 22 ms a step without
/// prefetch, 12 ms at 4 KiB, 10 ms from 8 to 16 KiB; against one row 7 ms all
/// the same (the time of the memory).
static constexpr int64_t kPrefetchBytes = 12 * 1024;

/// The buffer that `value` is a view of.
static Value rootOf(Value value) {
  while (Operation *op = value.getDefiningOp()) {
    auto view = dyn_cast<ViewLikeOpInterface>(op);
    if (!view)
      break;
    // Views of the block of weights are read-only and disjoint from all else.
    if (isa<memref::ViewOp>(op))
      break;
    value = view.getViewSource();
  }
  return value;
}

/// `type` as a function sees it: the caller adds the offset to the pointer.
static MemRefType withoutOffset(MemRefType type) {
  auto [strides, offset] = type.getStridesAndOffset();
  auto contiguous = MemRefType::get(type.getShape(), type.getElementType());
  if (strides == contiguous.getStridesAndOffset().first)
    return contiguous;
  return MemRefType::get(
      type.getShape(), type.getElementType(),
      StridedLayoutAttr::get(type.getContext(), /*offset=*/0, strides));
}

namespace {

class OutlineDispatchesPass
    : public kvrm::impl::OutlineDispatchesPassBase<OutlineDispatchesPass> {
public:
  using OutlineDispatchesPassBase::OutlineDispatchesPassBase;
  void runOnOperation() override;

private:
  LogicalResult outline(linalg::LinalgOp op, bool zeroFilled);
  void lowerContraction(linalg::LinalgOp op, Value begin, Value end,
                        bool zeroFilled);
  LogicalResult lowerToLoops(linalg::LinalgOp op, Value begin, Value end);

  llvm::StringMap<func::FuncOp> functions; ///< by their text
  SymbolTable *symbols = nullptr;
};

} // namespace

/// For each panel and block of activation rows: accumulate in registers over
/// k, then store.
void OutlineDispatchesPass::lowerContraction(linalg::LinalgOp op, Value begin,
                                             Value end, bool zeroFilled) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  Value x = op.getDpsInputOperand(0)->get();
  Value weight = op.getDpsInputOperand(1)->get();
  Value out = op.getDpsInitOperand(0)->get();
  auto xType = cast<MemRefType>(x.getType());
  auto weightType = cast<MemRefType>(weight.getType());
  int64_t m = xType.getDimSize(0), k = xType.getDimSize(1);
  int64_t panel = weightType.getDimSize(2);
  int64_t vectors = panel / lanes;
  int64_t block = std::min<int64_t>(m, lanes >= 16 ? 8 : 4);
  int64_t unroll = k % 4 == 0 ? 4 : 1;
  auto wide = VectorType::get({lanes}, b.getF32Type());
  auto narrow = VectorType::get({lanes}, weightType.getElementType());
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  auto addIndex = [&](Value lhs, int64_t rhs) -> Value {
    return rhs ? arith::AddIOp::create(b, lhs, index(rhs)) : lhs;
  };

  int64_t rowBytes = panel * weightType.getElementTypeBitWidth() / 8;
  int64_t prefetchRows = kPrefetchBytes / rowBytes;
  auto panelLoop = scf::ForOp::create(b, begin, end, index(1));
  b.setInsertionPointToStart(panelLoop.getBody());
  Value p = panelLoop.getInductionVar();
  Value column = arith::MulIOp::create(b, p, index(panel));

  // Few accumulators would wait for each other: unrolled steps then get
  // accumulators of their own.
  auto contractBlock = [&](Value firstRow, int64_t blockRows) {
    int64_t accumulators = blockRows * vectors;
    int64_t chains = accumulators < 8 ? unroll : 1;
    Value zero = arith::ConstantOp::create(b, wide, b.getZeroAttr(wide));
    SmallVector<Value> start(accumulators * chains, zero);
    if (!zeroFilled)
      for (int64_t r = 0; r < blockRows; ++r)
        for (int64_t v = 0; v < vectors; ++v)
          start[r * vectors + v] = vector::LoadOp::create(
              b, wide, out,
              ValueRange{addIndex(firstRow, r), addIndex(column, v * lanes)});
    auto loop = scf::ForOp::create(b, index(0), index(k), index(unroll), start);
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(loop.getBody());
      SmallVector<Value> acc(loop.getRegionIterArgs());
      for (int64_t u = 0; u < unroll; ++u) {
        Value step = addIndex(loop.getInductionVar(), u);
        MutableArrayRef<Value> chain = MutableArrayRef(acc).slice(
            (u % chains) * accumulators, accumulators);
        SmallVector<Value> weights;
        memref::PrefetchOp::create(
            b, weight, ValueRange{p, addIndex(step, prefetchRows), index(0)},
            /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
        for (int64_t v = 0; v < vectors; ++v) {
          Value loaded = vector::LoadOp::create(
              b, narrow, weight, ValueRange{p, step, index(v * lanes)});
          weights.push_back(arith::ExtFOp::create(b, wide, loaded));
        }
        for (int64_t r = 0; r < blockRows; ++r) {
          Value scalar = memref::LoadOp::create(
              b, x, ValueRange{addIndex(firstRow, r), step});
          Value activation = vector::BroadcastOp::create(b, wide, scalar);
          for (int64_t v = 0; v < vectors; ++v)
            chain[r * vectors + v] = vector::FMAOp::create(
                b, activation, weights[v], chain[r * vectors + v]);
        }
      }
      scf::YieldOp::create(b, acc);
    }
    for (int64_t r = 0; r < blockRows; ++r)
      for (int64_t v = 0; v < vectors; ++v) {
        Value sum = loop.getResult(r * vectors + v);
        for (int64_t chain = 1; chain < chains; ++chain)
          sum = arith::AddFOp::create(
              b, sum, loop.getResult(chain * accumulators + r * vectors + v));
        vector::StoreOp::create(
            b, sum, out,
            ValueRange{addIndex(firstRow, r), addIndex(column, v * lanes)});
      }
  };

  int64_t whole = m / block * block;
  if (whole == block) {
    contractBlock(index(0), block);
  } else {
    auto blockLoop =
        scf::ForOp::create(b, index(0), index(whole), index(block));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(blockLoop.getBody());
    contractBlock(blockLoop.getInductionVar(), block);
  }
  if (whole != m)
    contractBlock(index(whole), m - whole);
  op.erase();
}

LogicalResult OutlineDispatchesPass::lowerToLoops(linalg::LinalgOp op,
                                                  Value begin, Value end) {
  IRRewriter rewriter(op.getContext());
  rewriter.setInsertionPoint(op);
  FailureOr<linalg::LinalgLoops> loops = linalg::linalgOpToLoops(rewriter, op);
  if (failed(loops))
    return op.emitOpError("cannot be lowered to loops");
  op.erase();
  auto outer = cast<scf::ForOp>(loops->front());
  outer.setLowerBound(begin);
  outer.setUpperBound(end);
  // Sums may be reordered, and so vectorised; NaNs and infinities stay.
  auto flags = arith::FastMathFlags::reassoc | arith::FastMathFlags::contract |
               arith::FastMathFlags::nsz;
  outer.walk([&](arith::ArithFastMathInterface math) {
    math->setAttr(math.getFastMathAttrName(),
                  arith::FastMathFlagsAttr::get(&getContext(), flags));
  });
  return success();
}

LogicalResult OutlineDispatchesPass::outline(linalg::LinalgOp op,
                                             bool zeroFilled) {
  SmallVector<int64_t> ranges = op.getStaticLoopRanges();
  if (ranges.empty() || llvm::any_of(ranges, ShapedType::isDynamic))
    return op.emitOpError("in a step must have static loops");
  if (op.getIteratorTypesArray().front() != utils::IteratorType::parallel)
    return op.emitOpError("in a step must have a parallel outermost loop");
  auto panel = op->getAttrOfType<IntegerAttr>(KVRMDialect::getPanelAttrName());
  if (panel && panel.getInt() % lanes)
    return op.emitOpError("has panels of ")
           << panel.getInt() << " rows, not a multiple of " << lanes.getValue()
           << " lanes";

  // What the op uses: buffers become arguments, constants are copied.
  llvm::SetVector<Value> used(op->operand_begin(), op->operand_end());
  getUsedValuesDefinedAbove(op->getRegions(), used);
  SmallVector<Value> buffers, constants;
  for (Value value : used) {
    if (isa<MemRefType>(value.getType()))
      buffers.push_back(value);
    else if (matchPattern(value, m_Constant()))
      constants.push_back(value);
    else
      return op.emitOpError("uses a value that is neither a buffer nor a "
                            "constant");
  }
  llvm::SmallPtrSet<Value, 4> written;
  for (OpOperand &init : op.getDpsInitsMutable())
    written.insert(init.get());
  // Outputs last, as kvrm.dispatch has them.
  std::stable_partition(buffers.begin(), buffers.end(),
                        [&](Value value) { return !written.contains(value); });
  size_t inputCount = llvm::count_if(
      buffers, [&](Value value) { return !written.contains(value); });

  // Build the function beside the module, and keep it if it is new.
  ImplicitLocOpBuilder b(UnknownLoc::get(&getContext()), &getContext());
  SmallVector<Type> inputs(2, b.getIndexType());
  for (Value buffer : buffers)
    inputs.push_back(withoutOffset(cast<MemRefType>(buffer.getType())));
  OwningOpRef<func::FuncOp> func = func::FuncOp::create(
      b.getLoc(), "candidate", b.getFunctionType(inputs, {}));
  func->setPrivate();
  Block *entry = func->addEntryBlock();
  b.setInsertionPointToStart(entry);
  IRMapping mapping;
  for (auto [buffer, arg] :
       llvm::zip_equal(buffers, entry->getArguments().drop_front(2)))
    mapping.map(buffer, arg);
  for (Value constant : constants)
    mapping.map(constant, b.clone(*constant.getDefiningOp())->getResult(0));
  auto cloned = cast<linalg::LinalgOp>(b.clone(*op, mapping));
  func::ReturnOp::create(b);
  // A buffer that nothing else here can reach lets loops be vectorised.
  for (auto [i, buffer] : llvm::enumerate(buffers))
    if (llvm::count_if(buffers, [&](Value other) {
          return rootOf(other) == rootOf(buffer);
        }) == 1)
      func->setArgAttr(i + 2, LLVM::LLVMDialect::getNoAliasAttrName(),
                       b.getUnitAttr());

  int64_t tasks = panel ? ranges[1] : ranges[0];
  int64_t work = 1;
  for (int64_t range : ranges)
    work *= range;
  Value begin = entry->getArgument(0), end = entry->getArgument(1);
  if (panel)
    lowerContraction(cloned, begin, end, zeroFilled);
  else if (failed(lowerToLoops(cloned, begin, end)))
    return failure();

  std::string text;
  llvm::raw_string_ostream os(text);
  func->print(os, OpPrintingFlags().useLocalScope());
  func::FuncOp &known = functions[text];
  if (!known) {
    known = func.release();
    known.setSymName(panel ? "linear" : "elementwise");
    symbols->insert(known);
    ++numFunctions;
  }
  ++numOutlined;

  b.setLoc(op.getLoc());
  b.setInsertionPoint(op);
  ArrayRef<Value> all = buffers;
  bool serial = tasks == 1 || work < parallelWork;
  DispatchOp::create(b, TypeRange{}, known.getSymName(), tasks,
                     all.take_front(inputCount), all.drop_front(inputCount),
                     serial);
  op.erase();
  return success();
}

void OutlineDispatchesPass::runOnOperation() {
  if (lanes < 1 || lanes > 64) {
    getOperation().emitError("lanes is ")
        << lanes.getValue() << ", outside 1..64";
    return signalPassFailure();
  }
  functions.clear();
  SymbolTable table(getOperation());
  symbols = &table;
  for (func::FuncOp func : getSteps(getOperation())) {
    SmallVector<linalg::LinalgOp> ops;
    for (Operation &op : func.getBody().front())
      if (auto linalgOp = dyn_cast<linalg::LinalgOp>(op)) {
        if (!linalgOp.hasPureBufferSemantics()) {
          op.emitOpError("is not on buffers; run kvrm-bufferize-step first");
          return signalPassFailure();
        }
        ops.push_back(linalgOp);
      }
    for (size_t i = 0; i < ops.size(); ++i) {
      // A contraction over a weight takes the fill just before it along.
      bool zeroFilled = false;
      if (auto fill = dyn_cast<linalg::FillOp>(ops[i].getOperation());
          fill && i + 1 < ops.size() &&
          ops[i + 1]->hasAttr(KVRMDialect::getPanelAttrName()) &&
          ops[i + 1].getDpsInitOperand(0)->get() == fill.getOutputs().front() &&
          matchPattern(fill.getInputs().front(), m_AnyZeroFloat())) {
        fill.erase();
        zeroFilled = true;
        ++i;
      }
      if (failed(outline(ops[i], zeroFilled)))
        return signalPassFailure();
    }
  }
}
