//===- TokenizerTest.cpp - Tests of the tokenizer -------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Tokenizer.h"

#include <nlohmann/json.hpp>

#include "gtest/gtest.h"

#include <cstdlib>
#include <fstream>
#include <random>

using namespace kvrm;
using nlohmann::json;

namespace {
using Ids = std::vector<int32_t>;

const char *gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+)"
                   R"(| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The GPT-2 byte alphabet, from its definition: visible bytes are themselves,
/// the others follow from U+0100 on.
std::vector<std::string> byteAlphabet() {
  std::vector<std::string> texts(256);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    bool visible = (byte >= 33 && byte <= 126) ||
                   (byte >= 161 && byte <= 172) || (byte >= 174);
    int c = visible ? byte : next++;
    auto &text = texts[static_cast<size_t>(byte)];
    if (c >= 0x80) {
      text += static_cast<char>(0xc0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 0x3f));
    } else {
      text += static_cast<char>(c);
    }
  }
  return texts;
}

/// Bytes are tokens 0 to 255; merges make the tokens from 256 on.
json makeTokenizer(const std::vector<std::string> &merges) {
  json vocabulary = json::object();
  int32_t id = 0;
  for (const std::string &text : byteAlphabet())
    vocabulary[text] = id++;
  for (const std::string &merge : merges) {
    std::string text = merge;
    text.erase(text.find(' '), 1);
    if (!vocabulary.contains(text))
      vocabulary[text] = id++;
  }
  return {
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}},
      {"pre_tokenizer", {{"pattern", {R"(\p{N})", gpt2}}}}};
}

Tokenizer load(const json &root) {
  Expected<Tokenizer> tokenizer = Tokenizer::parse(root.dump(), "t.json");
  EXPECT_TRUE(bool(tokenizer)) << tokenizer.status().message();
  return tokenizer.take();
}

Ids encode(const Tokenizer &tokenizer, std::string_view text,
           bool parseSpecial = true) {
  Expected<Ids> ids = tokenizer.encode(text, parseSpecial);
  EXPECT_TRUE(bool(ids)) << ids.status().message();
  return ids.take();
}

std::string errorOf(const json &root) {
  return Tokenizer::parse(root.dump(), "t.json").status().message();
}

std::string stream(const Tokenizer &tokenizer, const Ids &ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (int32_t id : ids)
    text += decoder.push(id);
  return text + decoder.finish();
}

//===----------------------------------------------------------------------===//
// Encoding
//===----------------------------------------------------------------------===//

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  // bc = 256, ab = 257, abc = 258, aa = 259, aaaa = 260.
  Tokenizer t = load(makeTokenizer({"b c", "a b", "a bc", "a a", "aa aa"}));
  EXPECT_EQ(encode(t, ""), Ids{});
  EXPECT_EQ(encode(t, "a"), Ids{'a'});
  EXPECT_EQ(encode(t, "abc"), Ids{258});
  EXPECT_EQ(encode(t, "abab"), (Ids{257, 257}));
  EXPECT_EQ(encode(t, "aaa"), (Ids{259, 'a'}));
  EXPECT_EQ(encode(t, "aaaa"), Ids{260});
  EXPECT_EQ(encode(t, "aaaaaaa"), (Ids{260, 259, 'a'}));
  EXPECT_EQ(encode(t, "aabc"), (Ids{'a', 258}));
}

TEST(Tokenizer, MergesStayInsideWords) {
  // "Ġa" = 256, "aĠ" = 257, "1a" = 258, "11" = 259, "ĠĠ" = 260.
  Tokenizer t = load(makeTokenizer({"Ġ a", "a Ġ", "1 a", "1 1", "Ġ Ġ"}));
  EXPECT_EQ(encode(t, " a a"), (Ids{256, 256}));
  EXPECT_EQ(encode(t, "1a"), (Ids{'1', 'a'}));
  EXPECT_EQ(encode(t, "11"), (Ids{'1', '1'})); // digits stand alone
  EXPECT_EQ(encode(t, "   a"), (Ids{260, 256}));
  EXPECT_EQ(encode(t, "a   "), (Ids{'a', 260, ' '}));
  EXPECT_EQ(encode(t, "a  1"), (Ids{'a', 260, '1'}));
}

/// BPE as one would write it down: find the best pair, merge, again.
Ids naive(const std::vector<std::pair<std::pair<int, int>, int>> &merges,
          std::string_view word) {
  Ids ids(word.begin(), word.end());
  for (;;) {
    size_t best = merges.size();
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      for (size_t m = 0; m < best; ++m)
        if (merges[m].first == std::pair(ids[i], ids[i + 1])) {
          best = m;
          at = i;
        }
    if (best == merges.size())
      return ids;
    ids[at] = merges[best].second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Tokenizer, AgreesWithNaiveMerging) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> texts = {"a", "b", "c"};
    std::vector<int> idOf = {'a', 'b', 'c'};
    std::vector<std::string> merges;
    std::vector<std::pair<std::pair<int, int>, int>> table;
    for (int id = 256; id < 276;) {
      size_t left = random() % texts.size();
      size_t right = random() % texts.size();
      std::string merged = texts[left] + texts[right];
      if (std::find(texts.begin(), texts.end(), merged) != texts.end())
        continue;
      merges.push_back(texts[left] + " " + texts[right]);
      table.push_back({{idOf[left], idOf[right]}, id});
      texts.push_back(merged);
      idOf.push_back(id++);
    }
    Tokenizer t = load(makeTokenizer(merges));
    for (int i = 0; i < 40; ++i) {
      std::string word;
      for (size_t n = random() % 60; n > 0; --n)
        word += "abc"[random() % 3];
      EXPECT_EQ(encode(t, word), naive(table, word)) << word;
    }
  }
}

TEST(Tokenizer, AddedTokens) {
  json root = makeTokenizer({"a b"});
  root["added_tokens"] = {
      {{"id", 300}, {"content", "<s>"}, {"special", true}},
      {{"id", 301}, {"content", "<s>>"}, {"special", true}},
      {{"id", 302}, {"content", "ab ab"}, {"special", false}}};
  root["bos_token_id"] = 300;
  root["eos_token_id"] = 301;
  root["add_bos_token"] = true;
  root["chat_template"] = "{{ x }}";
  Tokenizer t = load(root);
  EXPECT_EQ(t.size(), 303);
  EXPECT_EQ(t.bos(), 300);
  EXPECT_EQ(t.eos(), 301);
  EXPECT_TRUE(t.addBos());
  EXPECT_EQ(t.chatTemplate(), "{{ x }}");
  EXPECT_TRUE(t.isSpecial(301));
  EXPECT_FALSE(t.isSpecial(302));
  EXPECT_FALSE(t.isSpecial(-1));
  EXPECT_FALSE(t.isSpecial(303));

  EXPECT_EQ(encode(t, "<s>ab<s>>"), (Ids{300, 256, 301})); // longest first
  EXPECT_EQ(encode(t, "<s"), (Ids{'<', 's'}));
  EXPECT_EQ(encode(t, "<s>", /*parseSpecial=*/false), (Ids{'<', 's', '>'}));
  EXPECT_EQ(encode(t, "<s>ab ab", /*parseSpecial=*/false),
            (Ids{'<', 's', '>', 302}));
  Ids ids = encode(t, "<s>ab ab a");
  EXPECT_EQ(t.decode(ids), "<s>ab ab a");
  EXPECT_EQ(t.decode(ids, /*skipSpecial=*/true), "ab ab a");
}

TEST(Tokenizer, IgnoreMerges) {
  json root = makeTokenizer({"a b", "b c"});
  root["model"]["vocab"]["abc"] = 400;
  EXPECT_EQ(encode(load(root), "abc"), (Ids{256, 'c'}));
  root["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode(load(root), "abc"), Ids{400});
  EXPECT_EQ(encode(load(root), "abcd"), (Ids{256, 'c', 'd'}));
}

TEST(Tokenizer, BytesThatTheVocabularyLacksAreLeftOut) {
  json root = makeTokenizer({});
  root["model"]["vocab"].erase("q");
  Tokenizer t = load(root);
  EXPECT_EQ(encode(t, "aqb"), (Ids{'a', 'b'}));
  EXPECT_EQ(encode(t, "q"), Ids{});
}

TEST(Tokenizer, AnyBytesComeBack) {
  Tokenizer t = load(makeTokenizer({"Ġ a", "a b"}));
  std::mt19937 random(3);
  const std::string pieces[] = {"a",
                                "ab",
                                " ",
                                "\n",
                                "7",
                                "é",
                                "日",
                                "🤖",
                                "\xf0",
                                "\x9f\xa4",
                                "\xff",
                                "\xed\xa0\x80",
                                std::string(1, '\0')};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (size_t n = random() % 20; n > 0; --n)
      text += pieces[random() % std::size(pieces)];
    Ids ids = encode(t, text);
    std::string bytes;
    for (int32_t id : ids)
      bytes += t.bytesOf(id);
    EXPECT_EQ(bytes, text);
    EXPECT_EQ(stream(t, ids), t.decode(ids));
  }
}

TEST(Tokenizer, LongTexts) {
  Tokenizer t = load(makeTokenizer({"a a", "aa aa", "Ġ Ġ"}));
  EXPECT_EQ(encode(t, std::string(1 << 20, 'a')).size(), 1u << 18);
  EXPECT_EQ(encode(t, std::string(1 << 20, ' ') + "x").size(),
            (1u << 19) - 1 + 1 + 2);
  std::string mixed;
  for (int i = 0; i < 100000; ++i)
    mixed += "é1\n";
  EXPECT_EQ(encode(t, mixed).size(), 400000u);
}

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

TEST(Tokenizer, DecodesOnlyValidUtf8) {
  Tokenizer t = load(makeTokenizer({}));
  auto decode = [&](const std::string &bytes) {
    Ids ids;
    for (char c : bytes)
      ids.push_back(static_cast<unsigned char>(c));
    EXPECT_EQ(stream(t, ids), t.decode(ids));
    return t.decode(ids);
  };
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(decode("aé日🤖"), "aé日🤖");
  EXPECT_EQ(decode("\x80"), bad);
  EXPECT_EQ(decode("\xc0\xaf"), bad + bad);           // overlong
  EXPECT_EQ(decode("\xe0\x80\xaf"), bad + bad + bad); // overlong
  EXPECT_EQ(decode("\xed\xa0\x80"), bad + bad + bad); // surrogate
  EXPECT_EQ(decode("\xf4\x90\x80\x80"), bad + bad + bad + bad);
  EXPECT_EQ(decode("\xf0\x9f\xa4"
                   "a"),
            bad + "a"); // maximal subpart
  EXPECT_EQ(decode("\xe6\x97"), bad);
  EXPECT_EQ(decode("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf");
  EXPECT_EQ(t.decode(Ids{-1, 'a', 256, 1 << 30}), "a");
  EXPECT_EQ(t.bytesOf(-5), "");
}

TEST(Tokenizer, StreamHoldsBackIncompleteCharacters) {
  Tokenizer t = load(makeTokenizer({}));
  StreamDecoder decoder(t);
  EXPECT_EQ(decoder.push('a'), "a");
  EXPECT_EQ(decoder.push(0xf0), "");
  EXPECT_EQ(decoder.push(0x9f), "");
  EXPECT_EQ(decoder.push(0xa4), "");
  EXPECT_EQ(decoder.push(0x96), "🤖");
  EXPECT_EQ(decoder.push(0xc3), "");
  EXPECT_EQ(decoder.push('x'), "\xef\xbf\xbdx");
  EXPECT_EQ(decoder.push(0xe6), "");
  EXPECT_EQ(decoder.finish(), "\xef\xbf\xbd");
  EXPECT_EQ(decoder.finish(), "");
}

//===----------------------------------------------------------------------===//
// Loading
//===----------------------------------------------------------------------===//

TEST(Tokenizer, RefusesBadFiles) {
  EXPECT_EQ(Tokenizer::parse("{", "t.json").status().message(),
            "t.json: not valid JSON");
  EXPECT_EQ(errorOf(json::array()), "t.json: model.type is not \"BPE\"");
  auto with = [](auto change) {
    json root = makeTokenizer({"a b"});
    root["added_tokens"] =
        json::array({{{"id", 300}, {"content", "<s>"}, {"special", true}}});
    change(root);
    return errorOf(root);
  };
  EXPECT_EQ(with([](json &) {}), "");
  EXPECT_EQ(with([](json &r) { r["model"]["type"] = "Unigram"; }),
            "t.json: model.type is not \"BPE\"");
  EXPECT_EQ(with([](json &r) { r["model"]["vocab"] = 3; }),
            "t.json: model.vocab is not an object");
  EXPECT_EQ(with([](json &r) { r["model"].erase("merges"); }),
            "t.json: model.merges is not an array");
  EXPECT_EQ(with([](json &r) { r.erase("pre_tokenizer"); }),
            "t.json: pre_tokenizer.pattern is not an array");
  EXPECT_EQ(with([](json &r) { r["model"]["vocab"]["a"] = "x"; }),
            "t.json: model.vocab: the id of 'a' is not an integer");
  EXPECT_EQ(with([](json &r) { r["model"]["vocab"]["a"] = -1; }),
            "t.json: model.vocab: id -1 is not in [0, 16777215]");
  EXPECT_EQ(with([](json &r) { r["model"]["vocab"]["a"] = 1ll << 40; }),
            "t.json: model.vocab: id 1099511627776 is not in [0, 16777215]");
  EXPECT_EQ(with([](json &r) { r["model"]["vocab"]["日"] = 500; }),
            "t.json: model.vocab: '日' is not in the GPT-2 byte alphabet");
  EXPECT_EQ(with([](json &r) { r["model"]["vocab"]["xy"] = 'a'; }),
            "t.json: model.vocab: id 97 is taken by another token");
  EXPECT_EQ(with([](json &r) { r["model"]["merges"].push_back("ab"); }),
            "t.json: model.merges[1] is not \"left right\"");
  EXPECT_EQ(with([](json &r) { r["model"]["merges"].push_back("a z"); }),
            "t.json: model.merges[1]: 'a z' names a token that the vocabulary "
            "lacks");
  EXPECT_EQ(with([](json &r) { r["pre_tokenizer"]["pattern"][1] = "(a"; }),
            "t.json: pre_tokenizer.pattern[1], character 2: missing closing "
            "parenthesis");
  EXPECT_EQ(with([](json &r) { r["added_tokens"][0].erase("id"); }),
            "t.json: added_tokens[0] is not {id, content, special}");
  EXPECT_EQ(with([](json &r) { r["added_tokens"][0]["content"] = ""; }),
            "t.json: added_tokens[0]: content is empty");
  EXPECT_EQ(with([](json &r) { r["added_tokens"][0]["id"] = 97; }),
            "t.json: added_tokens[0]: id 97 is taken by another token");
  EXPECT_EQ(with([](json &r) { r["eos_token_id"] = 301; }),
            "t.json: eos_token_id is not -1 or a token id below 301");
  EXPECT_EQ(with([](json &r) { r["eos_token_id"] = UINT64_MAX; }), // not -1
            "t.json: eos_token_id is not -1 or a token id below 301");
  EXPECT_EQ(with([](json &r) { r["add_bos_token"] = true; }),
            "t.json: add_bos_token is set, but bos_token_id is missing");
  EXPECT_EQ(Tokenizer::load("/nonexistent.json").status().message(),
            "/nonexistent.json: cannot open");
}

TEST(Tokenizer, SurvivesEveryTruncation) {
  json root = makeTokenizer({"a b"});
  root["added_tokens"] =
      json::array({{{"id", 300}, {"content", "<s>"}, {"special", true}}});
  std::string text = root.dump();
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(bool(
        Tokenizer::parse(std::string_view(text).substr(0, size), "t.json")));
}

// Ids by Hugging Face's library; see test/reference/tokenizer_golden.py. Needs
// the tokenizer.json of a package compiled from SmolLM2.
TEST(Tokenizer, SmolLM2) {
  const char *path = std::getenv("KVRM_SMOLLM2_TOKENIZER");
  if (!path)
    GTEST_SKIP() << "KVRM_SMOLLM2_TOKENIZER is not set";
  Expected<Tokenizer> tokenizer = Tokenizer::load(path);
  ASSERT_TRUE(bool(tokenizer)) << tokenizer.status().message();
  std::ifstream file(KVRM_SMOLLM2_GOLDEN);
  json golden = json::parse(file, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(golden.is_array());
  ASSERT_GT(golden.size(), 50u);
  for (const json &row : golden) {
    auto text = row["text"].get<std::string>();
    Ids ids = encode(*tokenizer, text);
    EXPECT_EQ(ids, row["ids"].get<Ids>()) << text;
    EXPECT_EQ(tokenizer->decode(ids), text);
    EXPECT_EQ(stream(*tokenizer, ids), text);
  }
}
} // namespace
