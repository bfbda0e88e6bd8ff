//===- FileBuffer.h - The bytes of a file -----------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_FILEBUFFER_H
#define KVRM_FRONTEND_FILEBUFFER_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

namespace kvrm {

/// All bytes of a file, mapped if that is possible. A device is refused: one
/// such as /dev/zero has no end.
llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>
openFile(llvm::StringRef path);

} // namespace kvrm

#endif // KVRM_FRONTEND_FILEBUFFER_H
