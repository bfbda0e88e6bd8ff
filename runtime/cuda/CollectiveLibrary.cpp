//===- CollectiveLibrary.cpp - NCCL, found at run time --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CollectiveLibrary.h"

#include "NcclApi.h"

#include <cstdlib>
#include <dlfcn.h>
#include <type_traits>

using namespace kvrm;

CollectiveLibrary::CollectiveLibrary()
    : entries(std::make_unique<cuda::NcclApi>()) {}
CollectiveLibrary::~CollectiveLibrary() = default;

Status CollectiveLibrary::statusOf(int32_t result, const char *call) const {
  if (result == cuda::ncclSuccess) [[likely]]
    return Status::ok();
  const char *words = entries->ncclGetErrorString(result);
  return makeError(StatusCode::IoError, call, ": ", words ? words : "error",
                   " (", result, ")");
}

static std::string versionText(int32_t version) {
  return std::to_string(version / 10000) + "." +
         std::to_string(version % 10000 / 100) + "." +
         std::to_string(version % 100);
}

Expected<std::shared_ptr<const CollectiveLibrary>>
CollectiveLibrary::load(const std::string &file) {
  void *handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *reason = dlerror();
    return makeError(StatusCode::NotFound, "several ranks need NCCL: ",
                     reason ? reason : file.c_str());
  }
  std::shared_ptr<CollectiveLibrary> library(new CollectiveLibrary());
  cuda::NcclApi &api = *library->entries;
  auto look = [&](auto &entry, const char *name) {
    entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(
        dlsym(handle, name));
    if (entry)
      return Status::ok();
    return makeError(StatusCode::Incompatible,
                     "several ranks need NCCL: ", file, " has no call ", name);
  };
#define KVRM_NCCL_LOOK(name, parameters) KVRM_TRY(look(api.name, #name));
  KVRM_NCCL_CALLS(KVRM_NCCL_LOOK)
#undef KVRM_NCCL_LOOK
  KVRM_TRY(look(api.ncclGetErrorString, "ncclGetErrorString"));
  int32_t version = 0;
  KVRM_TRY(library->statusOf(api.ncclGetVersion(&version), "ncclGetVersion"));
  library->text = "NCCL " + versionText(version);
  if (version < leastVersion)
    return makeError(StatusCode::Incompatible, "several ranks need NCCL ",
                     versionText(leastVersion), " or later: ", file, " is ",
                     versionText(version));
  return std::shared_ptr<const CollectiveLibrary>(std::move(library));
}

Expected<std::shared_ptr<const CollectiveLibrary>>
CollectiveLibrary::find(const std::string &choice) {
  if (!choice.empty())
    return load(choice);
  const char *environment = std::getenv("KVRM_NCCL");
  return load(environment && *environment ? environment : "libnccl.so.2");
}
