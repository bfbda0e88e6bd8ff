//===- Methods.h - Methods of Python's strings and dicts --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_METHODS_H
#define KVRM_TEXT_JINJA_METHODS_H

#include "Operations.h"

namespace kvrm::jinja {

/// Whether Python has the method, be it done here or not.
bool isMethodOf(const Value &value, std::string_view name);

/// self.function(arguments). Errors: also a method that is not done here.
Value callMethod(Budget &budget, const Value &self, const Arguments &arguments);

/// With `with` for `what` in `text`, as often as `most` says.
Value replaced(Budget &budget, const Text &text, const Text &what,
               const Text &with, int64_t most);
/// The texts of `items` with `between` between them.
Value joinedTexts(Budget &budget, const Text &between,
                  const std::vector<Value> &items);
/// The entries of a dict as pairs.
Value pairsOf(Budget &budget, const Dict &dict, List::Kind kind);

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_METHODS_H
