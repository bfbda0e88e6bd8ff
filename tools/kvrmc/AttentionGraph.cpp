//===- AttentionGraph.cpp - A graph that only attends ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionGraph.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Frontend/CheckRange.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/pool.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm;
using namespace kvrmc;

static llvm::Error checkOptions(const AttentionShape &options) {
  if (llvm::Error error = ::kvrm::checkRange("--kv-heads", options.kvHeads, 1,
                                             KVRM_MAX_KV_HEADS))
    return error;
  if (llvm::Error error = ::kvrm::checkRange("--heads", options.heads, 1,
                                             16 * KVRM_MAX_KV_HEADS))
    return error;
  if (options.heads % options.kvHeads != 0)
    return llvm::createStringError("--heads: " + llvm::Twine(options.heads) +
                                   " is not a multiple of --kv-heads, " +
                                   llvm::Twine(options.kvHeads));
  if (!kvrm_head_shape_of(options.headDim))
    return llvm::createStringError(
        "--head-dim: " + llvm::Twine(options.headDim) +
        " is none of " KVRM_HEAD_SHAPES_TEXT);
  int64_t page = options.pageTokens;
  if (page != 16 && page != 32 && page != 64)
    return llvm::createStringError("--page-size: " + llvm::Twine(page) +
                                   " is none of 16, 32 and 64");
  return ::kvrm::checkRange("--queries", options.queries, 1, 64);
}

/// Of the graph. Neither kernels nor commands depend on them.
static constexpr int64_t graphSlots = 8, graphCapacity = 131072;

/// One layer that appends and attends.
static OwningOpRef<ModuleOp> buildGraph(MLIRContext &context,
                                        const AttentionShape &options) {
  constexpr int64_t slots = graphSlots, capacity = graphCapacity;
  auto loc = UnknownLoc::get(&context);
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  auto b = ImplicitLocOpBuilder::atBlockEnd(loc, module->getBody());
  Type element = getCacheType(&context, options.io);
  auto tensor = [](ArrayRef<int64_t> shape, Type type) {
    return RankedTensorType::get(shape, type);
  };
  auto query =
      tensor({slots, options.queries, options.heads, options.headDim}, element);
  auto key = tensor({slots, options.queries, options.kvHeads, options.headDim},
                    element);
  auto positions = tensor({slots}, b.getI32Type());
  Type cached = getCacheType(&context, options.cache);
  auto cache = tensor({1, slots, options.kvHeads, capacity,
                       getCacheRow(options.headDim, cached)},
                      cached);
  auto func = func::FuncOp::create(
      b, "decode_step",
      b.getFunctionType({query, key, key, positions, cache, cache},
                        {query, cache, cache}));
  func->setAttr(KVRMDialect::getStepAttrName(), b.getUnitAttr());
  Block *body = func.addEntryBlock();
  b.setInsertionPointToStart(body);
  auto scale =
      static_cast<float>(1 / std::sqrt(static_cast<double>(options.headDim)));
  auto attention = CachedAttentionOp::create(
      b, TypeRange{query, cache, cache}, body->getArgument(0),
      body->getArgument(1), body->getArgument(2), body->getArgument(4),
      body->getArgument(5), body->getArgument(3), /*counts=*/Value(),
      /*slots=*/Value(), b.getI64IntegerAttr(0), b.getF32FloatAttr(scale),
      /*window=*/IntegerAttr(), /*softcap=*/FloatAttr());
  func::ReturnOp::create(b, attention.getResults());
  return module;
}

llvm::Expected<Source> kvrmc::attentionSource(const AttentionShape &shape) {
  if (llvm::Error error = checkOptions(shape))
    return error;
  Source source;
  source.build =
      [shape](MLIRContext &context) -> llvm::Expected<OwningOpRef<ModuleOp>> {
    return buildGraph(context, shape);
  };
  source.config.name = source.config.architecture = "attention";
  source.config.layers = 1;
  source.config.heads = shape.heads;
  source.config.kvHeads = shape.kvHeads;
  source.config.headDim = shape.headDim;
  source.config.context = graphCapacity;
  source.slots = graphSlots;
  source.capacity = graphCapacity;
  source.cache = shape.cache;
  source.io = shape.io;
  source.entries = {{"decode_step", graphSlots, shape.queries}};
  return source;
}
