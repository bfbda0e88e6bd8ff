//===- Filters.h - What stands behind | in a template -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEXT_JINJA_FILTERS_H
#define KVRM_TEXT_JINJA_FILTERS_H

#include "Operations.h"

namespace kvrm::jinja {

using Filter = Value (*)(Budget &budget, const Value &subject,
                         const Arguments &arguments);

/// The filter that is called `name`; null if it is not done here.
Filter findFilter(std::string_view name);

/// `value` as Python's json.dumps() writes it, but that characters beyond ASCII
/// stay as they are. Parameters: indent, separators, sort_keys, ensure_ascii
/// (false alone).
Value toJson(Budget &budget, const Value &value, const Arguments &arguments);

} // namespace kvrm::jinja

#endif // KVRM_TEXT_JINJA_FILTERS_H
