//===- CApiTest.cpp - Tests of the C API of tokenizers
//---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/kvrm-text.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>

namespace {

/// Tokens 0 to 2 are a, b and ab; 3 is special.
class TextCApi : public testing::Test {
protected:
  void SetUp() override {
    path = (std::filesystem::temp_directory_path() /
            ("kvrm-text-" + std::to_string(::getpid()) + ".json"))
               .string();
    std::ofstream(path)
        << R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},)"
           R"( "merges": ["a b"]}, "pre_tokenizer": {"pattern": []},)"
           R"( "added_tokens": [{"id": 3, "content": "<s>", "special": true}],)"
           R"( "bos_token_id": 3, "add_bos_token": true, "chat_template":)"
           R"( "{% for m in messages %}{{ m.content }}<s>{% endfor %}"})";
    ASSERT_EQ(kvrm_tokenizer_open(path.c_str(), &tokenizer), KVRM_OK)
        << kvrm_last_error();
  }
  void TearDown() override {
    kvrm_tokenizer_close(tokenizer);
    std::filesystem::remove(path);
  }

  std::string path;
  kvrm_tokenizer *tokenizer = nullptr;
  std::array<int32_t, 8> ids{-1, -1, -1, -1, -1, -1, -1, -1};
  size_t count = 0;
};

} // namespace

TEST_F(TextCApi, TellsHowMuchRoomItTakes) {
  EXPECT_EQ(kvrm_tokenizer_encode(tokenizer, "aab", 3, nullptr, 0, &count),
            KVRM_OK);
  EXPECT_EQ(count, 3U);
  EXPECT_EQ(kvrm_tokenizer_encode(tokenizer, "aab", 3, ids.data(), 2, &count),
            KVRM_OK);
  EXPECT_EQ(count, 3U);
  EXPECT_EQ(ids, (std::array<int32_t, 8>{3, 0, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(kvrm_tokenizer_encode(tokenizer, "aab", 3, ids.data(), 8, &count),
            KVRM_OK);
  EXPECT_EQ(ids, (std::array<int32_t, 8>{3, 0, 2, -1, -1, -1, -1, -1}));
}

TEST_F(TextCApi, WhatAMessageSaysIsText) {
  const kvrm_chat_message messages[] = {{"user", 4, "ab<s>", 5},
                                        {nullptr, 0, nullptr, 0}};
  EXPECT_EQ(
      kvrm_tokenizer_encode_chat(tokenizer, messages, 2, ids.data(), 8, &count),
      KVRM_OK)
      << kvrm_last_error();
  // Bytes that are no tokens are left out.
  EXPECT_EQ(count, 4U);
  EXPECT_EQ(ids, (std::array<int32_t, 8>{3, 2, 3, 3, -1, -1, -1, -1}));
}

TEST_F(TextCApi, TokensAreBytes) {
  const char *text = nullptr;
  size_t bytes = 0;
  int32_t isSpecial = -1;
  EXPECT_EQ(kvrm_tokenizer_size(tokenizer), 4);
  for (auto [id, expected, special] :
       {std::tuple(2, "ab", 0), std::tuple(3, "<s>", 1), std::tuple(4, "", 0),
        std::tuple(-1, "", 0)}) {
    EXPECT_EQ(kvrm_tokenizer_token(tokenizer, id, &text, &bytes, &isSpecial),
              KVRM_OK);
    EXPECT_EQ(bytes > 0 ? std::string(text, bytes) : "", expected);
    EXPECT_EQ(isSpecial, special);
  }
}

TEST_F(TextCApi, RefusesInOneLine) {
  kvrm_tokenizer *none = tokenizer;
  EXPECT_EQ(kvrm_tokenizer_open("no-such.json", &none), KVRM_NOT_FOUND);
  EXPECT_STREQ(kvrm_last_error(), "no-such.json: cannot open");
  EXPECT_EQ(none, nullptr);
  EXPECT_EQ(kvrm_tokenizer_encode(nullptr, "", 0, nullptr, 0, &count),
            KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "tokenizer is null");
  EXPECT_EQ(kvrm_tokenizer_encode(tokenizer, "", 0, nullptr, 1, &count),
            KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "ids is null");
  const kvrm_chat_message bad = {"user", 4, nullptr, 1};
  EXPECT_EQ(
      kvrm_tokenizer_encode_chat(tokenizer, &bad, 1, ids.data(), 8, &count),
      KVRM_INVALID_ARGUMENT);
  EXPECT_STREQ(kvrm_last_error(), "a message's role or content is null");
  kvrm_tokenizer_close(nullptr);
  EXPECT_EQ(kvrm_tokenizer_size(nullptr), 0);
}
