//===- ApiError.h - What a request is refused with --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_APIERROR_H
#define KVRM_TOOLS_SERVE_APIERROR_H

#include <string>

namespace kvrm::serve {

/// An error as OpenAI's API has it.
struct ApiError {
  int status = 400;           ///< of HTTP
  std::string message;        ///< one line
  std::string param;          ///< the field that is to blame; empty = none
  const char *code = nullptr; ///< for programs; null = none
};

/// {"error": {"message", "type", "param", "code"}}
std::string errorBody(const ApiError &error);

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_APIERROR_H
