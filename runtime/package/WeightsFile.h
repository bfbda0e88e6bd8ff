//===- WeightsFile.h - weights.safetensors of a package ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_WEIGHTSFILE_H
#define KVRM_RUNTIME_PACKAGE_WEIGHTSFILE_H

#include "kvrm/runtime/package/Manifest.h"
#include "kvrm/runtime/support/Memory.h"

#include <string>

namespace kvrm {

/// Reads the data section of the file at `path`, which the manifest describes
/// as `want`. Errors: NotFound, Corrupt, IoError, ResourceExhausted.
Expected<AlignedBuffer> loadWeights(const std::string &path,
                                    const FileInfo &want);

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_WEIGHTSFILE_H
