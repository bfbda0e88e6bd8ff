//===- Unfinished.h - What must not outlive a process -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A program that ends in the middle of its work, by a signal, a crash or
// exit(), runs no destructors. Files and folders that are not whole yet are
// listed here, and a tool that asks for it leaves none of them. A library does
// not ask: signals are the program's.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_UNFINISHED_H
#define KVRM_RUNTIME_SUPPORT_UNFINISHED_H

#include <string_view>
#include <utility>

namespace kvrm {

/// Lists a file, or a folder of files, as long as it lives. It removes nothing
/// itself. There is room for a few; more are not listed.
class UnfinishedPath {
public:
  UnfinishedPath() = default;
  explicit UnfinishedPath(std::string_view path);
  UnfinishedPath(UnfinishedPath &&other) noexcept
      : place(std::exchange(other.place, -1)) {}
  UnfinishedPath &operator=(UnfinishedPath &&other) noexcept {
    std::swap(place, other.place);
    return *this;
  }
  ~UnfinishedPath();

private:
  int place = -1; ///< in the list
};

/// Does not return where a signal ends the process in another thread: what this
/// one would say, that files are gone, is nobody's fault.
void pauseIfEnding();

/// From now on signals that end the process, and exit(), remove what is listed
/// first. Signals that are ignored stay so. For main().
void removeUnfinishedAtEnd();

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_UNFINISHED_H
