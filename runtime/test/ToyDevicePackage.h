//===- ToyDevicePackage.h - The toy decoder's GPU package -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYDEVICEPACKAGE_H
#define KVRM_TEST_TOYDEVICEPACKAGE_H

#include <nlohmann/json.hpp>
#include <string>

namespace toy {

/// Writes a whole package to a new folder and returns its path. `mode` is
/// paged or static; a paged one may have a mixed step. Each of `ranks` has the
/// decoder's heads, so that the model has as many more, and of the weights for
/// logits some channels: theirs are to be added up.
std::string makeDevicePackage(const std::string &mode = "paged",
                              bool mixes = false, int ranks = 1);
/// The manifest of a paged package whose files lie in `folder`.
nlohmann::json deviceManifestOf(const std::string &folder, bool mixes = false,
                                int ranks = 1);

} // namespace toy

#endif // KVRM_TEST_TOYDEVICEPACKAGE_H
