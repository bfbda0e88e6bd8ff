//===- LogitsFile.cpp - Logits as a NumPy file ------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LogitsFile.h"

#include <bit>

using namespace kvrm;
using namespace kvrm::measure;

static constexpr int64_t maxLogitsBytes = int64_t(1) << 40;

Expected<LogitsFile> LogitsFile::create(const std::string &path,
                                        int64_t sequences, int64_t steps,
                                        int64_t vocabulary) {
  int64_t rowBytes = vocabulary * int64_t(sizeof(float));
  if (sequences * steps > maxLogitsBytes / rowBytes)
    return invalidArgument("--logits: ", sequences, " x ", steps, " x ",
                           vocabulary, " floats are over the limit of ",
                           maxLogitsBytes, " bytes");
  Expected<UnfinishedFile> file = UnfinishedFile::create(path);
  KVRM_TRY(file.status());
  LogitsFile created(file.take(), steps, rowBytes);
  KVRM_TRY(created.writeHeader(sequences, vocabulary));
  return created;
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
  return file.write(start);
}

Status LogitsFile::write(int64_t sequence, int64_t step, const float *row) {
  static_assert(std::endian::native == std::endian::little);
  KVRM_TRY(file.seek(dataStart + (sequence * steps + step) * rowBytes));
  return file.write(
      {reinterpret_cast<const char *>(row), static_cast<size_t>(rowBytes)});
}
