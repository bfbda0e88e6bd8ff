//===- PackWeights.cpp - Weights in the order kernels read them ---------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PackBlocks.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_PACKWEIGHTSPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
class PackWeightsPass
    : public kvrm::impl::PackWeightsPassBase<PackWeightsPass> {
public:
  using PackWeightsPassBase::PackWeightsPassBase;

  void runOnOperation() override {
    for (auto [name, rows] : {std::pair("panel", panel.getValue()),
                              std::pair("block-panel", blockPanel.getValue())})
      if (rows < 0) {
        getOperation().emitError(name)
            << " is " << rows << ", which is negative";
        return signalPassFailure();
      }
    SmallVector<func::FuncOp> steps = getSteps(getOperation());
    if (steps.empty())
      return;
    FailureOr<WeightLoads> weights = getWeights(getOperation(), steps);
    if (failed(weights))
      return signalPassFailure();

    BlockPacker blocks(blockPanel, exactActivations);
    int64_t offset = 0;
    for (auto &[weight, users] : *weights) {
      ml_program::GlobalOp global = weight;
      auto type = dyn_cast<RankedTensorType>(global.getType());
      if (!type || !type.hasStaticShape()) {
        global.emitOpError("is no weight: its shape is not static");
        return signalPassFailure();
      }
      if (!isa_and_present<ml_program::ExternAttr>(global.getValueAttr())) {
        global.emitOpError("is no weight: it has a value, and those of weights "
                           "are in the package");
        return signalPassFailure();
      }
      auto layout = WeightAttr::get(&getContext(), WeightFormat::RowMajor,
                                    offset, /*panel=*/0, /*rows=*/0);
      if (isa<BlockType>(type.getElementType())) {
        FailureOr<WeightAttr> packed = blocks.pack(global, users, offset);
        if (failed(packed))
          return signalPassFailure();
        layout = *packed;
        type = cast<RankedTensorType>(global.getType());
        ++numPacked;
      } else if (panel > 0 && isMatrix(type, users)) {
        layout = WeightAttr::get(&getContext(), WeightFormat::Panels, offset,
                                 panel, type.getDimSize(0));
        type = pack(global, users);
      }
      global->setAttr(KVRMDialect::getWeightAttrName(), layout);
      offset = kvrm_align_up(offset + type.getNumElements() *
                                          type.getElementTypeBitWidth() / 8);
    }
  }

private:
  /// Whether all uses are right-hand sides `[n][k]` of transposed matmuls that
  /// sum in f32, of elements that widen to it.
  static bool isMatrix(RankedTensorType type,
                       ArrayRef<ml_program::GlobalLoadConstOp> users) {
    auto widens = [](Type element) {
      return element.isF32() || element.isF16() || element.isBF16();
    };
    if (type.getRank() != 2 || !widens(type.getElementType()))
      return false;
    for (ml_program::GlobalLoadConstOp load : users)
      for (OpOperand &use : load->getUses()) {
        auto matmul = dyn_cast<linalg::MatmulOp>(use.getOwner());
        if (!matmul || use.getOperandNumber() != 1 ||
            !isa<linalg::MatmulTransposeBOp>(use.getOwner()) ||
            !getElementTypeOrSelf(matmul.getDpsInputs()[0]).isF32() ||
            !getElementTypeOrSelf(matmul.getDpsInits()[0]).isF32())
          return false;
      }
    return true;
  }

  RankedTensorType pack(ml_program::GlobalOp global,
                        ArrayRef<ml_program::GlobalLoadConstOp> users) {
    auto type = cast<RankedTensorType>(global.getType());
    int64_t n = type.getDimSize(0), k = type.getDimSize(1);
    int64_t panels = llvm::divideCeil(n, panel.getValue());
    auto packed = RankedTensorType::get({panels, k, panel.getValue()},
                                        type.getElementType());
    global.setTypeAttr(TypeAttr::get(packed));
    global.setValueAttr(ml_program::ExternAttr::get(&getContext(), packed));
    for (ml_program::GlobalLoadConstOp load : users) {
      SmallVector<linalg::MatmulOp> matmuls;
      for (Operation *user : load->getUsers())
        matmuls.push_back(cast<linalg::MatmulOp>(user));
      load.getResult().setType(packed);
      for (linalg::MatmulOp matmul : matmuls)
        contractPanels(matmul, load.getResult(), n, panels * panel);
    }
    ++numPacked;
    return packed;
  }

  /// out[m, p * panel + j] += x[m, k] * weight[p, k, j]
  void contractPanels(linalg::MatmulOp matmul, Value weight, int64_t n,
                      int64_t paddedN) {
    ImplicitLocOpBuilder b(matmul.getLoc(), matmul);
    Value x = matmul.getDpsInputOperand(0)->get();
    Value init = matmul.getDpsInitOperand(0)->get();
    auto outType = cast<RankedTensorType>(init.getType());
    auto paddedType = RankedTensorType::get({outType.getDimSize(0), paddedN},
                                            outType.getElementType());
    if (paddedN != n)
      init = widenColumns(b, init, paddedN);
    // Panels outermost: they are what a step shares among workers.
    AffineExpr p, m, j, k;
    bindDims(b.getContext(), p, m, j, k);
    SmallVector<AffineMap> maps = {
        AffineMap::get(4, 0, {m, k}, b.getContext()),
        AffineMap::get(4, 0, {p, k, j}, b.getContext()),
        AffineMap::get(4, 0, {m, p * panel.getValue() + j}, b.getContext())};
    using utils::IteratorType;
    SmallVector<IteratorType> iterators = {
        IteratorType::parallel, IteratorType::parallel, IteratorType::parallel,
        IteratorType::reduction};
    Value result =
        linalg::GenericOp::create(
            b, TypeRange{paddedType}, ValueRange{x, weight}, ValueRange{init},
            maps, iterators,
            [](OpBuilder &nested, Location loc, ValueRange args) {
              Value widened = args[1];
              if (widened.getType() != args[2].getType())
                widened = arith::ExtFOp::create(nested, loc, args[2].getType(),
                                                widened);
              Value product =
                  arith::MulFOp::create(nested, loc, args[0], widened);
              Value sum = arith::AddFOp::create(nested, loc, args[2], product);
              linalg::YieldOp::create(nested, loc, sum);
            })
            .getResult(0);
    if (paddedN != n)
      result = sliceColumns(b, result, 0, n);
    matmul.getResult(0).replaceAllUsesWith(result);
    matmul.erase();
  }
};
} // namespace
