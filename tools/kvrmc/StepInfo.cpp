//===- StepInfo.cpp - What a manifest says of a compiled step -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepInfo.h"

#include <tuple>

using namespace mlir::kvrm;
using kvrm::PackageManifest;

static void describePlan(StepPlanAttr plan, PackageManifest::Entry &entry) {
  entry.queryTile = plan.getTile().getQ();
  entry.kvTile = plan.getTile().getKv();
  entry.schedule = stringifyScheduleKind(plan.getSchedule().getKind()).str();
  entry.splits = plan.getSchedule().getSplits();
  entry.transport = stringifyTransport(plan.getTransport().getValue()).str();
}

/// Whether a batch planned so is planned as that of another entry.
static bool isPlannedAs(StepPlanAttr plan,
                        const PackageManifest::Entry &other) {
  PackageManifest::Entry entry;
  describePlan(plan, entry);
  auto key = [](const PackageManifest::Entry &e) {
    return std::tie(e.queryTile, e.kvTile, e.schedule, e.splits, e.transport);
  };
  return key(entry) == key(other);
}

llvm::Error kvrmc::describePlans(llvm::ArrayRef<StepPlanAttr> plans,
                                 const PackageManifest &manifest,
                                 PackageManifest::Entry &entry) {
  size_t batches = entry.batches.empty() ? 1 : entry.batches.size();
  if (plans.size() != batches)
    return llvm::createStringError("step '" + entry.name + "' has " +
                                   llvm::Twine(plans.size()) +
                                   " batches, not " + llvm::Twine(batches));
  if (entry.batches.empty())
    describePlan(plans.front(), entry);
  for (auto [name, plan] : llvm::zip(entry.batches, plans)) {
    auto isAlike = [&](const PackageManifest::Entry &other) {
      return other.name == name && isPlannedAs(plan, other);
    };
    if (llvm::none_of(manifest.entries, isAlike))
      return llvm::createStringError("step '" + entry.name +
                                     "' has a batch that is not planned as "
                                     "that of '" +
                                     name + "'");
  }
  return llvm::Error::success();
}

mlir::kvrm::SessionType kvrmc::getSession(mlir::func::FuncOp step) {
  for (mlir::Type type : step.getArgumentTypes())
    if (auto session = mlir::dyn_cast<mlir::kvrm::SessionType>(type))
      return session;
  return {};
}
