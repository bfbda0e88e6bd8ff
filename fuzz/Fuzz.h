//===- Fuzz.h - What the fuzz targets share ---------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A target is LLVMFuzzerTestOneInput in a file of its own. libFuzzer calls it
// with bytes of its making; Replay.cpp with those of files. It may not crash,
// and what it finds wrong itself it says with check().
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FUZZ_FUZZ_H
#define KVRM_FUZZ_FUZZ_H

#include "kvrm/runtime/abi.h"
#include "kvrm/runtime/support/Status.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace fuzz {

inline std::string_view textOf(const uint8_t *data, size_t size) {
  return {reinterpret_cast<const char *>(data), size};
}

/// Stops the process, and so libFuzzer, unless `isRight`.
inline void check(bool isRight, const char *promise,
                  std::string_view detail = "") {
  if (isRight)
    return;
  std::fprintf(stderr, "fuzz: broken promise: %s: ", promise);
  std::fwrite(detail.data(), 1, std::min<size_t>(detail.size(), 4096), stderr);
  std::fputc('\n', stderr);
  std::abort();
}

/// What Status.h promises of the message of a failure, whatever the input.
inline void checkMessage(std::string_view message) {
  check(!message.empty(), "a failure says why");
  check(std::ranges::none_of(
            message, [](unsigned char c) { return c < ' ' || c == 0x7f; }),
        "a message is one line of visible characters", message);
}
inline void checkFailure(const kvrm::Status &status) {
  check(!status.isOk(), "a failure has a code");
  checkMessage(status.message());
}

/// `text` with the number of this ABI for "@ABI", so that a seed outlives it.
inline std::string withAbi(std::string_view text) {
  constexpr std::string_view name = "@ABI";
  std::string out;
  for (size_t at = text.find(name); at != text.npos; at = text.find(name)) {
    out.append(text.substr(0, at)).append(std::to_string(KVRM_ABI_VERSION));
    text.remove_prefix(at + name.size());
  }
  out.append(text);
  return out;
}

/// Takes values off the front of an input; zeros when it is at its end.
class Input {
public:
  Input(const uint8_t *data, size_t size) : data(data), left(size) {}

  bool isEmpty() const { return left == 0; }

  template <typename T> T take() {
    T value = 0;
    size_t bytes = std::min(left, sizeof(T));
    if (bytes > 0) // data may be null
      std::memcpy(&value, data, bytes);
    data += bytes;
    left -= bytes;
    return value;
  }
  /// 0..limit-1 of a byte.
  int32_t below(int32_t limit) { return take<uint8_t>() % limit; }

private:
  const uint8_t *data;
  size_t left;
};

} // namespace fuzz

#endif // KVRM_FUZZ_FUZZ_H
