//===- InitAll.cpp - Register all dialects and passes of kvrm -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/InitAll.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Conversion/Passes.h"
#include "kvrm/Dialect/Foreign/Foreign.h"
#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Transforms/BufferizableOpInterfaceImpl.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Pipelines/Pipelines.h"

#include "mlir/Dialect/Func/Extensions/InlinerExtension.h"

void mlir::kvrm::registerAllKVRMDialects(DialectRegistry &registry) {
  registry.insert<KVRMDialect>();
  registerForeignDialects(registry);
  // Exporters call functions, which are inlined before a step is raised.
  func::registerInlinerExtension(registry);
  registerBufferizableOpInterfaceExternalModels(registry);
}

void mlir::kvrm::registerAllKVRMPasses() {
  registerKVRMTransformsPasses();
  registerKVRMCodegenPasses();
  registerKVRMConversionPasses();
  registerKVRMPipelines();
}
