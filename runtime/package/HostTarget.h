//===- HostTarget.h - Whether this CPU can run a package --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_PACKAGE_HOSTTARGET_H
#define KVRM_RUNTIME_PACKAGE_HOSTTARGET_H

#include "kvrm/runtime/support/Status.h"

#include <string>
#include <string_view>
#include <vector>

namespace kvrm {

/// Refuses CPU features that this CPU lacks or this runtime does not know.
/// `where` names the manifest. Errors: Incompatible.
Status checkCpuFeatures(const std::vector<std::string> &features,
                        std::string_view where);

/// Refuses a target triple of another architecture. Errors: Incompatible.
Status checkTriple(const std::string &triple, std::string_view where);

} // namespace kvrm

#endif // KVRM_RUNTIME_PACKAGE_HOSTTARGET_H
