//===- CudaTokens.h - Tokens that steps chose on a GPU ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where the kernels that sample write, on the device, so that the next step's
// commit can read it (kvrm_delta_header::next), and the way from there to the
// host:
//
//   1. send() starts a copy of a step's tokens to pinned memory, behind the
//      step in its stream, and an event behind the copy;
//   2. the host may start the next step, which overwrites the device's tokens
//      and not the copy;
//   3. receive() waits for the event of the first send() that was not received.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_CUDATOKENS_H
#define KVRM_RUNTIME_CUDA_CUDATOKENS_H

#include "kvrm/runtime/cuda/CudaDevice.h"

#include <array>
#include <cstdint>
#include <memory>
#include <span>

namespace kvrm {

class CudaTokens {
public:
  /// Steps whose tokens are on their way at once.
  static constexpr size_t mostSent = 2;

  CudaTokens() = default;
  /// Takes all memory, for `rows` tokens. Errors: ResourceExhausted.
  static Expected<CudaTokens>
  create(const std::shared_ptr<const CudaDevice> &device, int64_t rows);

  /// The tokens on the device, int32_t[rows].
  uint64_t address() const { return chosen.address(); }
  int64_t deviceBytes() const { return chosen.size(); }

  /// Starts on the way of all tokens; fewer than `mostSent` are. If it fails,
  /// none of these are to be received.
  Status send(const CudaStream &stream);
  /// Waits for the tokens that were sent first, the first `out.size()` of them.
  /// If it fails, all that was sent is lost.
  Status receive(std::span<int32_t> out);

  /// Copies tokens `first` and on, and waits for the stream.
  Status fetch(const CudaStream &stream, int64_t first, std::span<int32_t> out);

private:
  struct Sent {
    PinnedBuffer tokens;
    CudaEvent arrived;
  };

  DeviceBuffer chosen;
  PinnedBuffer fetched;
  std::array<Sent, mostSent> ring;
  size_t firstSent = 0;
  size_t sent = 0;
};

} // namespace kvrm

#endif // KVRM_RUNTIME_CUDA_CUDATOKENS_H
