//===- CudaPeers.cpp - Mailboxes among GPUs -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaPeers.h"

#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/abi/partial.h"

#include <atomic>
#include <bit>

using namespace kvrm;

using Devices = std::span<const std::shared_ptr<const CudaDevice>>;

/// Lets every device write to the memory of every other; false if one cannot.
static Expected<bool> connect(Devices devices) {
  for (const auto &from : devices)
    for (const auto &to : devices) {
      if (from == to)
        continue;
      Expected<bool> isReached = from->reach(*to);
      KVRM_TRY(isReached.status());
      if (!*isReached)
        return false;
    }
  return true;
}

Expected<std::unique_ptr<CudaPeers>> CudaPeers::create(Devices devices,
                                                       int64_t bytes) {
  std::unique_ptr<CudaPeers> peers;
  if (devices.size() > KVRM_MAX_PEERS || bytes == 0)
    return peers;
  Expected<bool> areConnected = connect(devices);
  KVRM_TRY(areConnected.status());
  if (!*areConnected)
    return peers;
  peers.reset(new CudaPeers());
  Expected<PinnedBuffer> flag =
      PinnedBuffer::create(devices.front(), sizeof(int32_t), "mailboxes");
  KVRM_TRY(flag.status());
  peers->aborted = flag.take();
  *reinterpret_cast<int32_t *>(peers->aborted.data()) = 0;
  for (const auto &device : devices)
    KVRM_TRY(peers->take(device, devices.size(), bytes));
  KVRM_TRY(peers->writeTables());
  return peers;
}

Status CudaPeers::take(const std::shared_ptr<const CudaDevice> &device,
                       size_t count, int64_t bytes) {
  boxBytes = kvrm_align_up(bytes);
  Rank own;
  Expected<CudaStream> stream = CudaStream::create(device);
  KVRM_TRY(stream.status());
  own.stream = stream.take();
  Expected<DeviceBuffer> boxes = DeviceBuffer::create(
      device, boxBytes * KVRM_MAILBOXES * static_cast<int64_t>(count),
      "mailboxes");
  KVRM_TRY(boxes.status());
  own.boxes = boxes.take();
  Expected<DeviceBuffer> tables = DeviceBuffer::create(
      device, KVRM_MAILBOXES * int64_t(sizeof(kvrm_peers)), "mailboxes");
  KVRM_TRY(tables.status());
  own.tables = tables.take();
  static_assert(KVRM_EMPTY_PARTIAL == 0xffffffffu);
  KVRM_TRY(own.stream.fill(own.boxes.span(), 0xff));
  ranks.push_back(std::move(own));
  return Status::ok();
}

uint64_t CudaPeers::box(size_t owner, size_t writer, size_t mailbox) const {
  return ranks[owner].boxes.address() +
         (mailbox * ranks.size() + writer) * static_cast<uint64_t>(boxBytes);
}

Status CudaPeers::writeTables() {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    std::array<kvrm_peers, KVRM_MAILBOXES> tables{};
    for (size_t mailbox = 0; mailbox < tables.size(); ++mailbox) {
      tables[mailbox].rank = rank;
      tables[mailbox].aborted = std::bit_cast<uint64_t>(aborted.data());
      for (size_t other = 0; other < ranks.size(); ++other) {
        tables[mailbox].inboxes[other] = box(rank, other, mailbox);
        tables[mailbox].outboxes[other] = box(other, rank, mailbox);
      }
    }
    const CudaStream &stream = ranks[rank].stream;
    KVRM_TRY(stream.copyIn(ranks[rank].tables.span(), tables.data()));
    KVRM_TRY(stream.synchronize());
  }
  return Status::ok();
}

void CudaPeers::abort() {
  std::atomic_ref(*reinterpret_cast<int32_t *>(aborted.data())).store(1);
}
