//===- CollectiveLibrary.cpp - NCCL, found at run time --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/CollectiveLibrary.h"

#include "NcclApi.h"
#include "SharedLibrary.h"

#include <cstdlib>

using namespace kvrm;
using cuda::libraryVersionText;
using cuda::SharedLibrary;

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

Expected<std::shared_ptr<const CollectiveLibrary>>
CollectiveLibrary::load(const std::string &file) {
  Expected<SharedLibrary> shared =
      SharedLibrary::open(file, "several ranks need NCCL");
  if (!shared)
    return shared.status();
  std::shared_ptr<CollectiveLibrary> library(new CollectiveLibrary());
  cuda::NcclApi &api = *library->entries;
#define KVRM_NCCL_LOOK(name, parameters)                                       \
  KVRM_TRY(shared->look(api.name, #name));
  KVRM_NCCL_CALLS(KVRM_NCCL_LOOK)
#undef KVRM_NCCL_LOOK
  KVRM_TRY(shared->look(api.ncclGetErrorString, "ncclGetErrorString"));
  int32_t version = 0;
  KVRM_TRY(library->statusOf(api.ncclGetVersion(&version), "ncclGetVersion"));
  library->text = "NCCL " + libraryVersionText(version);
  if (version < leastVersion)
    return makeError(StatusCode::Incompatible, "several ranks need NCCL ",
                     libraryVersionText(leastVersion), " or later: ", file,
                     " is ", libraryVersionText(version));
  return std::shared_ptr<const CollectiveLibrary>(std::move(library));
}

Expected<std::shared_ptr<const CollectiveLibrary>>
CollectiveLibrary::find(const std::string &choice) {
  if (!choice.empty())
    return load(choice);
  const char *environment = std::getenv("KVRM_NCCL");
  return load(environment && *environment ? environment : "libnccl.so.2");
}
