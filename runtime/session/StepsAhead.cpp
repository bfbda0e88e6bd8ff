//===- StepsAhead.cpp - Steps that are started and not awaited ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/StepsAhead.h"

using namespace kvrm;

void StepsAhead::create(int32_t slots, int32_t mostAhead) {
  most = mostAhead;
  rows.assign(static_cast<size_t>(slots), -1);
}

Status StepsAhead::check(const StepOutputs &outputs) const {
  if (outputs.isLater && underWay > most)
    return invalidArgument(underWay,
                           " steps are under way: one is to be awaited first");
  return Status::ok();
}

void StepsAhead::started(std::span<const int32_t> tokens,
                         const StepOutputs &outputs, int32_t promptSlot) {
  std::ranges::fill(rows, -1);
  if (!outputs.isLater)
    return;
  ++underWay;
  for (size_t slot = 0; slot < rows.size(); ++slot)
    if (tokens[slot] != -1)
      rows[slot] = static_cast<int32_t>(slot);
  if (promptSlot >= 0)
    rows[static_cast<size_t>(promptSlot)] = promptRow();
}

void StepsAhead::forget(int32_t history) {
  if (auto slot = static_cast<size_t>(history); slot < rows.size())
    rows[slot] = -1;
}

Status StepsAhead::await(Backend &backend, std::span<int32_t> next) {
  if (underWay == 0)
    return invalidArgument("no step is under way");
  if (next.size() <= rows.size())
    return invalidArgument("tokens: room for ", next.size(), ", not for ",
                           rows.size() + 1);
  Status status = backend.awaitStep(next.first(rows.size() + 1));
  underWay = status.isOk() ? underWay - 1 : 0;
  if (!status.isOk())
    failed();
  return status;
}
