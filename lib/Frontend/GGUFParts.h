//===- GGUFParts.h - Models in one GGUF file or in several ------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_GGUFPARTS_H
#define KVRM_FRONTEND_GGUFPARTS_H

#include "kvrm/Frontend/GGUF.h"

#include <memory>
#include <vector>

namespace kvrm {

/// A model's file, or the parts that llama.cpp's gguf-split makes of one:
/// NAME-00001-of-00003.gguf and so on. The first has the metadata, each has
/// some of the tensors.
class GGUFParts {
public:
  using FilePtr = std::shared_ptr<const GGUFFile>;
  struct Found {
    FilePtr file; ///< null if no part has the tensor
    const GGUFTensor *tensor = nullptr;
  };

  /// Opens `path` and, if it is the first of several parts, the others.
  static llvm::Expected<GGUFParts> open(llvm::StringRef path);

  const FilePtr &first() const { return files.front(); }
  llvm::ArrayRef<FilePtr> all() const { return files; }
  Found tensor(llvm::StringRef name) const;

private:
  llvm::Error openOthers(llvm::StringRef path, int64_t count);
  llvm::Error checkTensors() const;

  std::vector<FilePtr> files;
};

} // namespace kvrm

#endif // KVRM_FRONTEND_GGUFPARTS_H
