//===- JsonReader.h - Fields of a manifest, each checked --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the readers of manifests share. Private to the runtime.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_JSONREADER_H
#define KVRM_RUNTIME_PACKAGE_JSONREADER_H

#include "kvrm/runtime/abi/model.h"
#include "kvrm/runtime/package/Package.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

namespace kvrm {

/// Sizes beyond these are a damaged manifest, not a large model.
constexpr int64_t maxFileBytes = int64_t(1) << 44;
constexpr size_t maxManifestString = KVRM_MAX_NAME_BYTES;
constexpr size_t maxManifestList = 64;

/// Reads fields of one JSON object and keeps the first error.
class ObjectReader {
  using json = nlohmann::json;

public:
  ObjectReader(const json &object, std::string fieldPrefix,
               std::string_view file, Status &status)
      : object(object), prefix(std::move(fieldPrefix)), file(file),
        status(status) {}

  bool has(const char *key) const { return object.contains(key); }

  void fail(const char *key, const std::string &message) {
    if (status.isOk())
      status = makeError(StatusCode::Corrupt, file, ": ", prefix, key, ": ",
                         message);
  }

  const json *find(const char *key) {
    if (!status.isOk())
      return nullptr;
    auto found = object.find(key);
    if (found == object.end()) {
      fail(key, "is missing");
      return nullptr;
    }
    return &*found;
  }

  int64_t integer(const char *key, int64_t low, int64_t high) {
    const json *value = find(key);
    if (!value)
      return low;
    if (!value->is_number_integer()) {
      fail(key, "is not an integer");
      return low;
    }
    bool isTooLarge = value->is_number_unsigned() &&
                      value->get<uint64_t>() > uint64_t(INT64_MAX);
    int64_t number = isTooLarge ? INT64_MAX : value->get<int64_t>();
    if (isTooLarge || number < low || number > high) {
      fail(key, value->dump() + " is outside " + std::to_string(low) + ".." +
                    std::to_string(high));
      return low;
    }
    return number;
  }
  int32_t integer32(const char *key, int64_t low, int64_t high) {
    KVRM_CHECK(high <= INT32_MAX, "a limit fits its type");
    return static_cast<int32_t>(integer(key, low, high));
  }

  std::string string(const char *key) {
    const json *value = find(key);
    if (!value)
      return {};
    if (!value->is_string()) {
      fail(key, "is not a string");
      return {};
    }
    const auto &text = value->get_ref<const std::string &>();
    if (text.size() > maxManifestString) {
      fail(key,
           "is longer than " + std::to_string(maxManifestString) + " bytes");
      return {};
    }
    return text;
  }

  /// The index of the string in `names`.
  template <size_t N>
  size_t oneOf(const char *key, const std::array<const char *, N> &names) {
    std::string text = string(key);
    if (!status.isOk())
      return 0;
    for (size_t i = 0; i < N; ++i)
      if (text == names[i])
        return i;
    std::string known;
    for (const char *name : names)
      known += std::string(known.empty() ? "" : ", ") + name;
    fail(key, "'" + text + "' is not one of " + known);
    return 0;
  }

  /// An integer that is one of `values`.
  template <size_t N>
  int32_t oneOfIntegers(const char *key, const std::array<int32_t, N> &values) {
    int32_t value = integer32(key, 0, INT32_MAX);
    if (std::ranges::find(values, value) != values.end())
      return value;
    std::string known;
    for (int32_t one : values)
      known += (known.empty() ? "" : ", ") + std::to_string(one);
    fail(key, std::to_string(value) + " is not one of " + known);
    return values[0];
  }

  const json *list(const char *key, size_t low, size_t high = maxManifestList) {
    const json *value = find(key);
    if (!value)
      return nullptr;
    if (!value->is_array()) {
      fail(key, "is not a list");
      return nullptr;
    }
    if (value->size() < low || value->size() > high) {
      fail(key, "has " + std::to_string(value->size()) + " entries, outside " +
                    std::to_string(low) + ".." + std::to_string(high));
      return nullptr;
    }
    return value;
  }

  /// A member object; `empty` stands in for a missing one.
  ObjectReader member(const char *key) {
    static const json empty = json::object();
    const json *value = find(key);
    if (value && !value->is_object()) {
      fail(key, "is not an object");
      value = nullptr;
    }
    return {value ? *value : empty, prefix + key + ".", file, status};
  }

  /// Calls `read` with a reader of each object in a list of `low` to `high`,
  /// until one fails.
  template <typename Read>
  void each(const char *key, size_t low, Read read,
            size_t high = maxManifestList) {
    const json *entries = list(key, low, high);
    for (size_t i = 0; entries && i < entries->size() && status.isOk(); ++i) {
      std::string member = std::string(key) + "[" + std::to_string(i) + "]";
      if (!(*entries)[i].is_object()) {
        fail(member.c_str(), "is not an object");
        return;
      }
      ObjectReader fields((*entries)[i], prefix + member + ".", file, status);
      read(fields);
    }
  }

  bool isOk() const { return status.isOk(); }

private:
  const json &object;
  std::string prefix;
  std::string_view file;
  Status &status;
};

/// The JSON object that a file holds. Errors: Corrupt, naming the file.
inline Expected<nlohmann::json> parseObject(std::string_view text,
                                            std::string_view file) {
  auto root = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return makeError(StatusCode::Corrupt, file, ": is not valid JSON");
  if (!root.is_object())
    return makeError(StatusCode::Corrupt, file, ": is not a JSON object");
  return root;
}

inline bool isPlainName(const std::string &name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         std::ranges::all_of(name, [](unsigned char c) {
           return std::isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

inline FileInfo readFile(ObjectReader &reader) {
  FileInfo file;
  file.name = reader.string("name");
  if (!isPlainName(file.name))
    reader.fail("name", "is not a plain file name");
  file.bytes = reader.integer("bytes", 0, maxFileBytes);
  std::string sum = reader.string("xxh3");
  bool isHex =
      sum.size() == 16 && std::ranges::all_of(sum, [](unsigned char c) {
        return std::isxdigit(c) && !std::isupper(c);
      });
  if (!isHex)
    reader.fail("xxh3", "is not 16 lower-case hex digits");
  else
    file.xxh3 = std::stoull(sum, nullptr, 16);
  return file;
}

/// The list `files`: plain names, each once.
inline std::vector<FileInfo> readFiles(ObjectReader &reader) {
  std::vector<FileInfo> files;
  reader.each("files", 1, [&](ObjectReader &fields) {
    FileInfo file = readFile(fields);
    if (std::ranges::any_of(files, [&](const FileInfo &other) {
          return other.name == file.name;
        }))
      fields.fail("name", "'" + file.name + "' is there already");
    files.push_back(std::move(file));
  });
  return files;
}

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_JSONREADER_H
