//===- PlannedEntry.cpp - An entry point as sessions drive it -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/runtime/session/PlannedEntry.h"

using namespace kvrm;

Status PlannedEntry::create(StepEntry which, PlanShape shape,
                            const BackendInfo &info) {
  entry = which;
  shape.shares = info.entries[static_cast<size_t>(which)].shares;
  Expected<Planner> made = Planner::create(shape);
  KVRM_TRY(made.status());
  planner.emplace(made.take());
  Expected<StepDescriptor> empty =
      StepDescriptor::create(planner->capacity().limits);
  KVRM_TRY(empty.status());
  descriptor.emplace(empty.take());
  planRows.resize(static_cast<size_t>(shape.rows));
  return Status::ok();
}

void PlannedEntry::plan(const BlockPager &pager, const kvrm_sampling *sampling,
                        StepStats &stats) {
  auto count = static_cast<int32_t>(planRows.size());
  for (int32_t row = 0; row < count && sampling; ++row)
    descriptor->setSampling(row, sampling[row]);
  const PlanStats &plan = planner->plan(planRows, pager, *descriptor);
  stats.activeRows += plan.activeRows;
  stats.pages += plan.pages;
  stats.groups += plan.groups;
  stats.items += plan.items;
  stats.segments += plan.segments;
  stats.tiles += plan.tiles;
  stats.planNanoseconds += plan.nanoseconds;
}

Status PlannedEntry::run(Backend &backend, const BlockPager &pager,
                         int32_t schedule, const StepOutputs &outputs,
                         float *logits, StepStats &stats) {
  bool isChosen = isChosenThere(backend.info(), outputs);
  stats.clearCounts();
  plan(pager, isChosen ? outputs.sampling : nullptr, stats);
  StepDescriptor *planned = &*descriptor;
  return runPlanned(backend,
                    {.entry = entry,
                     .descriptors = {&planned, 1},
                     .schedule = schedule,
                     .logits = logits,
                     .next = isChosen ? outputs.next : nullptr,
                     .isLater = outputs.isLater},
                    stats);
}

Status kvrm::runPlanned(Backend &backend, const BackendStep &step,
                        StepStats &stats) {
  stats.schedule = step.schedule;
  BackendStats moved;
  KVRM_TRY(backend.runStep(step, moved));
  stats.committedBytes += moved.committedBytes;
  stats.commitNanoseconds += moved.commitNanoseconds;
  stats.stageCopies += moved.stageCopies;
  stats.stageBytes += moved.stageBytes;
  stats.attendNanoseconds += moved.attendNanoseconds;
  ++stats.steps;
  return Status::ok();
}
