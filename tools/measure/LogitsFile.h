//===- LogitsFile.h - Logits as a NumPy file --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_MEASURE_LOGITSFILE_H
#define KVRM_TOOLS_MEASURE_LOGITSFILE_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <string>

namespace kvrm::measure {

/// A NumPy file of float32 [sequences][steps][vocabulary], filled row by row in
/// any order. It has a temporary name until it is complete. The format is
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
class LogitsFile {
public:
  LogitsFile() = default;
  LogitsFile(const LogitsFile &) = delete;
  LogitsFile &operator=(const LogitsFile &) = delete;
  /// Removes what was not committed.
  ~LogitsFile();

  /// Errors: InvalidArgument for a size over the limit, IoError.
  Status open(const std::string &name, int64_t sequences, int64_t stepCount,
              int64_t vocabulary);
  Status write(int64_t sequence, int64_t step, const float *row);
  Status commit();

private:
  Status writeHeader(int64_t sequences, int64_t vocabulary);
  Status writeAt(const char *bytes, int64_t count, int64_t offset);
  Status fail(const char *what) const;

  std::string path;
  std::string temporary;
  int descriptor = -1;
  int64_t dataStart = 0;
  int64_t rowBytes = 0;
  int64_t steps = 0;
};

} // namespace kvrm::measure

#endif // KVRM_TOOLS_MEASURE_LOGITSFILE_H
