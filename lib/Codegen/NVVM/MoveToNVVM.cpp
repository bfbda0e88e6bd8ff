//===- MoveToNVVM.cpp - Kernels that move words and tokens ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "F8Codes.h"
#include "WorkItems.h"

#include <numeric>

using namespace mlir;
using namespace mlir::kvrm;

/// Threads of a block; enough for a token of 8 KV heads at head_dim 128 in one
/// go of 16 bytes a thread.
static constexpr int64_t kThreads = 256;

/// Thread i of the grid writes words i, i + threads of the grid, ..., then fed
/// words in the same way.
void kvrm::writeCommitKernel(Location loc, gpu::GPUModuleOp module,
                             const DeviceOptions &options) {
  DeviceKernel kernel(module, loc, deviceKernelName({}, DeviceRole::Commit),
                      DeviceRole::Commit, kThreads, 0, options);
  DeviceBuilder &b = kernel.b;
  Value delta = kernel.parameter(offsetof(kvrm_device_args, delta));
  Value descriptor = kernel.parameter(offsetof(kvrm_device_args, descriptor));
  Value words = b.load(b.getI32Type(),
                       b.at(delta, offsetof(kvrm_delta_header, words)), 4);
  Value fed =
      b.load(b.getI32Type(), b.at(delta, offsetof(kvrm_delta_header, fed)), 4);
  Value first = b.add(b.mul(b.blockId(), kThreads), b.threadId());
  Value step = b.mul(b.gridSize(), kThreads);
  auto loadWord = [&](Value index) {
    Value offset = b.add(b.mul(b.widen(index), sizeof(kvrm_delta_word)),
                         sizeof(kvrm_delta_header));
    return b.loadWords(b.at(delta, offset), 2);
  };
  auto storeWord = [&](Value index, Value value) {
    b.store(value, b.at(descriptor, b.shiftLeft(b.widen(index), 2)), 4);
  };
  b.forLoop(first, words, step, [&](Value index) {
    SmallVector<Value> word = loadWord(index);
    storeWord(word[0], word[1]);
  });
  b.forLoop(first, fed, step, [&](Value index) {
    SmallVector<Value> word = loadWord(b.add(words, index));
    Value next = b.load(descriptor.getType(),
                        b.at(delta, offsetof(kvrm_delta_header, next)), 8);
    Value token =
        b.load(b.getI32Type(), b.at(next, b.shiftLeft(b.widen(word[1]), 2)), 4);
    storeWord(word[0], b.max(token, b.i32(0)));
  });
  kernel.finish();
}

/// Block (x, y) appends query token y of row x, a chunk of 16 bytes of K and of
/// V a thread and turn.
/// The 16 bytes of a pool that elements from `source` on become.
static Value loadChunk(DeviceBuilder &b, F8Codes &codes, Value source,
                       bool isOfBytes) {
  auto chunkType = VectorType::get({4}, b.getI32Type());
  Value first = b.load(chunkType, source, 16);
  if (!isOfBytes)
    return first;
  SmallVector<Value> words = b.unpack(first);
  words.append(b.unpack(b.load(chunkType, b.at(source, 16), 16)));
  SmallVector<Value> packed;
  for (size_t i = 0; i < words.size(); i += 2) {
    auto codesOf = [&](Value word) -> Value {
      return arith::ExtUIOp::create(b, b.getI32Type(), codes.narrowPair(word));
    };
    Value low = codesOf(words[i]);
    packed.push_back(b.bitOr(low, b.shiftLeft(codesOf(words[i + 1]), 16)));
  }
  return b.pack(packed);
}

void kvrm::lowerAppendToNVVM(KernelOp source, gpu::GPUModuleOp module,
                             const DeviceOptions &options) {
  DeviceKernel kernel(module, source.getLoc(),
                      deviceKernelName(source.getSymName(), DeviceRole::Append),
                      DeviceRole::Append, kThreads, 0, options);
  DeviceBuilder &b = kernel.b;
  PoolType pool = source.getPool();
  StripShape strip(pool);
  F8Codes codes(b, options, source.getIo());
  bool isOfBytes = strip.elementBytes == 1;
  int64_t chunksPerHead = strip.rowBytes() / KVRM_CHUNK_BYTES;
  Value row = b.blockId(), token = b.blockIdY();
  // The attention that follows may fetch history while tokens arrive.
  waitForInputs(b, options);
  PageSlot slot(b, pool,
                {kernel.parameter(offsetof(kvrm_device_args, rows)),
                 kernel.parameter(offsetof(kvrm_device_args, tables)),
                 kernel.parameter(offsetof(kvrm_device_args, pages_per_slot))},
                row, token);
  b.ifThen(slot.isThere(), [&] {
    Value tokenIndex =
        b.add(b.mul(row, source.getDescriptorType().getQueries()), token);
    Value from = b.mul(b.widen(tokenIndex),
                       pool.getKvHeads() * pool.getHeadDim() * kIoBytes);
    b.forLoop(
        b.threadId(), b.i32(pool.getKvHeads() * chunksPerHead), b.i32(kThreads),
        [&](Value chunk) {
          Value head = b.div(chunk, chunksPerHead);
          Value inHead = b.sub(chunk, b.mul(head, chunksPerHead));
          Value stride =
              kernel.parameter(offsetof(kvrm_device_args, head_stride));
          Value to =
              b.add(b.mul(b.widen(head), stride), slot.offsetOfChunk(inHead));
          Value at =
              b.add(from, b.widen(b.shiftLeft(chunk, isOfBytes ? 5 : 4)));
          for (auto [source, pool] :
               {std::pair(offsetof(kvrm_device_args, k),
                          offsetof(kvrm_device_args, k_pool)),
                std::pair(offsetof(kvrm_device_args, v),
                          offsetof(kvrm_device_args, v_pool))})
            b.store(loadChunk(b, codes, b.at(kernel.parameter(source), at),
                              isOfBytes),
                    b.at(kernel.parameter(pool), to), 16);
        });
  });
  kernel.finish();
}

/// Each warp copies a transfer group of one KV head, of K or of V, to where the
/// group's row has its pages in order: 16 bytes a lane, several in flight.
void kvrm::writeStageKernel(KernelOp source, gpu::GPUModuleOp module,
                            const DeviceOptions &options) {
  DeviceKernel kernel(module, source.getLoc(),
                      deviceKernelName(source.getSymName(), DeviceRole::Stage),
                      DeviceRole::Stage, kThreads, 0, options);
  DeviceBuilder &b = kernel.b;
  PoolType pool = source.getPool();
  constexpr int64_t step = KVRM_CHUNK_BYTES * kWarpLanes;
  // A page is whole rounds of so many steps.
  int64_t inFlight = std::gcd(pool.getPageBytes() / step, 4);
  waitForInputs(b, options);
  Value lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  Value warp = b.add(b.mul(b.blockId(), kThreads / kWarpLanes),
                     b.shiftRight(b.threadId(), 5));
  Value warps = b.mul(b.gridSize(), kThreads / kWarpLanes);
  Value groups =
      b.load(b.getI32Type(),
             b.at(kernel.parameter(offsetof(kvrm_device_args, descriptor)),
                  offsetof(kvrm_descriptor_header, groups)),
             4);
  Value perSlot = kernel.parameter(offsetof(kvrm_device_args, pages_per_slot));
  auto chunkType = VectorType::get({4}, b.getI32Type());
  b.forLoop(warp, b.mul(groups, 2 * pool.getKvHeads()), warps, [&](Value unit) {
    Value half = b.bitAnd(unit, 1);
    Value pair = b.shiftRight(unit, 1);
    Value index = b.div(pair, pool.getKvHeads());
    Value head = b.sub(pair, b.mul(index, pool.getKvHeads()));
    // row, logical_page, physical_page, pages
    SmallVector<Value> group =
        b.loadWords(b.at(kernel.parameter(offsetof(kvrm_device_args, groups)),
                         b.mul(b.widen(index), sizeof(kvrm_group))),
                    4);
    Value isValue = b.equal(half, 1);
    auto pick = [&](size_t keys, size_t values) {
      return b.select(isValue, kernel.parameter(values),
                      kernel.parameter(keys));
    };
    Value headOffset =
        b.mul(b.widen(head),
              kernel.parameter(offsetof(kvrm_device_args, head_stride)));
    Value laneOffset = b.add(headOffset, b.widen(b.shiftLeft(lane, 4)));
    Value from =
        b.at(pick(offsetof(kvrm_device_args, k_pool),
                  offsetof(kvrm_device_args, v_pool)),
             b.add(laneOffset, b.mul(b.widen(group[2]), pool.getPageBytes())));
    Value page = b.add(b.mul(b.widen(group[0]), perSlot), b.widen(group[1]));
    Value to = b.at(pick(offsetof(kvrm_device_args, staged_k),
                         offsetof(kvrm_device_args, staged_v)),
                    b.add(laneOffset, b.mul(page, pool.getPageBytes())));
    b.forLoop(b.i32(0), b.mul(group[3], pool.getPageBytes()),
              b.i32(inFlight * step), [&](Value offset) {
                SmallVector<Value> chunks;
                Value at = b.widen(offset);
                for (int64_t i = 0; i < inFlight; ++i)
                  chunks.push_back(
                      b.load(chunkType, b.at(b.at(from, at), i * step), 16));
                for (int64_t i = 0; i < inFlight; ++i)
                  b.store(chunks[i], b.at(b.at(to, at), i * step), 16);
              });
  });
  kernel.finish();
}
