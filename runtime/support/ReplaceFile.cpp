//===- ReplaceFile.cpp - Whole files or none --------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/ReplaceFile.h"
#include "kvrm/runtime/support/Links.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace kvrm;

static bool isSame(const struct stat &one, const struct stat &other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static bool isStandardOutput(const struct stat &info) {
  struct stat output = {};
  return ::fstat(STDOUT_FILENO, &output) == 0 && isSame(info, output);
}

//===----------------------------------------------------------------------===//
// UnfinishedFile
//===----------------------------------------------------------------------===//

Expected<UnfinishedFile> UnfinishedFile::create(const std::string &path) {
  UnfinishedFile created(path);
  KVRM_TRY(created.open());
  return created;
}

Status UnfinishedFile::open() {
  struct stat info = {};
  bool isDash = path == "-";
  bool isThere = !isDash && ::stat(path.c_str(), &info) == 0;
  if (!isDash && !isThere && errno != ENOENT)
    return fail("cannot create", errno);
  int descriptor = -1;
  if (isDash || (isThere && isStandardOutput(info))) {
    path = "-";
    // Read-only is what it is filled with where it was closed.
    if ((::fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY)
      return fail("cannot write", EBADF);
    descriptor = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  } else if (isThere && S_ISDIR(info.st_mode)) {
    return fail("cannot create", EISDIR);
  } else if (isThere && !S_ISREG(info.st_mode)) {
    descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  } else {
    // Renaming would get round a file that may not be written.
    if (isThere && ::access(path.c_str(), W_OK) != 0)
      return fail("cannot create", errno);
    descriptor = openBeside(isThere ? &info : nullptr);
  }
  if (descriptor < 0)
    return fail("cannot create", errno);
  file.reset(::fdopen(descriptor, "wb"));
  return file ? Status::ok() : fail("cannot create", errno);
}

/// Opens the temporary file, with the owner and the mode of the old one. -1
/// with errno if it cannot be.
int UnfinishedFile::openBeside(const struct stat *old) {
  target = withoutLinks(path);
  std::string base = target + ".tmp-" + std::to_string(::getpid());
  int descriptor = -1;
  for (int attempt = 0; attempt < 16 && descriptor < 0; ++attempt) {
    temporary = attempt == 0 ? base : base + "-" + std::to_string(attempt);
    if (::access(temporary.c_str(), F_OK) == 0) {
      errno = EEXIST;
      continue;
    }
    // Listed first: a signal may come as soon as it is there.
    removal = UnfinishedPath(temporary);
    descriptor = ::open(temporary.c_str(),
                        O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0 || errno != EEXIST)
      break;
  }
  if (descriptor < 0) {
    removal = UnfinishedPath();
    return descriptor;
  }
  // Who may not give files away keeps it as their own.
  if (old && ::fchown(descriptor, old->st_uid, old->st_gid) == 0)
    (void)::fchmod(descriptor, old->st_mode & 07777);
  return descriptor;
}

UnfinishedFile::~UnfinishedFile() {
  if (file && !temporary.empty())
    ::unlink(temporary.c_str());
}

Status UnfinishedFile::fail(const char *what, int error) const {
  return makeError(StatusCode::IoError, path == "-" ? "standard output" : path,
                   ": ", what, ": ", std::strerror(error));
}

Status UnfinishedFile::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size())
    return fail("cannot write", errno);
  return Status::ok();
}

Status UnfinishedFile::seek(int64_t offset) {
  if (::fseeko(file.get(), offset, SEEK_SET) != 0)
    return fail("cannot write", errno);
  return Status::ok();
}

/// What failed before has left its mark, but not its reason: the next byte
/// fails for the same.
static int errorOf(std::FILE *stream) {
  if (!std::ferror(stream))
    return 0;
  return ::write(::fileno(stream), "", 1) < 0 ? errno : EIO;
}

Status UnfinishedFile::commit() {
  int error = errorOf(file.get());
  if (std::fclose(file.release()) != 0 && error == 0)
    error = errno;
  const char *what = "cannot write";
  if (error == 0) {
    if (temporary.empty() ||
        std::rename(temporary.c_str(), target.c_str()) == 0)
      return Status::ok();
    error = errno;
    what = "cannot move into place";
  }
  if (!temporary.empty())
    ::unlink(temporary.c_str());
  return fail(what, error);
}

Status kvrm::replaceFile(const std::string &path, std::string_view text) {
  Expected<UnfinishedFile> file = UnfinishedFile::create(path);
  KVRM_TRY(file.status());
  KVRM_TRY(file->write(text));
  return file->commit();
}

//===----------------------------------------------------------------------===//
// Outputs that are inputs
//===----------------------------------------------------------------------===//

/// Whether both name one file, there or not.
static bool isSamePlace(const std::string &one, const std::string &other) {
  struct stat first = {}, second = {};
  bool isFirst = ::stat(one.c_str(), &first) == 0;
  if (isFirst != (::stat(other.c_str(), &second) == 0))
    return false;
  if (isFirst)
    return isSame(first, second) && S_ISREG(first.st_mode);
  std::string a = withoutLinks(one), b = withoutLinks(other);
  return a.substr(a.rfind('/') + 1) == b.substr(b.rfind('/') + 1) &&
         ::stat(folderOf(a).c_str(), &first) == 0 &&
         ::stat(folderOf(b).c_str(), &second) == 0 && isSame(first, second);
}

static bool isInFolder(const std::string &path, const std::string &folder) {
  struct stat own = {}, info = {};
  return ::stat(folder.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
         ::stat(folderOf(withoutLinks(path)).c_str(), &own) == 0 &&
         isSame(own, info);
}

Status kvrm::checkOutput(const std::string &output,
                         std::span<const std::string> inputs) {
  if (output.empty())
    return Status::ok();
  const std::string place = output == "-" ? "/dev/stdout" : output;
  for (const std::string &input : inputs) {
    if (input.empty())
      continue;
    if (isSamePlace(place, input))
      return invalidArgument(output, ": is '", input,
                             "', which this run needs: write to another file");
    if (isInFolder(place, input))
      return invalidArgument(output, ": lies in '", input,
                             "', which this run reads: write elsewhere");
  }
  return Status::ok();
}
