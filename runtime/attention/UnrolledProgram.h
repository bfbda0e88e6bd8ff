//===- UnrolledProgram.h - One layer of attention, repeated -----*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ATTENTION_UNROLLEDPROGRAM_H
#define KVRM_RUNTIME_ATTENTION_UNROLLEDPROGRAM_H

#include "kvrm/runtime/package/Package.h"
#include "kvrm/runtime/program/StepProgram.h"

#include <array>
#include <cstdint>
#include <vector>

namespace kvrm {

struct Unrolling {
  int32_t layers = 1;
  bool appends = true;          ///< keep the append commands
  bool hasLayerTensors = false; ///< each layer has tensors of its own
};

/// The decode step of a package that only attends, its first layer repeated.
/// Nothing in such a program depends on slots, pages or layers but by symbols.
/// Errors: InvalidArgument for a package with logits.
Expected<StepProgram> unrollProgram(const Package &package,
                                    const Unrolling &unrolling);

/// For each layer the command of each role, -1 where there is none.
std::vector<std::array<int64_t, KVRM_KERNEL_ROLES>>
commandsByLayer(const StepProgram &program, const Manifest &manifest);

} // namespace kvrm

#endif // KVRM_RUNTIME_ATTENTION_UNROLLEDPROGRAM_H
