//===- ProductLibrary.cpp - cuBLASLt, found at run time -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/cuda/ProductLibrary.h"

#include "LtApi.h"
#include "SharedLibrary.h"

#include <cstdlib>

using namespace kvrm;
using cuda::libraryVersionText;
using cuda::SharedLibrary;

ProductLibrary::ProductLibrary() : entries(std::make_unique<cuda::LtApi>()) {}
ProductLibrary::~ProductLibrary() = default;

Status ProductLibrary::statusOf(int32_t result, const char *call) const {
  if (result == cuda::ltSuccess) [[likely]]
    return Status::ok();
  const char *name = entries->cublasLtGetStatusName(result);
  return makeError(result == cuda::ltAllocFailed ? StatusCode::ResourceExhausted
                                                 : StatusCode::IoError,
                   call, ": ", name ? name : "error", " (", result, ")");
}

Expected<std::shared_ptr<const ProductLibrary>>
ProductLibrary::load(const std::string &file) {
  Expected<SharedLibrary> shared = SharedLibrary::open(file, "products");
  if (!shared)
    return shared.status();
  std::shared_ptr<ProductLibrary> library(new ProductLibrary());
  cuda::LtApi &api = *library->entries;
#define KVRM_LT_LOOK(name, parameters) KVRM_TRY(shared->look(api.name, #name));
  KVRM_LT_CALLS(KVRM_LT_LOOK)
#undef KVRM_LT_LOOK
  KVRM_TRY(shared->look(api.cublasLtGetVersion, "cublasLtGetVersion"));
  KVRM_TRY(shared->look(api.cublasLtGetStatusName, "cublasLtGetStatusName"));
  size_t version = api.cublasLtGetVersion();
  library->text = "cuBLASLt " + libraryVersionText(version);
  if (version < leastVersion)
    return makeError(StatusCode::Incompatible, "products: ", file, " is ",
                     library->text, "; ", libraryVersionText(leastVersion),
                     " is needed");
  return std::shared_ptr<const ProductLibrary>(std::move(library));
}

Expected<std::shared_ptr<const ProductLibrary>>
ProductLibrary::find(const std::string &choice, int32_t driverVersion) {
  std::string file = choice;
  const char *environment = std::getenv("KVRM_CUBLASLT");
  if (file.empty() && environment)
    file = environment;
  std::shared_ptr<const ProductLibrary> none;
  if (file == "none")
    return none;
  if (!file.empty())
    return load(file);
  // A library needs a driver of its own CUDA or a later one.
  for (int32_t major : {13, 12}) {
    if (driverVersion / 1000 < major)
      continue;
    Expected<std::shared_ptr<const ProductLibrary>> found =
        load("libcublasLt.so." + std::to_string(major));
    if (found)
      return found;
  }
  return none;
}
