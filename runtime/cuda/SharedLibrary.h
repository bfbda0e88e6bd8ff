//===- SharedLibrary.h - A library found at run time ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_SHAREDLIBRARY_H
#define KVRM_RUNTIME_CUDA_SHAREDLIBRARY_H

#include "kvrm/runtime/support/Status.h"

#include <cstdint>
#include <string>
#include <utility>

namespace kvrm::cuda {

/// Calls of a library that kvrm is not linked with. It stays loaded until the
/// process ends, since what it returns may outlive any object here.
class SharedLibrary {
public:
  /// Errors begin with `user`, what needs the library; `absence` is said before
  /// the loader's reason. NotFound if `file` cannot be loaded.
  static Expected<SharedLibrary> open(std::string file, std::string user,
                                      const char *absence = "");

  /// Sets `entry`, a pointer to a function. Incompatible if there is no `name`.
  template <typename EntryT>
  Status look(EntryT &entry, const char *name) const {
    entry = reinterpret_cast<EntryT>(find(name));
    if (entry)
      return Status::ok();
    return makeError(StatusCode::Incompatible, user, ": ", file,
                     " has no call ", name);
  }

private:
  SharedLibrary(std::string file, std::string user, void *handle)
      : file(std::move(file)), user(std::move(user)), handle(handle) {}
  void *find(const char *name) const;

  std::string file;
  std::string user;
  void *handle;
};

/// Of cuBLASLt and NCCL: 10000 times the major, 100 times the minor version.
std::string libraryVersionText(int64_t version);

} // namespace kvrm::cuda

#endif // KVRM_RUNTIME_CUDA_SHAREDLIBRARY_H
