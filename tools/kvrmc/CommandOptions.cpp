//===- CommandOptions.cpp - What commands of kvrmc share ------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CommandOptions.h"

#include "kvrm/runtime/abi/model.h"

llvm::cl::OptionCategory &kvrmc::category() {
  static llvm::cl::OptionCategory options("kvrmc options");
  return options;
}

llvm::Expected<bool> kvrmc::isBF16(llvm::StringRef option,
                                   llvm::StringRef value) {
  if (value == "f16" || value == "bf16")
    return value == "bf16";
  return llvm::createStringError("--" + option + ": '" + value +
                                 "' is neither f16 nor bf16");
}

llvm::Expected<kvrm_element> kvrmc::cacheElement(llvm::StringRef value) {
  for (int32_t i = 0; i < KVRM_ELEMENTS; ++i)
    if (auto element = static_cast<kvrm_element>(i);
        value == kvrm_element_name(element))
      return element;
  return llvm::createStringError("--cache-type: '" + value +
                                 "' is none of f16, bf16, f8e4m3 and int8");
}

llvm::Error kvrmc::checkTile(int64_t tokens) {
  if (tokens > KVRM_MAX_KV_TILE)
    return llvm::createStringError("--kv-tile: %lld is over the limit %d",
                                   static_cast<long long>(tokens),
                                   int(KVRM_MAX_KV_TILE));
  return llvm::Error::success();
}
