//===- Safetensors.cpp - Reader of safetensors files ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Safetensors.h"

#include "kvrm/Frontend/FileBuffer.h"
#include "kvrm/Frontend/JsonText.h"
#include "kvrm/Frontend/Quantization.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"

#include <bit>
#include <map>
#include <optional>
#include <tuple>

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;
namespace json = llvm::json;

/// Those of the format's own library, and what is sensible to read.
static constexpr uint64_t maxHeaderBytes = 100'000'000;
static constexpr size_t maxRank = 8;
static constexpr size_t maxShards = 65535;

//===----------------------------------------------------------------------===//
// Elements
//===----------------------------------------------------------------------===//

namespace {
struct TypeInfo {
  const char *name;
  int64_t bytes;
};
} // namespace

static const TypeInfo &infoOfType(SafetensorsType type) {
  static constexpr TypeInfo infos[] = {
      {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
      {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},  {"U32", 4},
      {"U16", 2}, {"U8", 1},  {"BOOL", 1}};
  return infos[static_cast<size_t>(type)];
}

StringRef kvrm::nameOf(SafetensorsType type) { return infoOfType(type).name; }
int64_t kvrm::sizeOf(SafetensorsType type) { return infoOfType(type).bytes; }

static std::optional<SafetensorsType> lookupType(StringRef name) {
  for (auto i = static_cast<uint8_t>(SafetensorsType::F64);
       i <= static_cast<uint8_t>(SafetensorsType::Bool); ++i)
    if (auto type = static_cast<SafetensorsType>(i); name == nameOf(type))
      return type;
  return std::nullopt;
}

bool kvrm::isFloat(SafetensorsType type) {
  return type == SafetensorsType::F64 || type == SafetensorsType::F32 ||
         type == SafetensorsType::F16 || type == SafetensorsType::BF16;
}

void kvrm::convertToFloat(SafetensorsType type, const uint8_t *in,
                          int64_t count, float *out) {
  switch (type) {
  case SafetensorsType::F32:
    return dequantize(GGMLType::F32, in, count, out);
  case SafetensorsType::F16:
    return dequantize(GGMLType::F16, in, count, out);
  case SafetensorsType::BF16:
    return dequantize(GGMLType::BF16, in, count, out);
  case SafetensorsType::F64:
    for (int64_t i = 0; i < count; ++i)
      out[i] = static_cast<float>(
          std::bit_cast<double>(llvm::support::endian::read64le(in + 8 * i)));
    return;
  default:
    llvm_unreachable("not a type of floats");
  }
}

int64_t SafetensorsTensor::elements() const {
  return static_cast<int64_t>(bytes) / sizeOf(type);
}

//===----------------------------------------------------------------------===//
// One file
//===----------------------------------------------------------------------===//

namespace kvrm {

/// Reads the header and places what it names.
class SafetensorsParser {
public:
  explicit SafetensorsParser(SafetensorsFile &file) : file(file) {}

  Error parse();

private:
  Error fail(const Twine &message) const {
    return fileError(file.name(), message);
  }
  Error addTensor(StringRef name, const json::Value &value);
  Error readShape(SafetensorsTensor &tensor, const json::Array *shape) const;
  Error place(SafetensorsTensor &tensor, const json::Array *offsets) const;
  Error checkCoverage();

  SafetensorsFile &file;
  llvm::ArrayRef<uint8_t> data;
};

} // namespace kvrm

Error SafetensorsParser::parse() {
  StringRef bytes = file.buffer->getBuffer();
  if (bytes.size() < 8)
    return fail(formatv("has no safetensors header: 8 bytes are needed, there "
                        "are {0}",
                        bytes.size())
                    .str());
  uint64_t length = llvm::support::endian::read64le(bytes.data());
  uint64_t limit = std::min<uint64_t>(bytes.size() - 8, maxHeaderBytes);
  if (length > limit)
    return fail(
        formatv("header length {0} is not in [0, {1}]", length, limit).str());
  StringRef rest = bytes.drop_front(8);
  data = llvm::arrayRefFromStringRef(rest.drop_front(length));
  Expected<json::Object> header =
      parseJsonObject(rest.take_front(length), file.name());
  if (!header)
    return header.takeError();
  for (const auto &[key, value] : *header) {
    if (key == "__metadata__")
      continue;
    if (Error error = addTensor(key, value))
      return error;
  }
  return checkCoverage();
}

Error SafetensorsParser::addTensor(StringRef name, const json::Value &value) {
  SafetensorsTensor tensor;
  tensor.name = name.str();
  const json::Object *fields = value.getAsObject();
  std::optional<StringRef> typeName =
      fields ? fields->getString("dtype") : std::nullopt;
  if (!typeName)
    return fail("tensor '" + name + "' has no dtype");
  std::optional<SafetensorsType> type = lookupType(*typeName);
  if (!type)
    return fail("tensor '" + name + "': dtype '" + *typeName +
                "' is not supported");
  tensor.type = *type;
  if (Error error = readShape(tensor, fields->getArray("shape")))
    return error;
  if (Error error = place(tensor, fields->getArray("data_offsets")))
    return error;
  file.tensorList.push_back(std::move(tensor));
  return Error::success();
}

/// The shape, and the bytes that it makes.
Error SafetensorsParser::readShape(SafetensorsTensor &tensor,
                                   const json::Array *shape) const {
  auto refuse = [&](const Twine &why) {
    return fail("tensor '" + tensor.name + "': shape " + why);
  };
  if (!shape)
    return refuse("is missing");
  if (shape->size() > maxRank)
    return refuse(formatv("has {0} sizes, more than the limit {1}",
                          shape->size(), maxRank)
                      .str());
  // A shape of bytes over all data is refused below; here they may not wrap.
  auto bytes = static_cast<uint64_t>(sizeOf(tensor.type));
  for (const json::Value &entry : *shape) {
    std::optional<int64_t> size = entry.getAsInteger();
    if (!size || *size < 0)
      return refuse("is not of sizes of 0 or more");
    tensor.shape.push_back(*size);
    bool overflowed = false;
    bytes = llvm::SaturatingMultiply(bytes, static_cast<uint64_t>(*size),
                                     &overflowed);
    if (overflowed)
      return refuse("is of more than 2^64 - 1 bytes");
  }
  tensor.bytes = bytes;
  return Error::success();
}

Error SafetensorsParser::place(SafetensorsTensor &tensor,
                               const json::Array *offsets) const {
  std::optional<uint64_t> begin, end;
  if (offsets && offsets->size() == 2) {
    begin = (*offsets)[0].getAsUINT64();
    end = (*offsets)[1].getAsUINT64();
  }
  if (!begin || !end)
    return fail("tensor '" + tensor.name +
                "': data_offsets are not two offsets");
  if (*begin > *end || *end > data.size())
    return fail(formatv("tensor '{0}': bytes {1}..{2} are outside the data "
                        "of {3}",
                        tensor.name, *begin, *end, data.size())
                    .str());
  if (*end - *begin != tensor.bytes)
    return fail(
        formatv("tensor '{0}': {1} bytes, but {2} [{3:$[, ]}] makes "
                "{4}",
                tensor.name, *end - *begin, nameOf(tensor.type),
                llvm::make_range(tensor.shape.begin(), tensor.shape.end()),
                tensor.bytes)
            .str());
  tensor.data = data.data() + *begin;
  return Error::success();
}

/// Each byte of the data is of one tensor. A name that occurs twice, of which
/// JSON keeps one, leaves a gap.
Error SafetensorsParser::checkCoverage() {
  llvm::sort(file.tensorList, [](const auto &a, const auto &b) {
    return std::tie(a.data, a.bytes, a.name) <
           std::tie(b.data, b.bytes, b.name);
  });
  const uint8_t *end = data.begin();
  for (auto [index, tensor] : llvm::enumerate(file.tensorList)) {
    if (tensor.data != end)
      return fail(formatv("tensor '{0}': starts at {1} of the data, not at "
                          "{2}, where the one before it ends",
                          tensor.name, tensor.data - data.begin(),
                          end - data.begin())
                      .str());
    end += tensor.bytes;
    file.tensorIndex[tensor.name] = index;
  }
  if (end != data.end())
    return fail(formatv("the last {0} of {1} bytes of data are of no tensor",
                        data.end() - end, data.size())
                    .str());
  return Error::success();
}

Expected<SafetensorsFile::Ptr> SafetensorsFile::open(StringRef path) {
  auto buffer = openFile(path);
  if (!buffer)
    return buffer.takeError();
  return parse(std::move(*buffer));
}

Expected<SafetensorsFile::Ptr>
SafetensorsFile::parse(std::unique_ptr<llvm::MemoryBuffer> buffer) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(std::move(buffer)));
  if (Error error = SafetensorsParser(*file).parse())
    return error;
  return file;
}

const SafetensorsTensor *SafetensorsFile::tensor(StringRef tensorName) const {
  auto it = tensorIndex.find(tensorName);
  return it == tensorIndex.end() ? nullptr : &tensorList[it->second];
}

//===----------------------------------------------------------------------===//
// Several files
//===----------------------------------------------------------------------===//

Expected<SafetensorsSet> SafetensorsSet::open(StringRef path) {
  SafetensorsSet set;
  if (path.ends_with(".json")) {
    if (Error error = set.openShards(path))
      return error;
    return set;
  }
  Expected<SafetensorsFile::Ptr> file = SafetensorsFile::open(path);
  if (!file)
    return file.takeError();
  set.fileList.push_back(std::move(*file));
  return set;
}

/// A shard lies beside its index: its name has no folders in it.
static bool isFileName(StringRef name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         !name.contains('/') && !name.contains('\0');
}

/// The index's tensors by shard, both in alphabetical order.
static Expected<std::map<std::string, std::vector<std::string>>>
readIndex(StringRef path) {
  Expected<json::Object> root = readJsonObject(path);
  if (!root)
    return root.takeError();
  const json::Object *map = root->getObject("weight_map");
  if (!map)
    return fileError(path, "weight_map is not an object");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto &[tensor, value] : *map) {
    std::optional<StringRef> shard = value.getAsString();
    if (!shard || !isFileName(*shard))
      return fileError(path, "weight_map: tensor '" + StringRef(tensor) +
                                 "' is in no file beside this one");
    shards[shard->str()].push_back(StringRef(tensor).str());
  }
  if (shards.empty() || shards.size() > maxShards)
    return fileError(path, formatv("weight_map: {0} files are not in [1, {1}]",
                                   shards.size(), maxShards)
                               .str());
  for (auto &[shard, tensors] : shards)
    llvm::sort(tensors);
  return shards;
}

Error SafetensorsSet::openShards(StringRef indexPath) {
  auto shards = readIndex(indexPath);
  if (!shards)
    return shards.takeError();
  llvm::StringSet<> names;
  for (const auto &[shard, tensors] : *shards) {
    llvm::SmallString<128> path = llvm::sys::path::parent_path(indexPath);
    llvm::sys::path::append(path, shard);
    Expected<SafetensorsFile::Ptr> file = SafetensorsFile::open(path);
    if (!file)
      return file.takeError();
    for (const std::string &tensor : tensors)
      if (!(*file)->tensor(tensor))
        return fileError(indexPath, "weight_map: tensor '" + Twine(tensor) +
                                        "' is not in '" + shard + "'");
    for (const SafetensorsTensor &tensor : (*file)->tensors())
      if (!names.insert(tensor.name).second)
        return fileError((*file)->name(), "tensor '" + tensor.name +
                                              "' is in another file, too");
    fileList.push_back(std::move(*file));
  }
  return Error::success();
}

SafetensorsSet::Found SafetensorsSet::tensor(StringRef name) const {
  for (const SafetensorsFile::Ptr &file : fileList)
    if (const SafetensorsTensor *tensor = file->tensor(name))
      return {file, tensor};
  return {};
}
