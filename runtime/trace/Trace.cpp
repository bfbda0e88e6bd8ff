//===- Trace.cpp - Requests as they came in production ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/trace/Trace.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sys/stat.h>

using namespace kvrm;

static Expected<std::string> readText(const std::string &path) {
  auto failed = [&](const char *what) {
    return makeError(errno == ENOENT ? StatusCode::NotFound
                                     : StatusCode::IoError,
                     path, ": ", what, ": ", std::strerror(errno));
  };
  std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen(path.c_str(), "rb"),
                                              std::fclose);
  if (!file)
    return failed("cannot open");
  struct stat info = {};
  if (::fstat(::fileno(file.get()), &info) != 0)
    return failed("cannot look at");
  if (S_ISDIR(info.st_mode))
    return invalidArgument(path, ": is a folder");
  std::string text;
  char buffer[1 << 16];
  while (size_t count = std::fread(buffer, 1, sizeof(buffer), file.get())) {
    text.append(buffer, count);
    if (static_cast<int64_t>(text.size()) > maxTraceBytes)
      return invalidArgument(path, ": is longer than the limit of ",
                             maxTraceBytes, " bytes");
  }
  if (std::ferror(file.get()))
    return failed("cannot read");
  // A byte-order mark says what the file is, and is none of the trace.
  if (text.starts_with("\xef\xbb\xbf"))
    text.erase(0, 3);
  return text;
}

Expected<Trace> kvrm::loadTrace(const std::string &source, TraceFormat format) {
  if (isSyntheticTrace(source))
    return makeSyntheticTrace(source);
  Expected<std::string> text = readText(source);
  KVRM_TRY(text.status());
  if (format == TraceFormat::Auto)
    format =
        text->starts_with('{') ? TraceFormat::Mooncake : TraceFormat::Azure;
  return format == TraceFormat::Mooncake ? parseMooncakeTrace(*text, source)
                                         : parseAzureTrace(*text, source);
}
