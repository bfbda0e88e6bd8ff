//===- GraphSource.h - Decode steps of other frontends ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_KVRMC_GRAPHSOURCE_H
#define KVRM_TOOLS_KVRMC_GRAPHSOURCE_H

#include "Compiler.h"

#include <memory>
#include <string>
#include <vector>

namespace kvrmc {

struct GraphOptions {
  std::string path;     ///< of the graph, text or bytecode
  std::string weights;  ///< safetensors, or an index of shards; may be empty
  std::string manifest; ///< what arguments are (docs/raising.md); may be empty
  /// A folder that has a tokenizer as transformers write it; may be empty.
  std::string tokenizer;
  std::string cacheType = "f16";  ///< of caches that are f32 in the graph
  std::string weightType = "f16"; ///< of matrices
  int64_t slots = 0;              ///< 0: as many rows as the graph has
  int64_t prefillChunk = 64;
  bool mixes = false;       ///< with a mixed step
  bool needsWeights = true; ///< else only shapes are compiled
};

/// A graph that was raised and adopted, with the values of its weights.
struct Graph {
  kvrm::DecoderModel model;
  std::string bytecode; ///< of the module, phase 1
  int64_t slots = 0, capacity = 0, prefillChunk = 0;
  kvrm_element cache = KVRM_F16;
  bool mixes = false;
  std::vector<std::string> notes; ///< for the user
};

/// Reads a decode step that another frontend wrote and makes it a graph of
/// phase 1 with a prefill. An error is one line that names the file, and the
/// argument, result or op.
llvm::Expected<std::unique_ptr<Graph>> openGraph(const GraphOptions &options);

/// `graph` outlives the source.
Source graphSource(const Graph &graph);

} // namespace kvrmc

#endif // KVRM_TOOLS_KVRMC_GRAPHSOURCE_H
