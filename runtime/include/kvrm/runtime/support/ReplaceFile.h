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
#include "kvrm/runtime/support/Unfinished.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <sys/stat.h>

namespace kvrm {

/// An output. A regular file has a temporary name until it is whole, so that
/// others see the old file at `path` or the new one; one that is not committed
/// is removed. Links are followed, and a new file may be used as the old one
/// could. What is no regular file (a device, a pipe, standard output by any of
/// its names, "-" among them) is written to as it is.
class UnfinishedFile {
public:
  /// Refuses what cannot be written, before there is anything to write.
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
  /// Where the bytes go until commit(), for who opens it again.
  const std::string &writtenPath() const {
    return temporary.empty() ? path : temporary;
  }

  /// Gives the file its name. Errors: IoError.
  Status commit();

private:
  struct Closer {
    void operator()(std::FILE *stream) const { std::fclose(stream); }
  };

  explicit UnfinishedFile(const std::string &path) : path(path) {}
  Status open();
  int openBeside(const struct stat *old);
  Status fail(const char *what, int error) const;

  std::string path;
  std::string target;    ///< what is replaced: `path` without links
  std::string temporary; ///< empty: written to as it is
  UnfinishedPath removal;
  std::unique_ptr<std::FILE, Closer> file; ///< null once committed or moved
};

/// Replaces the file at `path` by one with `text`, or leaves it as it was.
/// Errors: IoError.
Status replaceFile(const std::string &path, std::string_view text);

/// Refuses an output of a run that is one of its inputs (files, or folders of
/// which every file is read), whatever names and links lead there, or is
/// another of its outputs. Empty paths are none. Errors: InvalidArgument.
Status checkOutput(const std::string &output,
                   std::span<const std::string> inputs);

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_REPLACEFILE_H
