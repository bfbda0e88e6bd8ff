//===- SharedLibrary.cpp - A library found at run time --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SharedLibrary.h"

#include <dlfcn.h>

using namespace kvrm;
using namespace kvrm::cuda;

Expected<SharedLibrary> SharedLibrary::open(std::string file, std::string user,
                                            const char *absence) {
  if (void *handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL))
    return SharedLibrary(std::move(file), std::move(user), handle);
  const char *reason = dlerror();
  return makeError(StatusCode::NotFound, user, ": ", absence,
                   reason ? reason : file.c_str());
}

void *SharedLibrary::find(const char *name) const {
  return dlsym(handle, name);
}

std::string cuda::libraryVersionText(int64_t version) {
  return std::to_string(version / 10000) + "." +
         std::to_string(version % 10000 / 100) + "." +
         std::to_string(version % 100);
}
