//===- PageRing.h - Copies of pages in flight -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The shared memory of one warp, `stages` strips long, and the copies that fill
// it. The producer runs `stages` strips ahead of the consumer and crosses from
// one work item to the next, so that memory is never idle while there is work.
// Each strip is K, then V, then their scales, if the pool has some. On sm_90
// one lane starts two bulk copies a page, or four with scales, which complete
// on the stage's mbarrier; on sm_80 every lane copies chunks of 16 bytes, which
// complete in groups.
//
// Page numbers come from the block table, the next 32 strips' at a time, one in
// each lane.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_PAGERING_H
#define KVRM_CODEGEN_NVVM_PAGERING_H

#include "WorkItems.h"

namespace mlir::kvrm {

class PageRing {
public:
  /// `turn` is this warp's place among the `turns` warps that strips are dealt
  /// to; `memory` and `barriers` are shared addresses of the warp's own.
  PageRing(DeviceKernel &device, KernelOp kernel, const DeviceOptions &options,
           int64_t stages, Value lane, Value turn, Value turns, Value memory,
           Value barriers);

  /// Starts at `first`, item `begin` of items [begin, end).
  void begin(ItemReader &items, const WorkItemVariables &first, Value begin,
             Value end);
  /// Starts copies until the ring is full or there is nothing more; with
  /// `onlyHistory`, until a strip holds tokens of this step.
  void fill(bool onlyHistory);

  /// Waits for this warp's next strip; returns its shared address.
  Value waitForStrip();
  /// Gives the strip's memory back and starts the next copy into it. All lanes
  /// have finished reading.
  void release();

  /// This warp's first strip of an item, when `dealt` strips came before it.
  Value firstStripOf(const StripRange &range, Value dealt);
  Value stripAfter(Value strip) { return b.add(strip, turns); }

private:
  void enterItem();
  void skipFinishedItems();
  void readTable();
  void produce(bool onlyHistory);
  void copyStrip();
  bool isStaged() { return kernel.getTransport() == Transport::Staged; }
  Value stageAddress(Value stage) {
    return b.add(memory, b.mul(stage, strip.stageBytes()));
  }
  Value stageBarrier(Value stage) {
    return b.add(barriers, b.shiftLeft(stage, 3));
  }
  Value stageAfter(Value stage) {
    Value next = b.add(stage, 1);
    return b.select(b.equal(next, stages), b.i32(0), next);
  }

  DeviceKernel &device;
  DeviceBuilder &b;
  KernelOp kernel;
  StripShape strip;
  DeviceOptions options;
  int64_t stages;
  Value lane, turn, turns, memory, barriers;

  // The producer.
  ItemReader *items = nullptr;
  WorkItemVariables item;
  Value itemEnd;
  Variable itemIndex;
  Variable nextStrip, stripEnd, historyEnd, readEnd, dealt;
  SmallVector<Variable> tablePages; ///< of strip tableStrip + lane * turns
  Variable tableIndex;              ///< lane that holds the next strip's
  Variable produceStage, issued;
  // The consumer.
  Variable consumeStage, consumeParity;
};

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_PAGERING_H
