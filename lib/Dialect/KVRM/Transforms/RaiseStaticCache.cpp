//===- RaiseStaticCache.cpp - Static caches to kvrm.cached_attention ------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Raise/DeclaredPositions.h"
#include "Raise/StepAnalysis.h"
#include "Raise/StepRewrite.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/Support/Format.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_RAISESTATICCACHEPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;
using raise::AttentionLayer;
using raise::RaisableStep;

/// What was found, a remark a layer.
static void report(const RaisableStep &step) {
  StringRef shared = step.hasCommonPosition ? " of all rows" : "";
  for (auto [layer, number] : llvm::zip_equal(step.layers, step.layerNumbers)) {
    std::string scale;
    llvm::raw_string_ostream(scale) << llvm::format("%.6g", layer.scale);
    layer.op->emitRemark("layer ")
        << number << ": caches " << layer.keyCache.getArgNumber() << " and "
        << layer.valueCache.getArgNumber() << ", position "
        << raise::toString(layer.position) << shared << ", scale " << scale
        << ", " << layer.heads << " heads on " << layer.kvHeads << " of "
        << layer.headDim << ", capacity " << layer.capacity
        << (layer.hasFiniteMask ? ", finite mask" : "")
        << (layer.isOneHot ? ", one-hot write" : "");
  }
}

namespace {
class RaiseStaticCachePass
    : public kvrm::impl::RaiseStaticCachePassBase<RaiseStaticCachePass> {
public:
  using RaiseStaticCachePassBase::RaiseStaticCachePassBase;

  void runOnOperation() override {
    if (narrow != "" && !narrowed()) {
      getOperation().emitError("narrow is '")
          << narrow << "', none of f16, bf16, f8e4m3 and int8";
      return signalPassFailure();
    }
    for (func::FuncOp func : getOperation().getOps<func::FuncOp>()) {
      if (func.isExternal() || !func.getBody().hasOneBlock() ||
          func->hasAttr(KVRMDialect::getStepAttrName()))
        continue;
      std::optional<SmallVector<Value>> masks = masksOf(func);
      if (!masks)
        return signalPassFailure();
      raise::DeclaredPositions declared(func);
      if (failed(declared.unify(positions)))
        return signalPassFailure();
      FailureOr<bool> isRaised = raiseStep(func, *masks);
      if (failed(isRaised))
        return signalPassFailure();
      if (!*isRaised)
        declared.undo();
    }
  }

private:
  /// The element that `narrow` names.
  std::optional<kvrm_element> narrowed() const {
    for (int32_t i = 0; i < KVRM_ELEMENTS; ++i)
      if (auto element = static_cast<kvrm_element>(i);
          narrow == kvrm_element_name(element))
        return element;
    return std::nullopt;
  }

  /// False if the function stays as it was; a failure leaves it broken.
  FailureOr<bool> raiseStep(func::FuncOp func, ArrayRef<Value> masks) {
    FailureOr<RaisableStep> step = raise::analyseStep(func, masks);
    if (failed(step))
      return false;
    if (!SymbolTable::symbolKnownUseEmpty(func, getOperation())) {
      func.emitRemark("not raised: it is called, and callers would have to "
                      "change; inline it first");
      return false;
    }
    if (analyseOnly) {
      report(*step);
      return false;
    }
    Type element = cacheElement(func, *step);
    if (!element)
      return false;
    FailureOr<bool> isRaised = raise::rewriteStep(func, *step, element);
    if (succeeded(isRaised))
      numRaised += *isRaised ? step->layers.size() : 0;
    return isRaised;
  }

  /// The arguments that the option names.
  std::optional<SmallVector<Value>> masksOf(func::FuncOp func) {
    SmallVector<Value> masks;
    for (unsigned number : causalMasks) {
      auto type =
          number < func.getNumArguments()
              ? dyn_cast<RankedTensorType>(func.getArgument(number).getType())
              : RankedTensorType();
      if (!type || !type.hasStaticShape() || type.getRank() == 0 ||
          !(isa<FloatType>(type.getElementType()) ||
            type.getElementType().isInteger(1))) {
        func.emitError("argument ")
            << number << " is no tensor of floating point or truth values, as "
            << "a mask is";
        return std::nullopt;
      }
      masks.push_back(func.getArgument(number));
    }
    return masks;
  }

  /// The element of the raised step's caches; null if there is none, and then a
  /// remark said so.
  Type cacheElement(func::FuncOp func, const RaisableStep &step) {
    const AttentionLayer &first = step.layers.front();
    auto element =
        cast<FloatType>(getElementTypeOrSelf(first.keyCache.getType()));
    if (element.isF16() || element.isBF16())
      return element;
    // A graph's own f8E4M3FN makes NaN of what a pool's cuts off at 448.
    if (!element.isF32()) {
      func.emitRemark("not raised: caches of ") << element;
      return {};
    }
    if (narrow == "") {
      func.emitRemark("not raised: its caches are f32, which a pool is not; "
                      "narrow=f16, bf16, f8e4m3 or int8 makes them that, and "
                      "rounds what they hold");
      return {};
    }
    return getCacheType(&getContext(), *narrowed());
  }
};
} // namespace
