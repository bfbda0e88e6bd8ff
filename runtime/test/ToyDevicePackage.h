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
/// paged or static; a paged one may have a mixed step.
std::string makeDevicePackage(const std::string &mode = "paged",
                              bool mixes = false);
/// The manifest of a paged package whose files lie in `folder`.
nlohmann::json deviceManifestOf(const std::string &folder, bool mixes = false);

} // namespace toy

#endif // KVRM_TEST_TOYDEVICEPACKAGE_H
