//===- CudaGroup.cpp - Collectives among GPUs of a process ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaGroup.h"

#include "NcclApi.h"

#include <bit>

using namespace kvrm;

/// Status of a call of the library: KVRM_NCCL(library, ncclCommAbort, (...)).
#define KVRM_NCCL(library, name, arguments)                                    \
  (library).statusOf((library).api().name arguments, #name)

Expected<std::shared_ptr<CudaGroup>>
CudaGroup::create(std::shared_ptr<const CollectiveLibrary> library,
                  std::vector<std::shared_ptr<const CudaDevice>> devices) {
  KVRM_CHECK(library && !devices.empty(), "ranks have devices and a library");
  std::shared_ptr<CudaGroup> group(new CudaGroup());
  group->library = std::move(library);
  group->devices = std::move(devices);
  std::vector<int32_t> indices;
  for (const std::shared_ptr<const CudaDevice> &device : group->devices)
    indices.push_back(device->info().index);
  group->communicators.resize(group->devices.size());
  KVRM_TRY(
      KVRM_NCCL(*group->library, ncclCommInitAll,
                (group->communicators.data(), group->ranks(), indices.data())));
  return group;
}

CudaGroup::~CudaGroup() {
  if (!isAborted)
    for (cuda::NcclCommunicator *communicator : communicators)
      if (communicator)
        (void)library->api().ncclCommDestroy(communicator);
  for (std::thread &thread : aborting)
    thread.join();
}

Status CudaGroup::takeMailboxes(int64_t bytes) {
  Expected<std::unique_ptr<CudaPeers>> taken =
      CudaPeers::create(devices, bytes);
  KVRM_TRY(taken.status());
  mailboxes = taken.take();
  return Status::ok();
}

static cuda::NcclType typeOf(kvrm_collective_type type) {
  switch (type) {
  case KVRM_COLLECTIVE_F16:
    return cuda::ncclF16;
  case KVRM_COLLECTIVE_BF16:
    return cuda::ncclBF16;
  default:
    return cuda::ncclF32;
  }
}

Status CudaGroup::run(int32_t rank, const CudaStream &stream,
                      const Collective &collective, uint64_t out, uint64_t in) {
  KVRM_CHECK(rank >= 0 && rank < ranks(), "a rank of the group");
  if (isAborted)
    return makeError(StatusCode::IoError, "another rank failed");
  KVRM_TRY(device(rank)->use());
  const auto *from = std::bit_cast<const void *>(in);
  auto *to = std::bit_cast<void *>(out);
  auto count = static_cast<size_t>(collective.elements);
  cuda::NcclType type = typeOf(collective.type);
  cuda::NcclCommunicator *own = communicators[static_cast<size_t>(rank)];
  if (collective.kind == KVRM_COMMAND_ALL_GATHER)
    return KVRM_NCCL(*library, ncclAllGather,
                     (from, to, count, type, own, stream.handle()));
  return KVRM_NCCL(
      *library, ncclAllReduce,
      (from, to, count, type, cuda::ncclSum, own, stream.handle()));
}

void CudaGroup::abort() {
  std::lock_guard lock(mutex);
  if (isAborted.exchange(true))
    return;
  if (mailboxes)
    mailboxes->abort();
  // The call tells waiting kernels to end, and comes back when nothing has a
  // collective recorded any more. Nobody waits for that here.
  for (size_t rank = 0; rank < devices.size(); ++rank)
    aborting.emplace_back([this, rank] {
      if (devices[rank]->use().isOk())
        (void)library->api().ncclCommAbort(communicators[rank]);
    });
}
