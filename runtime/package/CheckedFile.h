//===- CheckedFile.h - A file with its size and checksum --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the readers of packages and kernel sets share. Private to the runtime.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_CHECKEDFILE_H
#define KVRM_RUNTIME_PACKAGE_CHECKEDFILE_H

#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <string>
#include <string_view>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace kvrm {

/// An open file that knows its name, size and, at the end, checksum.
class CheckedFile {
public:
  CheckedFile() = default;
  CheckedFile(CheckedFile &&other) noexcept;
  CheckedFile(const CheckedFile &) = delete;
  CheckedFile &operator=(const CheckedFile &) = delete;
  CheckedFile &operator=(CheckedFile &&) = delete;
  ~CheckedFile();

  static Expected<CheckedFile> open(const std::string &path);

  Status checkSize(const FileInfo &want) const;
  /// Reads the next `bytes` bytes, in pieces that are hashed while in cache.
  Status read(uint8_t *to, int64_t bytes);
  /// Compares the checksum of all that was read.
  Status checkHash(const FileInfo &want) const;
  /// Reads all of it for its checksum alone.
  Status checkAll(const FileInfo &want);
  /// Reads all of it, of the size and checksum that the manifest says.
  Expected<std::string> readAll(const FileInfo &want);

  int64_t bytes() const { return size; }
  const std::string &name() const { return path; }

private:
  int descriptor = -1;
  XXH3_state_t *hash = nullptr;
  std::string path;
  int64_t size = 0;
};

/// `folder` and `name` with one slash between.
std::string joinPath(const std::string &folder, std::string_view name);

/// Reads manifest.json of the folder `path`; `kind` is what the folder should
/// be. Sets `where` to the manifest's path. Its checksum is not checked yet:
/// what is wrong with a field, another ABI above all, says more than that.
Expected<std::string> readManifestText(const std::string &path,
                                       std::string_view kind,
                                       std::string &where);

/// Checks the checksum that a manifest ends with, of all bytes before it.
Status checkSeal(std::string_view text, const std::string &path);

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_CHECKEDFILE_H
