//===- LogitsFile.cpp - Logits as a NumPy file ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LogitsFile.h"

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

using namespace kvrm;
using namespace kvrm::measure;

static constexpr int64_t maxLogitsBytes = int64_t(1) << 40;

LogitsFile::~LogitsFile() {
  if (descriptor >= 0)
    ::close(descriptor);
  if (!temporary.empty())
    ::unlink(temporary.c_str());
}

Status LogitsFile::open(const std::string &name, int64_t sequences,
                        int64_t stepCount, int64_t vocabulary) {
  path = name;
  steps = stepCount;
  rowBytes = vocabulary * int64_t(sizeof(float));
  if (sequences * steps > maxLogitsBytes / rowBytes)
    return invalidArgument("--logits: ", sequences, " x ", steps, " x ",
                           vocabulary, " floats are over the limit of ",
                           maxLogitsBytes, " bytes");
  std::string unfinished = path + ".tmp-" + std::to_string(::getpid());
  descriptor =
      ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0)
    return fail("cannot create");
  temporary = std::move(unfinished);
  return writeHeader(sequences, vocabulary);
}

Status LogitsFile::writeHeader(int64_t sequences, int64_t vocabulary) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                       std::to_string(sequences) + ", " +
                       std::to_string(steps) + ", " +
                       std::to_string(vocabulary) + "), }";
  // Magic, version 1.0 and a 16-bit length come first; data is aligned to 64.
  constexpr size_t prefix = 10;
  header.resize((prefix + header.size() + 1 + 63) / 64 * 64 - prefix, ' ');
  header.back() = '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += static_cast<char>(header.size() & 0xff);
  start += static_cast<char>(header.size() >> 8);
  start += header;
  dataStart = static_cast<int64_t>(start.size());
  return writeAt(start.data(), dataStart, 0);
}

Status LogitsFile::write(int64_t sequence, int64_t step, const float *row) {
  static_assert(std::endian::native == std::endian::little);
  return writeAt(reinterpret_cast<const char *>(row), rowBytes,
                 dataStart + (sequence * steps + step) * rowBytes);
}

Status LogitsFile::commit() {
  int result = ::close(descriptor);
  descriptor = -1;
  if (result != 0)
    return fail("cannot write");
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return fail("cannot move into place");
  temporary.clear();
  return Status::ok();
}

Status LogitsFile::fail(const char *what) const {
  return makeError(StatusCode::IoError, path, ": ", what, ": ",
                   std::strerror(errno));
}

Status LogitsFile::writeAt(const char *bytes, int64_t count, int64_t offset) {
  while (count > 0) {
    ssize_t written =
        ::pwrite(descriptor, bytes, static_cast<size_t>(count), offset);
    if (written < 0 && errno == EINTR)
      continue;
    if (written < 0)
      return fail("cannot write");
    bytes += written;
    count -= written;
    offset += written;
  }
  return Status::ok();
}
