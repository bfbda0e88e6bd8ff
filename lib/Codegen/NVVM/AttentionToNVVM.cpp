//===- AttentionToNVVM.cpp - Attention tile programs for NVIDIA GPUs ------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One warp at a time attends to a strip of 16 or 32 tokens of an item's tiles:
// strips are dealt to the warps of a block (of a cluster) in turn, and each
// warp keeps an online softmax state of its own in registers. Nothing is shared
// between warps until the end of an item, when their states merge.
//
//   ring      every warp owns `stages` strips of shared memory and keeps copies
//             of pages in flight into them, across items (PageRing.h)
//   products  of the matrix units, with all query rows of the item
//             (WarpAttention.h)
//   merge     warps through shared memory; blocks of a cluster by writing their
//             share to each other's shared memory, one cluster barrier; blocks
//             of the workqueue through partials in the L2. Those are mailboxes:
//             every word is a NaN that no one computes until it is written, so
//             that whoever merges waits for the words themselves, and who
//             writes them needs no fence, no counter and no answer.
//
// Two numbers. A strip is 8 KiB of K and V, at head_dim 64 and 128; at 3.0 TB/s
// over 132 multiprocessors one has 360 ns for it, 630 cycles of four
// schedulers. A strip of one query tile takes about 230 instructions: a tenth
// of what they issue. Bytes are the limit, so that what matters is that copies
// are in flight: 24 strips, 192 KiB, a multiprocessor. A strip of bytes has
// twice the tokens, and 80 instructions more for 16 of them.
//
//===----------------------------------------------------------------------===//

#include "../MaskedScore.h"
#include "DeviceKernel.h"
#include "PageRing.h"
#include "WarpAttention.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// How blocks find their work and merge.
enum class Assignment { Workqueue, Cluster };

/// Byte offsets into a block's shared memory.
struct SharedLayout {
  SharedLayout(const StripShape &strip, int64_t rows, int64_t headDim,
               int64_t warps, int64_t stages, Assignment assignment) {
    ring = 0;
    int64_t at = warps * stages * strip.stageBytes();
    rowFloats = headDim + 4; // four lanes' rows start in different banks
    accumulators = at;
    at += warps * rows * rowFloats * 4;
    received = at;
    if (assignment == Assignment::Cluster)
      at += rows * headDim * 4;
    receivedStates = at;
    if (assignment == Assignment::Cluster)
      at += KVRM_MAX_CLUSTER * rows * 8;
    states = at;
    at += warps * rows * 8;
    barriers = at;
    at += warps * stages * 8;
    bytes = at;
  }
  int64_t ring;           ///< [warps][stages][strip], at 0 for alignment
  int64_t accumulators;   ///< f32 [warps][rows][rowFloats]
  int64_t received;       ///< f32 x 4 [blocks of the cluster][slice]
  int64_t receivedStates; ///< (m, l) [blocks of the cluster][rows]
  int64_t states;         ///< (m, l) [warps][rows]
  int64_t barriers;       ///< mbarrier [warps][stages]
  int64_t bytes;
  int64_t rowFloats;
};

class AttentionLowering {
public:
  AttentionLowering(KernelOp kernel, gpu::GPUModuleOp module,
                    const DeviceOptions &options, Assignment assignment);
  void lower(const TileProgram &program);
  int64_t sharedBytes() const { return shared.bytes; }

private:
  // Shapes.
  /// Groups of four output elements; a thread merges one at a time.
  int64_t outputQuads() const { return rows * headDim / 4; }

  // Phases of the kernel.
  void start(const TileProgram &program);
  void forEachItem(function_ref<void()> body);
  void lowerProgram(const TileProgram &program);
  void lowerLoop(const TileLoop &tiles);

  // Parts of the tile program.
  void readRange();
  void storeSoftmax();

  // Merging.
  void storeWarpStates();
  void storeAccumulators(Value row, int64_t n, int64_t half);
  struct Merged {
    Value row;    ///< query row of the quad
    Value column; ///< its first head_dim
    Value maximum, sum;
    Quad acc;
  };
  Merged mergeWarps(Value quad);
  void mergeCluster();
  void mergeWorkqueue();
  /// Where one quad of a partial lies, and its row's (m, l), as its piece of
  /// the row has them.
  struct Mailbox {
    Value acc, state;
  };
  Mailbox mailboxOf(Value partial, Value quad);
  Value isFirstOfPiece(Value column);
  void postPartial(Value quad, const Merged &merged);
  void readSegment();
  void finishSegment();
  struct MergeState;
  void awaitPartials(const MergeState &state, ArrayRef<Mailbox> mailboxes);
  void emptyMailboxes(ArrayRef<Mailbox> mailboxes, Value column,
                      function_ref<Value(int64_t)> isThere);
  void addPartials(const MergeState &state, Value begin, Value count);
  void mergePartials(Value first, Value count);
  void writeOutput(Value row, Value column, const Quad &acc, Value sum);
  /// Address of a part of the block's shared memory.
  Value sharedAt(int64_t offset) { return b.add(sharedBase, offset); }
  Value rescale(Value from, Value to) { return b.exp2(b.fsub(from, to)); }
  Quad scaleAdd(const Quad &sum, const Quad &acc, Value weight);

  KernelOp kernel;
  PoolType pool;
  DeviceOptions options;
  Assignment assignment;
  int64_t rows, headDim, group;
  StripShape strip;
  int64_t stages;
  SharedLayout shared;
  DeviceKernel device;
  DeviceBuilder &b;

  Value sharedBase, thread, lane, warp;
  Value blocks, rank; ///< of the cluster; 1 and 0 in the workqueue
  std::optional<PageRing> ring;
  ItemReader items;
  Value itemBegin, itemEnd;
  // The segment that the block's first item ends; no partials if it ends none.
  WorkItemVariables ended;
  Variable firstPartial, partialCount;

  // The item being attended to.
  Variable itemIndex;
  WorkItemVariables item;
  Variable nextStrip;      ///< of this warp
  Variable dealt;          ///< strips of the items before
  StripRange range;        ///< of its tiles
  WarpAttention attention; ///< of all query rows, in every warp
};

} // namespace

static int64_t chooseStages(const StripShape &strip, int64_t rows,
                            int64_t headDim, const DeviceOptions &options,
                            Assignment assignment) {
  if (options.stages > 0)
    return options.stages;
  int64_t stages = 1;
  while (stages < 8 && SharedLayout(strip, rows, headDim, options.warps,
                                    stages + 1, assignment)
                               .bytes <= options.sharedBytes())
    ++stages;
  return stages;
}

static DeviceRole roleOf(KernelOp kernel, Assignment assignment) {
  if (assignment == Assignment::Cluster)
    return DeviceRole::AttendCluster;
  return kernel.getTransport() == Transport::Staged
             ? DeviceRole::AttendWorkqueueStaged
             : DeviceRole::AttendWorkqueue;
}

AttentionLowering::AttentionLowering(KernelOp kernel, gpu::GPUModuleOp module,
                                     const DeviceOptions &options,
                                     Assignment assignment)
    : kernel(kernel), pool(kernel.getPool()), options(options),
      assignment(assignment), rows(kernel.getQueryRows()),
      headDim(pool.getHeadDim()), group(kernel.getGroupSize()), strip(pool),
      stages(chooseStages(strip, rows, headDim, options, assignment)),
      shared(strip, rows, headDim, options.warps, stages, assignment),
      device(module, kernel.getLoc(),
             deviceKernelName(kernel.getSymName(), roleOf(kernel, assignment)),
             roleOf(kernel, assignment), options.warps * kWarpLanes,
             shared.bytes, options),
      b(device.b), items(device, kernel, strip),
      attention(device, kernel, options, strip, rows) {}

//===----------------------------------------------------------------------===//
// The kernel around the tile program
//===----------------------------------------------------------------------===//

void AttentionLowering::start(const TileProgram &program) {
  sharedBase = device.sharedMemory();
  thread = b.threadId();
  lane = b.bitAnd(thread, kWarpLanes - 1);
  warp = b.shuffle(b.shiftRight(thread, 5), b.i32(0)); // now the same in all
  attention.start(lane, Value(), program);

  Value work; // of the block, or of the cluster
  if (assignment == Assignment::Cluster && options.isHopper()) {
    blocks = b.clusterSize();
    rank = b.clusterRank();
    work = b.div(b.blockId(), blocks);
    b.arriveCluster();
  } else {
    blocks = b.i32(1);
    rank = b.i32(0);
    work = b.blockId();
  }
  Value turn = b.add(b.mul(warp, blocks), rank);
  Value warps = b.mul(blocks, options.warps);

  ring.emplace(
      device, kernel, options, stages, lane, turn, warps,
      b.add(b.mul(warp, stages * strip.stageBytes()), sharedAt(shared.ring)),
      b.add(b.mul(warp, stages * 8), sharedAt(shared.barriers)));
  item = WorkItemVariables(b);
  if (assignment == Assignment::Cluster) {
    itemBegin = b.i32(0);
    itemEnd = b.i32(1);
    items.setFromOutput(item, work);
  } else {
    std::tie(itemBegin, itemEnd) = items.setFromShare(item, work);
  }
  itemIndex = b.variable(itemBegin);
  nextStrip = b.variable(b.getI32Type());
  dealt = b.variable(b.i32(0));
  ring->begin(items, item, itemBegin, itemEnd);
  // History that earlier steps wrote may be fetched before the kernels that
  // make this step's queries, keys and values have finished. A staging copy is
  // itself the work of such a kernel.
  if (options.isHopper()) {
    if (kernel.getTransport() == Transport::Native)
      ring->fill(/*onlyHistory=*/true);
    b.launchDependents();
  }
  if (assignment == Assignment::Workqueue)
    readSegment();
  if (options.isHopper())
    b.waitForPrerequisites();
  ring->fill(/*onlyHistory=*/false);

  attention.makeState();
}

void AttentionLowering::forEachItem(function_ref<void()> body) {
  if (assignment == Assignment::Cluster) {
    // Nothing to do for an idle row, or a query tile past the row's tokens.
    Value firstToken = b.mul(item.queryTile.get(), kernel.getTile().getQ());
    b.ifThen(b.lessThan(firstToken, item.count.get()), body);
    return;
  }
  b.whileLoop([&] { return b.lessThan(itemIndex.get(), itemEnd); },
              [&] {
                body();
                Value next = b.add(itemIndex.get(), 1);
                itemIndex.set(next);
                b.ifThen(b.lessThan(next, itemEnd),
                         [&] { items.setFromItem(item, next); });
              });
}

void AttentionLowering::lower(const TileProgram &program) {
  start(program);
  if (assignment == Assignment::Cluster && options.isHopper())
    b.waitCluster(); // all blocks have started: their memory may be written
  forEachItem([&] { lowerProgram(program); });
  if (assignment == Assignment::Workqueue)
    finishSegment();
  device.finish();
}

void AttentionLowering::lowerProgram(const TileProgram &program) {
  readRange();
  attention.loadQuery(item);
  attention.initSoftmax();
  for (const TileLoop &tiles : program.loops)
    lowerLoop(tiles);
  attention.finish();
  storeSoftmax();
}

/// A loop over tiles becomes one over this warp's strips of them. The loops of
/// an item share one cursor: where one stops the next goes on.
void AttentionLowering::lowerLoop(const TileLoop &tiles) {
  Value end = range.boundOf(tiles.end);
  b.whileLoop([&] { return b.lessThan(nextStrip.get(), end); },
              [&] {
                attention.attend(range, ring->waitForStrip(), nextStrip.get(),
                                 tiles);
                b.syncWarp(); // all lanes have read the stage
                ring->release();
                nextStrip.set(ring->stripAfter(nextStrip.get()));
              });
}

void AttentionLowering::readRange() {
  range = items.rangeOf(item);
  nextStrip.set(ring->firstStripOf(range, dealt.get()));
  dealt.set(b.add(dealt.get(), b.sub(range.end, range.begin)));
}

//===----------------------------------------------------------------------===//
// Merging
//===----------------------------------------------------------------------===//

void AttentionLowering::storeSoftmax() {
  // States of the item before have been read.
  if (assignment == Assignment::Workqueue)
    b.ifThen(b.lessThan(itemBegin, itemIndex.get()), [&] { b.syncBlock(); });
  storeWarpStates();
  b.syncBlock();
  if (assignment == Assignment::Cluster)
    mergeCluster();
  else
    mergeWorkqueue();
}

/// Writes this warp's state to shared memory.
void AttentionLowering::storeWarpStates() {
  const StateRegisters &state = attention.state;
  Value laneRow = attention.laneRow, laneColumn = attention.laneColumn;
  for (int64_t n = 0; n < attention.queryColumns(); ++n)
    for (int64_t half = 0; half < 2; ++half) {
      Value sum = attention.sumOfRow(n, half);
      Value row = b.add(b.shiftLeft(laneColumn, 1), 8 * n + half);
      Value index = b.add(b.mul(warp, rows), row);
      b.ifThen(b.lessThan(row, rows), [&] {
        b.ifThen(b.equal(laneRow, 0), [&] {
          b.storeShared(b.pack({state.maximum[n][half].get(), sum}),
                        b.add(b.shiftLeft(index, 3), sharedAt(shared.states)),
                        8);
        });
        storeAccumulators(b.add(b.mul(index, shared.rowFloats * 4),
                                sharedAt(shared.accumulators)),
                          n, half);
      });
    }
}

/// Writes a row's accumulators of the lane to that row in shared memory.
void AttentionLowering::storeAccumulators(Value row, int64_t n, int64_t half) {
  bool areNeighbours = attention.isOfBytes();
  Value base =
      b.add(row, b.shiftLeft(attention.laneRow, areNeighbours ? 3 : 2));
  for (int64_t i = 0; i < attention.dimBlocks(); ++i) {
    const auto &acc = attention.state.acc[n][i];
    Value lower = acc[half].get(), upper = acc[2 + half].get();
    if (areNeighbours) {
      b.storeShared(b.pack({lower, upper}), b.add(base, 16 * i * 4), 8);
      continue;
    }
    b.storeShared(lower, b.add(base, 16 * i * 4), 4);
    b.storeShared(upper, b.add(base, (16 * i + 8) * 4), 4);
  }
}

Quad AttentionLowering::scaleAdd(const Quad &sum, const Quad &acc,
                                 Value weight) {
  Quad result;
  for (int64_t i = 0; i < 4; ++i)
    result[i] = b.fma(acc[i], weight, sum[i]);
  return result;
}

static Quad toQuad(ArrayRef<Value> values) {
  return {values[0], values[1], values[2], values[3]};
}

/// Merges the warps' states of one quad of the output.
AttentionLowering::Merged AttentionLowering::mergeWarps(Value quad) {
  Merged merged;
  merged.row = b.div(quad, headDim / 4);
  merged.column = b.shiftLeft(b.rem(quad, headDim / 4), 2);
  SmallVector<SmallVector<Value>> states;
  auto pairType = VectorType::get({2}, b.getF32Type());
  auto quadType = VectorType::get({4}, b.getF32Type());
  for (int64_t w = 0; w < options.warps; ++w) {
    Value index = b.add(merged.row, w * rows);
    states.push_back(b.unpack(b.loadShared(
        pairType, b.add(b.shiftLeft(index, 3), sharedAt(shared.states)), 8)));
    Value maximum = states.back()[0];
    merged.maximum = w ? b.fmax(merged.maximum, maximum) : maximum;
  }
  Value zero = b.f32(0);
  merged.sum = zero;
  merged.acc = {zero, zero, zero, zero};
  for (int64_t w = 0; w < options.warps; ++w) {
    Value weight = rescale(states[w][0], merged.maximum);
    merged.sum = b.fma(states[w][1], weight, merged.sum);
    Value index = b.add(merged.row, w * rows);
    Value address = b.add(b.add(b.mul(index, shared.rowFloats * 4),
                                sharedAt(shared.accumulators)),
                          b.shiftLeft(merged.column, 2));
    merged.acc =
        scaleAdd(merged.acc,
                 toQuad(b.unpack(b.loadShared(quadType, address, 16))), weight);
  }
  return merged;
}

/// Writes acc / sum of one quad, if the query token is one of the step's.
void AttentionLowering::writeOutput(Value row, Value column, const Quad &acc,
                                    Value sum) {
  Value token = b.add(b.mul(item.queryTile.get(), kernel.getTile().getQ()),
                      b.div(row, group));
  b.ifThen(b.lessThan(token, item.count.get()), [&] {
    Value inverse = b.reciprocal(sum);
    Value low = b.roundPair(b.fmul(acc[0], inverse), b.fmul(acc[1], inverse),
                            kernel.getIo());
    Value high = b.roundPair(b.fmul(acc[2], inverse), b.fmul(acc[3], inverse),
                             kernel.getIo());
    Value element = b.add(queryElement(b, kernel, item, row), b.widen(column));
    b.store(b.pack({low, high}),
            b.at(device.parameter(offsetof(kvrm_device_args, out)),
                 b.mul(element, kIoBytes)),
            8);
  });
}

/// Every block writes each quad of its state to the block that finishes it;
/// after one cluster barrier all that a block reads is its own.
void AttentionLowering::mergeCluster() {
  int64_t quads = outputQuads();
  Value threads = b.i32(options.warps * kWarpLanes);
  Value slice = b.div(b.i32(quads), blocks);
  b.forLoop(thread, b.i32(quads), threads, [&](Value quad) {
    Merged merged = mergeWarps(quad);
    b.ifThenElse(
        b.equal(blocks, 1),
        [&] { writeOutput(merged.row, merged.column, merged.acc, merged.sum); },
        [&] {
          if (!options.isHopper())
            return;
          Value target = b.div(quad, slice), inSlice = b.rem(quad, slice);
          Value received = b.add(b.mul(rank, slice), inSlice);
          b.storeRemote(
              b.pack(ArrayRef<Value>(merged.acc)),
              b.add(b.shiftLeft(received, 4), sharedAt(shared.received)),
              target, 16);
          Value isFirst =
              b.bitOr(b.equal(merged.column, 0), b.equal(inSlice, 0));
          b.ifThen(isFirst, [&] {
            Value index = b.add(b.mul(rank, rows), merged.row);
            b.storeRemote(
                b.pack({merged.maximum, merged.sum}),
                b.add(b.shiftLeft(index, 3), sharedAt(shared.receivedStates)),
                target, 8);
          });
        });
  });
  if (!options.isHopper())
    return;
  b.ifThen(b.lessThan(b.i32(1), blocks), [&] {
    b.arriveCluster();
    b.waitCluster();
    auto pairType = VectorType::get({2}, b.getF32Type());
    auto quadType = VectorType::get({4}, b.getF32Type());
    b.forLoop(thread, slice, threads, [&](Value inSlice) {
      Value quad = b.add(b.mul(rank, slice), inSlice);
      Value row = b.div(quad, headDim / 4);
      Value column = b.shiftLeft(b.rem(quad, headDim / 4), 2);
      // All loads first; blocks that are not there have weight 0.
      SmallVector<SmallVector<Value>> states, values;
      Value maximum, sum = b.f32(0);
      Quad acc = {sum, sum, sum, sum};
      for (int64_t i = 0; i < KVRM_MAX_CLUSTER; ++i) {
        Value from = b.min(b.i32(i), b.sub(blocks, 1));
        states.push_back(b.unpack(
            b.loadShared(pairType,
                         b.add(b.shiftLeft(b.add(b.mul(from, rows), row), 3),
                               sharedAt(shared.receivedStates)),
                         8)));
        values.push_back(b.unpack(b.loadShared(
            quadType,
            b.add(b.shiftLeft(b.add(b.mul(from, slice), inSlice), 4),
                  sharedAt(shared.received)),
            16)));
        maximum = i ? b.fmax(maximum, states[i][0]) : states[i][0];
      }
      for (int64_t i = 0; i < KVRM_MAX_CLUSTER; ++i) {
        Value weight = b.select(b.lessThan(b.i32(i), blocks),
                                rescale(states[i][0], maximum), b.f32(0));
        sum = b.fma(states[i][1], weight, sum);
        acc = scaleAdd(acc, toQuad(values[i]), weight);
      }
      writeOutput(row, column, acc, sum);
    });
  });
}

/// A whole item goes to the output, a part of one to its partial.
void AttentionLowering::mergeWorkqueue() {
  b.forLoop(thread, b.i32(outputQuads()), b.i32(options.warps * kWarpLanes),
            [&](Value quad) {
              Merged merged = mergeWarps(quad);
              b.ifThenElse(
                  b.lessThan(item.partial.get(), 0),
                  [&] {
                    writeOutput(merged.row, merged.column, merged.acc,
                                merged.sum);
                  },
                  [&] { postPartial(quad, merged); });
            });
}

/// The words of floats, none of which is KVRM_EMPTY_PARTIAL: that NaN becomes
/// another.
static Value mailboxWords(DeviceBuilder &b, ArrayRef<Value> floats) {
  SmallVector<Value> words;
  for (Value value : floats)
    words.push_back(arith::MinUIOp::create(
        b, LLVM::BitcastOp::create(b, b.getI32Type(), value),
        b.i32(static_cast<int32_t>(KVRM_EMPTY_PARTIAL - 1))));
  return b.pack(words);
}

AttentionLowering::Mailbox AttentionLowering::mailboxOf(Value partial,
                                                        Value quad) {
  Value base = b.at(
      device.parameter(offsetof(kvrm_device_args, partials)),
      b.mul(b.widen(partial), kvrm_device_partial_floats(rows, headDim) * 4));
  Value piece = b.div(quad, kvrm_piece_floats(headDim) / 4);
  return {b.at(base, b.widen(b.shiftLeft(quad, 4))),
          b.at(b.at(base, b.widen(b.shiftLeft(piece, 3))), rows * headDim * 4)};
}

/// Whether the quad at `column` is the one that brings (m, l) of its piece.
Value AttentionLowering::isFirstOfPiece(Value column) {
  return b.equal(b.rem(column, kvrm_piece_floats(headDim)), 0);
}

void AttentionLowering::postPartial(Value quad, const Merged &merged) {
  Mailbox mailbox = mailboxOf(item.partial.get(), quad);
  b.storeVolatile(mailboxWords(b, merged.acc), mailbox.acc, 16);
  b.ifThen(isFirstOfPiece(merged.column), [&] {
    b.storeVolatile(mailboxWords(b, {merged.maximum, merged.sum}),
                    mailbox.state, 8);
  });
}

/// Finds out, long before it is needed, whether the block's first item ends a
/// segment.
void AttentionLowering::readSegment() {
  ended = WorkItemVariables(b);
  ended.copy(item);
  firstPartial = b.variable(b.i32(0));
  partialCount = b.variable(b.i32(0));
  Value segment = item.segment.get();
  b.ifThen(
      b.bitAnd(b.lessThan(itemBegin, itemEnd), b.lessThan(b.i32(-1), segment)),
      [&] {
        Value record =
            b.at(device.parameter(offsetof(kvrm_device_args, segments)),
                 b.mul(b.widen(segment), sizeof(kvrm_merge_segment)));
        auto field = [&](size_t offset) {
          return b.load(b.getI32Type(),
                        b.at(record, static_cast<int64_t>(offset)), 4);
        };
        Value first = field(offsetof(kvrm_merge_segment, first_partial));
        Value count = field(offsetof(kvrm_merge_segment, partials));
        Value isEnd =
            b.equal(item.partial.get(), b.sub(b.add(first, count), 1));
        firstPartial.set(first);
        partialCount.set(b.select(isEnd, count, b.i32(0)));
      });
}

/// A block that has done all its items merges the segment that its first item
/// ends, if it ends one: earlier blocks have posted, or will post, the other
/// parts (the merge rule, abi/partial.h). Decoupled look-back scans and
/// stream-K products of matrices rest on the order in which blocks start, too.
void AttentionLowering::finishSegment() {
  Value count = partialCount.get();
  b.ifThen(b.lessThan(b.i32(0), count), [&] {
    item.copy(ended);
    mergePartials(firstPartial.get(), count);
  });
}

/// A quad of a row while partials are added up, and the partials of a batch.
struct AttentionLowering::MergeState {
  /// So many partials are awaited at once. One row of 8 KV heads on 132
  /// multiprocessors has up to 18 a head: one trip to the L2 is enough.
  static constexpr int64_t batch = 18;

  Variable maximum, sum;
  std::array<Variable, 4> acc;
  std::array<std::array<Variable, 6>, batch> words; ///< acc, then m and l

  explicit MergeState(DeviceBuilder &b)
      : maximum(b.variable(b.getF32Type())), sum(b.variable(b.getF32Type())) {
    for (Variable &element : acc)
      element = b.variable(b.getF32Type());
    for (auto &partial : words)
      for (Variable &word : partial)
        word = b.variable(b.getI32Type());
  }
  /// Before any partial.
  void reset(DeviceBuilder &b) const {
    maximum.set(b.f32(kMaskedScore));
    sum.set(b.f32(0));
    for (const Variable &element : acc)
      element.set(b.f32(0));
  }
  Value floatOf(DeviceBuilder &b, int64_t partial, int64_t word) const {
    return LLVM::BitcastOp::create(b, b.getF32Type(),
                                   words[partial][word].get());
  }
};

/// Reads mailboxes until none holds an empty word.
void AttentionLowering::awaitPartials(const MergeState &state,
                                      ArrayRef<Mailbox> mailboxes) {
  auto pairType = VectorType::get({2}, b.getI32Type());
  auto quadType = VectorType::get({4}, b.getI32Type());
  b.whileLoop(
      [&] {
        Value largest;
        for (auto [mailbox, words] : llvm::zip_equal(mailboxes, state.words)) {
          SmallVector<Value> loaded =
              b.unpack(b.loadVolatile(quadType, mailbox.acc, 16));
          loaded.append(b.unpack(b.loadVolatile(pairType, mailbox.state, 8)));
          for (auto [word, variable] : llvm::zip_equal(loaded, words)) {
            variable.set(word);
            largest = largest
                          ? arith::MaxUIOp::create(b, largest, word).getResult()
                          : word;
          }
        }
        return b.equal(largest, static_cast<int32_t>(KVRM_EMPTY_PARTIAL));
      },
      [] {});
}

/// The next launch expects its mailboxes empty. `isThere` says of a partial of
/// the batch whether this lane read one.
void AttentionLowering::emptyMailboxes(ArrayRef<Mailbox> mailboxes,
                                       Value column,
                                       function_ref<Value(int64_t)> isThere) {
  Value empty = b.i32(static_cast<int32_t>(KVRM_EMPTY_PARTIAL));
  for (auto [i, mailbox] : llvm::enumerate(mailboxes))
    b.ifThen(isThere(static_cast<int64_t>(i)), [&, &mailbox = mailbox] {
      b.store(b.pack({empty, empty, empty, empty}), mailbox.acc, 16);
      b.ifThen(isFirstOfPiece(column),
               [&] { b.store(b.pack({empty, empty}), mailbox.state, 8); });
    });
}

/// Adds a batch of partials, those from `begin` to `count`.
void AttentionLowering::addPartials(const MergeState &state, Value begin,
                                    Value count) {
  Value next = state.maximum.get();
  for (int64_t i = 0; i < MergeState::batch; ++i)
    next = b.fmax(next, state.floatOf(b, i, 4));
  Value keep = rescale(state.maximum.get(), next);
  state.maximum.set(next);
  Value total = b.fmul(state.sum.get(), keep);
  Quad merged;
  for (size_t j = 0; j < merged.size(); ++j)
    merged[j] = b.fmul(state.acc[j].get(), keep);
  for (int64_t i = 0; i < MergeState::batch; ++i) {
    Value isThere = b.lessThan(b.add(begin, i), count);
    Value weight =
        b.select(isThere, rescale(state.floatOf(b, i, 4), next), b.f32(0));
    total = b.fma(state.floatOf(b, i, 5), weight, total);
    merged = scaleAdd(merged,
                      {state.floatOf(b, i, 0), state.floatOf(b, i, 1),
                       state.floatOf(b, i, 2), state.floatOf(b, i, 3)},
                      weight);
  }
  state.sum.set(total);
  for (size_t j = 0; j < merged.size(); ++j)
    state.acc[j].set(merged[j]);
}

void AttentionLowering::mergePartials(Value first, Value count) {
  MergeState state(b);
  int64_t quads = outputQuads();
  Value lastIndex = b.sub(count, 1);
  // Whole warps go on together: lanes wait for each other below, before they
  // empty what they have read. So a lane must wait for nothing that another
  // warp empties: a piece of a row is of one warp, and a lane without a quad
  // takes one of its own warp, the last.
  Value end = b.i32(llvm::alignTo(quads, kWarpLanes));
  Value threads = b.i32(options.warps * kWarpLanes);
  b.forLoop(thread, end, threads, [&](Value index) {
    Value isQuad = b.lessThan(index, quads);
    Value quad = quads % kWarpLanes ? b.min(index, b.i32(quads - 1)) : index;
    Value row = b.div(quad, headDim / 4);
    Value column = b.shiftLeft(b.rem(quad, headDim / 4), 2);
    state.reset(b);
    Value step = b.i32(MergeState::batch);
    b.forLoop(b.i32(0), count, step, [&](Value begin) {
      SmallVector<Mailbox> mailboxes;
      for (int64_t i = 0; i < MergeState::batch; ++i)
        mailboxes.push_back(
            mailboxOf(b.add(first, b.min(b.add(begin, i), lastIndex)), quad));
      awaitPartials(state, mailboxes);
      // All lanes have what they waited for.
      b.syncWarp();
      emptyMailboxes(mailboxes, column, [&](int64_t i) {
        return b.bitAnd(isQuad, b.lessThan(b.add(begin, i), count));
      });
      addPartials(state, begin, count);
    });
    b.ifThen(isQuad, [&] {
      writeOutput(row, column,
                  {state.acc[0].get(), state.acc[1].get(), state.acc[2].get(),
                   state.acc[3].get()},
                  state.sum.get());
    });
  });
}

LogicalResult kvrm::lowerAttentionToNVVM(KernelOp kernel,
                                         const TileProgram &program,
                                         gpu::GPUModuleOp module,
                                         DeviceOptions options) {
  if (options.warps == 0)
    options.warps = kvrm_head_shape_of(kernel.getPool().getHeadDim())->warps;
  for (Assignment assignment : {Assignment::Workqueue, Assignment::Cluster}) {
    // Staging is there to be measured; one schedule is enough for that.
    if (assignment == Assignment::Cluster &&
        kernel.getTransport() == Transport::Staged)
      continue;
    AttentionLowering lowering(kernel, module, options, assignment);
    if (lowering.sharedBytes() > options.sharedBytes())
      return kernel.emitOpError("needs ")
             << lowering.sharedBytes() << " bytes of shared memory a block; sm_"
             << options.sm << " has " << options.sharedBytes();
    lowering.lower(program);
  }
  return success();
}
