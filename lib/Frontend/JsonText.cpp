//===- JsonText.cpp - JSON that comes from outside ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/JsonText.h"

#include "kvrm/Frontend/FileBuffer.h"
#include "kvrm/Frontend/FileError.h"

#include "llvm/Support/FormatVariadic.h"

using namespace kvrm;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
namespace json = llvm::json;

static constexpr int deepest = 64;

/// Whether lists and objects are nested deeper than any that is read.
static bool isTooDeep(StringRef text) {
  int depth = 0;
  bool isString = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (isString) {
      if (c == '\\')
        ++i;
      isString = c != '"';
    } else if (c == '"') {
      isString = true;
    } else if (c == '[' || c == '{') {
      if (++depth > deepest)
        return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

Expected<json::Object> kvrm::parseJsonObject(StringRef text, StringRef origin) {
  if (isTooDeep(text))
    return fileError(origin,
                     formatv("JSON is nested deeper than {0}", deepest).str());
  Expected<json::Value> parsed = json::parse(text);
  if (!parsed)
    return fileError(origin, "is not valid JSON: " +
                                 llvm::toString(parsed.takeError()));
  json::Object *object = parsed->getAsObject();
  if (!object)
    return fileError(origin, "is not a JSON object");
  return std::move(*object);
}

Expected<json::Object> kvrm::readJsonObject(StringRef path, uint64_t limit) {
  auto buffer = openFile(path);
  if (!buffer)
    return buffer.takeError();
  if ((*buffer)->getBufferSize() > limit)
    return fileError(path, formatv("{0} bytes are more than the limit {1}",
                                   (*buffer)->getBufferSize(), limit)
                               .str());
  return parseJsonObject((*buffer)->getBuffer(), path);
}
