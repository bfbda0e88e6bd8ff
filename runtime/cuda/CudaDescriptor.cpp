//===- CudaDescriptor.cpp - A step descriptor on a GPU --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaDescriptor.h"

#include "kvrm/runtime/abi/device.h"
#include "kvrm/runtime/support/Clock.h"

using namespace kvrm;

/// Bytes of a delta of so many words.
static int64_t deltaBytes(int64_t words) {
  return int64_t(sizeof(kvrm_delta_header)) +
         words * int64_t(sizeof(kvrm_delta_word));
}

Expected<CudaDescriptor>
CudaDescriptor::create(const CudaStream &stream,
                       const kvrm_descriptor_limits &limits, bool hasGroups) {
  const std::shared_ptr<const CudaDevice> &device = stream.device();
  Expected<StepDescriptor> empty = StepDescriptor::create(limits);
  KVRM_TRY(empty.status());
  int64_t bytes = deltaBytes(empty->deltaCapacity(hasGroups));
  CudaDescriptor descriptor;
  descriptor.hasGroups = hasGroups;
  Expected<DeviceBuffer> copy =
      DeviceBuffer::create(device, empty->layout().bytes, "step descriptor");
  KVRM_TRY(copy.status());
  descriptor.copy = copy.take();
  Expected<DeviceBuffer> delta =
      DeviceBuffer::create(device, bytes, "descriptor delta");
  KVRM_TRY(delta.status());
  descriptor.delta = delta.take();
  for (Lap &lap : descriptor.laps) {
    for (PinnedBuffer &slot : lap.memory) {
      Expected<PinnedBuffer> memory =
          PinnedBuffer::create(device, bytes, "descriptor delta");
      KVRM_TRY(memory.status());
      slot = memory.take();
    }
    Expected<CudaEvent> event = CudaEvent::create(device, /*isTimed=*/false);
    KVRM_TRY(event.status());
    lap.copied = event.take();
  }
  // The device starts with the committed descriptor and with nothing to apply.
  KVRM_TRY(stream.fill(
      descriptor.delta.span().part(0, sizeof(kvrm_delta_header)), 0));
  KVRM_TRY(stream.copyIn(descriptor.copy.span(), empty->committed()));
  KVRM_TRY(stream.synchronize());
  return descriptor;
}

Status CudaDescriptor::send(const CudaStream &stream,
                            StepDescriptor &descriptor, uint64_t next) {
  const Stopwatch watch;
  Lap &lap = laps[nextSlot / Lap::slots];
  size_t slot = nextSlot % Lap::slots;
  if (slot == 0) {
    KVRM_TRY(lap.isUnknown ? stream.synchronize() : lap.copied.synchronize());
    lap.isUnknown = false;
  }
  nextSlot = (nextSlot + 1) % (laps.size() * Lap::slots);

  auto *header = reinterpret_cast<kvrm_delta_header *>(lap.memory[slot].data());
  std::span<kvrm_delta_word> words(
      reinterpret_cast<kvrm_delta_word *>(header + 1),
      static_cast<size_t>(descriptor.deltaCapacity(hasGroups)));
  int32_t count = descriptor.collectDelta(
      words, {.isWhole = isPending, .hasGroups = hasGroups});
  int32_t fed = descriptor.collectFed(words.subspan(size_t(count)));
  KVRM_CHECK(fed == 0 || next != 0, "fed tokens are somewhere");
  *header = {static_cast<uint32_t>(count), static_cast<uint32_t>(fed), next};
  last = CudaCommitStats();
  last.words = count + fed;
  last.bytes = deltaBytes(last.words);
  last.isWhole = isPending;
  isPending = true;

  // Until the event says otherwise copies may be reading the lap's slots.
  lap.isUnknown = true;
  KVRM_TRY(stream.copyIn(delta.span().part(0, last.bytes), header));
  if (slot + 1 == Lap::slots) {
    KVRM_TRY(lap.copied.record(stream));
    lap.isUnknown = false;
  }
  last.nanoseconds = watch.nanoseconds();
  return Status::ok();
}
