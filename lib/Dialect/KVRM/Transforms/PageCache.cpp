//===- PageCache.cpp - Replace static KV caches by a session ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/BitVector.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/Sequence.h"
#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_PAGECACHEPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Rows of a step that are described by the same values.
struct StaticBatch {
  Value positions, counts, slots;
  int64_t rows, queries;

  static StaticBatch of(CachedAttentionOp op) {
    auto query = cast<RankedTensorType>(op.getQuery().getType());
    return {op.getPositions(), op.getCounts(), op.getSlots(),
            query.getDimSize(0), query.getDimSize(1)};
  }
  bool operator==(const StaticBatch &) const = default;
};

/// The cached_attention ops of a step and the arguments that they use up.
struct StaticStep {
  func::FuncOp func;
  SmallVector<CachedAttentionOp> attentions;
  SmallVector<StaticBatch, 0> batches;

  size_t batchOf(CachedAttentionOp op) const {
    return llvm::find(batches, StaticBatch::of(op)) - batches.begin();
  }
  /// Results of the function that are caches.
  llvm::BitVector cacheResults;
  /// Arguments that leave the signature.
  llvm::BitVector removedArgs;
};

/// What the steps of a module, which share a session, ask of it.
struct SessionNeeds {
  int64_t queries = 0; ///< that a step appends to a slot, at most
  int64_t seen = 0;    ///< tokens that a query sees at most; 0 = all

  static SessionNeeds of(ArrayRef<StaticStep> steps);
};

class PageCachePass : public kvrm::impl::PageCachePassBase<PageCachePass> {
public:
  using PageCachePassBase::PageCachePassBase;
  void runOnOperation() override;

private:
  FailureOr<SessionType> sessionFor(StaticStep &step,
                                    const SessionNeeds &needs);
  FailureOr<FarHistoryAttr> farHistoryFor(StaticStep &step, int64_t capacity,
                                          const SessionNeeds &needs);
  LogicalResult pageStep(StaticStep &step, SessionType session,
                         Transport transportKind);
};

} // namespace

/// Follows a cache from its argument to the result that returns it, and notes
/// whose cache it is on the way. What holds keys holds them in every layer.
static LogicalResult followCache(StaticStep &step, Value cache, bool holdsKeys,
                                 llvm::SmallPtrSetImpl<Operation *> &followed) {
  while (true) {
    if (!cache.hasOneUse()) {
      InFlightDiagnostic diag = emitError(
          cache.getLoc(), "a KV cache must have one use, in "
                          "kvrm.cached_attention or the step's return");
      for (Operation *user : cache.getUsers())
        diag.attachNote(user->getLoc()) << "used here";
      return diag;
    }
    OpOperand &use = *cache.getUses().begin();
    if (auto attention = dyn_cast<CachedAttentionOp>(use.getOwner())) {
      if ((&use == &attention.getKeyCacheMutable()) != holdsKeys)
        return attention.emitOpError("takes a cache of ")
               << (holdsKeys ? "keys for one of values"
                             : "values for one of keys");
      followed.insert(attention);
      cache =
          holdsKeys ? attention.getNewKeyCache() : attention.getNewValueCache();
      continue;
    }
    if (isa<func::ReturnOp>(use.getOwner())) {
      step.cacheResults.set(use.getOperandNumber());
      return success();
    }
    return use.getOwner()->emitOpError(
        "uses a KV cache; only kvrm.cached_attention may");
  }
}

/// All layers attend for the same batches, each of which is described by
/// values of its own.
static LogicalResult findBatches(StaticStep &step) {
  llvm::MapVector<int64_t, SmallVector<size_t>> ofLayer;
  llvm::SmallPtrSet<Value, 8> known;
  for (CachedAttentionOp op : step.attentions) {
    if (step.batchOf(op) == step.batches.size()) {
      auto batch = StaticBatch::of(op);
      for (Value field : {batch.positions, batch.counts, batch.slots})
        if (field && !known.insert(field).second)
          return op.emitOpError("all layers of a step must share positions, "
                                "counts and slots");
      step.batches.push_back(batch);
    }
    ofLayer[op.getLayer()].push_back(step.batchOf(op));
  }
  auto isOfAllSlots = [](const StaticBatch &batch) { return !batch.slots; };
  if (llvm::count_if(step.batches, isOfAllSlots) > 1)
    return step.func.emitOpError(
        "has two batches of all slots; a slot is in one batch of a step");
  if (step.batches.size() > KVRM_MAX_BATCHES)
    return step.func.emitOpError("has ")
           << step.batches.size() << " batches with positions of their own, "
           << "more than " << int64_t(KVRM_MAX_BATCHES);
  for (CachedAttentionOp op : step.attentions) {
    SmallVector<size_t> found = ofLayer[op.getLayer()];
    llvm::sort(found);
    if (!llvm::equal(found, llvm::seq(step.batches.size())))
      return op.emitOpError("layer ")
             << op.getLayer() << " does not attend once for each of the step's "
             << step.batches.size() << " batches";
  }
  return success();
}

static FailureOr<StaticStep> analyseStep(func::FuncOp func) {
  StaticStep step;
  step.func = func;
  step.cacheResults.resize(func.getNumResults());
  step.removedArgs.resize(func.getNumArguments());
  func.walk([&](CachedAttentionOp op) { step.attentions.push_back(op); });
  if (step.attentions.empty())
    return step;
  if (!func.getBody().hasOneBlock()) {
    func.emitOpError("has control flow; a step to page has one block");
    return failure();
  }

  auto removeArg = [&](Value value) {
    auto arg = dyn_cast<BlockArgument>(value);
    if (!arg || arg.getOwner()->getParentOp() != func.getOperation())
      return failure();
    step.removedArgs.set(arg.getArgNumber());
    return success();
  };
  CachedAttentionOp first = step.attentions.front();
  for (Value cache : {first.getKeyCache(), first.getValueCache()}) {
    if (failed(removeArg(cache))) {
      first.emitOpError("the first caches of a step must be its arguments");
      return failure();
    }
    llvm::SmallPtrSet<Operation *, 32> followed;
    if (failed(
            followCache(step, cache, cache == first.getKeyCache(), followed)))
      return failure();
    for (CachedAttentionOp op : step.attentions) {
      if (followed.contains(op))
        continue;
      InFlightDiagnostic diag =
          op.emitOpError("has caches other than the step's first; a step has "
                         "one pair, which goes through all layers");
      diag.attachNote(first.getLoc()) << "the first caches are here";
      return diag;
    }
  }
  if (failed(findBatches(step)))
    return failure();
  for (const StaticBatch &batch : step.batches) {
    for (Value field : {batch.positions, batch.counts, batch.slots})
      if (field && failed(removeArg(field))) {
        first.emitOpError(
            "positions, counts and slots must be arguments of the step");
        return failure();
      }
    if (batch.slots && !llvm::all_of(batch.slots.getUsers(),
                                     llvm::IsaPred<CachedAttentionOp>)) {
      first.emitOpError("slots are used outside kvrm.cached_attention; a paged "
                        "graph does not see them");
      return failure();
    }
  }
  return step;
}

SessionNeeds SessionNeeds::of(ArrayRef<StaticStep> steps) {
  SessionNeeds needs;
  bool seesAll = false;
  for (const StaticStep &step : steps) {
    for (const StaticBatch &batch : step.batches)
      needs.queries = std::max(needs.queries, batch.queries);
    for (CachedAttentionOp op : step.attentions) {
      auto window = static_cast<int64_t>(op.getWindow().value_or(0));
      seesAll |= window == 0;
      needs.seen = std::max(needs.seen, window);
    }
  }
  if (seesAll)
    needs.seen = 0;
  return needs;
}

/// What the options say of far history, or, where all layers have windows, the
/// least that keeps what these show. Null if nothing goes.
FailureOr<FarHistoryAttr>
PageCachePass::farHistoryFor(StaticStep &step, int64_t capacity,
                             const SessionNeeds &needs) {
  MLIRContext *context = step.func.getContext();
  if (window == 0) {
    // As many tokens as getLeastSeen() takes for what is seen.
    auto kept = static_cast<int64_t>(
        llvm::alignTo(needs.seen + page - 1, page.getValue()));
    if (padded || needs.seen == 0 || kept + needs.queries >= capacity)
      return FarHistoryAttr();
    return FarHistoryAttr::get(context, kept, /*entries=*/0, /*sinks=*/0);
  }
  if (window >= capacity) {
    step.func.emitError("window is ")
        << window.getValue() << ", not less than the capacity " << capacity;
    return failure();
  }
  auto farHistory = FarHistoryAttr::getChecked(
      [&] { return step.func.emitError("cannot page the caches: "); }, context,
      window.getValue(), summaries.getValue(), sinks.getValue());
  if (!farHistory)
    return failure();
  return farHistory;
}

/// What the options and the shape of the caches make of a session.
FailureOr<SessionType> PageCachePass::sessionFor(StaticStep &step,
                                                 const SessionNeeds &needs) {
  auto cache =
      cast<RankedTensorType>(step.attentions.front().getKeyCache().getType());
  std::optional<Layout> layoutKind = symbolizeLayout(layout);
  if (!layoutKind) {
    step.func.emitError("layout is '")
        << layout << "', none of token_major, transposed_keys and swizzled";
    return failure();
  }
  auto emit = [&] { return step.func.emitError("cannot page the caches: "); };
  auto key = cast<RankedTensorType>(step.attentions.front().getKey().getType());
  PoolType pool = PoolType::getChecked(
      emit, cache.getContext(), cache.getDimSize(0), cache.getDimSize(2),
      key.getDimSize(3), page.getValue(), cache.getElementType(), *layoutKind);
  if (!pool)
    return failure();
  int64_t capacity = cache.getDimSize(3), tableTokens = capacity;
  FailureOr<FarHistoryAttr> farHistory = farHistoryFor(step, capacity, needs);
  if (failed(farHistory))
    return failure();
  if (*farHistory)
    tableTokens =
        farHistory->getWindow() + farHistory->getEntries() + needs.queries;
  SessionType session = SessionType::getChecked(
      emit, cache.getContext(), cache.getDimSize(1),
      static_cast<int64_t>(llvm::divideCeil(tableTokens, page.getValue())),
      pool, *farHistory, padded.getValue());
  if (!session)
    return failure();
  return session;
}

LogicalResult PageCachePass::pageStep(StaticStep &step, SessionType sessionType,
                                      Transport transportKind) {
  func::FuncOp func = step.func;
  SmallVector<Type> descriptorTypes;
  for (const StaticBatch &batch : step.batches) {
    descriptorTypes.push_back(DescriptorType::getChecked(
        [&] { return func.emitError("cannot page the caches: "); },
        func.getContext(), batch.rows, batch.queries, sessionType.getPages()));
    if (!descriptorTypes.back())
      return failure();
  }

  Location loc = func.getLoc();
  OpBuilder b = OpBuilder::atBlockBegin(&func.getBody().front());
  if (failed(func.insertArgument(func.getNumArguments(), sessionType, {}, loc)))
    return failure();
  step.removedArgs.resize(func.getNumArguments());
  Value session = func.getArguments().back();
  auto commit = CommitOp::create(b, loc, descriptorTypes, session);
  // Which descriptor is whose, while the values that tell are there.
  SmallVector<Value> descriptors;
  for (CachedAttentionOp op : step.attentions)
    descriptors.push_back(commit.getDescriptors()[step.batchOf(op)]);
  for (auto [batch, descriptor] :
       llvm::zip_equal(step.batches, commit.getDescriptors())) {
    batch.positions.replaceAllUsesWith(
        PositionsOp::create(b, loc, batch.positions.getType(), descriptor));
    if (batch.counts)
      batch.counts.replaceAllUsesWith(
          CountsOp::create(b, loc, batch.counts.getType(), descriptor));
  }

  auto transportAttr = TransportAttr::get(func.getContext(), transportKind);
  for (auto [op, descriptor] : llvm::zip_equal(step.attentions, descriptors)) {
    b.setInsertionPoint(op);
    Value groups =
        StageOp::create(b, op.getLoc(), GroupsType::get(func.getContext()),
                        session, descriptor, transportAttr);
    AppendOp::create(b, op.getLoc(), op.getKey(), op.getValue(), session,
                     descriptor, op.getLayerAttr());
    Value output = AttendOp::create(
        b, op.getLoc(), op.getQuery().getType(), op.getQuery(), groups, session,
        descriptor, op.getLayerAttr(), op.getScaleAttr(), op.getWindowAttr(),
        op.getSoftcapAttr(), TileAttr(), ScheduleAttr());
    op.getOutput().replaceAllUsesWith(output);
    ++numPaged;
  }
  auto ret = cast<func::ReturnOp>(func.getBody().front().getTerminator());
  ret->eraseOperands(step.cacheResults);
  // Each layer uses the caches of the one before: the last goes first.
  for (CachedAttentionOp op : llvm::reverse(step.attentions))
    op.erase();

  // Attributes of the other arguments and results stay with them.
  if (failed(func.eraseArguments(step.removedArgs)) ||
      failed(func.eraseResults(step.cacheResults)))
    return failure();
  return success();
}

void PageCachePass::runOnOperation() {
  std::optional<Transport> transportKind = symbolizeTransport(transport);
  if (!transportKind) {
    getOperation().emitError("transport is '")
        << transport << "', neither native nor staged";
    return signalPassFailure();
  }
  if (window == 0 && (summaries != 0 || sinks != 0)) {
    getOperation().emitError("there are summaries or sinks but no window");
    return signalPassFailure();
  }
  // All steps are looked at before any is changed.
  SmallVector<StaticStep> found;
  for (func::FuncOp func : getOperation().getOps<func::FuncOp>()) {
    if (!func->hasAttr(KVRMDialect::getStepAttrName()) || func.isExternal())
      continue;
    FailureOr<StaticStep> step = analyseStep(func);
    if (failed(step))
      return signalPassFailure();
    if (step->attentions.empty())
      continue;
    found.push_back(std::move(*step));
  }
  auto needs = SessionNeeds::of(found);
  SmallVector<std::pair<StaticStep, SessionType>> steps;
  for (StaticStep &step : found) {
    FailureOr<SessionType> session = sessionFor(step, needs);
    if (failed(session))
      return signalPassFailure();
    if (!steps.empty() && steps.front().second != *session) {
      step.func.emitError(
          "needs another session than the module's first step: ")
          << *session << " and " << steps.front().second;
      return signalPassFailure();
    }
    steps.emplace_back(std::move(step), *session);
  }
  for (auto &[step, session] : steps)
    if (failed(pageStep(step, session, *transportKind)))
      return signalPassFailure();
}
