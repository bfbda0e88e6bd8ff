//===- RunTool.h - Programs that a compilation calls ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_RUNTOOL_H
#define KVRM_CODEGEN_RUNTOOL_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <string>

namespace mlir::kvrm {

/// Runs `program` with `args`, which makes `output` of `input`, and returns
/// what it printed. That is in a file beside the output meanwhile. An error is
/// one line, the first that the program calls one.
llvm::Expected<std::string> runTool(llvm::StringRef program,
                                    llvm::ArrayRef<llvm::StringRef> args,
                                    llvm::StringRef input,
                                    llvm::StringRef output, unsigned seconds);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_RUNTOOL_H
