//===- TextFuzzer.cpp - Any text through a tokenizer ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Three tokenizers with every byte in their vocabulary. The first byte chooses
// one and whether special tokens count; the rest is text, and then ids.
//
//===----------------------------------------------------------------------===//

#include "Fuzz.h"
#include "kvrm/text/Tokenizer.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

using namespace kvrm;
using nlohmann::json;

/// Bytes are ids 0 to 255 in the GPT-2 alphabet, tokens of merges follow, then
/// added tokens.
static Tokenizer makeTokenizer(const json &patterns, bool ignoreMerges) {
  json vocabulary = json::object();
  int32_t hidden = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    bool isVisible = (byte >= 33 && byte <= 126) ||
                     (byte >= 161 && byte <= 172) || byte >= 174;
    int32_t c = isVisible ? byte : hidden++;
    std::string text;
    if (c >= 0x80)
      text += static_cast<char>(0xc0 | c >> 6);
    text += static_cast<char>(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    vocabulary[text] = byte;
  }
  json merges = json::array();
  int32_t id = 256;
  for (std::string merge :
       {"a b", "b a", "ab ab", "ab a", "aba b", "t h", "th e", "\u0120 a",
        "\u0120 the", "1 2", "\u00c3 \u00a9", "\u0120 \u0120",
        "\u010a \u010a"}) {
    merges.push_back(merge);
    merge.erase(merge.find(' '), 1);
    if (!vocabulary.contains(merge))
      vocabulary[merge] = id++;
  }
  json added = json::array();
  for (const char *content : {"<s>", "</s>", "<|im_start|>", "\n\n"}) {
    added.push_back(
        {{"id", id++}, {"content", content}, {"special", content[0] == '<'}});
  }
  json root = {{"model",
                {{"type", "BPE"},
                 {"ignore_merges", ignoreMerges},
                 {"vocab", vocabulary},
                 {"merges", merges}}},
               {"pre_tokenizer", {{"pattern", patterns}}},
               {"added_tokens", added}};
  Expected<Tokenizer> tokenizer = Tokenizer::parse(root.dump(), "fuzz");
  fuzz::check(bool(tokenizer), "the tokenizer is right",
              tokenizer.status().message());
  return tokenizer.take();
}

/// The patterns of real models; see GGUFTokenizer.cpp.
static const Tokenizer &tokenizerOf(int which) {
  static const char *const gpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  static const char *const llama3 =
      R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const Tokenizer tokenizers[] = {
      makeTokenizer({R"(\p{N})", gpt2}, /*ignoreMerges=*/false),
      makeTokenizer({llama3}, /*ignoreMerges=*/true),
      makeTokenizer(json::array(), /*ignoreMerges=*/false)};
  return tokenizers[which];
}

static bool isUtf8(const std::string &text) {
  try { // the strict dump is the one check that nlohmann has
    (void)json(text).dump();
    return true;
  } catch (const json::exception &) {
    return false;
  }
}

static void checkDecoding(const Tokenizer &t, const std::vector<int32_t> &ids,
                          bool skipSpecial) {
  std::string whole = t.decode(ids, skipSpecial);
  fuzz::check(isUtf8(whole), "decoded text is UTF-8");
  StreamDecoder decoder(t, skipSpecial);
  std::string streamed;
  for (int32_t id : ids) {
    std::string piece = decoder.push(id);
    fuzz::check(isUtf8(piece), "a piece of a stream is UTF-8");
    streamed += piece;
  }
  streamed += decoder.finish();
  fuzz::check(streamed == whole, "a stream is the whole text");
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  const Tokenizer &t = tokenizerOf(data[0] % 3);
  bool parseSpecial = data[0] / 3 % 2 == 1;
  std::string_view text = fuzz::textOf(data + 1, size - 1);
  Expected<std::vector<int32_t>> ids = t.encode(text, parseSpecial);
  if (ids) {
    std::string bytes;
    for (int32_t id : *ids) {
      fuzz::check(parseSpecial || !t.isSpecial(id),
                  "a special token is parsed only when asked for");
      bytes += t.bytesOf(id);
    }
    fuzz::check(bytes == text, "tokens together are the text");
    checkDecoding(t, *ids, false);
    checkDecoding(t, *ids, true);
  } else {
    fuzz::checkFailure(ids.status());
  }
  // The same bytes as ids, some of them of no token.
  std::vector<int32_t> others;
  for (size_t i = 1; i + 1 < size; i += 2)
    others.push_back((data[i] | data[i + 1] << 8) - 16);
  checkDecoding(t, others, parseSpecial);
  return 0;
}
