//===- kvrm-plugin.cpp - kvrm inside a stock mlir-opt ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One library that a compiler built on the same shared MLIR loads at run time:
//
//   mlir-opt --load-dialect-plugin=kvrm-plugin.so
//            --load-pass-plugin=kvrm-plugin.so ...
//
//===----------------------------------------------------------------------===//

#include "kvrm/InitAll.h"

#include "mlir/IR/DialectRegistry.h"
#include "mlir/Tools/Plugins/DialectPlugin.h"
#include "mlir/Tools/Plugins/PassPlugin.h"

extern "C" LLVM_ATTRIBUTE_WEAK mlir::DialectPluginLibraryInfo
mlirGetDialectPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "kvrm", KVRM_VERSION,
          [](mlir::DialectRegistry *registry) {
            mlir::kvrm::registerAllKVRMDialects(*registry);
          }};
}

extern "C" LLVM_ATTRIBUTE_WEAK mlir::PassPluginLibraryInfo
mlirGetPassPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "kvrm", KVRM_VERSION,
          [] { mlir::kvrm::registerAllKVRMPasses(); }};
}
