//===- AttentionLab.cpp - What batches on a GPU share ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionLab.h"

#include "kvrm/runtime/support/Reference.h"

#include <cstring>
#include <random>

using namespace kvrm;
using namespace kvrm::run;

/// Prime, so that neither pages nor heads are alike.
static constexpr int32_t patternPages = 1021;

PolicyShape run::policyShapeOf(const AttentionInfo &manifest) {
  PolicyShape shape;
  shape.heads = manifest.heads;
  shape.kvHeads = manifest.kvHeads;
  shape.headDim = manifest.headDim;
  shape.pageTokens = manifest.pageTokens;
  shape.queries = manifest.queries;
  shape.kvTile = manifest.kvTile;
  // Steps of one token have one query tile.
  shape.queryTiles = 1;
  shape.element = manifest.element;
  return shape;
}

Expected<std::unique_ptr<AttentionLab>>
AttentionLab::create(std::shared_ptr<const Package> package) {
  std::unique_ptr<AttentionLab> lab(new AttentionLab(std::move(package)));
  Expected<std::shared_ptr<const CudaDriver>> driver = CudaDriver::load();
  KVRM_TRY(driver.status());
  Expected<std::shared_ptr<const CudaDevice>> device =
      CudaDevice::create(driver.take());
  KVRM_TRY(device.status());
  lab->gpu = device.take();
  KVRM_TRY(checkDevice(*lab->set, lab->gpu->info()));
  Expected<std::unique_ptr<ThreadPool>> workers = ThreadPool::create(0);
  KVRM_TRY(workers.status());
  lab->workers = workers.take();
  lab->fillPattern();
  return lab;
}

/// Elements of numbers in -1..1, and scales that make such numbers of codes.
void AttentionLab::fillPattern() {
  const AttentionInfo &m = info();
  bool isScaled = kvrm_scale_bytes(m.element) > 0;
  // All elements that can come, once each, so that none is rounded twice.
  std::vector<uint16_t> values(1 << 12);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = elementOf(m.element,
                          ((2 * static_cast<double>(i) + 1) / (1 << 12) - 1) *
                              (isScaled ? 127 : 1));
  pages.resize(static_cast<size_t>(patternPages * m.pageBytes()));
  std::mt19937_64 random(1);
  auto bytes = static_cast<size_t>(kvrm_element_bytes(m.element));
  auto pageBytes = static_cast<size_t>(m.pageBytes());
  auto scales = static_cast<size_t>(m.pageShape().pageLayout().scales);
  for (size_t page = 0; page < pages.size(); page += pageBytes) {
    for (size_t at = page; at < page + scales; at += bytes) {
      uint16_t element = values[random() % values.size()];
      std::memcpy(&pages[at], &element, bytes); // of a byte, the low one
    }
    for (size_t at = page + scales; at < page + pageBytes; at += 2) {
      uint16_t scale =
          elementOf(KVRM_BF16, (1 + double(random() % 64) / 64) / 254);
      std::memcpy(&pages[at], &scale, sizeof(scale));
    }
  }
}

Expected<uint8_t *> AttentionLab::pinned(int64_t bytes) {
  if (memory.size() < bytes) {
    memory = PinnedBuffer();
    Expected<PinnedBuffer> taken =
        PinnedBuffer::create(gpu, bytes, "pages to compare with");
    KVRM_TRY(taken.status());
    memory = taken.take();
  }
  return memory.data();
}
