//===- RunTool.cpp - Programs that a compilation calls --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RunTool.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Program.h"

using llvm::StringRef;
namespace fs = llvm::sys::fs;

/// A crash has many lines and a message one: that which says "error", or the
/// first.
static StringRef firstError(StringRef log) {
  llvm::SmallVector<StringRef> lines;
  log.split(lines, '\n', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  for (StringRef line : lines)
    if (line.contains_insensitive("error"))
      return line.take_front(400);
  return lines.empty() ? StringRef() : lines.front().take_front(400);
}

/// Whether the folder of `output` has less room than `input` took. A program
/// that writes through a mapping dies of that without a word.
static bool isDiskFull(StringRef input, StringRef output) {
  uint64_t wanted = 0;
  if (fs::file_size(input, wanted))
    return false;
  llvm::ErrorOr<fs::space_info> space =
      fs::disk_space(llvm::sys::path::parent_path(output));
  return space && space->available < wanted;
}

llvm::Expected<std::string>
mlir::kvrm::runTool(StringRef program, llvm::ArrayRef<StringRef> args,
                    StringRef input, StringRef output, unsigned seconds) {
  std::string logPath = (output + ".log").str();
  std::optional<StringRef> redirects[] = {std::nullopt, StringRef(logPath),
                                          StringRef(logPath)};
  std::string message;
  int status = llvm::sys::ExecuteAndWait(program, args, std::nullopt, redirects,
                                         seconds, /*MemoryLimit=*/0, &message);
  std::string log;
  if (auto buffer = llvm::MemoryBuffer::getFile(logPath))
    log = (*buffer)->getBuffer().str();
  (void)fs::remove(logPath);
  if (status == 0)
    return log;
  if (isDiskFull(input, output))
    return llvm::createFileError(
        output, std::make_error_code(std::errc::no_space_on_device));
  StringRef reason = firstError(log);
  return llvm::createStringError(
      program + " failed with status " + llvm::Twine(status) + ": " +
      (reason.empty() ? StringRef(message) : reason));
}
