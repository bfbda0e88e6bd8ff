//===- Package.cpp - Writer of compiled packages --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Package/Package.h"

#include "llvm/ADT/SmallString.h"
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
        });
      });
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

/// Whether `path` may be replaced: a package of ours or an empty folder.
static bool isReplaceable(StringRef path) {
  if (!fs::is_directory(path))
    return false;
  std::error_code code;
  fs::directory_iterator first(path, code);
  if (!code && first == fs::directory_iterator())
    return true;
  SmallString<256> manifest(path);
  llvm::sys::path::append(manifest, "manifest.json");
  auto text = llvm::MemoryBuffer::getFile(manifest);
  return text && (*text)->getBuffer().contains("\"kvrm-package\"");
}

Expected<PackageWriter> PackageWriter::create(StringRef requested) {
  SmallString<256> path(requested);
  if (requested.empty())
    return llvm::createStringError("the path of the package is empty");
  if (std::error_code code = fs::make_absolute(path))
    return failure(requested, code.message());
  // Replace what a link points to, not the link.
  if (SmallString<256> real; !fs::real_path(path, real))
    path = real;
  while (path.size() > 1 && path.back() == '/')
    path.pop_back();
  if (fs::exists(path) && !isReplaceable(path))
    return failure(requested, "exists and is not a kvrm package");

  SmallString<256> temporary;
  std::error_code code;
  for (int attempt = 0; attempt < 16; ++attempt) {
    fs::createUniquePath(path + ".tmp-%%%%%%%%", temporary,
                         /*MakeAbsolute=*/false);
    code =
        fs::create_directory(temporary, /*IgnoreExisting=*/false, fs::all_all);
    if (code != std::errc::file_exists)
      break;
  }
  if (code)
    return failure(requested,
                   "cannot create a folder beside it: " + code.message());
  return PackageWriter(std::string(path), std::string(temporary));
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
static Error writeFile(StringRef file,
                       llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::error_code code;
  llvm::raw_fd_ostream os(file, code);
  if (code)
    return failure(file, "cannot write: " + code.message());
  print(os);
  os.close();
  code = os.error();
  os.clear_error();
  if (code)
    return failure(file, "cannot write: " + code.message());
  return Error::success();
}

Error PackageWriter::addFile(StringRef name, StringRef contents) {
  if (Error error = writeFile(pathOf(name),
                              [&](llvm::raw_ostream &os) { os << contents; }))
    return error;
  return addWritten(name);
}

Error PackageWriter::addWeights(const DecoderModel &model,
                                llvm::ArrayRef<WeightLayout> layouts,
                                unsigned threads) {
  StringRef name = "weights.safetensors";
  if (Error error = writeWeights(pathOf(name), model, layouts, threads))
    return error;
  return addWritten(name);
}

Error PackageWriter::addTokenizer(const TokenizerData &tokenizer) {
  StringRef name = "tokenizer.json";
  if (Error error = writeFile(pathOf(name), [&](llvm::raw_ostream &os) {
        writeTokenizer(os, tokenizer);
      }))
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
  if (Error error =
          writeFile(pathOf("manifest.json"), [&](llvm::raw_ostream &os) {
            writeManifest(os, manifest);
          }))
    return error;
  // What is there may have changed since `create`.
  if (fs::exists(path) && !isReplaceable(path))
    return failure(path, "exists and is not a kvrm package");
  if (std::error_code code = moveInto(temporary, path))
    return failure(path,
                   "cannot move the package into place: " + code.message());
  (void)fs::remove_directories(temporary);
  temporary.clear();
  return Error::success();
}
