//===- FileBuffer.cpp - The bytes of a file -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/FileBuffer.h"

#include "kvrm/Frontend/FileError.h"

#include "llvm/Support/FileSystem.h"

llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>
kvrm::openFile(llvm::StringRef path) {
  namespace fs = llvm::sys::fs;
  if (fs::file_status status; !fs::status(path, status) &&
                              status.type() == fs::file_type::character_file)
    return fileError(path, "is a device and no file");
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false,
                                            /*RequiresNullTerminator=*/false);
  if (!buffer)
    return fileError(path, "cannot open: " + buffer.getError().message());
  return std::move(*buffer);
}
