//===- TokenChoice.h - Which token comes next -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The rule of abi/sampling.h on the host.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_SESSION_TOKENCHOICE_H
#define KVRM_RUNTIME_SESSION_TOKENCHOICE_H

#include "kvrm/runtime/abi/sampling.h"

#include <cstdint>
#include <span>

namespace kvrm {

/// The token that follows, or -1 if no logit is a finite number. At most 2^24
/// logits. Allocates nothing.
int32_t chooseToken(std::span<const float> logits,
                    const kvrm_sampling &sampling);

} // namespace kvrm

#endif // KVRM_RUNTIME_SESSION_TOKENCHOICE_H
