//===- FolderConfig.h - config.json of a Hugging Face folder ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What transformers' class of an architecture reads of config.json is read, or
// refused by name if it changes numbers and kvrm has it not. Other keys change
// nothing there, and nothing here.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_FOLDERCONFIG_H
#define KVRM_FRONTEND_FOLDERCONFIG_H

#include "DecoderWeights.h"
#include "JsonFields.h"

namespace kvrm {

/// What a folder's config.json says.
struct FolderConfig {
  DecoderConfig decoder;
  TensorNames names;
  WeightConventions conventions;
};

/// Reads it for a slot of `capacity` tokens; 0: the model's context.
llvm::Expected<FolderConfig> readFolderConfig(const JsonFields &config,
                                              int64_t capacity);

/// The token ids at `key`: one, a list, or none.
llvm::Expected<std::vector<int32_t>>
readTokenIds(const JsonFields &fields, llvm::StringRef key, int64_t vocabulary);

/// The tokens that begin a text and end a turn: `bos_token_id`, `eos_token_id`.
llvm::Error readTokenMarks(const JsonFields &fields, DecoderConfig &config);

/// The rotary embedding that `rope_parameters` say, or in older files
/// `rope_scaling`, `rope_theta` and `partial_rotary_factor`, for a slot of
/// `capacity` tokens. `config` has its sizes. `theta` is that of a file without
/// one. Where layers of a type have parameters of their own, `layerType` says
/// which.
llvm::Expected<Rope> readRope(const JsonFields &fields,
                              const DecoderConfig &config, int64_t capacity,
                              double theta, llvm::StringRef layerType = "");

} // namespace kvrm

#endif // KVRM_FRONTEND_FOLDERCONFIG_H
