//===- GGUF.h - Reader of GGUF model files ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// GGUF versions 2 and 3, little-endian, as specified in
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// The whole structure of a file is checked when it is opened; afterwards every
// view it hands out is inside the mapping. Tensor data is not looked at.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_GGUF_H
#define KVRM_FRONTEND_GGUF_H

#include "kvrm/Frontend/FileError.h"
#include "kvrm/Frontend/Quantization.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvrm {

/// gguf_metadata_value_type.
enum class GGUFValueType : uint32_t {
  UInt8 = 0,
  Int8 = 1,
  UInt16 = 2,
  Int16 = 3,
  UInt32 = 4,
  Int32 = 5,
  Float32 = 6,
  Bool = 7,
  String = 8,
  Array = 9,
  UInt64 = 10,
  Int64 = 11,
  Float64 = 12
};

struct GGUFTensor {
  llvm::StringRef name;
  /// dims[0] is the contiguous one: a matrix [rows][cols] has {cols, rows}.
  llvm::SmallVector<int64_t, 4> dims;
  GGMLType type;
  const uint8_t *data;
  uint64_t bytes;

  int64_t cols() const { return dims[0]; }
  /// Product of the other dimensions.
  int64_t rows() const;
};

class GGUFFile {
public:
  static llvm::Expected<std::shared_ptr<const GGUFFile>>
  open(llvm::StringRef path);
  /// `buffer`'s identifier is the name in messages.
  static llvm::Expected<std::shared_ptr<const GGUFFile>>
  parse(std::unique_ptr<llvm::MemoryBuffer> buffer);

  llvm::StringRef name() const { return buffer->getBufferIdentifier(); }
  uint32_t version() const { return fileVersion; }
  llvm::ArrayRef<GGUFTensor> tensors() const { return tensorList; }
  const GGUFTensor *tensor(llvm::StringRef tensorName) const;

  bool has(llvm::StringRef key) const { return metadata.contains(key); }
  /// The metadata keys that start with `prefix`, in alphabetical order.
  std::vector<llvm::StringRef> keys(llvm::StringRef prefix) const;

  // Lookups that fail if the key is absent or of another type. Any integer
  // type serves as an integer, any number as a float.
  llvm::Expected<int64_t> getInt(llvm::StringRef key) const;
  llvm::Expected<double> getFloat(llvm::StringRef key) const;
  llvm::Expected<bool> getBool(llvm::StringRef key) const;
  llvm::Expected<llvm::StringRef> getString(llvm::StringRef key) const;
  llvm::Expected<std::vector<llvm::StringRef>>
  getStrings(llvm::StringRef key) const;
  llvm::Expected<std::vector<int64_t>> getInts(llvm::StringRef key) const;
  /// Of elements of float32.
  llvm::Expected<std::vector<float>> getFloats(llvm::StringRef key) const;

  // Lookups with a value for an absent key. Another type is still an error.
  llvm::Expected<int64_t> getInt(llvm::StringRef key, int64_t absent) const;
  llvm::Expected<double> getFloat(llvm::StringRef key, double absent) const;
  llvm::Expected<bool> getBool(llvm::StringRef key, bool absent) const;
  llvm::Expected<llvm::StringRef> getString(llvm::StringRef key,
                                            llvm::StringRef absent) const;

private:
  struct Value {
    GGUFValueType type;
    GGUFValueType elementType; ///< of an array
    uint64_t count;            ///< of an array
    const uint8_t *payload;
  };

  explicit GGUFFile(std::unique_ptr<llvm::MemoryBuffer> buffer)
      : buffer(std::move(buffer)) {}

  llvm::Expected<const Value *> find(llvm::StringRef key) const;
  llvm::Error wrongType(llvm::StringRef key, const Value &value,
                        llvm::StringRef wanted) const;

  friend class GGUFParser;
  std::unique_ptr<llvm::MemoryBuffer> buffer;
  uint32_t fileVersion = 0;
  llvm::StringMap<Value> metadata;
  std::vector<GGUFTensor> tensorList;
  llvm::StringMap<size_t> tensorIndex;
};

} // namespace kvrm

#endif // KVRM_FRONTEND_GGUF_H
