//===- SmallTokenizer.h - A tokenizer of a few tokens -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_TEST_SMALLTOKENIZER_H
#define KVRM_TOOLS_SERVE_TEST_SMALLTOKENIZER_H

#include "kvrm/text/Tokenizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace kvrm::serve {

/// Tokens 0 to 4 are the bytes of "é", "a", `fourth` in the byte alphabet, and
/// the special "<s>".
inline Tokenizer makeSmallTokenizer(const char *fourth) {
  using nlohmann::json;
  json root = {
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"\u00c3", 0}, {"\u00a9", 1}, {"a", 2}, {fourth, 3}}},
        {"merges", json::array()}}},
      {"pre_tokenizer", {{"pattern", json::array()}}},
      {"added_tokens", {{{"id", 4}, {"content", "<s>"}, {"special", true}}}}};
  Expected<Tokenizer> made = Tokenizer::parse(root.dump(), "t.json");
  EXPECT_TRUE(bool(made)) << made.status().message();
  return made.take();
}

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_TEST_SMALLTOKENIZER_H
