//===- CheckedFile.cpp - A file with its size and checksum ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CheckedFile.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

using namespace kvrm;

static constexpr int64_t maxManifestBytes = 1 << 20;
static constexpr int64_t readChunk = 4 << 20;

CheckedFile::CheckedFile(CheckedFile &&other) noexcept
    : descriptor(std::exchange(other.descriptor, -1)),
      hash(std::exchange(other.hash, nullptr)), path(std::move(other.path)),
      size(other.size) {}

CheckedFile::~CheckedFile() {
  if (descriptor >= 0)
    ::close(descriptor);
  if (hash)
    XXH3_freeState(hash);
}

Expected<CheckedFile> CheckedFile::open(const std::string &path) {
  CheckedFile file;
  file.path = path;
  file.descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.descriptor < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return makeError(StatusCode::NotFound, path, ": there is no such file");
    return makeError(StatusCode::IoError, path,
                     ": cannot open: ", std::strerror(errno));
  }
  struct stat info{};
  if (fstat(file.descriptor, &info) != 0)
    return makeError(StatusCode::IoError, path, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    return makeError(StatusCode::Corrupt, path, ": is not a regular file");
  file.size = info.st_size;
  file.hash = XXH3_createState();
  if (!file.hash)
    return makeError(StatusCode::ResourceExhausted, path, ": no memory");
  XXH3_64bits_reset(file.hash);
  return file;
}

Status CheckedFile::checkSize(const FileInfo &want) const {
  if (size == want.bytes)
    return Status::ok();
  return makeError(StatusCode::Corrupt, path, ": is ", size,
                   " bytes long, the manifest says ", want.bytes);
}

Status CheckedFile::read(uint8_t *to, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    int64_t want = std::min(bytes - done, readChunk);
    ssize_t got = ::read(descriptor, to + done, static_cast<size_t>(want));
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return makeError(StatusCode::IoError, path,
                       ": cannot read: ", std::strerror(errno));
    if (got == 0)
      return makeError(StatusCode::Corrupt, path, ": ends early");
    XXH3_64bits_update(hash, to + done, static_cast<size_t>(got));
    done += got;
  }
  return Status::ok();
}

Status CheckedFile::checkHash(const FileInfo &want) const {
  if (XXH3_64bits_digest(hash) == want.xxh3)
    return Status::ok();
  return makeError(StatusCode::Corrupt, path,
                   ": checksum differs from the manifest's; the file is "
                   "damaged");
}

Status CheckedFile::checkAll(const FileInfo &want) {
  KVRM_TRY(checkSize(want));
  std::vector<uint8_t> chunk(
      static_cast<size_t>(std::min(std::max<int64_t>(size, 1), readChunk)));
  for (int64_t done = 0; done < size;) {
    int64_t next = std::min(size - done, static_cast<int64_t>(chunk.size()));
    KVRM_TRY(read(chunk.data(), next));
    done += next;
  }
  return checkHash(want);
}

Expected<std::string> CheckedFile::readAll(const FileInfo &want) {
  KVRM_TRY(checkSize(want));
  std::string text(static_cast<size_t>(size), '\0');
  KVRM_TRY(read(reinterpret_cast<uint8_t *>(text.data()), size));
  KVRM_TRY(checkHash(want));
  return text;
}

std::string kvrm::joinPath(const std::string &folder, std::string_view name) {
  std::string path = folder;
  if (!path.empty() && path.back() != '/')
    path += '/';
  return path.append(name);
}

Expected<std::string> kvrm::readManifestText(const std::string &path,
                                             std::string_view kind,
                                             std::string &where) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0)
    return makeError(StatusCode::NotFound, path, ": there is no such ", kind);
  if (!S_ISDIR(info.st_mode))
    return makeError(StatusCode::Corrupt, path, ": is not a ", kind,
                     " (a folder with manifest.json)");
  where = joinPath(path, "manifest.json");
  Expected<CheckedFile> file = CheckedFile::open(where);
  KVRM_TRY(file.status());
  if (file->bytes() > maxManifestBytes)
    return makeError(StatusCode::Corrupt, where, ": is ", file->bytes(),
                     " bytes long, over the limit ", maxManifestBytes);
  std::string text(static_cast<size_t>(file->bytes()), '\0');
  KVRM_TRY(file->read(reinterpret_cast<uint8_t *>(text.data()), file->bytes()));
  return text;
}

Status kvrm::checkSeal(std::string_view text, const std::string &path) {
  constexpr std::string_view start = "\"xxh3\": \"";
  constexpr std::string_view end = "\"\n}\n";
  constexpr size_t digits = 16;
  constexpr size_t size = start.size() + digits + end.size();
  if (text.size() < size)
    return makeError(StatusCode::Corrupt, path, ": has no checksum at its end");
  std::string_view body = text.substr(0, text.size() - size);
  std::string_view seal = text.substr(body.size());
  if (!seal.starts_with(start) || !seal.ends_with(end))
    return makeError(StatusCode::Corrupt, path, ": has no checksum at its end");
  char sum[digits + 1];
  std::snprintf(
      sum, sizeof(sum), "%016llx",
      static_cast<unsigned long long>(XXH3_64bits(body.data(), body.size())));
  if (seal.substr(start.size(), digits) != sum)
    return makeError(StatusCode::Corrupt, path,
                     ": checksum differs from the one at its end; the file is "
                     "damaged");
  return Status::ok();
}
