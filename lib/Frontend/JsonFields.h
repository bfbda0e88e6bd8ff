//===- JsonFields.h - Fields of a JSON object, each checked -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_JSONFIELDS_H
#define KVRM_FRONTEND_JSONFIELDS_H

#include "kvrm/Frontend/FileError.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/JSON.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kvrm {

/// Lookups in an object of a file. A null stands for a field that is not there.
/// Errors name the file and the field.
class JsonFields {
public:
  /// `object` and `file`, the name in messages, outlive this. `prefix` is what
  /// the object itself is called, with a dot behind it.
  JsonFields(const llvm::json::Object &object, llvm::StringRef file,
             std::string prefix = "")
      : object(&object), file(file), prefix(std::move(prefix)) {}

  bool has(llvm::StringRef key) const { return find(key) != nullptr; }
  /// Whether it is there as a null, which may say more than that it is not.
  bool isNull(llvm::StringRef key) const;
  /// The value, or null.
  const llvm::json::Value *find(llvm::StringRef key) const;

  // Lookups that fail if the field is not there or of another kind.
  llvm::Expected<int64_t> getInt(llvm::StringRef key) const;
  llvm::Expected<double> getNumber(llvm::StringRef key) const;
  llvm::Expected<bool> getBool(llvm::StringRef key) const;
  llvm::Expected<llvm::StringRef> getString(llvm::StringRef key) const;
  llvm::Expected<std::vector<double>> getNumbers(llvm::StringRef key) const;
  llvm::Expected<JsonFields> getObject(llvm::StringRef key) const;

  // Lookups with a value for a field that is not there.
  llvm::Expected<int64_t> getInt(llvm::StringRef key, int64_t absent) const;
  llvm::Expected<double> getNumber(llvm::StringRef key, double absent) const;
  llvm::Expected<bool> getBool(llvm::StringRef key, bool absent) const;
  llvm::Expected<llvm::StringRef> getString(llvm::StringRef key,
                                            llvm::StringRef absent) const;
  /// With no fields if it is not there.
  llvm::Expected<JsonFields> getObjectOrNone(llvm::StringRef key) const;

  /// The fields of an object that stands in this one, called `name`.
  JsonFields member(const llvm::json::Object &member,
                    const std::string &name) const {
    return JsonFields(member, file, prefix + name + ".");
  }

  llvm::Error fail(llvm::StringRef key, const llvm::Twine &message) const {
    return fileError(file, prefix + key + ": " + message);
  }

private:
  llvm::Error isNot(llvm::StringRef key, const char *kind) const;

  const llvm::json::Object *object;
  llvm::StringRef file;
  std::string prefix;
};

} // namespace kvrm

#endif // KVRM_FRONTEND_JSONFIELDS_H
