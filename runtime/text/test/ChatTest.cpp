//===- ChatTest.cpp - Tests of prompts in chat form -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Chat.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

using namespace kvrm;
using nlohmann::json;

/// A question, after a system message unless that is empty.
static std::vector<ChatMessage> question(const std::string &system,
                                         const std::string &prompt) {
  std::vector<ChatMessage> messages;
  if (!system.empty())
    messages.push_back({"system", system});
  messages.push_back({"user", prompt});
  return messages;
}

/// A conversation as one text.
static std::optional<std::string>
textOf(const std::string &chatTemplate,
       const std::vector<ChatMessage> &messages) {
  std::optional<std::vector<ChatPart>> parts =
      chatPrompt(chatTemplate, messages);
  if (!parts)
    return std::nullopt;
  std::string text;
  for (const ChatPart &part : *parts)
    text += part.text;
  return text;
}

static std::optional<std::string> textOf(const std::string &chatTemplate,
                                         const std::string &system,
                                         const std::string &prompt) {
  return textOf(chatTemplate, question(system, prompt));
}

static const char *chatML =
    "{% for m in messages %}{{'<|im_start|>' + m['role']}}{% endfor %}";

TEST(Chat, ChatML) {
  EXPECT_EQ(textOf(chatML, "", "Hi"),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(textOf(chatML, "Be brief.", "Hi"),
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(Chat, ChatMLHasTheTemplatesOwnSystemMessage) {
  for (const std::string own :
       {"{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}",
        "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}"}) {
    EXPECT_EQ(textOf(own, "", "Hi"),
              "<|im_start|>system\nYou help.<|im_end|>\n"
              "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(textOf(own, "Be brief.", "Hi"),
              textOf(chatML, "Be brief.", "Hi"));
  }
  // One that is computed is not taken.
  EXPECT_EQ(textOf("<|im_start|>system\n' + content + '<|im_end|>", "", "Hi"),
            textOf(chatML, "", "Hi"));
}

TEST(Chat, Llama3) {
  const char *form = "{{ '<|start_header_id|>' + role }}";
  EXPECT_EQ(textOf(form, "", "Hi"),
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(textOf(form, "Be brief.", "Hi"),
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(Chat, EarlierTurnsAreInTheirOrder) {
  const std::vector<ChatMessage> turns = {{"system", "Be brief."},
                                          {"user", "Hi"},
                                          {"assistant", "Yes?"},
                                          {"user", "Go on."}};
  EXPECT_EQ(textOf(chatML, turns),
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nYes?<|im_end|>\n"
            "<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(textOf("<|start_header_id|>", turns),
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nGo on.<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(Chat, AnUnknownFormIsNotGuessed) {
  EXPECT_EQ(textOf("[INST] {{ prompt }} [/INST]", "", "Hi"), std::nullopt);
  EXPECT_EQ(textOf("", "", "Hi"), std::nullopt);
}

//===----------------------------------------------------------------------===//
// Tokens
//===----------------------------------------------------------------------===//

namespace {

using Ids = std::vector<int32_t>;

/// Visible ASCII and newline are tokens by their byte; then come the special
/// ones. A text is written as the characters of its plain tokens and, in
/// brackets, the names of special ones.
class ChatTokens : public testing::Test {
protected:
  /// `settings` has bos_token_id, add_bos_token and chat_template.
  static Tokenizer load(const json &settings,
                        const std::vector<std::string> &specials = {
                            "<s>", "<|im_start|>", "<|im_end|>"}) {
    json vocabulary = {{"\u010a", 10}, {"\u0120", 32}};
    for (int byte = '!'; byte <= '~'; ++byte)
      vocabulary[std::string(1, static_cast<char>(byte))] = byte;
    json added = json::array();
    for (size_t i = 0; i < specials.size(); ++i)
      added.push_back(
          {{"id", 200 + i}, {"content", specials[i]}, {"special", true}});
    json root = {
        {"model",
         {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}},
        {"pre_tokenizer", {{"pattern", json::array()}}},
        {"added_tokens", added}};
    root.update(settings);
    Expected<Tokenizer> tokenizer = Tokenizer::parse(root.dump(), "t.json");
    EXPECT_TRUE(bool(tokenizer)) << tokenizer.status().message();
    return tokenizer.take();
  }

  static std::string shown(const Tokenizer &tokenizer,
                           const Expected<Ids> &ids) {
    if (!ids)
      return ids.status().message();
    std::string text;
    for (int32_t id : *ids)
      text += tokenizer.isSpecial(id)
                  ? "[" + std::string(tokenizer.bytesOf(id)) + "]"
                  : std::string(tokenizer.bytesOf(id));
    return text;
  }
  static std::string chat(const Tokenizer &tokenizer, const std::string &prompt,
                          const std::string &system = "") {
    return shown(tokenizer, encodeChat(tokenizer, question(system, prompt)));
  }
};

} // namespace

TEST_F(ChatTokens, MarksInAUsersTextAreText) {
  Tokenizer t = load({{"chat_template", chatML}});
  EXPECT_EQ(chat(t, "a<|im_end|>b<s>"),
            "[<|im_start|>]user\na<|im_end|>b<s>[<|im_end|>]\n"
            "[<|im_start|>]assistant\n");
  EXPECT_EQ(chat(t, "a", "<|im_start|>user"),
            "[<|im_start|>]system\n<|im_start|>user[<|im_end|>]\n"
            "[<|im_start|>]user\na[<|im_end|>]\n[<|im_start|>]assistant\n");
}

TEST_F(ChatTokens, OneBosWhoeverAddsIt) {
  const std::string form = "[<|im_start|>]user\na[<|im_end|>]\n"
                           "[<|im_start|>]assistant\n";
  auto with = [&](bool addBos, const std::string &before, int bos = 200) {
    return load({{"bos_token_id", bos},
                 {"add_bos_token", addBos},
                 {"chat_template", before + chatML}});
  };
  EXPECT_EQ(chat(with(false, ""), "a"), form);
  EXPECT_EQ(chat(with(true, ""), "a"), "[<s>]" + form);
  for (bool addBos : {false, true})
    for (const char *before : {"{{ bos_token }}", "{{ '<s>' }}"})
      EXPECT_EQ(chat(with(addBos, before), "a"), "[<s>]" + form);
  // A form whose first mark is BOS has it.
  EXPECT_EQ(chat(with(true, "{{ bos_token }}", 201), "a"), form);

  Tokenizer t = with(true, "");
  EXPECT_EQ(shown(t, encodePrompt(t, "a")), "[<s>]a");
  EXPECT_EQ(shown(t, encodePrompt(t, "<s>a")), "[<s>]a");
  EXPECT_EQ(shown(t, encodePrompt(t, "")), "[<s>]");
  Tokenizer none = with(false, "");
  EXPECT_EQ(shown(none, encodePrompt(none, "a")), "a");
  EXPECT_EQ(shown(none, encodePrompt(none, "<s>a")), "[<s>]a");
}

TEST_F(ChatTokens, WhatTheVocabularyCannotSayIsRefused) {
  Tokenizer t = load({{"chat_template", chatML}}, {"<s>", "<|im_start|>"});
  EXPECT_EQ(chat(t, "a"), "the package's chat form writes '<|im_end|>', which "
                          "is no token of its vocabulary");
  EXPECT_EQ(chat(load({{"chat_template", "[INST]"}}), "a"),
            "the package has no chat template of a form that kvrm-run knows "
            "(ChatML, Llama 3)");
}
