//===- TextStreamTest.cpp - Tests of text as it comes ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "serve/TextStream.h"

#include "SmallTokenizer.h"
#include "kvrm/runtime/support/SplitMix64.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

using namespace kvrm;
using namespace kvrm::serve;
using nlohmann::json;

/// What is left of a text, by the definition: of all places where a stop text
/// is complete, the first, and of those the longest.
static std::string cutAt(const std::string &text,
                         const std::vector<std::string> &stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string &stop : stops)
      if (std::string_view(text).substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    if (longest > 0)
      return text.substr(0, end - longest);
  }
  return text;
}

static std::string filtered(StopFilter &filter,
                            const std::vector<std::string> &pieces) {
  std::string text;
  for (const std::string &piece : pieces)
    text += filter.push(piece);
  return text + filter.finish();
}

TEST(StopFilter, HoldsBackWhatMayBeAStop) {
  StopFilter filter({"stop", "end"});
  EXPECT_EQ(filter.push("a st"), "a ");
  EXPECT_EQ(filter.push("o"), "");
  EXPECT_EQ(filter.push("e"), "sto");
  EXPECT_EQ(filter.push("n"), "");
  EXPECT_EQ(filter.push("d more"), "");
  EXPECT_TRUE(filter.isStopped());
  EXPECT_EQ(filter.push("and more"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopFilter, AnEndGivesOutWhatWasHeld) {
  StopFilter filter({"stop"});
  EXPECT_EQ(filtered(filter, {"a", " sto"}), "a sto");
  EXPECT_FALSE(filter.isStopped());
}

TEST(StopFilter, TheSameHoweverTheTextIsCut) {
  SplitMix64 random(time(nullptr));
  auto below = [&](uint64_t bound) { return random.next() % bound; };
  for (int round = 0; round < 20000; ++round) {
    // Two letters, so that starts of stop texts are everywhere.
    auto word = [&](size_t most) {
      std::string text(1 + below(most), 'a');
      for (char &c : text)
        c = static_cast<char>('a' + below(2));
      return text;
    };
    std::vector<std::string> stops;
    for (uint64_t i = below(4); i > 0; --i)
      stops.push_back(word(5));
    std::string text = word(24);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      size_t bytes = 1 + below(4);
      pieces.push_back(text.substr(at, bytes));
      at += bytes;
    }
    StopFilter filter(stops);
    EXPECT_EQ(filtered(filter, pieces), cutAt(text, stops))
        << text << json(stops);
  }
}

//===----------------------------------------------------------------------===//
// TextStream
//===----------------------------------------------------------------------===//

TEST(TextStream, AnIncompleteCharacterIsHeldBack) {
  Tokenizer tokenizer = makeSmallTokenizer("!");
  TextStream text(&tokenizer, {});
  EXPECT_EQ(text.push(0), "");
  EXPECT_EQ(text.push(1), "\xc3\xa9");
  EXPECT_EQ(text.push(4), "");
  EXPECT_EQ(text.push(2), "a");
  EXPECT_EQ(text.push(0), "");
  EXPECT_EQ(text.finish(), "\xef\xbf\xbd");
}

TEST(TextStream, AStopTextMayBeOfSeveralTokens) {
  Tokenizer tokenizer = makeSmallTokenizer("!");
  TextStream text(&tokenizer, {"\xc3\xa9!"});
  EXPECT_EQ(text.push(2), "a");
  EXPECT_EQ(text.push(0), "");
  EXPECT_EQ(text.push(1), "");
  EXPECT_EQ(text.push(2), "\xc3\xa9\x61");
  EXPECT_EQ(text.push(0), "");
  EXPECT_EQ(text.push(1), "");
  EXPECT_EQ(text.push(3), "");
  EXPECT_TRUE(text.isStopped());
  EXPECT_EQ(text.push(2), "");
  EXPECT_EQ(text.finish(), "");
}

TEST(TextStream, ATokensPlaceIsWhereItsTextBegins) {
  Tokenizer tokenizer = makeSmallTokenizer("!");
  TextStream text(&tokenizer, {});
  auto expectAt = [&](int32_t token, size_t bytes, size_t characters) {
    EXPECT_EQ(text.placeOf(token).bytes, bytes);
    EXPECT_EQ(text.placeOf(token).characters, characters);
    text.push(token);
  };
  expectAt(0, 0, 0); // the start of a character,
  expectAt(4, 0, 0); // nothing,
  expectAt(1, 0, 0); // and its end
  expectAt(4, 2, 1);
  expectAt(2, 2, 1);
  expectAt(0, 3, 2); // the start of one that has no end
  expectAt(0, 6, 3);
  expectAt(3, 9, 4);
  expectAt(2, 10, 5);
}

/// What stands for the broken character is shown, and not what follows it.
TEST(TextStream, AStopMayFollowABrokenCharacter) {
  Tokenizer tokenizer = makeSmallTokenizer("!");
  TextStream text(&tokenizer, {"!"});
  TextPosition broken = text.placeOf(0);
  text.push(0);
  TextPosition stop = text.placeOf(3);
  EXPECT_EQ(text.push(3), "\xef\xbf\xbd");
  ASSERT_TRUE(text.isStopped());
  EXPECT_TRUE(text.isShown(broken));
  EXPECT_FALSE(text.isShown(stop));
}

TEST(TextStream, APlaceIsShownOnceTextBehindItIs) {
  Tokenizer tokenizer = makeSmallTokenizer("!");
  TextStream text(&tokenizer, {"a!"});
  text.push(3);
  EXPECT_TRUE(text.isShown({0, 0}));
  EXPECT_FALSE(text.isShown({1, 1}));
  text.push(2); // "a" may be the start of a stop text
  EXPECT_FALSE(text.isShown({1, 1}));
  text.push(2);
  EXPECT_TRUE(text.isShown({1, 1}));
  EXPECT_FALSE(text.isShown({2, 2}));
  text.push(3);
  ASSERT_TRUE(text.isStopped());
  EXPECT_FALSE(text.isShown({2, 2}));
  EXPECT_FALSE(text.isShown({3, 3}));

  TextStream whole(&tokenizer, {"a!"});
  whole.push(2);
  whole.push(4);
  EXPECT_FALSE(whole.isShown({0, 0}));
  whole.finish();
  EXPECT_TRUE(whole.isShown({0, 0}));
  EXPECT_TRUE(whole.isShown({1, 1})) << "a token without a text, at the end";
}

TEST(TextStream, CharactersAreNotBytes) {
  EXPECT_EQ(countCharacters(""), 0u);
  EXPECT_EQ(countCharacters("a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80"), 4u);
}

TEST(TextStream, WithoutATokenizerThereIsNoText) {
  TextStream text(nullptr, {"a"});
  EXPECT_EQ(text.push(2), "");
  EXPECT_TRUE(text.isShown({0, 0}));
  EXPECT_EQ(text.finish(), "");
  EXPECT_FALSE(text.isStopped());
}
