//===- MoveToNVVM.cpp - Kernels that move words and tokens ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "F8Codes.h"
#include "WorkItems.h"

#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

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

namespace {

/// Writes the rows of a token to a pool with scales, a warp a row: of K, or of
/// V, of one KV head.
class ScaledAppend {
public:
  ScaledAppend(DeviceKernel &kernel, KernelOp source, PageSlot &slot)
      : kernel(kernel), b(kernel.b), io(source.getIo()), pool(source.getPool()),
        slot(slot) {}
  /// `from` is where the token's rows begin in k and in v.
  void write(Value from);

private:
  /// Elements of a lane that are loaded, and stored, at once.
  static constexpr int64_t kQuad = 4;

  Value pick(Value isValue, size_t keys, size_t values) {
    return b.select(isValue, kernel.parameter(values), kernel.parameter(keys));
  }
  void writeRow(Value source, Value target);
  SmallVector<Value> loadQuad(Value source, Value quad);
  Value codesOf(ArrayRef<Value> values, Value scale);

  DeviceKernel &kernel;
  DeviceBuilder &b;
  Type io;
  PoolType pool;
  PageSlot &slot;
  Value lane;
};

} // namespace

void ScaledAppend::write(Value from) {
  lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  Value warp = b.shiftRight(b.threadId(), 5);
  Value stride = kernel.parameter(offsetof(kvrm_device_args, head_stride));
  b.forLoop(warp, b.i32(2 * pool.getKvHeads()), b.i32(kThreads / kWarpLanes),
            [&](Value row) {
              Value isValue = b.equal(b.bitAnd(row, 1), 1);
              Value head = b.widen(b.shiftRight(row, 1));
              Value source =
                  b.at(pick(isValue, offsetof(kvrm_device_args, k),
                            offsetof(kvrm_device_args, v)),
                       b.add(from, b.mul(head, pool.getHeadDim() * kIoBytes)));
              writeRow(source,
                       b.at(pick(isValue, offsetof(kvrm_device_args, k_pool),
                                 offsetof(kvrm_device_args, v_pool)),
                            b.mul(head, stride)));
            });
}

/// Elements 4 * quad and the next three, in f32.
SmallVector<Value> ScaledAppend::loadQuad(Value source, Value quad) {
  Value at = b.at(source, b.widen(b.mul(quad, kQuad * kIoBytes)));
  SmallVector<Value> values;
  for (Value word : b.loadWords(at, 2))
    llvm::append_range(values, b.widenPair(word, io));
  return values;
}

/// Codes of four values, in a word.
Value ScaledAppend::codesOf(ArrayRef<Value> values, Value scale) {
  Value word;
  for (auto [i, value] : llvm::enumerate(values)) {
    Value code = arith::ExtUIOp::create(b, b.getI32Type(),
                                        narrowScaled(b, value, scale));
    word = i ? b.bitOr(word, b.shiftLeft(code, 8 * static_cast<int64_t>(i)))
             : code;
  }
  return word;
}

/// The row that starts at `source`; `target` is where the head's pages do.
void ScaledAppend::writeRow(Value source, Value target) {
  int64_t quads = pool.getHeadDim() / kQuad;
  struct Loaded {
    Value quad;
    SmallVector<Value> values;
  };
  SmallVector<Loaded> loaded;
  Value largest;
  for (int64_t first = 0; first < quads; first += kWarpLanes) {
    // A lane without a quad takes one that another has, and stores none.
    Value quad = b.add(lane, first);
    Value safe =
        first + kWarpLanes <= quads ? quad : b.min(quad, b.i32(quads - 1));
    loaded.push_back({quad, loadQuad(source, safe)});
    for (Value value : loaded.back().values) {
      Value size = magnitudesOf(b, value);
      largest = largest ? b.max(largest, size) : size;
    }
  }
  Value scale = scaleOfRow(b, b.maxOverWarp(largest));
  b.ifThen(b.equal(lane, 0),
           [&] { b.store(scale, b.at(target, slot.offsetOfScale()), 2); });
  Value wide = widenScales(b, scale);
  for (const Loaded &each : loaded)
    b.ifThen(b.lessThan(each.quad, quads), [&] {
      b.store(codesOf(each.values, wide),
              b.at(target, slot.offsetOf(b.mul(each.quad, kQuad))), kQuad);
    });
}

/// Block (x, y) appends query token y of row x: a chunk of 16 bytes of K and of
/// V a thread and turn, or, of codes with a scale, a row a warp.
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
    if (strip.hasScales())
      return ScaledAppend(kernel, source, slot).write(from);
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
  // A page is whole rounds of so many steps, unless scales are behind it: then
  // lanes that are past the group's end copy its last chunk again.
  int64_t inFlight =
      pool.hasScales() ? 1 : std::gcd(pool.getPageBytes() / step, 4);
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
    Value bytes = b.mul(group[3], pool.getPageBytes());
    b.forLoop(b.i32(0), bytes, b.i32(inFlight * step), [&](Value offset) {
      if (pool.hasScales())
        offset = b.min(offset, b.sub(b.sub(bytes, KVRM_CHUNK_BYTES),
                                     b.shiftLeft(lane, 4)));
      SmallVector<Value> chunks;
      Value at = b.widen(offset);
      for (int64_t i = 0; i < inFlight; ++i)
        chunks.push_back(b.load(chunkType, b.at(b.at(from, at), i * step), 16));
      for (int64_t i = 0; i < inFlight; ++i)
        b.store(chunks[i], b.at(b.at(to, at), i * step), 16);
    });
  });
  kernel.finish();
}
