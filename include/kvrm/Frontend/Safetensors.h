//===- Safetensors.h - Reader of safetensors files --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// safetensors, as specified in https://github.com/huggingface/safetensors: the
// length of a JSON header (64 bits, little-endian), the header, the data.
//
// The whole header is checked when a file is opened: tensors lie inside the
// data, fill it without a gap, and have the bytes that type and shape make.
// Afterwards every view that is handed out is inside the mapping. Tensor data
// is not looked at.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_SAFETENSORS_H
#define KVRM_FRONTEND_SAFETENSORS_H

#include "kvrm/Frontend/FileError.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvrm {

/// Elements of whole bytes. Those of float8 and smaller are refused by name.
enum class SafetensorsType : uint8_t {
  F64,
  F32,
  F16,
  BF16,
  I64,
  I32,
  I16,
  I8,
  U64,
  U32,
  U16,
  U8,
  Bool
};

/// As the format spells it: "BF16".
llvm::StringRef nameOf(SafetensorsType type);
int64_t sizeOf(SafetensorsType type);

/// Whether `convertToFloat` takes it: F64, F32, F16 or BF16.
bool isFloat(SafetensorsType type);
/// Converts `count` elements at any address; F64 is rounded to nearest.
void convertToFloat(SafetensorsType type, const uint8_t *in, int64_t count,
                    float *out);

struct SafetensorsTensor {
  std::string name;
  SafetensorsType type;
  /// Row-major; empty for a scalar. Sizes may be 0.
  llvm::SmallVector<int64_t, 4> shape;
  const uint8_t *data; ///< aligned to nothing
  uint64_t bytes;

  int64_t elements() const;
  /// Whether it is a buffer that old files have, of rotary frequencies: they
  /// follow from the configuration.
  bool isDerived() const {
    return llvm::StringRef(name).ends_with(".rotary_emb.inv_freq");
  }
};

class SafetensorsFile {
public:
  using Ptr = std::shared_ptr<const SafetensorsFile>;

  /// Maps the file at `path`.
  static llvm::Expected<Ptr> open(llvm::StringRef path);
  /// `buffer`'s identifier is the name in messages.
  static llvm::Expected<Ptr> parse(std::unique_ptr<llvm::MemoryBuffer> buffer);

  llvm::StringRef name() const { return buffer->getBufferIdentifier(); }
  /// In the order of their data.
  llvm::ArrayRef<SafetensorsTensor> tensors() const { return tensorList; }
  /// The tensor of this name, or null.
  const SafetensorsTensor *tensor(llvm::StringRef tensorName) const;

private:
  explicit SafetensorsFile(std::unique_ptr<llvm::MemoryBuffer> buffer)
      : buffer(std::move(buffer)) {}

  friend class SafetensorsParser;
  std::unique_ptr<llvm::MemoryBuffer> buffer;
  std::vector<SafetensorsTensor> tensorList;
  llvm::StringMap<size_t> tensorIndex;
};

/// The tensors of a model: those of one file, or of the shards that an index
/// names.
class SafetensorsSet {
public:
  struct Found {
    SafetensorsFile::Ptr file; ///< null if no file has the tensor
    const SafetensorsTensor *tensor = nullptr;
  };

  /// Opens one file or, if `path` ends in ".json", an index and its shards,
  /// which lie beside it.
  static llvm::Expected<SafetensorsSet> open(llvm::StringRef path);

  llvm::ArrayRef<SafetensorsFile::Ptr> files() const { return fileList; }
  Found tensor(llvm::StringRef name) const;

private:
  llvm::Error openShards(llvm::StringRef indexPath);

  std::vector<SafetensorsFile::Ptr> fileList;
};

} // namespace kvrm

#endif // KVRM_FRONTEND_SAFETENSORS_H
