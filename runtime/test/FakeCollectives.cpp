//===- FakeCollectives.cpp - NCCL over host memory ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeCollectives.h"

#include "../cuda/NcclApi.h"
#include "FakeProducts.h"

#include "kvrm/runtime/abi/program.h"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <memory>

using namespace kvrm::cuda;
using fake::Launch;
using fake::machine;
using fake::violate;

namespace {
/// A launch as runCollective() takes it.
struct Numbers {
  uint64_t out, in, elements, type, communicator;
};

/// Where the ranks meet.
struct Group {
  std::condition_variable_any changed;
  std::vector<Numbers> brought; ///< by each rank
  int32_t waiting = 0;
  uint64_t meetings = 0;
  int32_t aborted = 0; ///< communicators

  bool isGivenUp() const { return aborted > 0; }
};
} // namespace

namespace kvrm::cuda {
struct NcclCommunicator {
  std::shared_ptr<Group> group;
  int32_t rank = 0;
  int32_t ranks = 0;
};
} // namespace kvrm::cuda

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

/// Waits until all ranks are there; false if the group is given up.
static bool waitForAll(Group &group, int32_t ranks) {
  uint64_t mine = group.meetings;
  if (++group.waiting == ranks) {
    group.waiting = 0;
    ++group.meetings;
    group.changed.notify_all();
  }
  group.changed.wait(fake::mutex(), [&] {
    return group.meetings != mine || group.isGivenUp();
  });
  return group.meetings != mine;
}

static void runOf(const Launch &launch, const Numbers &own, Group &group) {
  auto elements = static_cast<int64_t>(own.elements);
  auto *out = std::bit_cast<float *>(own.out);
  if (launch.symbol == fake::gatherSymbol) {
    for (const Numbers &rank : group.brought)
      out = std::copy_n(std::bit_cast<const float *>(rank.in), elements, out);
    return;
  }
  std::fill_n(out, elements, 0.0f);
  for (const Numbers &rank : group.brought)
    for (int64_t i = 0; i < elements; ++i)
      out[i] += std::bit_cast<const float *>(rank.in)[i];
}

void fake::runCollective(const Launch &launch) {
  Numbers own;
  std::memcpy(&own, &launch.args, sizeof(own));
  auto *communicator = std::bit_cast<NcclCommunicator *>(own.communicator);
  const std::shared_ptr<Group> group = communicator->group;
  int32_t ranks = communicator->ranks;
  if (launch.isCaptured && communicator->rank == machine().stuckRank)
    group->changed.wait(mutex(), [&] { return group->isGivenUp(); });
  if (group->isGivenUp())
    return;
  group->brought[static_cast<size_t>(communicator->rank)] = own;
  if (!waitForAll(*group, ranks))
    return;
  for (const Numbers &other : group->brought)
    if (other.elements != own.elements || other.type != own.type)
      violate("ranks meet with different collectives");
  runOf(launch, own, *group);
  ++machine().collectives;
  (void)waitForAll(*group, ranks); // nobody reads an input any more
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

/// Fails a call that was told to.
#define ENTER(name)                                                            \
  std::lock_guard lock(fake::mutex());                                         \
  do {                                                                         \
    if (fake::isFailing(#name))                                                \
      return ncclSystemError;                                                  \
  } while (false)

static NcclResult enqueue(const char *symbol, const void *in, void *out,
                          size_t count, NcclType type, size_t outCount,
                          NcclCommunicator *communicator,
                          StreamObject *stream) {
  if (!fake::hasContext()) {
    violate("a collective without a context");
    return ncclSystemError;
  }
  if (type != ncclF32) {
    violate("a collective that the fake does not know");
    return ncclSystemError;
  }
  Numbers numbers{.out = reinterpret_cast<uint64_t>(out),
                  .in = reinterpret_cast<uint64_t>(in),
                  .elements = count,
                  .type = KVRM_COLLECTIVE_F32,
                  .communicator = reinterpret_cast<uint64_t>(communicator)};
  if (!fake::isOnDevice(numbers.in, count * sizeof(float)) ||
      !fake::isOnDevice(numbers.out, outCount * sizeof(float))) {
    violate("a collective outside an allocation");
    return ncclSystemError;
  }
  Launch launch;
  launch.symbol = symbol;
  std::memcpy(&launch.args, &numbers, sizeof(numbers));
  return fake::launch(stream, std::move(launch)) == success ? ncclSuccess
                                                            : ncclSystemError;
}

// NOLINTBEGIN(readability-identifier-naming): names of the library's.
extern "C" {
#define KVRM_NCCL_DECLARE(name, parameters) NcclResult name parameters;
KVRM_NCCL_CALLS(KVRM_NCCL_DECLARE)
#undef KVRM_NCCL_DECLARE
const char *ncclGetErrorString(NcclResult result);
}

NcclResult ncclGetVersion(int32_t *version) {
  ENTER(ncclGetVersion);
  *version = machine().collectiveVersion;
  return ncclSuccess;
}

NcclResult ncclCommInitAll(NcclCommunicator **communicators, int32_t ranks,
                           const int32_t *devices) {
  ENTER(ncclCommInitAll);
  auto group = std::make_shared<Group>();
  group->brought.resize(static_cast<size_t>(ranks));
  for (int32_t rank = 0; rank < ranks; ++rank) {
    if (devices[rank] != devices[0] + rank)
      violate("ranks on devices that are not adjacent");
    communicators[rank] = new NcclCommunicator{group, rank, ranks};
    ++machine().live;
  }
  return ncclSuccess;
}

/// Communicators that were aborted.
static std::vector<std::unique_ptr<NcclCommunicator>> &abandoned() {
  static std::vector<std::unique_ptr<NcclCommunicator>> all;
  return all;
}

static NcclResult giveBack(NcclCommunicator *communicator) {
  delete communicator;
  --machine().live;
  return ncclSuccess;
}

NcclResult ncclCommDestroy(NcclCommunicator *communicator) {
  ENTER(ncclCommDestroy);
  return giveBack(communicator);
}

NcclResult ncclCommAbort(NcclCommunicator *communicator) {
  ENTER(ncclCommAbort);
  // Recorded work may look at it for as long as there is any.
  abandoned().emplace_back(communicator);
  --machine().live;
  ++machine().aborts;
  ++communicator->group->aborted;
  communicator->group->changed.notify_all();
  return ncclSuccess;
}

NcclResult ncclAllReduce(const void *in, void *out, size_t count, NcclType type,
                         int32_t operation, NcclCommunicator *communicator,
                         StreamObject *stream) {
  ENTER(ncclAllReduce);
  if (operation != ncclSum)
    violate("a reduction that is no sum");
  return enqueue(fake::reduceSymbol, in, out, count, type, count, communicator,
                 stream);
}

NcclResult ncclAllGather(const void *in, void *out, size_t count, NcclType type,
                         NcclCommunicator *communicator, StreamObject *stream) {
  ENTER(ncclAllGather);
  auto ranks = static_cast<size_t>(communicator->ranks);
  return enqueue(fake::gatherSymbol, in, out, count, type, ranks * count,
                 communicator, stream);
}

const char *ncclGetErrorString(NcclResult) { return "unhandled system error"; }
// NOLINTEND(readability-identifier-naming)
