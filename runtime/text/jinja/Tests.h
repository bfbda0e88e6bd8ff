//===- Tests.h - What stands behind `is` in a template ----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_TESTS_H
#define KVRM_TEXT_JINJA_TESTS_H

#include "Operations.h"

namespace kvrm::jinja {

using Test = bool (*)(Budget &budget, const Value &subject,
                      const Arguments &arguments);

/// The test that is called `name`; null if it is not done here.
Test findTest(std::string_view name);

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_TESTS_H
