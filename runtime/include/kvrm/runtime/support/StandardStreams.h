//===- StandardStreams.h - Descriptors 0, 1 and 2 of a tool -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SUPPORT_STANDARDSTREAMS_H
#define KVRM_RUNTIME_SUPPORT_STANDARDSTREAMS_H

namespace kvrm {

/// Fills those that are closed, or the next file to be opened would be one of
/// them, and take what is meant for a terminal. Writing to standard output
/// still fails then; diagnostics are lost. For main(), before all else.
void openStandardStreams();

/// Whether somebody may still read what goes to standard output: false for a
/// pipe that is closed at its other end.
bool hasReader();

} // namespace kvrm

#endif // KVRM_RUNTIME_SUPPORT_STANDARDSTREAMS_H
