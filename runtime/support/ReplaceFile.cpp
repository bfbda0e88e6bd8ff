//===- ReplaceFile.cpp - Whole files or none --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/ReplaceFile.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <unistd.h>

using namespace kvrm;

Status kvrm::replaceFile(const std::string &path, std::string_view text) {
  std::string part = path + ".part";
  std::FILE *file = std::fopen(part.c_str(), "we");
  if (!file)
    return makeError(StatusCode::IoError, path,
                     ": cannot create: ", std::strerror(errno));
  bool isWritten =
      std::fwrite(text.data(), 1, text.size(), file) == text.size();
  int error = errno;
  if (std::fclose(file) != 0 && isWritten) {
    isWritten = false;
    error = errno;
  }
  if (isWritten && std::rename(part.c_str(), path.c_str()) == 0)
    return Status::ok();
  if (isWritten)
    error = errno;
  ::unlink(part.c_str());
  return makeError(StatusCode::IoError, path,
                   isWritten ? ": cannot move into place: "
                             : ": cannot write: ",
                   std::strerror(error));
}
