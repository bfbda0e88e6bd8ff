//===- GraphWeights.h - Values for the weights of a graph -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_GRAPHWEIGHTS_H
#define KVRM_TOOLS_KVRMC_GRAPHWEIGHTS_H

#include "GraphSource.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"

namespace kvrmc {

/// The arguments of a step as its file has them, by name.
struct GraphArguments {
  llvm::StringMap<mlir::Type> types;
  /// Tensors of the file that are no arguments, as the manifest says.
  llvm::StringSet<> unused;
};

/// Gives `model` a source for each global of the module: tensors of the file of
/// weights, and those that the graph holds itself, which leave the module. A
/// tensor that is missing, of another shape, not of floating point, or that no
/// argument is called by is an error.
llvm::Error bindWeights(mlir::ModuleOp module, const GraphArguments &arguments,
                        const GraphOptions &options, kvrm::DecoderModel &model);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_GRAPHWEIGHTS_H
