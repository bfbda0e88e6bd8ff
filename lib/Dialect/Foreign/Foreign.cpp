//===- Foreign.cpp - Ops of other frontends -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/Foreign/Foreign.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/DialectRegistry.h"

using namespace mlir;
using namespace mlir::kvrm;

#include "kvrm/Dialect/Foreign/iree_linalg_ext.cpp.inc"
#include "kvrm/Dialect/Foreign/stablehlo.cpp.inc"
#include "kvrm/Dialect/Foreign/tm_tensor.cpp.inc"

#define GET_OP_CLASSES
#include "kvrm/Dialect/Foreign/ForeignOps.cpp.inc"

void tm_tensor::TMTensorDialect::initialize() {
  addOperations<tm_tensor::ScatterOp, tm_tensor::AttentionOp,
                tm_tensor::YieldOp>();
}

void iree_linalg_ext::LinalgExtDialect::initialize() {
  addOperations<iree_linalg_ext::ScatterOp, iree_linalg_ext::AttentionOp,
                iree_linalg_ext::YieldOp>();
}

void stablehlo::StableHLODialect::initialize() {
  addOperations<stablehlo::ScatterOp, stablehlo::WhileOp,
                stablehlo::ReturnOp>();
}

Attribute stablehlo::StableHLODialect::parseAttribute(DialectAsmParser &parser,
                                                      Type type) const {
  return OpaqueAttr::get(StringAttr::get(getContext(), getNamespace()),
                         parser.getFullSymbolSpec(),
                         type ? type : NoneType::get(getContext()));
}

void stablehlo::StableHLODialect::printAttribute(Attribute,
                                                 DialectAsmPrinter &) const {
  llvm_unreachable("an opaque attribute prints itself");
}

void mlir::kvrm::registerForeignDialects(DialectRegistry &registry) {
  auto insert = [&](auto dialect) {
    using DialectType = decltype(dialect)::type;
    if (!registry.getDialectAllocator(DialectType::getDialectNamespace()))
      registry.insert<DialectType>();
  };
  insert(std::type_identity<tm_tensor::TMTensorDialect>());
  insert(std::type_identity<iree_linalg_ext::LinalgExtDialect>());
  insert(std::type_identity<stablehlo::StableHLODialect>());
}
