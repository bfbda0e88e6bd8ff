//===- GGUF.cpp - Reader of GGUF model files ------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/GGUF.h"

#include "kvrm/Frontend/FileBuffer.h"

#include "llvm/ADT/Twine.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

#include <bit>
#include <cstring>
#include <limits>

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

/// Limits of the specification and of what is sensible to read.
static constexpr uint64_t maxKeyBytes = 65535;
static constexpr uint64_t maxTensorNameBytes = 64;
static constexpr uint32_t maxDims = 4;
static constexpr uint64_t defaultAlignment = 32;
static constexpr uint64_t maxAlignment = 1 << 20;

static std::optional<uint64_t> checkedMul(uint64_t a, uint64_t b) {
  bool overflowed = false;
  uint64_t product = llvm::SaturatingMultiply(a, b, &overflowed);
  return overflowed ? std::nullopt : std::optional(product);
}

/// Bytes of a scalar metadata value; 0 if strings, arrays or no type at all.
static uint64_t scalarBytes(GGUFValueType type) {
  switch (type) {
  case GGUFValueType::UInt8:
  case GGUFValueType::Int8:
  case GGUFValueType::Bool:
    return 1;
  case GGUFValueType::UInt16:
  case GGUFValueType::Int16:
    return 2;
  case GGUFValueType::UInt32:
  case GGUFValueType::Int32:
  case GGUFValueType::Float32:
    return 4;
  case GGUFValueType::UInt64:
  case GGUFValueType::Int64:
  case GGUFValueType::Float64:
    return 8;
  case GGUFValueType::String:
  case GGUFValueType::Array:
    return 0;
  }
  return 0;
}

static StringRef nameOf(GGUFValueType type) {
  switch (type) {
  case GGUFValueType::UInt8:
    return "uint8";
  case GGUFValueType::Int8:
    return "int8";
  case GGUFValueType::UInt16:
    return "uint16";
  case GGUFValueType::Int16:
    return "int16";
  case GGUFValueType::UInt32:
    return "uint32";
  case GGUFValueType::Int32:
    return "int32";
  case GGUFValueType::Float32:
    return "float32";
  case GGUFValueType::Bool:
    return "bool";
  case GGUFValueType::String:
    return "string";
  case GGUFValueType::Array:
    return "array";
  case GGUFValueType::UInt64:
    return "uint64";
  case GGUFValueType::Int64:
    return "int64";
  case GGUFValueType::Float64:
    return "float64";
  }
  return "unknown";
}

int64_t GGUFTensor::rows() const {
  int64_t product = 1;
  for (int64_t dim : ArrayRef(dims).drop_front())
    product *= dim;
  return product;
}

//===----------------------------------------------------------------------===//
// Parsing
//===----------------------------------------------------------------------===//

namespace kvrm {

/// Walks the file once. `position` never passes `size`.
class GGUFParser {
public:
  explicit GGUFParser(GGUFFile &file)
      : file(file), fileName(file.name()),
        base(reinterpret_cast<const uint8_t *>(file.buffer->getBufferStart())),
        size(file.buffer->getBufferSize()) {}

  Error parse();

private:
  Error fail(const Twine &message) const {
    return fileError(fileName, message);
  }
  Error truncated(const Twine &what, uint64_t needed) const {
    return fail(what + formatv(": {0} bytes needed at offset {1}, but the file "
                               "ends at {2}",
                               needed, position, size)
                           .str());
  }

  template <typename T> Expected<T> readNumber(const Twine &what) {
    if (size - position < sizeof(T))
      return truncated(what, sizeof(T));
    T value = llvm::support::endian::read<T, llvm::endianness::little>(
        base + position);
    position += sizeof(T);
    return value;
  }

  Expected<StringRef> readString(const Twine &what) {
    Expected<uint64_t> length = readNumber<uint64_t>(what + " length");
    if (!length)
      return length.takeError();
    if (*length > size - position)
      return truncated(what, *length);
    StringRef text(reinterpret_cast<const char *>(base + position), *length);
    position += *length;
    return text;
  }

  Error parsePair(uint64_t index);
  Error parseTensor(uint64_t index);
  Error placeTensors();

  GGUFFile &file;
  StringRef fileName;
  const uint8_t *base;
  uint64_t size;
  uint64_t position = 0;
  std::vector<uint64_t> offsets; ///< of tensors, in the data section
};

} // namespace kvrm

Error GGUFParser::parse() {
  Expected<uint32_t> magic = readNumber<uint32_t>("magic");
  if (!magic)
    return magic.takeError();
  if (std::memcmp(base, "GGUF", 4) != 0)
    return fail("not a GGUF file: it starts with " +
                formatv("0x{0:x-8}", *magic).str() +
                ", not with the magic 'GGUF'");
  Expected<uint32_t> version = readNumber<uint32_t>("version");
  if (!version)
    return version.takeError();
  if (*version != 2 && *version != 3) {
    bool swapped =
        llvm::byteswap(*version) == 2 || llvm::byteswap(*version) == 3;
    return fail(swapped ? "big-endian GGUF files are not supported"
                        : formatv("GGUF version {0} is not supported (2 and 3 "
                                  "are)",
                                  *version)
                              .str());
  }
  file.fileVersion = *version;

  Expected<uint64_t> tensors = readNumber<uint64_t>("tensor count");
  if (!tensors)
    return tensors.takeError();
  Expected<uint64_t> pairs = readNumber<uint64_t>("metadata count");
  if (!pairs)
    return pairs.takeError();
  // The least a pair takes is key length, type and one byte; a tensor, name
  // length, dimension count, one dimension, type and offset.
  uint64_t left = size - position;
  if (*pairs > left / 13)
    return fail(formatv("metadata count {0} cannot fit in the {1} bytes left",
                        *pairs, left)
                    .str());
  if (*tensors > left / 32)
    return fail(formatv("tensor count {0} cannot fit in the {1} bytes left",
                        *tensors, left)
                    .str());

  for (uint64_t i = 0; i < *pairs; ++i)
    if (Error error = parsePair(i))
      return error;
  file.tensorList.reserve(*tensors);
  for (uint64_t i = 0; i < *tensors; ++i)
    if (Error error = parseTensor(i))
      return error;
  return placeTensors();
}

Error GGUFParser::parsePair(uint64_t index) {
  std::string ordinal = formatv("metadata key {0}", index);
  Expected<StringRef> key = readString(ordinal);
  if (!key)
    return key.takeError();
  if (key->empty() || key->size() > maxKeyBytes)
    return fail(ordinal + formatv(": length {0} is not in [1, {1}]",
                                  key->size(), maxKeyBytes)
                              .str());
  std::string what = ("metadata '" + *key + "'").str();
  Expected<uint32_t> rawType = readNumber<uint32_t>(what + " type");
  if (!rawType)
    return rawType.takeError();
  auto known = [](uint32_t type) {
    return type <= static_cast<uint32_t>(GGUFValueType::Float64);
  };
  if (!known(*rawType))
    return fail(what + formatv(": unknown value type {0}", *rawType).str());

  GGUFFile::Value value = {static_cast<GGUFValueType>(*rawType),
                           static_cast<GGUFValueType>(*rawType), 1, nullptr};
  if (value.type == GGUFValueType::Array) {
    Expected<uint32_t> rawElement =
        readNumber<uint32_t>(what + " element type");
    if (!rawElement)
      return rawElement.takeError();
    if (!known(*rawElement))
      return fail(what +
                  formatv(": unknown element type {0}", *rawElement).str());
    value.elementType = static_cast<GGUFValueType>(*rawElement);
    if (value.elementType == GGUFValueType::Array)
      return fail(what + ": arrays of arrays are not supported");
    Expected<uint64_t> count = readNumber<uint64_t>(what + " array length");
    if (!count)
      return count.takeError();
    value.count = *count;
  }

  value.payload = base + position;
  if (value.elementType == GGUFValueType::String) {
    for (uint64_t i = 0; i < value.count; ++i) {
      Expected<StringRef> text =
          readString(value.type == GGUFValueType::Array
                         ? Twine(what) + " element " + Twine(i)
                         : Twine(what));
      if (!text)
        return text.takeError();
    }
  } else {
    uint64_t elementBytes = scalarBytes(value.elementType);
    if (value.count > (size - position) / elementBytes) {
      return truncated(what,
                       llvm::SaturatingMultiply(value.count, elementBytes));
    }
    if (value.elementType == GGUFValueType::Bool)
      for (uint64_t i = 0; i < value.count; ++i)
        if (value.payload[i] > 1)
          return fail(
              what +
              formatv(": {0} is not a bool (0 or 1)", value.payload[i]).str());
    position += value.count * elementBytes;
  }
  if (!file.metadata.try_emplace(*key, value).second)
    return fail(what + ": key occurs twice");
  return Error::success();
}

Error GGUFParser::parseTensor(uint64_t index) {
  std::string ordinal = formatv("tensor {0}", index);
  Expected<StringRef> name = readString(ordinal + " name");
  if (!name)
    return name.takeError();
  if (name->empty() || name->size() > maxTensorNameBytes)
    return fail(ordinal + formatv(": name length {0} is not in [1, {1}]",
                                  name->size(), maxTensorNameBytes)
                              .str());
  std::string what = ("tensor '" + *name + "'").str();
  Expected<uint32_t> dims = readNumber<uint32_t>(what + " dimension count");
  if (!dims)
    return dims.takeError();
  if (*dims == 0 || *dims > maxDims)
    return fail(
        what +
        formatv(": {0} dimensions, not in [1, {1}]", *dims, maxDims).str());

  GGUFTensor tensor;
  tensor.name = *name;
  uint64_t elements = 1;
  for (uint32_t d = 0; d < *dims; ++d) {
    Expected<uint64_t> dim = readNumber<uint64_t>(what + " dimension");
    if (!dim)
      return dim.takeError();
    if (*dim == 0)
      return fail(what + formatv(": dimension {0} is 0", d).str());
    std::optional<uint64_t> product = checkedMul(elements, *dim);
    if (!product ||
        *product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return fail(what + ": the number of elements exceeds 2^63 - 1");
    elements = *product;
    tensor.dims.push_back(static_cast<int64_t>(*dim));
  }

  Expected<uint32_t> rawType = readNumber<uint32_t>(what + " type");
  if (!rawType)
    return rawType.takeError();
  const GGMLTypeInfo *info = lookupGGMLType(*rawType);
  if (!info)
    return fail(what + formatv(": tensor type {0} is not supported (F32, F16, "
                               "BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, "
                               "Q5_K and Q6_K are)",
                               *rawType)
                           .str());
  tensor.type = static_cast<GGMLType>(*rawType);
  if (tensor.dims[0] % info->blockElements != 0)
    return fail(what + formatv(": row length {0} is not a multiple of {1}, the "
                               "block of {2}",
                               tensor.dims[0], info->blockElements, info->name)
                           .str());
  std::optional<uint64_t> bytes =
      checkedMul(elements / static_cast<uint64_t>(info->blockElements),
                 static_cast<uint64_t>(info->blockBytes));
  if (!bytes)
    return fail(what + ": the size in bytes exceeds 2^64 - 1");
  tensor.bytes = *bytes;

  Expected<uint64_t> offset = readNumber<uint64_t>(what + " offset");
  if (!offset)
    return offset.takeError();
  offsets.push_back(*offset);
  if (!file.tensorIndex.try_emplace(*name, index).second)
    return fail(what + ": name occurs twice");
  file.tensorList.push_back(std::move(tensor));
  return Error::success();
}

Error GGUFParser::placeTensors() {
  Expected<int64_t> alignment =
      file.getInt("general.alignment", defaultAlignment);
  if (!alignment)
    return alignment.takeError();
  if (*alignment < 8 || *alignment > static_cast<int64_t>(maxAlignment) ||
      !llvm::isPowerOf2_64(static_cast<uint64_t>(*alignment)))
    return fail(formatv("metadata 'general.alignment': {0} is not a power of "
                        "two in [8, {1}]",
                        *alignment, maxAlignment)
                    .str());
  uint64_t align = static_cast<uint64_t>(*alignment);
  uint64_t start = llvm::alignTo(position, align);
  uint64_t sectionBytes = start < size ? size - start : 0;
  for (auto [tensor, offset] : llvm::zip_equal(file.tensorList, offsets)) {
    if (offset % align != 0)
      return fail(formatv("tensor '{0}': offset {1} is not a multiple of the "
                          "alignment {2}",
                          tensor.name, offset, align)
                      .str());
    if (offset > sectionBytes || tensor.bytes > sectionBytes - offset)
      return fail(formatv("tensor '{0}': offset {1} + {2} bytes is past the "
                          "end of the data section ({3} bytes)",
                          tensor.name, offset, tensor.bytes, sectionBytes)
                      .str());
    tensor.data = base + start + offset;
  }
  return Error::success();
}

Expected<std::shared_ptr<const GGUFFile>> GGUFFile::open(StringRef path) {
  auto buffer = openFile(path);
  if (!buffer)
    return buffer.takeError();
  return parse(std::move(*buffer));
}

Expected<std::shared_ptr<const GGUFFile>>
GGUFFile::parse(std::unique_ptr<llvm::MemoryBuffer> buffer) {
  std::shared_ptr<GGUFFile> file(new GGUFFile(std::move(buffer)));
  if (Error error = GGUFParser(*file).parse())
    return error;
  return file;
}

//===----------------------------------------------------------------------===//
// Lookups
//===----------------------------------------------------------------------===//

const GGUFTensor *GGUFFile::tensor(StringRef tensorName) const {
  auto it = tensorIndex.find(tensorName);
  return it == tensorIndex.end() ? nullptr : &tensorList[it->second];
}

Expected<const GGUFFile::Value *> GGUFFile::find(StringRef key) const {
  auto it = metadata.find(key);
  if (it == metadata.end())
    return fileError(name(), "metadata '" + key + "' is missing");
  return &it->second;
}

Error GGUFFile::wrongType(StringRef key, const Value &value,
                          StringRef wanted) const {
  std::string type = nameOf(value.type).str();
  if (value.type == GGUFValueType::Array)
    type += (" of " + nameOf(value.elementType)).str();
  return fileError(name(), "metadata '" + key + "': expected " + wanted +
                               ", found " + type);
}

template <typename T> static T load(const uint8_t *bytes) {
  return llvm::support::endian::read<T, llvm::endianness::little>(bytes);
}

/// An integer of any width; empty if `type` is none or the value exceeds
/// int64.
static std::optional<int64_t> loadInt(GGUFValueType type,
                                      const uint8_t *bytes) {
  switch (type) {
  case GGUFValueType::UInt8:
    return load<uint8_t>(bytes);
  case GGUFValueType::Int8:
    return load<int8_t>(bytes);
  case GGUFValueType::UInt16:
    return load<uint16_t>(bytes);
  case GGUFValueType::Int16:
    return load<int16_t>(bytes);
  case GGUFValueType::UInt32:
    return load<uint32_t>(bytes);
  case GGUFValueType::Int32:
    return load<int32_t>(bytes);
  case GGUFValueType::Int64:
    return load<int64_t>(bytes);
  case GGUFValueType::UInt64: {
    auto value = load<uint64_t>(bytes);
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return std::nullopt;
    return static_cast<int64_t>(value);
  }
  default:
    return std::nullopt;
  }
}

Expected<int64_t> GGUFFile::getInt(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  std::optional<int64_t> number = loadInt((*value)->type, (*value)->payload);
  if (!number)
    return wrongType(key, **value, "an integer below 2^63");
  return *number;
}

Expected<double> GGUFFile::getFloat(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  if ((*value)->type == GGUFValueType::Float32)
    return std::bit_cast<float>(load<uint32_t>((*value)->payload));
  if ((*value)->type == GGUFValueType::Float64)
    return std::bit_cast<double>(load<uint64_t>((*value)->payload));
  std::optional<int64_t> number = loadInt((*value)->type, (*value)->payload);
  if (!number)
    return wrongType(key, **value, "a number");
  return static_cast<double>(*number);
}

Expected<bool> GGUFFile::getBool(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  if ((*value)->type != GGUFValueType::Bool)
    return wrongType(key, **value, "a bool");
  return *(*value)->payload != 0;
}

/// Reads a string that parsing has checked, and steps past it.
static StringRef takeString(const uint8_t *&bytes) {
  auto length = load<uint64_t>(bytes);
  StringRef text(reinterpret_cast<const char *>(bytes + 8), length);
  bytes += 8 + length;
  return text;
}

Expected<StringRef> GGUFFile::getString(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  if ((*value)->type != GGUFValueType::String)
    return wrongType(key, **value, "a string");
  const uint8_t *bytes = (*value)->payload;
  return takeString(bytes);
}

Expected<std::vector<StringRef>> GGUFFile::getStrings(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  if ((*value)->type != GGUFValueType::Array ||
      (*value)->elementType != GGUFValueType::String)
    return wrongType(key, **value, "an array of strings");
  std::vector<StringRef> texts;
  texts.reserve((*value)->count);
  const uint8_t *bytes = (*value)->payload;
  for (uint64_t i = 0; i < (*value)->count; ++i)
    texts.push_back(takeString(bytes));
  return texts;
}

Expected<std::vector<int64_t>> GGUFFile::getInts(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  std::vector<int64_t> numbers;
  if ((*value)->type == GGUFValueType::Array) {
    uint64_t bytes = scalarBytes((*value)->elementType);
    numbers.reserve((*value)->count);
    for (uint64_t i = 0; i < (*value)->count; ++i) {
      std::optional<int64_t> number =
          loadInt((*value)->elementType, (*value)->payload + i * bytes);
      if (!number)
        break;
      numbers.push_back(*number);
    }
    if (numbers.size() == (*value)->count)
      return numbers;
  }
  return wrongType(key, **value, "an array of integers below 2^63");
}

Expected<std::vector<float>> GGUFFile::getFloats(StringRef key) const {
  Expected<const Value *> value = find(key);
  if (!value)
    return value.takeError();
  if ((*value)->type != GGUFValueType::Array ||
      (*value)->elementType != GGUFValueType::Float32)
    return wrongType(key, **value, "an array of float32");
  std::vector<float> numbers((*value)->count);
  for (auto [i, number] : llvm::enumerate(numbers))
    number = load<float>((*value)->payload + i * sizeof(float));
  return numbers;
}

std::vector<StringRef> GGUFFile::keys(StringRef prefix) const {
  std::vector<StringRef> found;
  for (StringRef key : metadata.keys())
    if (key.starts_with(prefix))
      found.push_back(key);
  llvm::sort(found);
  return found;
}

Expected<int64_t> GGUFFile::getInt(StringRef key, int64_t absent) const {
  return has(key) ? getInt(key) : Expected<int64_t>(absent);
}

Expected<double> GGUFFile::getFloat(StringRef key, double absent) const {
  return has(key) ? getFloat(key) : Expected<double>(absent);
}

Expected<bool> GGUFFile::getBool(StringRef key, bool absent) const {
  return has(key) ? getBool(key) : Expected<bool>(absent);
}

Expected<StringRef> GGUFFile::getString(StringRef key, StringRef absent) const {
  return has(key) ? getString(key) : Expected<StringRef>(absent);
}
