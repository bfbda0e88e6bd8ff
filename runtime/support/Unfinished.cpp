//===- Unfinished.cpp - What must not outlive a process -------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/Unfinished.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace kvrm;

namespace {

struct Entry {
  enum : int { Free, Taken, Listed };
  std::atomic<int> state = Free;
  std::array<char, PATH_MAX> path{};
};

/// What signals end a process by, where nobody minds them.
constexpr std::array endingSignals = {
    SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGABRT, SIGFPE,  SIGSEGV, SIGBUS,
    SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ, SIGSYS};

} // namespace

// A signal may come at any time: nothing here is made or grows.
static std::array<Entry, 16> entries;
static std::array<struct sigaction, endingSignals.size()> oldActions;
static std::atomic<pid_t> endingThread = 0; ///< that handles such a signal

UnfinishedPath::UnfinishedPath(std::string_view path) {
  if (path.size() >= PATH_MAX)
    return;
  for (size_t i = 0; i < entries.size(); ++i) {
    int expected = Entry::Free;
    if (!entries[i].state.compare_exchange_strong(expected, Entry::Taken))
      continue;
    path.copy(entries[i].path.data(), path.size());
    entries[i].path[path.size()] = '\0';
    entries[i].state = Entry::Listed;
    place = static_cast<int>(i);
    return;
  }
}

UnfinishedPath::~UnfinishedPath() {
  if (place >= 0)
    entries[static_cast<size_t>(place)].state = Entry::Free;
}

//===----------------------------------------------------------------------===//
// Removal: only what a signal handler may call
//===----------------------------------------------------------------------===//

/// Removes the files of an open folder that are there now. opendir() would ask
/// for memory.
static void emptyFolder(int folder) {
  struct Record { // as the kernel writes it, then the name
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
  };
  constexpr size_t nameAt = 19;
  alignas(Record) std::array<char, 4096> buffer;
  while (true) {
    long filled =
        ::syscall(SYS_getdents64, folder, buffer.data(), buffer.size());
    if (filled <= 0)
      return;
    for (long at = 0; at < filled;) {
      const char *record = &buffer[static_cast<size_t>(at)];
      Record fields;
      std::memcpy(&fields, record, nameAt);
      (void)::unlinkat(folder, record + nameAt, 0);
      at += fields.bytes;
    }
  }
}

static void removeFolder(const char *path) {
  // Another thread, or a linker, may still make a file: try a few times.
  for (int attempt = 0; attempt < 64; ++attempt) {
    int folder = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0)
      return;
    emptyFolder(folder);
    ::close(folder);
    if (::rmdir(path) == 0 || errno != ENOTEMPTY)
      return;
  }
}

static void removeAll() {
  for (Entry &entry : entries) {
    int expected = Entry::Listed;
    if (!entry.state.compare_exchange_strong(expected, Entry::Taken))
      continue;
    if (::unlink(entry.path.data()) != 0 && errno == EISDIR)
      removeFolder(entry.path.data());
  }
}

/// Removes, and lets the signal do what it did before.
static void onSignal(int signal) {
  int error = errno;
  endingThread = ::gettid();
  removeAll();
  for (size_t i = 0; i < endingSignals.size(); ++i)
    if (endingSignals[i] == signal)
      ::sigaction(signal, &oldActions[i], nullptr);
  ::raise(signal); // it comes when this one returns
  errno = error;
}

void kvrm::pauseIfEnding() {
  pid_t thread = endingThread;
  while (thread != 0 && thread != ::gettid())
    ::pause();
}

void kvrm::removeUnfinishedAtEnd() {
  std::atexit([] {
    pauseIfEnding();
    removeAll();
  });
  struct sigaction action = {};
  action.sa_handler = onSignal;
  action.sa_flags = SA_ONSTACK;
  for (size_t i = 0; i < endingSignals.size(); ++i) {
    ::sigaction(endingSignals[i], nullptr, &oldActions[i]);
    if (oldActions[i].sa_handler != SIG_IGN)
      ::sigaction(endingSignals[i], &action, nullptr);
  }
}
