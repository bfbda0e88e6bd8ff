//===- PromptAttentionToNVVM.cpp - Attention of many query rows -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What AttentionToNVVM.cpp does for a token it would do for each few tokens of
// a prompt: read all of the history. Here the warps of a block have query rows
// of their own, up to 128 together, and share the tiles that they attend to. A
// block has one query tile of one KV head from its first token to its last;
// nothing is merged.
//
//   producer  a warp of its own copies tiles of 64 tokens, K and V, page by
//             page, to a ring of shared memory
//   consumers each warp takes in every tile with its rows (WarpAttention.h)
//   barriers  a tile's `full` completes by its bytes; its `empty` when every
//             consumer has read it
//
// Two numbers, at head_dim 128. A tile of 64 tokens is 32 KiB, and 128 rows do
// 4.2 MFLOP with it: 128 operations a byte from the L2 cache, where 16 rows do
// 16. Each of eight warps reads the tile from shared memory, at 128 bytes a
// cycle 2048 cycles for all; the matrix units of a multiprocessor, 4096
// operations a cycle, need 1024 for the products. So half of their peak, 500
// TFLOP/s, is what this shape can reach.
//
//===----------------------------------------------------------------------===//

#include "DeviceKernel.h"
#include "WarpAttention.h"

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Byte offsets into a block's shared memory.
struct SharedLayout {
  SharedLayout(const StripShape &tile, int64_t stages)
      : full(stages * tile.stageBytes()), empty(full + stages * 8),
        bytes(empty + stages * 8) {}
  int64_t full;  ///< mbarrier [stages]; the ring is before it, at 0
  int64_t empty; ///< mbarrier [stages]
  int64_t bytes;
};

/// A place in the ring, and how often it has been gone round.
struct RingPosition {
  RingPosition(DeviceBuilder &b, int64_t parity)
      : stage(b.variable(b.i32(0))), parity(b.variable(b.i32(parity))) {}
  void advance(DeviceBuilder &b, int64_t stages) {
    Value next = b.add(stage.get(), 1);
    Value isRound = b.equal(next, stages);
    parity.set(b.select(isRound, b.bitXor(parity.get(), 1), parity.get()));
    stage.set(b.select(isRound, b.i32(0), next));
  }
  Variable stage, parity;
};

class PromptLowering {
public:
  PromptLowering(KernelOp kernel, gpu::GPUModuleOp module,
                 const DeviceOptions &options, int64_t stages);
  void lower(const TileProgram &program);

private:
  Value stageAddress(Value stage) {
    return b.add(sharedBase, b.mul(stage, tile.stageBytes()));
  }
  Value barrier(int64_t offset, Value stage) {
    return b.add(b.add(sharedBase, offset), b.shiftLeft(stage, 3));
  }
  void initBarriers(Value thread);
  void produce();
  void copyTile(Value index, Value stage);
  void copyPage(Value token, Value page, Value stage);
  void copyScales(Value start, Value token, Value page, Value stage);
  void consume(const TileProgram &program);
  void writeRows();
  void storePairs(Value offset, ArrayRef<std::array<Value, 2>> pairs);

  KernelOp kernel;
  PoolType pool;
  int64_t rowsPerWarp, warps; ///< of the consumers
  StripShape tile;
  int64_t stages;
  SharedLayout shared;
  DeviceKernel device;
  DeviceBuilder &b;
  ItemReader items;
  WarpAttention attention;

  Value sharedBase, lane, warp, firstRow;
  WorkItemVariables item;
  StripRange range; ///< in tiles
};

} // namespace

static int64_t rowsPerWarpOf(KernelOp kernel) {
  return kvrm_head_shape_of(kernel.getPool().getHeadDim())->query_rows;
}

/// Tokens that warps attend to at once.
static StripShape tileOf(KernelOp kernel) {
  constexpr int64_t most = 64;
  return {kernel.getPool(), std::min(most, kernel.getTile().getKv())};
}

bool kvrm::isPromptKernel(KernelOp kernel) {
  return kernel.attends() && kernel.getTile().getQ() > 1 &&
         kernel.getQueryRows() > rowsPerWarpOf(kernel);
}

PromptLowering::PromptLowering(KernelOp kernel, gpu::GPUModuleOp module,
                               const DeviceOptions &options, int64_t stages)
    : kernel(kernel), pool(kernel.getPool()),
      rowsPerWarp(rowsPerWarpOf(kernel)),
      warps(kernel.getQueryRows() / rowsPerWarp), tile(tileOf(kernel)),
      stages(stages), shared(tile, stages),
      device(module, kernel.getLoc(),
             deviceKernelName(kernel.getSymName(), DeviceRole::AttendPrompt),
             DeviceRole::AttendPrompt, (warps + 1) * kWarpLanes, shared.bytes,
             options),
      b(device.b), items(device, kernel, tile),
      attention(device, kernel, options, tile, rowsPerWarp) {}

void PromptLowering::lower(const TileProgram &program) {
  sharedBase = device.sharedMemory();
  Value thread = b.threadId();
  lane = b.bitAnd(thread, kWarpLanes - 1);
  warp = b.shuffle(b.shiftRight(thread, 5), b.i32(0)); // now the same in all
  firstRow = b.mul(warp, rowsPerWarp);
  initBarriers(thread);
  // Pages of this step's tokens are among the first that some block reads.
  b.launchDependents();
  b.waitForPrerequisites();
  item = WorkItemVariables(b);
  items.setFromOutput(item, b.blockId());
  range = items.rangeOf(item);
  // Nothing to do for an idle row, or a query tile past the row's tokens.
  Value firstToken = b.mul(item.queryTile.get(), kernel.getTile().getQ());
  b.ifThen(b.lessThan(firstToken, item.count.get()), [&] {
    b.ifThenElse(
        b.equal(warp, warps), [&] { produce(); }, [&] { consume(program); });
  });
  device.finish();
}

void PromptLowering::initBarriers(Value thread) {
  b.ifThen(b.equal(thread, 0), [&] {
    for (int64_t stage = 0; stage < stages; ++stage) {
      b.initBarrier(barrier(shared.full, b.i32(stage)), 1);
      b.initBarrier(barrier(shared.empty, b.i32(stage)), warps);
    }
    b.fenceBarrierInit();
  });
  b.syncBlock();
}

//===----------------------------------------------------------------------===//
// The producer
//===----------------------------------------------------------------------===//

void PromptLowering::produce() {
  // Every place is empty at first: a wait for the round before ends at once.
  RingPosition at(b, /*parity=*/1);
  b.forLoop(range.begin, range.end, b.i32(1), [&](Value index) {
    b.waitBarrier(barrier(shared.empty, at.stage.get()), at.parity.get());
    copyTile(index, at.stage.get());
    at.advance(b, stages);
  });
}

/// Each lane copies one page of the tile, of those that there are.
void PromptLowering::copyTile(Value index, Value stage) {
  int64_t pageTokens = tile.tokens / tile.pages();
  int64_t pageBytes = pageTokens * (tile.rowBytes() + tile.scaleBytes);
  Value first = b.mul(index, tile.tokens);
  Value pages = b.min(b.divUp(b.sub(range.readEnd, first), pageTokens),
                      b.i32(tile.pages()));
  b.ifThen(b.equal(lane, 0), [&] {
    b.expectBytes(barrier(shared.full, stage), b.mul(pages, 2 * pageBytes));
  });
  b.syncWarp();
  b.ifThen(b.lessThan(lane, pages), [&] {
    copyPage(b.add(first, b.mul(lane, pageTokens)), lane, stage);
  });
}

/// K and V of the page, or part of a page, from `token` on, which is number
/// `page` of the tile.
void PromptLowering::copyPage(Value token, Value page, Value stage) {
  int64_t pageBytes = tile.halfBytes() / tile.pages();
  Value perSlot = device.parameter(offsetof(kvrm_device_args, pages_per_slot));
  Value entry = b.add(b.mul(b.widen(item.row.get()), perSlot),
                      b.widen(b.div(token, tile.page)));
  Value physical =
      b.load(b.getI32Type(),
             b.at(device.parameter(offsetof(kvrm_device_args, tables)),
                  b.shiftLeft(entry, 2)),
             4);
  Value head = b.mul(b.widen(item.kvHead.get()),
                     device.parameter(offsetof(kvrm_device_args, head_stride)));
  Value start = b.add(head, b.mul(b.widen(physical), tile.pageBytes()));
  Value offset = start;
  if (tile.tokens < tile.page)
    offset =
        b.add(offset, b.widen(b.mul(b.rem(token, tile.page), tile.rowBytes())));
  Value target = b.add(stageAddress(stage), b.mul(page, pageBytes));
  size_t half = 0;
  for (size_t source :
       {offsetof(kvrm_device_args, k_pool), offsetof(kvrm_device_args, v_pool)})
    b.bulkCopy(b.add(target, static_cast<int64_t>(half++) * tile.halfBytes()),
               b.at(device.parameter(source), offset), b.i32(pageBytes),
               barrier(shared.full, stage));
  if (tile.hasScales())
    copyScales(start, token, page, stage);
}

/// The same of their scales; `start` is where the page lies in the pool.
void PromptLowering::copyScales(Value start, Value token, Value page,
                                Value stage) {
  int64_t bytes = tile.tokens / tile.pages() * tile.scaleBytes;
  Value inPage = tile.scaleInPage(b, b.rem(token, tile.page));
  Value offset = b.add(start, b.widen(inPage));
  Value target = b.add(stageAddress(stage), b.mul(page, bytes));
  for (bool isValue : {false, true}) {
    size_t source = isValue ? offsetof(kvrm_device_args, v_pool)
                            : offsetof(kvrm_device_args, k_pool);
    b.bulkCopy(b.add(target, tile.scalesAt(isValue)),
               b.at(device.parameter(source), offset), b.i32(bytes),
               barrier(shared.full, stage));
  }
}

//===----------------------------------------------------------------------===//
// The consumers
//===----------------------------------------------------------------------===//

void PromptLowering::consume(const TileProgram &program) {
  attention.start(lane, firstRow, program);
  attention.makeState();
  attention.loadQuery(item);
  attention.initSoftmax();
  RingPosition at(b, /*parity=*/0);
  Variable index = b.variable(range.begin);
  for (const TileLoop &tiles : program.loops) {
    Value end = range.boundOf(tiles.end);
    b.whileLoop(
        [&] { return b.lessThan(index.get(), end); },
        [&] {
          Value stage = at.stage.get();
          b.waitBarrier(barrier(shared.full, stage), at.parity.get());
          attention.attend(range, stageAddress(stage), index.get(), tiles);
          b.syncWarp(); // all lanes have read the tile
          b.ifThen(b.equal(lane, 0),
                   [&] { b.arriveBarrier(barrier(shared.empty, stage)); });
          at.advance(b, stages);
          index.set(b.add(index.get(), 1));
        });
  }
  attention.finish();
  writeRows();
}

/// Writes acc / sum of the warp's rows, those of query tokens of the step: two
/// elements of a row a lane, after a transposition.
void PromptLowering::writeRows() {
  const StateRegisters &state = attention.state;
  for (int64_t n = 0; n < attention.queryColumns(); ++n) {
    std::array<Value, 2> inverse;
    for (int64_t half = 0; half < 2; ++half)
      inverse[half] = b.reciprocal(attention.sumOfRow(n, half));
    Value row = b.add(firstRow, b.add(attention.laneRow, 8 * n));
    Value token = b.add(b.mul(item.queryTile.get(), kernel.getTile().getQ()),
                        b.div(row, kernel.getGroupSize()));
    Value isThere = b.lessThan(token, item.count.get());
    // All lanes take part in a transposition, whatever they store after it.
    SmallVector<std::array<Value, 2>> pairs; ///< of each block, lower and upper
    for (const auto &acc : state.acc[n]) {
      auto transposed = [&](int64_t upper) {
        return b.transpose(b.roundPair(
            b.fmul(acc[2 * upper].get(), inverse[0]),
            b.fmul(acc[2 * upper + 1].get(), inverse[1]), kernel.getIo()));
      };
      Value lower = transposed(0);
      pairs.push_back({lower, transposed(1)});
    }
    b.ifThen(isThere, [&] {
      storePairs(b.mul(queryElement(b, kernel, item, row), kIoBytes), pairs);
    });
    b.syncWarp();
  }
}

/// Stores a row's elements of the lane, from byte `offset` of the output on. Of
/// block i it has 16i + 2t and the next, and those of 16i + 8 + 2t; over a
/// cache of bytes 16i + 4t and 16i + 4t + 2, and what is between and behind.
void PromptLowering::storePairs(Value offset,
                                ArrayRef<std::array<Value, 2>> pairs) {
  bool areNeighbours = attention.isOfBytes();
  Value column = b.shiftLeft(attention.laneColumn, areNeighbours ? 3 : 2);
  Value target = b.at(device.parameter(offsetof(kvrm_device_args, out)),
                      b.add(offset, b.widen(column)));
  int64_t block = 0;
  for (auto [lower, upper] : pairs) {
    Value at = b.at(target, 16 * kIoBytes * block++);
    if (areNeighbours) {
      b.store(b.pack({b.permuteBytes(lower, upper, 0x5410),
                      b.permuteBytes(lower, upper, 0x7632)}),
              at, 8);
      continue;
    }
    b.store(lower, at, 4);
    b.store(upper, b.at(at, 8 * kIoBytes), 4);
  }
}

void kvrm::lowerPromptAttentionToNVVM(KernelOp kernel,
                                      const TileProgram &program,
                                      gpu::GPUModuleOp module,
                                      const DeviceOptions &options) {
  // Tiles that wait hide a page's way from memory; more than six do not help.
  constexpr int64_t most = 6;
  int64_t stages = most;
  while (stages > 1 &&
         SharedLayout(tileOf(kernel), stages).bytes > options.sharedBytes())
    --stages;
  PromptLowering(kernel, module, options, stages).lower(program);
}
