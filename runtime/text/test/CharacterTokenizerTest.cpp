//===- CharacterTokenizerTest.cpp - Tests of BPE over characters ----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Tokenizer.h"

#include <nlohmann/json.hpp>

#include "gtest/gtest.h"

#include <cstdio>

using namespace kvrm;
using nlohmann::json;

namespace {
using Ids = std::vector<int32_t>;

/// Bytes are tokens 0 to 255, then the mark of a space, a, b, é, and what
/// merges make: "▁a" = 260, "ab" = 261, "▁▁" = 262. Added: <s> = 263.
json makeTokenizer(const char *prefix) {
  json vocabulary = json::object();
  int32_t id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    char text[7];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    vocabulary[text] = id++;
  }
  for (const char *text : {"▁", "a", "b", "é", "▁a", "ab", "▁▁"})
    vocabulary[text] = id++;
  return {
      {"normalizer", {{"space_prefix", prefix}}},
      {"pre_tokenizer", {{"pattern", json::array()}}},
      {"model",
       {{"type", "BPE"},
        {"byte_fallback", true},
        {"vocab", vocabulary},
        {"merges", {"▁ a", "a b", "▁ ▁"}}}},
      {"added_tokens", {{{"id", 263}, {"content", "<s>"}, {"special", true}}}}};
}

Tokenizer load(const json &root) {
  Expected<Tokenizer> tokenizer = Tokenizer::parse(root.dump(), "t.json");
  EXPECT_TRUE(bool(tokenizer)) << tokenizer.status().message();
  return tokenizer.take();
}

Ids encode(const Tokenizer &tokenizer, std::string_view text) {
  Expected<Ids> ids = tokenizer.encode(text);
  EXPECT_TRUE(bool(ids)) << ids.status().message();
  return ids.take();
}

TEST(CharacterTokenizer, MergesCharactersAndFallsBackOnBytes) {
  Tokenizer t = load(makeTokenizer("none"));
  EXPECT_EQ(encode(t, "ab a"), (Ids{261, 260}));
  EXPECT_EQ(encode(t, "é"), Ids{259});
  EXPECT_EQ(encode(t, "è\n"), (Ids{0xc3, 0xa8, 0x0a}));
  EXPECT_EQ(encode(t, "漢"), (Ids{0xe6, 0xbc, 0xa2}));
  // Not UTF-8, and a mark in the text itself.
  EXPECT_EQ(encode(t, "a\xff\xe6"), (Ids{257, 0xff, 0xe6}));
  EXPECT_EQ(encode(t, "▁a"), Ids{260});
  // A byte's token is not text.
  EXPECT_EQ(encode(t, "<0x41>").size(), 6u);
  EXPECT_EQ(t.decode(Ids{262, 260, 0xe6, 0xbc, 0xa2, 259}), "   a漢é");
  EXPECT_EQ(t.decode(Ids{0xe6}), "\xef\xbf\xbd");
}

TEST(CharacterTokenizer, PutsASpaceInFront) {
  struct Case {
    const char *prefix, *text;
    Ids ids;
  };
  for (const Case &c : std::initializer_list<Case>{
           {"none", "a<s>a", {257, 263, 257}},
           {"first", "a<s>a", {260, 263, 257}},
           {"first", " a", {260}},
           {"first", "<s>a", {263, 257}},
           {"each", "a<s>a", {260, 263, 260}},
           {"each", " a<s> a", {260, 263, 260}},
           {"always", "a<s>a", {260, 263, 260}},
           {"always", " a", {256, 260}},
           {"always", "", {}},
       })
    EXPECT_EQ(encode(load(makeTokenizer(c.prefix)), c.text), c.ids)
        << c.prefix << ": " << c.text;
}

TEST(CharacterTokenizer, TokensTakeWhiteSpace) {
  json root = makeTokenizer("none");
  root["added_tokens"][0]["rstrip"] = true;
  EXPECT_EQ(encode(load(root), "a <s> \n\u3000a<s> "),
            (Ids{257, 256, 263, 257, 263}));
  root["added_tokens"][0]["lstrip"] = true;
  EXPECT_EQ(encode(load(root), "a \u00a0\t<s> a"), (Ids{257, 263, 257}));
}

TEST(CharacterTokenizer, Normalizes) {
  json root = makeTokenizer("none");
  EXPECT_EQ(encode(load(root), "e\u0301").size(), 3u);
  root["normalizer"]["nfc"] = true;
  EXPECT_EQ(encode(load(root), "e\u0301"), Ids{259});
  // What is not UTF-8 stays as it is.
  EXPECT_EQ(encode(load(root), "a\xff"), (Ids{257, 0xff}));
  EXPECT_EQ(encode(load(root), "\xff"
                               "e\u0301\xe2\x82"),
            (Ids{0xff, 259, 0xe2, 0x82}));
}

TEST(CharacterTokenizer, Refusals) {
  auto errorOf = [](const json &root) {
    return Tokenizer::parse(root.dump(), "t.json").status().message();
  };
  json root = makeTokenizer("often");
  EXPECT_EQ(errorOf(root), "t.json: normalizer.space_prefix is not one of "
                           "none, first, each, always");
  root = makeTokenizer("none");
  root["model"]["byte_fallback"] = 1;
  EXPECT_EQ(errorOf(root), "t.json: model.byte_fallback is not a boolean");
  root = makeTokenizer("none");
  root["added_tokens"][0]["rstrip"] = "yes";
  EXPECT_EQ(errorOf(root), "t.json: added_tokens[0].rstrip is not a boolean");
}
} // namespace
