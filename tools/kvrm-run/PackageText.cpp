//===- PackageText.cpp - What a package says of text ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PackageText.h"

using namespace kvrm;

Expected<std::optional<Tokenizer>> run::loadTokenizer(const Package &package) {
  std::string path = package.tokenizerPath();
  if (path.empty())
    return std::optional<Tokenizer>();
  Expected<Tokenizer> loaded = Tokenizer::load(path);
  KVRM_TRY(loaded.status());
  return std::optional<Tokenizer>(loaded.take());
}

std::vector<int32_t>
run::endsOfText(const Manifest &manifest,
                const std::optional<Tokenizer> &tokenizer) {
  std::vector<int32_t> ends = manifest.ends;
  if (tokenizer && tokenizer->eos() >= 0)
    ends.push_back(tokenizer->eos());
  return ends;
}
