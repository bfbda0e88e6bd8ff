//===- Package.cpp - Writer of compiled packages --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Package/Package.h"

#include "kvrm/runtime/support/Links.h"
#include "kvrm/runtime/support/RankFile.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/Errno.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/xxhash.h"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::SmallString;
using llvm::StringRef;
using llvm::Twine;
namespace fs = llvm::sys::fs;
namespace json = llvm::json;

static Error failure(StringRef path, const Twine &message) {
  return llvm::createStringError(path + ": " + message);
}

//===----------------------------------------------------------------------===//
// Tokenizer
//===----------------------------------------------------------------------===//

static StringRef nameOf(TokenizerData::Prefix prefix) {
  switch (prefix) {
  case TokenizerData::Prefix::None:
    return "none";
  case TokenizerData::Prefix::First:
    return "first";
  case TokenizerData::Prefix::Each:
    return "each";
  case TokenizerData::Prefix::Always:
    return "always";
  }
  llvm_unreachable("not a prefix");
}

void kvrm::writeTokenizer(llvm::raw_ostream &os,
                          const TokenizerData &tokenizer) {
  using Kind = TokenizerData::Kind;
  json::OStream out(os);
  auto forEach = [&](auto visit) {
    for (size_t id = 0; id < tokenizer.tokens.size(); ++id)
      visit(static_cast<int64_t>(id), tokenizer.tokens[id],
            tokenizer.kinds[id]);
  };
  out.object([&] {
    out.attribute("version", "1.0");
    out.attributeArray("added_tokens", [&] {
      forEach([&](int64_t id, StringRef token, Kind kind) {
        if (kind != Kind::Special && kind != Kind::UserDefined)
          return;
        out.object([&] {
          out.attribute("id", id);
          out.attribute("content", token);
          out.attribute("special", kind == Kind::Special);
          for (const auto &[name, ids] :
               {std::pair("lstrip", &tokenizer.stripsBefore),
                std::pair("rstrip", &tokenizer.stripsBehind)})
            if (llvm::is_contained(*ids, static_cast<int32_t>(id)))
              out.attribute(name, true);
        });
      });
    });
    out.attributeObject("normalizer", [&] {
      out.attribute("nfc", tokenizer.normalizesToNFC);
      out.attribute("space_prefix", nameOf(tokenizer.prefix));
    });
    out.attributeObject("pre_tokenizer", [&] {
      out.attributeArray("pattern", [&] {
        for (const std::string &pattern : tokenizer.patterns)
          out.value(pattern);
      });
    });
    out.attributeObject("model", [&] {
      out.attribute("type", "BPE");
      out.attribute("ignore_merges", tokenizer.ignoreMerges);
      out.attribute("byte_fallback", tokenizer.isOverCharacters);
      out.attributeObject("vocab", [&] {
        forEach([&](int64_t id, StringRef token, Kind kind) {
          if (kind == Kind::Normal)
            out.attribute(token, id);
        });
      });
      out.attributeArray("merges", [&] {
        for (const std::string &merge : tokenizer.merges)
          out.value(merge);
      });
    });
    out.attribute("bos_token_id", tokenizer.bos);
    out.attribute("eos_token_id", tokenizer.eos);
    out.attribute("add_bos_token", tokenizer.addBos);
    out.attribute("chat_template", tokenizer.chatTemplate);
  });
  os << "\n";
}

//===----------------------------------------------------------------------===//
// PackageWriter
//===----------------------------------------------------------------------===//

/// The names that the manifest of the package at `path` lists; none if it has
/// no such manifest.
static std::optional<llvm::StringSet<>> filesOfPackage(StringRef path) {
  SmallString<256> manifest(path);
  llvm::sys::path::append(manifest, "manifest.json");
  auto text = llvm::MemoryBuffer::getFile(manifest);
  if (!text)
    return std::nullopt;
  Expected<json::Value> parsed = json::parse((*text)->getBuffer());
  if (!parsed) {
    llvm::consumeError(parsed.takeError());
    return std::nullopt;
  }
  const json::Object *root = parsed->getAsObject();
  if (!root || root->getString("format") != "kvrm-package")
    return std::nullopt;
  llvm::StringSet<> names;
  names.insert("manifest.json");
  if (const json::Array *files = root->getArray("files"))
    for (const json::Value &file : *files)
      if (const json::Object *fields = file.getAsObject())
        if (std::optional<StringRef> name = fields->getString("name"))
          names.insert(*name);
  return names;
}

bool kvrm::isPackage(StringRef path) {
  return filesOfPackage(path.empty() ? "." : path).has_value();
}

/// Refuses to replace what is no package of ours: a user's folder, or a package
/// with something of theirs in it. An empty folder may be replaced.
static Error checkReplaceable(StringRef path, StringRef requested) {
  if (!fs::exists(path))
    return Error::success();
  if (!fs::is_directory(path))
    return failure(requested, "exists and is not a kvrm package");
  std::error_code code;
  fs::directory_iterator entry(path, code);
  if (!code && entry == fs::directory_iterator())
    return Error::success();
  std::optional<llvm::StringSet<>> names = filesOfPackage(path);
  if (!names)
    return failure(requested, "exists and is not a kvrm package");
  for (; !code && entry != fs::directory_iterator(); entry.increment(code)) {
    StringRef name = llvm::sys::path::filename(entry->path());
    if (entry->type() != fs::file_type::regular_file || !names->erase(name))
      return failure(requested, "is not replaced: '" + name +
                                    "' in it is no file of the package");
  }
  if (code)
    return failure(requested, code.message());
  if (!names->empty())
    return failure(requested, "is not replaced: it is not a whole package, '" +
                                  names->begin()->getKey() + "' is missing");
  return Error::success();
}

Expected<PackageWriter>
PackageWriter::create(StringRef requested,
                      llvm::function_ref<void(StringRef)> announce) {
  if (requested.empty())
    return llvm::createStringError("the path of the package is empty");
  SmallString<256> path(requested);
  if (std::error_code code = fs::make_absolute(path))
    return failure(requested, code.message());
  while (path.size() > 1 && path.back() == '/')
    path.pop_back();
  // Replace what a link points to, not the link.
  path = withoutLinks(std::string(path));
  if (Error error = checkReplaceable(path, requested))
    return error;

  PackageWriter writer{std::string(path)};
  if (std::error_code code = writer.createFolder(announce))
    return failure(requested,
                   "cannot create a folder beside it: " + code.message());
  return writer;
}

std::error_code
PackageWriter::createFolder(llvm::function_ref<void(StringRef)> announce) {
  std::error_code code;
  for (int attempt = 0; attempt < 16; ++attempt) {
    SmallString<256> unique;
    fs::createUniquePath(path + ".tmp-%%%%%%%%", unique,
                         /*MakeAbsolute=*/false);
    if (announce)
      announce(unique);
    code = fs::create_directory(unique, /*IgnoreExisting=*/false, fs::all_all);
    if (!code)
      temporary = std::string(unique);
    if (code != std::errc::file_exists)
      break;
  }
  return code;
}

PackageWriter::PackageWriter(PackageWriter &&other) noexcept
    : path(std::move(other.path)), temporary(std::move(other.temporary)),
      files(std::move(other.files)) {
  other.temporary.clear();
}

PackageWriter::~PackageWriter() {
  if (!temporary.empty())
    (void)fs::remove_directories(temporary);
}

std::string PackageWriter::pathOf(StringRef name) const {
  SmallString<256> file(temporary);
  llvm::sys::path::append(file, name);
  return std::string(file);
}

Error PackageWriter::addWritten(StringRef name) {
  auto buffer = llvm::MemoryBuffer::getFile(pathOf(name), /*IsText=*/false,
                                            /*RequiresNullTerminator=*/false);
  if (!buffer)
    return failure(path, "cannot read back " + name + ": " +
                             buffer.getError().message());
  PackageManifest::File file;
  file.name = name.str();
  file.bytes = (*buffer)->getBufferSize();
  file.xxh3 = llvm::xxh3_64bits((*buffer)->getBuffer());
  files.push_back(std::move(file));
  return Error::success();
}

/// Writes a file by `print`.
Error PackageWriter::writeFile(
    StringRef name, llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::error_code code;
  llvm::raw_fd_ostream os(pathOf(name), code);
  if (!code) {
    print(os);
    os.close();
    code = os.error();
    os.clear_error();
  }
  if (code)
    return failure(path, name + ": cannot write: " + code.message());
  return Error::success();
}

Error PackageWriter::addFile(StringRef name, StringRef contents) {
  if (Error error =
          writeFile(name, [&](llvm::raw_ostream &os) { os << contents; }))
    return error;
  return addWritten(name);
}

Error PackageWriter::addWeights(const DecoderModel &model,
                                llvm::ArrayRef<WeightLayout> layouts,
                                unsigned threads, int64_t rank) {
  std::string name = weightsFile(rank);
  if (Error error = writeWeights(pathOf(name), model, layouts, threads, rank))
    return error;
  return addWritten(name);
}

Error PackageWriter::addTokenizer(const TokenizerData &tokenizer) {
  StringRef name = "tokenizer.json";
  if (Error error = writeFile(
          name, [&](llvm::raw_ostream &os) { writeTokenizer(os, tokenizer); }))
    return error;
  return addWritten(name);
}

/// Makes `to` what `from` is. An old `to` ends up as `from`.
static std::error_code moveInto(const std::string &from,
                                const std::string &to) {
  if (::rename(from.c_str(), to.c_str()) == 0)
    return {};
  std::error_code code(errno, std::generic_category());
  if (code != std::errc::directory_not_empty && code != std::errc::file_exists)
    return code;
  // A package is there: swap the two in one step where the file system can.
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(),
                  RENAME_EXCHANGE) == 0)
    return {};
  code = std::error_code(errno, std::generic_category());
  if (code != std::errc::invalid_argument &&
      code != std::errc::function_not_supported)
    return code;
  std::string old = from + ".old";
  if (::rename(to.c_str(), old.c_str()) != 0)
    return std::error_code(errno, std::generic_category());
  if (::rename(from.c_str(), to.c_str()) != 0) {
    code = std::error_code(errno, std::generic_category());
    (void)::rename(old.c_str(), to.c_str());
    return code;
  }
  (void)::rename(old.c_str(), from.c_str());
  return {};
}

Error PackageWriter::commit(PackageManifest manifest) {
  manifest.files = files;
  if (Error error = writeFile("manifest.json", [&](llvm::raw_ostream &os) {
        writeManifest(os, manifest);
      }))
    return error;
  // What is there may have changed since `create`.
  if (Error error = checkReplaceable(path, path))
    return error;
  if (std::error_code code = moveInto(temporary, path))
    return failure(path,
                   "cannot move the package into place: " + code.message());
  (void)fs::remove_directories(temporary);
  temporary.clear();
  return Error::success();
}
