//===- LogitsFile.h - Logits as a NumPy file --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_MEASURE_LOGITSFILE_H
#define KVRM_TOOLS_MEASURE_LOGITSFILE_H

#include "kvrm/runtime/support/ReplaceFile.h"

#include <cstdint>
#include <string>

namespace kvrm::measure {

/// A NumPy file of float32 [sequences][steps][vocabulary], filled row by row in
/// any order. It has a temporary name until it is complete. The format is
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
class LogitsFile {
public:
  /// Errors: InvalidArgument for a size over the limit, IoError.
  static Expected<LogitsFile> create(const std::string &path, int64_t sequences,
                                     int64_t steps, int64_t vocabulary);
  Status write(int64_t sequence, int64_t step, const float *row);
  Status commit() { return file.commit(); }

private:
  LogitsFile(UnfinishedFile file, int64_t steps, int64_t rowBytes)
      : file(std::move(file)), steps(steps), rowBytes(rowBytes) {}
  Status writeHeader(int64_t sequences, int64_t vocabulary);

  UnfinishedFile file;
  int64_t steps;
  int64_t rowBytes;
  int64_t dataStart = 0;
};

} // namespace kvrm::measure

#endif // KVRM_TOOLS_MEASURE_LOGITSFILE_H
