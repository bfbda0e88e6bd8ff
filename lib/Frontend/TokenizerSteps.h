//===- TokenizerSteps.h - Steps of tokenizer.json around BPE ----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_TOKENIZERSTEPS_H
#define KVRM_FRONTEND_TOKENIZERSTEPS_H

#include "JsonFields.h"

#include "kvrm/Frontend/Model.h"

namespace kvrm {

/// That a tokenizer does something that the runtime does not.
class UnsupportedStep : public llvm::ErrorInfo<UnsupportedStep> {
public:
  static char ID; // NOLINT(readability-identifier-naming): LLVM's name

  explicit UnsupportedStep(std::string text) : text(std::move(text)) {}

  /// What it is.
  const std::string &what() const { return text; }
  void log(llvm::raw_ostream &os) const override;
  std::error_code convertToErrorCode() const override {
    return llvm::inconvertibleErrorCode();
  }

private:
  std::string text;
};

inline llvm::Error unsupported(const llvm::Twine &what) {
  return llvm::make_error<UnsupportedStep>(what.str());
}

/// What `normalizer` does to a text, in `data`. `root` is tokenizer.json.
llvm::Error readNormalizer(const JsonFields &root, TokenizerData &data);

/// How `pre_tokenizer` splits it into words.
llvm::Error readPreTokenizer(const JsonFields &root, TokenizerData &data);

/// The text of the token that `post_processor` puts in front; empty if none.
llvm::Expected<std::string> readPostProcessor(const JsonFields &root);

} // namespace kvrm

#endif // KVRM_FRONTEND_TOKENIZERSTEPS_H
