//===- ChatTest.cpp - Tests of prompts in chat form -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/text/Chat.h"

#include <gtest/gtest.h>

using namespace kvrm;

static const char *chatML =
    "{% for m in messages %}{{'<|im_start|>' + m['role']}}{% endfor %}";

TEST(Chat, ChatML) {
  EXPECT_EQ(chatPrompt(chatML, "", "Hi"),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chatPrompt(chatML, "Be brief.", "Hi"),
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(Chat, ChatMLHasTheTemplatesOwnSystemMessage) {
  for (const std::string own :
       {"{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}",
        "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}"}) {
    EXPECT_EQ(chatPrompt(own, "", "Hi"),
              "<|im_start|>system\nYou help.<|im_end|>\n"
              "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(chatPrompt(own, "Be brief.", "Hi"),
              chatPrompt(chatML, "Be brief.", "Hi"));
  }
  // One that is computed is not taken.
  EXPECT_EQ(
      chatPrompt("<|im_start|>system\n' + content + '<|im_end|>", "", "Hi"),
      chatPrompt(chatML, "", "Hi"));
}

TEST(Chat, Llama3) {
  const char *form = "{{ '<|start_header_id|>' + role }}";
  EXPECT_EQ(chatPrompt(form, "", "Hi"),
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(chatPrompt(form, "Be brief.", "Hi"),
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(Chat, AnUnknownFormIsNotGuessed) {
  EXPECT_EQ(chatPrompt("[INST] {{ prompt }} [/INST]", "", "Hi"), std::nullopt);
  EXPECT_EQ(chatPrompt("", "", "Hi"), std::nullopt);
}
