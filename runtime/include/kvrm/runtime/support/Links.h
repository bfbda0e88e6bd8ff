//===- Links.h - Where a path leads -----------------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_LINKS_H
#define KVRM_RUNTIME_SUPPORT_LINKS_H

#include <climits>
#include <string>
#include <string_view>
#include <unistd.h>

namespace kvrm {

/// The folder that `path` is in, by name alone.
inline std::string folderOf(const std::string &path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos)
    return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// The path that the last link of `path` names: what is there, or will be when
/// it is written. A loop of links is left as it is, for open() to refuse.
inline std::string withoutLinks(std::string path) {
  constexpr int mostLinks = 40; // as many as the kernel follows
  for (int link = 0; link < mostLinks; ++link) {
    char target[PATH_MAX];
    ssize_t length = ::readlink(path.c_str(), target, sizeof(target));
    if (length <= 0)
      break;
    std::string_view next(target, static_cast<size_t>(length));
    path = next.starts_with('/') ? std::string(next)
                                 : folderOf(path).append("/").append(next);
  }
  return path;
}

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_LINKS_H
