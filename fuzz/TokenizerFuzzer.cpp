//===- TokenizerFuzzer.cpp - tokenizer.json -------------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/text/Tokenizer.h"

#include <cctype>
#include <string>

using namespace kvrm;

/// Whether a number may be an id so great that, as is legal, a gigabyte goes to
/// ids without a text. Shorter ones cost nothing, longer ones are refused.
static bool hasGreatId(std::string_view text) {
  size_t digits = 0;
  auto isGreat = [&] { return digits >= 6 && digits <= 8; };
  for (unsigned char c : text) {
    if (std::isdigit(c)) {
      ++digits;
      continue;
    }
    if (isGreat())
      return true;
    digits = 0;
  }
  return isGreat();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view json = fuzz::textOf(data, size);
  if (hasGreatId(json))
    return 0;
  Expected<Tokenizer> tokenizer = Tokenizer::parse(json, "tokenizer.json");
  if (!tokenizer) {
    fuzz::checkFailure(tokenizer.status());
    return 0;
  }
  const Tokenizer &t = *tokenizer;
  fuzz::check(t.bos() >= -1 && t.bos() < t.size() && t.eos() >= -1 &&
                  t.eos() < t.size() && (!t.addBos() || t.bos() >= 0),
              "special ids are tokens");
  for (std::string_view text :
       {"", "a", "ab  abab 12\n", "<s>a</s>", "\xc3\xa9\xe2\x82 \xff"}) {
    Expected<std::vector<int32_t>> ids = t.encode(text);
    if (!ids) { // a pattern that gives up on the text
      fuzz::checkFailure(ids.status());
      continue;
    }
    StreamDecoder decoder(t);
    std::string streamed;
    for (int32_t id : *ids) {
      fuzz::check(id >= 0 && id < t.size(), "an id is in the vocabulary");
      (void)t.isSpecial(id);
      streamed += decoder.push(id);
    }
    streamed += decoder.finish();
    fuzz::check(streamed == t.decode(*ids), "a stream is the whole text");
  }
  return 0;
}
