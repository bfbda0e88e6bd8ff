//===- OneLine.h - Text of others on a terminal -----------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_ONELINE_H
#define KVRM_RUNTIME_SUPPORT_ONELINE_H

#include <string>

namespace kvrm {

/// Text that may come from a file, as a terminal may get it: what would break
/// the line or command the terminal (the control characters of ASCII, and those
/// of Latin-1 in UTF-8) is shown as '?'.
inline std::string oneLine(std::string text) {
  auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size(); ++i) {
    bool isC1 = at(i) == 0xc2 && i + 1 < text.size() && at(i + 1) >= 0x80 &&
                at(i + 1) < 0xa0;
    if (isC1)
      text.erase(i, 1);
    if (isC1 || at(i) < ' ' || at(i) == 0x7f)
      text[i] = '?';
  }
  return text;
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_ONELINE_H
