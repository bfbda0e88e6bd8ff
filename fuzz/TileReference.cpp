//===- TileReference.cpp - What a kernel computes, by its ops -------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TileReference.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/ADT/TypeSwitch.h"

#include <map>
#include <optional>
#include <vector>

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// The tiles of an item.
struct Item {
  int64_t begin, windowEdge, summaryEnd, full, end;
};

/// What became of a tile.
struct Visit {
  int64_t tile;
  bool masked, summaries;
  Attribute scale, softcap;
  bool operator==(const Visit &) const = default;
};

enum class Kind { Index, Item, Query, Keys, Values, Scores, Weights, State };

/// A value of the program.
struct Datum {
  Kind kind;
  int64_t index = 0; ///< Index
  // Set, so that aggregates may leave them out.
  // NOLINTBEGIN(readability-redundant-member-init)
  std::optional<Visit> tile = {}; ///< of Keys, Values, Scores, Weights
  std::vector<Visit> visits = {}; ///< State: the tiles that it holds
  std::optional<Visit> due = {};  ///< State: weighted, values to be added
  // NOLINTEND(readability-redundant-member-init)
};

class Interpreter {
public:
  explicit Interpreter(const Item &item) : item(item) {}

  /// False if an op cannot be taken at its word.
  bool run(Block &block) {
    for (Operation &op : block)
      if (!step(&op))
        return false;
    return true;
  }

  std::vector<std::vector<Visit>> stored;
  int64_t appended = 0;

private:
  const Datum *get(Value value, Kind kind) {
    auto found = data.find(value.getAsOpaquePointer());
    return found != data.end() && found->second.kind == kind ? &found->second
                                                             : nullptr;
  }
  bool set(Value value, Datum datum) {
    data[value.getAsOpaquePointer()] = std::move(datum);
    return true;
  }
  bool step(Operation *op);
  bool stepFor(scf::ForOp op);
  bool stepScore(ScoreOp op);
  bool stepSoftmax(OnlineSoftmaxOp op);
  bool stepAccumulate(AccumulateOp op);

  Item item;
  std::map<void *, Datum> data;
};

} // namespace

bool Interpreter::step(Operation *op) {
  auto isItem = [&](Value value) { return get(value, Kind::Item) != nullptr; };
  return llvm::TypeSwitch<Operation *, bool>(op)
      .Case([&](AppendRowsOp) { return ++appended; })
      .Case([&](GetWorkItemOp op) { return set(op.getItem(), {Kind::Item}); })
      .Case([&](TileRangeOp op) {
        return isItem(op.getItem()) &&
               set(op.getBegin(), {Kind::Index, item.begin}) &&
               set(op.getFull(), {Kind::Index, item.full}) &&
               set(op.getEnd(), {Kind::Index, item.end});
      })
      .Case([&](WindowEdgeOp op) {
        return isItem(op.getItem()) &&
               set(op.getEdge(), {Kind::Index, item.windowEdge});
      })
      .Case([&](SummaryEndOp op) {
        return isItem(op.getItem()) &&
               set(op.getEnd(), {Kind::Index, item.summaryEnd});
      })
      .Case([&](LoadQueryOp op) {
        return isItem(op.getItem()) && set(op.getQuery(), {Kind::Query});
      })
      .Case([&](LoadTileOp op) {
        const Datum *tile = get(op.getIndex(), Kind::Index);
        if (!isItem(op.getItem()) || !tile)
          return false;
        Visit visit = {tile->index, false, false, {}, {}};
        return set(op.getKey(), {Kind::Keys, 0, visit}) &&
               set(op.getValue(), {Kind::Values, 0, visit});
      })
      .Case([&](ScoreOp op) { return isItem(op.getItem()) && stepScore(op); })
      .Case([&](SoftmaxInitOp op) { return set(op.getState(), {Kind::State}); })
      .Case([&](OnlineSoftmaxOp op) { return stepSoftmax(op); })
      .Case([&](AccumulateOp op) {
        return isItem(op.getItem()) && stepAccumulate(op);
      })
      .Case([&](StoreSoftmaxOp op) {
        const Datum *state = get(op.getState(), Kind::State);
        if (!isItem(op.getItem()) || !state || state->due)
          return false;
        stored.push_back(state->visits);
        return true;
      })
      .Case([&](arith::ConstantOp op) {
        auto value = dyn_cast<IntegerAttr>(op.getValue());
        return value && set(op.getResult(), {Kind::Index, value.getInt()});
      })
      .Case([&](scf::ForOp op) { return stepFor(op); })
      .Case<scf::YieldOp, mlir::kvrm::ReturnOp>([](auto) { return true; })
      .Default([](Operation *) { return false; });
}

bool Interpreter::stepFor(scf::ForOp op) {
  const Datum *begin = get(op.getLowerBound(), Kind::Index);
  const Datum *end = get(op.getUpperBound(), Kind::Index);
  const Datum *step = get(op.getStep(), Kind::Index);
  if (!begin || !end || !step || step->index < 1)
    return false;
  std::vector<Datum> carried;
  auto collect = [&](ValueRange values) {
    carried.clear();
    for (Value value : values) {
      auto found = data.find(value.getAsOpaquePointer());
      if (found == data.end())
        return false;
      carried.push_back(found->second);
    }
    return true;
  };
  auto hand = [&](ValueRange values) {
    for (auto [value, datum] : llvm::zip_equal(values, carried))
      set(value, datum);
  };
  if (!collect(op.getInitArgs()))
    return false;
  int64_t last = end->index, stride = step->index;
  for (int64_t tile = begin->index; tile < last; tile += stride) {
    set(op.getInductionVar(), {Kind::Index, tile});
    hand(op.getRegionIterArgs());
    if (!run(*op.getBody()) ||
        !collect(op.getBody()->getTerminator()->getOperands()))
      return false;
  }
  hand(op.getResults());
  return true;
}

bool Interpreter::stepScore(ScoreOp op) {
  const Datum *keys = get(op.getKey(), Kind::Keys);
  const Datum *tile = get(op.getIndex(), Kind::Index);
  if (!get(op.getQuery(), Kind::Query) || !keys || !tile ||
      tile->index != keys->tile->tile)
    return false;
  return set(op.getScores(),
             {Kind::Scores, 0,
              Visit{tile->index, op.getMasked(), op.getSummaries(),
                    op.getScaleAttr(), op.getSoftcapAttr()}});
}

bool Interpreter::stepSoftmax(OnlineSoftmaxOp op) {
  const Datum *scores = get(op.getScores(), Kind::Scores);
  const Datum *state = get(op.getState(), Kind::State);
  if (!scores || !state || state->due)
    return false;
  Visit visit = *scores->tile;
  Datum next = *state;
  next.due = visit;
  return set(op.getWeights(), {Kind::Weights, 0, visit}) &&
         set(op.getNewState(), next);
}

bool Interpreter::stepAccumulate(AccumulateOp op) {
  const Datum *weights = get(op.getWeights(), Kind::Weights);
  const Datum *values = get(op.getValue(), Kind::Values);
  const Datum *state = get(op.getState(), Kind::State);
  const Datum *tile = get(op.getIndex(), Kind::Index);
  if (!weights || !values || !state || !tile || !state->due ||
      *state->due != *weights->tile ||
      values->tile->tile != weights->tile->tile ||
      tile->index != weights->tile->tile ||
      op.getMasked() != weights->tile->masked)
    return false;
  Datum next = *state;
  next.due.reset();
  next.visits.push_back(*weights->tile);
  return set(op.getNewState(), next);
}

/// All tiles of an item, each with the mask and the summaries that it needs.
static bool isAttention(ArrayRef<Visit> visits, const Item &item,
                        bool keepsSummaries, bool hasWindow) {
  int64_t tile = item.begin;
  for (const Visit &visit : visits) {
    bool isFull = tile < item.full;
    bool mayHoldSummaries =
        keepsSummaries && (!isFull || tile < item.summaryEnd);
    bool isCut = hasWindow && tile < item.windowEdge;
    if (visit.tile != tile++ || ((!isFull || isCut) && !visit.masked) ||
        (mayHoldSummaries && !visit.summaries) ||
        visit.scale != visits.front().scale ||
        visit.softcap != visits.front().softcap)
      return false;
  }
  return tile == item.end;
}

bool fuzz::isAppendOrAttention(KernelOp kernel) {
  bool keepsSummaries = kernel.getSessionType().getSummaries() > 0;
  bool hasWindow = kernel.getWindow().has_value();
  for (Item item :
       {Item{0, 2, 1, 3, 5}, Item{0, 0, 0, 0, 1}, Item{2, 3, 2, 4, 4},
        Item{1, 1, 3, 3, 4}, Item{0, 2, 2, 2, 2}}) {
    Interpreter interpreter(item);
    if (!interpreter.run(kernel.getBody().front()))
      return false;
    bool appends = interpreter.appended == 1 && interpreter.stored.empty();
    bool attends = interpreter.appended == 0 &&
                   interpreter.stored.size() == 1 &&
                   isAttention(interpreter.stored.front(), item, keepsSummaries,
                               hasWindow);
    if (!appends && !attends)
      return false;
  }
  return true;
}
