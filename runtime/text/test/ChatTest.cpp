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

static const char *chatML =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
    "m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A conversation as a template writes it, what is of messages in brackets; or
/// the error.
static std::string rendered(const std::string &source,
                            const std::vector<ChatMessage> &messages) {
  Expected<ChatTemplate> form = ChatTemplate::parse(source);
  if (!form)
    return form.status().message();
  ChatInputs inputs;
  inputs.messages = messages;
  inputs.bos = "<s>";
  Expected<std::vector<TextPart>> parts = form->render(inputs);
  if (!parts)
    return parts.status().message();
  std::string text;
  for (const TextPart &part : *parts)
    text += part.parseSpecial ? part.text : "[" + part.text + "]";
  return text;
}

TEST(Chat, TurnsAreInTheirOrder) {
  EXPECT_EQ(rendered(chatML, {{"system", "Be brief."},
                              {"user", "Hi"},
                              {"assistant", "Yes?"},
                              {"user", "Go on."}}),
            "<|im_start|>system\n[Be brief.]<|im_end|>\n"
            "<|im_start|>user\n[Hi]<|im_end|>\n"
            "<|im_start|>assistant\n[Yes?]<|im_end|>\n"
            "<|im_start|>user\n[Go on.]<|im_end|>\n<|im_start|>assistant\n");
}

TEST(Chat, WhatIsOfMessagesStaysKnown) {
  const std::vector<ChatMessage> one = {{"poet", " a<x>\nb "}};
  for (auto [expression, expected] :
       {std::pair("m.content.strip()", "[a<x>\nb]"),
        std::pair("m.content[2:5]", "[<x>]"),
        std::pair("m.content.split('\n')[0].lstrip() ~ '<x>'", "[a<x>]<x>"),
        std::pair("m.content|replace('<x>', '<y>')", "[ a]<y>[\nb ]"),
        std::pair("'<x>'|replace('x', m.role)", "<[poet]>"),
        std::pair("m.role|upper + m.role.title()", "[POETPoet]"),
        std::pair("', '.join([m.role, 'x', m.role])", "[poet], x, [poet]"),
        std::pair("[m.role]|tojson", "[\"[poet]\"]"),
        std::pair("m.content|tojson", "\"[ a<x>\\nb ]\""),
        std::pair("m.items()|list|last|last|trim", "[a<x>\nb]"),
        std::pair("(m.content|indent(1)).rstrip()", "[ a<x>]\n [b]"),
        std::pair("m.role * 2", "[poetpoet]"),
        std::pair("m.role|reverse", "[teop]"),
        std::pair("messages|map(attribute='role')|join", "[poet]")})
    EXPECT_EQ(rendered("{% for m in messages %}{{ " + std::string(expression) +
                           " }}{% endfor %}",
                       one),
              expected)
        << expression;
  // Through a macro, a block and a namespace.
  EXPECT_EQ(
      rendered("{% macro f(x) %}<{{ x }}>{% endmacro %}"
               "{% set n = namespace(a='') %}{% set b %}({{ messages[0].role "
               "}}){% endset %}{% for i in [1] %}{% set n.a = f(b) %}"
               "{% endfor %}{{ n.a }}",
               one),
      "<([poet])>");
}

TEST(Chat, ATemplateMayRefuse) {
  EXPECT_EQ(rendered("{% if messages|length > 1 %}"
                     "{{ raise_exception('One\nat a time') }}{% endif %}ok",
                     {{"user", ""}, {"user", ""}}),
            "the chat template refuses the conversation: One?at a time");
  EXPECT_EQ(rendered("ok", {}), "ok");
}

TEST(Chat, WhatIsNotDoneIsRefusedByNameAndLine) {
  for (auto [source, expected] :
       {std::pair("a\n\n{% include 'x' %}",
                  "3: {% include %} is not done here"),
        std::pair("{{ 1|sort }}", "1: the filter 'sort' is not done here"),
        std::pair("\n{{ 1 is sameas 1 }}",
                  "2: the test 'sameas' is not done here"),
        std::pair("{{ [1] }}",
                  "1: a list as text is not done here; see tojson"),
        std::pair("{{ 'a'.zfill(3) }}",
                  "1: the method 'zfill' of a str is not done here"),
        std::pair("{{ lipsum() }}",
                  "1: the function 'lipsum' is not done here"),
        std::pair("{{ messages[0].a.b }}",
                  "1: 'an item' is undefined, and has no 'a'"),
        std::pair("{% if true %}\n",
                  "1: the template ends without {% endif %}"),
        std::pair("{{ 'a' if }}",
                  "1: a tag ends where an expression should be"),
        std::pair("{% for a in 1 %}{% endfor %}",
                  "1: a int cannot be gone through"),
        std::pair("{{ pad_token }}", "1: 'pad_token' is not known here")})
    EXPECT_EQ(rendered(source, {}),
              "chat template: line " + std::string(expected));
}

TEST(Chat, NoTemplateTakesTooMuch) {
  const std::string tooMuch =
      "takes more work or memory than a conversation of this length should";
  for (const char *source :
       {"{% for i in range(10 ** 9) %}{% endfor %}", "{{ 'a' * 10 ** 12 }}",
        "{% set n = namespace(a='abc') %}{% for i in range(99) %}"
        "{% set n.a = n.a ~ n.a %}{% endfor %}",
        "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
        "{{ ('a' * 9999).split('a')|join('b' * 999999) }}",
        "{% for i in 'a' * 99999 %}{% for j in 'a' * 99999 %}{% endfor %}"
        "{% endfor %}"})
    EXPECT_EQ(rendered(source, {}), "chat template: line 1: " + tooMuch)
        << source;
  for (const std::string &source :
       {"{{ " + std::string(999, '(') + "1" + std::string(999, ')') + " }}",
        "{{ " + std::string(9999, '-') + "1 }}",
        std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")})
    EXPECT_EQ(rendered(source, {}),
              "chat template: line 1: is nested deeper than 200");
  std::string sum = "{{ 1";
  for (int i = 0; i < 999; ++i)
    sum += "+1";
  EXPECT_EQ(rendered(sum + " }}", {}),
            "chat template: line 1: is nested deeper than 200");
  EXPECT_EQ(rendered(std::string(300000, 'a'), {}),
            "chat template: 300000 bytes exceed the limit 262144");
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
  EXPECT_EQ(chat(with(true, "", 201), "a"), form);

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
  EXPECT_EQ(chat(load({{"chat_template", ""}}), "a"),
            "the package has no chat template");
  EXPECT_EQ(chat(load({{"chat_template", "{{"}}), "a"),
            "chat template: line 1: a tag has no end");
  // As the template has it, what looks like a mark may be text.
  EXPECT_EQ(
      chat(load({{"chat_template", "<|user|>{{ messages[0].content }}"}}), "a"),
      "<|user|>a");
}

TEST_F(ChatTokens, RolesMayBePartsOfMarks) {
  Tokenizer t = load({{"chat_template", "<|{{ messages[0].role }}|>"}},
                     {"<|user|>", "<|im_end|>"});
  auto of = [&](const char *role) {
    const std::vector<ChatMessage> one = {{role, ""}};
    return shown(t, encodeChat(t, one));
  };
  EXPECT_EQ(of("user"), "[<|user|>]");
  EXPECT_EQ(of("im_end"), "<|im_end|>");
}

TEST_F(ChatTokens, WordsGoOnFromTheTemplateToTheMessage) {
  // A byte pair of one byte of each is a token.
  Tokenizer t =
      load({{"chat_template", "x{{ messages[0].content }}"},
            {"model",
             {{"type", "BPE"},
              {"vocab",
               {{"x", 0}, {"y", 1}, {"xy", 2}, {"<", 3}, {"s", 4}, {">", 5}}},
              {"merges", {"x y"}}}}});
  Expected<Ids> ids = encodeChat(t, question("", "y<s>"));
  ASSERT_TRUE(bool(ids));
  EXPECT_EQ(*ids, (Ids{2, 3, 4, 5}));
  // A mark of which a message has a part is none.
  Tokenizer u = load({{"chat_template", "<{{ messages[0].content }}<s>"}});
  EXPECT_EQ(chat(u, "s>"), "<s>[<s>]");
}
