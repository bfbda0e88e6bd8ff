//===- Event.h - What threads and sockets wait for --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TOOLS_SERVE_EVENT_H
#define KVRM_TOOLS_SERVE_EVENT_H

#include "kvrm/runtime/support/Status.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace kvrm::serve {

/// A file descriptor, closed at the end.
class Descriptor {
public:
  Descriptor() = default;
  explicit Descriptor(int number) : number(number) {}
  Descriptor(Descriptor &&other) noexcept
      : number(std::exchange(other.number, -1)) {}
  Descriptor &operator=(Descriptor &&other) noexcept {
    std::swap(number, other.number);
    return *this;
  }
  ~Descriptor() {
    if (number >= 0)
      ::close(number);
  }

  int get() const { return number; }
  explicit operator bool() const { return number >= 0; }

private:
  int number = -1;
};

/// Something that poll() can wait for beside sockets: readable from set() to
/// clear(). Any thread may call both.
class Event {
public:
  /// Errors: ResourceExhausted without a descriptor.
  static Expected<Event> create() {
    Descriptor made(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!made)
      return makeError(StatusCode::ResourceExhausted,
                       "cannot make an event: ", std::strerror(errno));
    return Event(std::move(made));
  }

  void set() {
    uint64_t one = 1;
    (void)!::write(descriptor.get(), &one, sizeof(one));
  }
  void clear() {
    uint64_t count = 0;
    (void)!::read(descriptor.get(), &count, sizeof(count));
  }
  int get() const { return descriptor.get(); }

private:
  explicit Event(Descriptor made) : descriptor(std::move(made)) {}

  Descriptor descriptor;
};

} // namespace kvrm::serve

#endif // KVRM_TOOLS_SERVE_EVENT_H
