//===- model.h - What a package may say of a model --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Beyond these a manifest is damaged, not a large model, to the runtime; so the
// compiler refuses such a model where it reads it.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_MODEL_H
#define KVRM_RUNTIME_ABI_MODEL_H

enum {
  KVRM_MAX_HEADS = 4096,
  KVRM_MAX_HIDDEN = 1 << 20,
  KVRM_MAX_VOCABULARY = 1 << 24,
  KVRM_MAX_CONTEXT = 1 << 28, ///< tokens that the model was made for
  KVRM_MAX_KV_TILE = 1 << 16, ///< tokens of a tile of cached ones
  KVRM_MAX_ENDS = 64,         ///< tokens that end a turn
  KVRM_MAX_NAME_BYTES = 1024  ///< of any string in a manifest
};

#endif // KVRM_RUNTIME_ABI_MODEL_H
