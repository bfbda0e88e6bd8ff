//===- ReplaceFile.h - Whole files or none ----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_REPLACEFILE_H
#define KVRM_RUNTIME_SUPPORT_REPLACEFILE_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace kvrm {

/// A file with a temporary name until it is whole, so that others see the old
/// file at `path` or the new one. One that is not committed is removed.
class UnfinishedFile {
public:
  /// Errors: IoError.
  static Expected<UnfinishedFile> create(const std::string &path);
  UnfinishedFile(UnfinishedFile &&) noexcept = default;
  UnfinishedFile &operator=(UnfinishedFile &&) = delete;
  ~UnfinishedFile();

  /// Errors: IoError.
  Status write(std::string_view bytes);
  /// To write at a place next. Errors: IoError.
  Status seek(int64_t offset);
  /// For formatted output; commit() finds what failed.
  std::FILE *stream() const { return file.get(); }

  /// Gives the file its name. Errors: IoError.
  Status commit();

private:
  struct Closer {
    void operator()(std::FILE *stream) const { std::fclose(stream); }
  };

  explicit UnfinishedFile(const std::string &path);
  Status fail(const char *what, int error) const;

  std::string path;
  std::string temporary;
  std::unique_ptr<std::FILE, Closer> file; ///< null once committed or moved
};

/// Replaces the file at `path` by one with `text`, or leaves it as it was.
/// Errors: IoError.
Status replaceFile(const std::string &path, std::string_view text);

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_REPLACEFILE_H
