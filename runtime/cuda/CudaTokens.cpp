//===- CudaTokens.cpp - Tokens that steps chose on a GPU ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CudaTokens.h"

#include <cstring>

using namespace kvrm;

Expected<CudaTokens>
CudaTokens::create(const std::shared_ptr<const CudaDevice> &device,
                   int64_t rows) {
  int64_t bytes = rows * int64_t(sizeof(int32_t));
  CudaTokens tokens;
  Expected<DeviceBuffer> chosen =
      DeviceBuffer::create(device, bytes, "next tokens");
  KVRM_TRY(chosen.status());
  tokens.chosen = chosen.take();
  Expected<PinnedBuffer> fetched =
      PinnedBuffer::create(device, bytes, "next tokens");
  KVRM_TRY(fetched.status());
  tokens.fetched = fetched.take();
  for (Sent &slot : tokens.ring) {
    Expected<PinnedBuffer> memory =
        PinnedBuffer::create(device, bytes, "next tokens");
    KVRM_TRY(memory.status());
    slot.tokens = memory.take();
    Expected<CudaEvent> event = CudaEvent::create(device, /*isTimed=*/false);
    KVRM_TRY(event.status());
    slot.arrived = event.take();
  }
  return tokens;
}

Status CudaTokens::send(const CudaStream &stream) {
  KVRM_CHECK(sent < mostSent, "tokens are received before others are sent");
  Sent &slot = ring[(firstSent + sent) % mostSent];
  KVRM_TRY(stream.copyOut(slot.tokens.data(), chosen.span()));
  KVRM_TRY(slot.arrived.record(stream));
  ++sent;
  return Status::ok();
}

Status CudaTokens::receive(std::span<int32_t> out) {
  KVRM_CHECK(sent > 0, "tokens are sent before they are received");
  Sent &slot = ring[firstSent];
  KVRM_CHECK(static_cast<int64_t>(out.size_bytes()) <= slot.tokens.size(),
             "no more than there are");
  Status status = slot.arrived.synchronize();
  if (!status.isOk()) {
    sent = 0;
    return status;
  }
  std::memcpy(out.data(), slot.tokens.data(), out.size_bytes());
  firstSent = (firstSent + 1) % mostSent;
  --sent;
  return Status::ok();
}

Status CudaTokens::fetch(const CudaStream &stream, int64_t first,
                         std::span<int32_t> out) {
  KVRM_TRY(stream.copyOut(
      fetched.data(),
      chosen.span().part(first * int64_t(sizeof(int32_t)),
                         static_cast<int64_t>(out.size_bytes()))));
  KVRM_TRY(stream.synchronize());
  std::memcpy(out.data(), fetched.data(), out.size_bytes());
  return Status::ok();
}
