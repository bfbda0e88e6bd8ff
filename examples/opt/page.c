//===- page.c - Page a decoder's cache through the C API --------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   page GRAPH.mlir
//
// Takes a static step to pages and prints it.
//
//===----------------------------------------------------------------------===//

#include "kvrm-c/KVRM.h"
#include "mlir-c/IR.h"
#include "mlir-c/Pass.h"
#include "mlir-c/RegisterEverything.h"

#include <stdio.h>

static void print(MlirStringRef text, void *file) {
  fwrite(text.data, 1, text.length, file);
}

static MlirContext createContext(void) {
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  mlirRegisterAllDialects(registry);
  mlirRegisterKVRMDialects(registry);
  MlirContext context =
      mlirContextCreateWithRegistry(registry, /*threadingEnabled=*/false);
  mlirDialectRegistryDestroy(registry);
  mlirDialectHandleLoadDialect(mlirGetDialectHandle__kvrm__(), context);
  return context;
}

static MlirLogicalResult page(MlirContext context, MlirOperation module) {
  MlirStringRef pipeline = mlirStringRefCreateFromCString(
      "builtin.module(kvrm-page-cache{page=16},kvrm-merge-transport)");
  MlirPassManager passes = mlirPassManagerCreate(context);
  MlirLogicalResult result = mlirParsePassPipeline(
      mlirPassManagerGetAsOpPassManager(passes), pipeline, print, stderr);
  if (mlirLogicalResultIsSuccess(result))
    result = mlirPassManagerRunOnOp(passes, module);
  mlirPassManagerDestroy(passes);
  return result;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: page GRAPH.mlir\n");
    return 1;
  }
  mlirRegisterKVRMPasses();
  MlirContext context = createContext();
  // What is wrong with a graph is told on standard error by MLIR.
  MlirModule module = mlirModuleCreateParseFromFile(
      context, mlirStringRefCreateFromCString(argv[1]));
  int status = 1;
  if (!mlirModuleIsNull(module)) {
    MlirOperation op = mlirModuleGetOperation(module);
    if (mlirLogicalResultIsSuccess(page(context, op))) {
      mlirOperationPrint(op, print, stdout);
      status = 0;
    }
    mlirModuleDestroy(module);
  }
  mlirContextDestroy(context);
  return status;
}
