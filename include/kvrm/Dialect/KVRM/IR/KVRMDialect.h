//===- KVRMDialect.h - The kvrm dialect -------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Everything of the dialect's IR: attributes, types and operations. See
// docs/Dialect/ for the reference and the rationale.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_IR_KVRMDIALECT_H
#define KVRM_DIALECT_KVRM_IR_KVRMDIALECT_H

#include "kvrm/runtime/abi/block_format.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/pool.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h.inc"
#include "kvrm/Dialect/KVRM/IR/KVRMEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "kvrm/Dialect/KVRM/IR/KVRMAttrs.h.inc"

#define GET_TYPEDEF_CLASSES
#include "kvrm/Dialect/KVRM/IR/KVRMTypes.h.inc"

namespace mlir::kvrm {

/// The committed step descriptor.
struct DescriptorResource
    : public SideEffects::Resource::Base<DescriptorResource> {
  StringRef getName() final { return "kvrm.descriptor"; }
};

/// The pages of the session's pool.
struct PoolResource : public SideEffects::Resource::Base<PoolResource> {
  StringRef getName() final { return "kvrm.pool"; }
};

/// Outputs and partials that attention kernels write.
struct OutputResource : public SideEffects::Resource::Base<OutputResource> {
  StringRef getName() final { return "kvrm.output"; }
};

namespace detail {
LogicalResult verifyInKernel(Operation *op);

/// A static shape of this rank, every dimension at least one.
bool isPositiveShape(ShapedType type, int64_t rank);
} // namespace detail

/// Trait of the ops of a tile program: they stand inside a `kvrm.kernel`.
template <typename ConcreteType>
class InKernel : public OpTrait::TraitBase<ConcreteType, InKernel> {
public:
  static LogicalResult verifyTrait(Operation *op) {
    return detail::verifyInKernel(op);
  }
};

/// Trait of the ops that `phases` have, for PhaseOpInterface.
template <Phase phases> struct InPhases {
  template <typename ConcreteType>
  class Impl : public OpTrait::TraitBase<ConcreteType, Impl> {
  public:
    static Phase getPhases() { return phases; }
  };
};

/// How many ranks run the steps of a module together.
int64_t getRanks(ModuleOp module);

/// Whether a function is one compiled step.
bool isStep(Operation *op);

/// How each batch of a step attends; empty if it does not, or its kernels are
/// not generated.
SmallVector<StepPlanAttr> getStepPlans(Operation *step);

/// The batch of its step whose descriptor this is, which a commit made.
unsigned getBatch(Value descriptor);

/// What an argument of a step is, if that is known.
std::optional<ArgumentRole> getArgumentRole(FunctionOpInterface step,
                                            unsigned index);
void setArgumentRole(FunctionOpInterface step, unsigned index,
                     ArgumentRole role);

/// What the runtime calls an element of KV; none for what no cache holds.
std::optional<kvrm_element> getCacheElement(Type element);
Type getCacheType(MLIRContext *context, kvrm_element element);
/// Elements of a token's row in a static cache: `headDim`, and behind them the
/// bytes of their scale, if the element has scales.
int64_t getCacheRow(int64_t headDim, Type element);

/// What blocks of a format hold.
inline kvrmblocks::BlockShape getShape(BlockFormat format) {
  return kvrmblocks::shapeOf(static_cast<kvrmblocks::BlockFormat>(format));
}

/// A buffer with one i32 field of each of `rows` rows: a view of a descriptor.
MemRefType getRowFieldType(MLIRContext *context, int64_t rows);

/// Shared by the ops that read one field of every row.
LogicalResult verifyRowField(Operation *op, DescriptorType descriptor,
                             ShapedType result);

} // namespace mlir::kvrm

#include "kvrm/Dialect/KVRM/IR/KVRMInterfaces.h.inc"

#define GET_OP_CLASSES
#include "kvrm/Dialect/KVRM/IR/KVRMOps.h.inc"

#endif // KVRM_DIALECT_KVRM_IR_KVRMDIALECT_H
