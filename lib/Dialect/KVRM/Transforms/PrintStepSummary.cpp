//===- PrintStepSummary.cpp - What each step is, in a few lines -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/TypeSwitch.h"

#include <map>

namespace mlir::kvrm {
#define GEN_PASS_DEF_PRINTSTEPSUMMARYPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {
/// What one step is. A zero or null is something that its phase does not say.
class StepSummary {
public:
  explicit StepSummary(FunctionOpInterface step);

  void print(raw_ostream &os) const;

private:
  void read(CachedAttentionOp op);
  void read(CommitOp op);
  void read(AttendOp op);
  void read(LaunchOp op);

  StringRef name;
  std::optional<Phase> phases;
  void addBatch(int64_t rows, int64_t queries);

  /// Rows and queries of each batch.
  SmallVector<std::pair<int64_t, int64_t>> batches;
  int64_t layers = 0, heads = 0, kvHeads = 0;
  int64_t headDim = 0;
  Type element;
  SmallVector<StepPlanAttr> plans;
  std::map<StringRef, int64_t> ops; ///< by name, or by other dialect
  llvm::MapVector<StringRef, int64_t> launches; ///< by kernel
};
} // namespace

StepSummary::StepSummary(FunctionOpInterface step)
    : name(step.getName()), plans(getStepPlans(step)) {
  for (Operation &op : step.getFunctionBody().getOps()) {
    bool isOurs = isa_and_nonnull<KVRMDialect>(op.getDialect());
    ++ops[isOurs ? op.getName().getStringRef()
                 : op.getName().getDialectNamespace()];
    if (auto phased = dyn_cast<PhaseOpInterface>(op))
      phases = phases ? *phases & phased.getPhases() : phased.getPhases();
    TypeSwitch<Operation *>(&op)
        .Case<CachedAttentionOp, CommitOp, AttendOp, LaunchOp>(
            [&](auto typed) { read(typed); });
  }
}

void StepSummary::addBatch(int64_t rows, int64_t queries) {
  if (!llvm::is_contained(batches, std::pair(rows, queries)))
    batches.emplace_back(rows, queries);
}

void StepSummary::read(CachedAttentionOp op) {
  auto query = cast<ShapedType>(op.getQuery().getType());
  auto cache = cast<ShapedType>(op.getKeyCache().getType());
  addBatch(query.getDimSize(0), query.getDimSize(1));
  heads = query.getDimSize(2);
  layers = cache.getDimSize(0);
  kvHeads = cache.getDimSize(2);
  headDim = query.getDimSize(3);
  element = cache.getElementType();
}

void StepSummary::read(CommitOp op) {
  PoolType pool = op.getSession().getType().getPool();
  for (Value descriptor : op.getDescriptors()) {
    auto type = cast<DescriptorType>(descriptor.getType());
    batches.emplace_back(type.getRows(), type.getQueries());
  }
  layers = pool.getLayers();
  kvHeads = pool.getKvHeads();
  headDim = pool.getHeadDim();
  element = pool.getElement();
}

void StepSummary::read(AttendOp op) {
  heads = cast<ShapedType>(op.getQuery().getType()).getDimSize(2);
  auto stage = op.getGroups().getDefiningOp<StageOp>();
  if (!stage || !op.getTileAttr() || !op.getScheduleAttr())
    return;
  auto plan = StepPlanAttr::get(op.getContext(), op.getTileAttr(),
                                op.getScheduleAttr(), stage.getTransportAttr());
  if (!llvm::is_contained(plans, plan))
    plans.push_back(plan);
}

void StepSummary::read(LaunchOp op) {
  ++launches[op.getKernel()];
  if (op.isAttention())
    heads = cast<ShapedType>(op.getInputs().front().getType()).getDimSize(2);
}

template <typename Counts>
static void printCounts(raw_ostream &os, StringRef what, const Counts &counts) {
  if (counts.empty())
    return;
  os << "  " << what << ' ';
  llvm::interleaveComma(counts, os, [&](const auto &entry) {
    os << entry.first << ' ' << entry.second;
  });
  os << '\n';
}

void StepSummary::print(raw_ostream &os) const {
  os << "step @" << name << ": ";
  if (phases)
    os << "phase " << stringifyPhase(*phases) << '\n';
  else
    os << "no phase\n";
  if (element) {
    os << "  ";
    for (auto [rows, queries] : batches)
      os << "rows " << rows << ", queries " << queries << ", ";
    os << "layers " << layers << ", heads " << heads << ", KV heads " << kvHeads
       << ", head_dim " << headDim << ", cache " << element << '\n';
  }
  for (StepPlanAttr plan : plans)
    os << "  plan " << plan << '\n';
  printCounts(os, "ops", ops);
  printCounts(os, "launches", launches);
}

namespace {
class PrintStepSummaryPass
    : public kvrm::impl::PrintStepSummaryPassBase<PrintStepSummaryPass> {
public:
  void runOnOperation() override {
    getOperation()->walk([](FunctionOpInterface func) {
      if (isStep(func) && !func.isExternal())
        StepSummary(func).print(llvm::errs());
    });
    markAllAnalysesPreserved();
  }
};
} // namespace
