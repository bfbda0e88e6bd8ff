//===- GGUFBuilder.h - Small GGUF files for tests ---------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes GGUF piece by piece, so that a test can get any piece wrong.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_UNIT_GGUFBUILDER_H
#define KVRM_TEST_UNIT_GGUFBUILDER_H

#include "kvrm/Frontend/GGUF.h"

#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace kvrm::test {

struct TestTensor {
  std::string name;
  std::vector<uint64_t> dims;
  uint32_t type = 0; // F32
  std::string data;
  /// -1: where the data is put.
  int64_t offset = -1;
};

class GGUFBuilder {
public:
  std::string magic = "GGUF";
  uint32_t version = 3;
  int64_t tensorCount = -1; ///< -1: as many as there are
  int64_t pairCount = -1;
  uint64_t alignment = 32;
  std::vector<TestTensor> tensors;

  template <typename T> static std::string raw(T value) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
  }
  static std::string text(std::string_view value) {
    return raw<uint64_t>(value.size()) + std::string(value);
  }

  /// A pair with a payload of any bytes.
  void add(std::string_view key, uint32_t type, const std::string &payload) {
    pairs.push_back({std::string(key), raw(type) + payload});
  }
  void add(std::string_view key, GGUFValueType type,
           const std::string &payload) {
    add(key, static_cast<uint32_t>(type), payload);
  }
  void addInt(std::string_view key, uint32_t value) {
    add(key, GGUFValueType::UInt32, raw(value));
  }
  void addFloat(std::string_view key, float value) {
    add(key, GGUFValueType::Float32, raw(value));
  }
  void addBool(std::string_view key, bool value) {
    add(key, GGUFValueType::Bool, raw<uint8_t>(value));
  }
  void addString(std::string_view key, std::string_view value) {
    add(key, GGUFValueType::String, text(value));
  }
  void addStrings(std::string_view key,
                  const std::vector<std::string> &values) {
    std::string payload = raw<uint32_t>(8) + raw<uint64_t>(values.size());
    for (const std::string &value : values)
      payload += text(value);
    add(key, GGUFValueType::Array, payload);
  }
  void addInts(std::string_view key, const std::vector<int32_t> &values) {
    std::string payload = raw<uint32_t>(5) + raw<uint64_t>(values.size());
    for (int32_t value : values)
      payload += raw(value);
    add(key, GGUFValueType::Array, payload);
  }
  void addFloats(std::string_view key, const std::vector<float> &values) {
    std::string payload = raw<uint32_t>(6) + raw<uint64_t>(values.size());
    for (float value : values)
      payload += raw(value);
    add(key, GGUFValueType::Array, payload);
  }
  void remove(std::string_view key) {
    std::erase_if(pairs, [&](const Pair &pair) { return pair.key == key; });
  }
  void removeTensor(std::string_view name) {
    std::erase_if(tensors, [&](const TestTensor &t) { return t.name == name; });
  }
  TestTensor &tensor(std::string_view name) {
    for (TestTensor &t : tensors)
      if (t.name == name)
        return t;
    std::abort();
  }

  /// Adds an F32 tensor whose element i is value(i). `dims` as in the file:
  /// the contiguous one first.
  void addTensor(std::string_view name, std::vector<uint64_t> dims,
                 const std::function<float(uint64_t)> &value) {
    uint64_t count = 1;
    for (uint64_t dim : dims)
      count *= dim;
    TestTensor t;
    t.name = name;
    t.dims = std::move(dims);
    for (uint64_t i = 0; i < count; ++i)
      t.data += raw(value(i));
    tensors.push_back(std::move(t));
  }

  std::string build() const {
    std::string out = magic + raw(version);
    out += raw<uint64_t>(tensorCount < 0 ? tensors.size()
                                         : static_cast<uint64_t>(tensorCount));
    out += raw<uint64_t>(pairCount < 0 ? pairs.size()
                                       : static_cast<uint64_t>(pairCount));
    for (const Pair &pair : pairs)
      out += text(pair.key) + pair.value;
    std::string data;
    for (const TestTensor &t : tensors) {
      out += text(t.name) + raw(static_cast<uint32_t>(t.dims.size()));
      for (uint64_t dim : t.dims)
        out += raw(dim);
      out += raw(t.type);
      out += raw<uint64_t>(t.offset < 0 ? data.size()
                                        : static_cast<uint64_t>(t.offset));
      data += t.data;
      pad(data);
    }
    pad(out);
    return out + data;
  }

private:
  struct Pair {
    std::string key;
    std::string value;
  };

  void pad(std::string &bytes) const {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  }

  std::vector<Pair> pairs;
};

} // namespace kvrm::test

#endif // KVRM_TEST_UNIT_GGUFBUILDER_H
