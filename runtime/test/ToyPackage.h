//===- ToyPackage.h - Toy decoders, whole and broken ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_TOYPACKAGE_H
#define KVRM_TEST_TOYPACKAGE_H

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace toy {

struct PackageOptions {
  std::string mode = "paged";
  std::string schedule = "workqueue";
  std::string transport = "native";
  int splits = 3;
  bool isFar = false; ///< with far history
  bool drops = false; ///< with a far history that leaves nothing behind
  bool mixes = false; ///< with a mixed step
};

/// 64-bit XXH3 of a file, as a manifest writes it.
std::string checksum(const std::string &path);

/// The manifest of a package whose files lie in `folder`.
nlohmann::json manifestOf(const PackageOptions &options,
                          const std::string &folder);

/// Writes manifest.json with its checksum.
void writeManifest(const std::string &folder, const nlohmann::json &manifest);

/// Writes a file.
void write(const std::string &path, const std::string &bytes);

/// Writes a whole package to a new folder and returns its path.
std::string makePackage(const PackageOptions &options);

} // namespace toy

#endif // KVRM_TEST_TOYPACKAGE_H
