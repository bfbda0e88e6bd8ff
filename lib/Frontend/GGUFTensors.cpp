//===- GGUFTensors.cpp - The tensors of GGUF files ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUFTensors.h"

#include "kvrm/Frontend/BlockCodes.h"

#include "llvm/Support/FormatVariadic.h"

#include <cmath>
#include <cstring>

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

using FilePtr = GGUFParts::FilePtr;

static std::string originOf(const GGUFFile &file, const GGUFTensor &tensor) {
  return (file.name() + ": tensor '" + tensor.name + "'").str();
}

namespace {
class TensorSource final : public WeightSource {
public:
  TensorSource(FilePtr file, const GGUFTensor &tensor)
      : file(std::move(file)), tensor(tensor),
        rowBytes(tensor.bytes / static_cast<uint64_t>(tensor.rows())) {}

  int64_t rows() const override { return tensor.rows(); }
  int64_t cols() const override { return tensor.cols(); }
  void readRows(int64_t begin, int64_t end, float *out) const override {
    dequantize(tensor.type,
               tensor.data + static_cast<uint64_t>(begin) * rowBytes,
               (end - begin) * cols(), out);
  }
  std::optional<BlockFormat> blockFormat() const override {
    return blockFormatOf(tensor.type);
  }
  void readBlocks(int64_t begin, int64_t end, uint8_t *out) const override {
    std::memcpy(out, tensor.data + static_cast<uint64_t>(begin) * rowBytes,
                static_cast<uint64_t>(end - begin) * rowBytes);
  }
  std::string origin(int64_t) const override { return originOf(*file, tensor); }

private:
  FilePtr file; ///< keeps the mapping
  const GGUFTensor &tensor;
  uint64_t rowBytes;
};
} // namespace

Expected<SourcePtr> GGUFTensors::take(const Twine &name, int64_t rows,
                                      int64_t cols) {
  std::string text = name.str();
  GGUFParts::Found found = parts.tensor(text);
  if (!found.tensor)
    return fileError(parts.first()->name(), "tensor '" + text + "' is missing");
  llvm::SmallVector<int64_t, 4> wanted = {rows};
  if (cols > 0)
    wanted.insert(wanted.begin(), cols);
  const auto &dims = found.tensor->dims;
  if (ArrayRef(dims) != ArrayRef(wanted))
    return fileError(found.file->name(),
                     formatv("tensor '{0}': dimensions [{1:$[, ]}], expected "
                             "[{2:$[, ]}]",
                             text, llvm::make_range(dims.begin(), dims.end()),
                             llvm::make_range(wanted.begin(), wanted.end()))
                         .str());
  taken.insert(text);
  if (cols > 0)
    return std::make_unique<TensorSource>(found.file, *found.tensor);
  std::vector<float> values(static_cast<size_t>(rows));
  dequantize(found.tensor->type, found.tensor->data, rows, values.data());
  return columnOf(std::move(values), originOf(*found.file, *found.tensor));
}

Error GGUFTensors::checkAllTaken() const {
  for (const FilePtr &part : parts.all())
    for (const GGUFTensor &tensor : part->tensors())
      if (!taken.contains(tensor.name))
        return fileError(part->name(), "tensor '" + tensor.name +
                                           "' has no place in a '" +
                                           architecture + "' decoder");
  return Error::success();
}

Expected<std::vector<double>> GGUFTensors::takeValues(StringRef name,
                                                      int64_t count) {
  if (!has(name))
    return std::vector<double>();
  Expected<SourcePtr> source = take(name, count, 0);
  if (!source)
    return source.takeError();
  std::vector<float> values(static_cast<size_t>(count));
  (*source)->readRows(0, count, values.data());
  for (float value : values)
    if (!(value > 0.0f) || !std::isfinite(value))
      return fileError(
          parts.first()->name(),
          formatv("tensor '{0}': factor {1} is not positive", name, value)
              .str());
  return std::vector<double>(values.begin(), values.end());
}
