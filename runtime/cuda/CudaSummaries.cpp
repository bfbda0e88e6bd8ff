//===- CudaSummaries.cpp - Far-history summaries in a GPU's pool ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaSummaries.h"

#include <array>

using namespace kvrm;

Expected<CudaSummaries>
CudaSummaries::create(std::shared_ptr<const CudaDevice> device,
                      const DeviceCode::Kernel &kernel, const PoolShape &shape,
                      int32_t entries) {
  CudaSummaries summaries;
  summaries.kernel = &kernel;
  summaries.pageTokens = shape.pageTokens;
  // A page makes no more entries than it has tokens.
  auto writes = static_cast<size_t>(shape.pageTokens);
  auto pages = static_cast<size_t>(entries / shape.pageTokens);
  size_t bytes = sizeof(kvrm_collapse) + writes * sizeof(kvrm_collapse_write) +
                 pages * sizeof(int32_t);
  summaries.hostList.reserve(bytes);
  Expected<DeviceBuffer> list = DeviceBuffer::create(
      std::move(device), static_cast<int64_t>(bytes), "summaries");
  KVRM_TRY(list.status());
  summaries.list = list.take();
  return summaries;
}

void CudaSummaries::put(const void *bytes, size_t count) {
  KVRM_CHECK(hostList.size() + count <= static_cast<size_t>(list.size()),
             "a page makes as many entries as it has tokens at most");
  const auto *from = static_cast<const uint8_t *>(bytes);
  hostList.insert(hostList.end(), from, from + count);
}

Status CudaSummaries::write(const CudaStream &stream, const CudaPool &pool,
                            const PageCollapse &collapse) {
  auto pageOf = [&](int32_t entry) {
    return collapse.summaries[static_cast<size_t>(entry / pageTokens)];
  };
  const kvrm_collapse header{
      .source = collapse.source,
      .writes = static_cast<int32_t>(collapse.writes.size()),
      .cleared = collapse.isFirst
                     ? static_cast<int32_t>(collapse.summaries.size())
                     : 0,
      .reserved = 0};
  hostList.clear();
  put(&header, sizeof(header));
  for (const SummaryWrite &from : collapse.writes) {
    bool merges = from.mergeInto >= 0;
    const kvrm_collapse_write to{
        .page = pageOf(from.entry),
        .token = from.entry % pageTokens,
        .first_token = from.firstToken,
        .tokens = from.tokens,
        .merge_page = merges ? pageOf(from.mergeInto) : -1,
        .merge_token = merges ? from.mergeInto % pageTokens : 0,
        .keep = from.keep,
        .add = from.add};
    put(&to, sizeof(to));
  }
  if (collapse.isFirst)
    put(collapse.summaries.data(), collapse.summaries.size_bytes());
  KVRM_TRY(
      stream.copyIn(list.span().part(0, static_cast<int64_t>(hostList.size())),
                    hostList.data()));

  const PoolShape &shape = pool.shape();
  kvrm_device_args args{};
  args.delta = list.address();
  args.k_pool = pool.span().address;
  args.head_stride = shape.headStride();
  std::array<void *, KVRM_DEVICE_ARGS> parameters{};
  for (size_t i = 0; i < parameters.size(); ++i)
    parameters[i] = reinterpret_cast<uint64_t *>(&args) + i;
  return kernel->code.launch(
      stream,
      {.grid = {static_cast<uint32_t>(shape.pageRuns()), 1, 1},
       .threads = static_cast<uint32_t>(kernel->info.threads),
       .sharedBytes = static_cast<uint32_t>(kernel->info.sharedBytes)},
      parameters);
}
