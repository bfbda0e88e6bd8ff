//===- StandardStreams.cpp - Descriptors 0, 1 and 2 of a tool -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/support/StandardStreams.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

void kvrm::openStandardStreams() {
  // open() takes the lowest number that is free, so in this order.
  for (int descriptor = 0; descriptor <= STDERR_FILENO; ++descriptor)
    if (::fcntl(descriptor, F_GETFD) < 0)
      (void)::open("/dev/null",
                   descriptor == STDOUT_FILENO ? O_RDONLY : O_RDWR);
}

bool kvrm::hasReader() {
  pollfd stream{STDOUT_FILENO, 0, 0};
  return ::poll(&stream, 1, 0) <= 0 || (stream.revents & POLLERR) == 0;
}
