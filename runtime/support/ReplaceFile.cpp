//===- ReplaceFile.cpp - Whole files or none --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/ReplaceFile.h"

#include <cerrno>
#include <cstring>
#include <unistd.h>

using namespace kvrm;

UnfinishedFile::UnfinishedFile(const std::string &path)
    : path(path), temporary(path + ".tmp-" + std::to_string(::getpid())),
      file(std::fopen(temporary.c_str(), "wbe")) {}

Expected<UnfinishedFile> UnfinishedFile::create(const std::string &path) {
  UnfinishedFile created(path);
  if (!created.file)
    return created.fail("cannot create", errno);
  return created;
}

UnfinishedFile::~UnfinishedFile() {
  if (file)
    ::unlink(temporary.c_str());
}

Status UnfinishedFile::fail(const char *what, int error) const {
  return makeError(StatusCode::IoError, path, ": ", what, ": ",
                   std::strerror(error));
}

Status UnfinishedFile::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size())
    return fail("cannot write", errno);
  return Status::ok();
}

Status UnfinishedFile::seek(int64_t offset) {
  if (::fseeko(file.get(), offset, SEEK_SET) != 0)
    return fail("cannot write", errno);
  return Status::ok();
}

Status UnfinishedFile::commit() {
  // What failed before has left its mark, but not its reason.
  int error = std::ferror(file.get()) ? EIO : 0;
  if (std::fclose(file.release()) != 0 && error == 0)
    error = errno;
  const char *what = "cannot write";
  if (error == 0) {
    if (std::rename(temporary.c_str(), path.c_str()) == 0)
      return Status::ok();
    error = errno;
    what = "cannot move into place";
  }
  ::unlink(temporary.c_str());
  return fail(what, error);
}

Status kvrm::replaceFile(const std::string &path, std::string_view text) {
  Expected<UnfinishedFile> file = UnfinishedFile::create(path);
  KVRM_TRY(file.status());
  KVRM_TRY(file->write(text));
  return file->commit();
}
