//===- TextPart.h - A text of which a part is trusted -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_TEXTPART_H
#define KVRM_TEXT_TEXTPART_H

#include <string>

namespace kvrm {

/// Parts in a row are one text. Special tokens are looked for inside of those
/// with `parseSpecial` alone.
struct TextPart {
  std::string text;
  bool parseSpecial;
};

} // namespace kvrm

#endif // KVRM_TEXT_TEXTPART_H
