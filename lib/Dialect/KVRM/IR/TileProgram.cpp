//===- TileProgram.cpp - What a kernel's body may say ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/TileProgram.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"

#include <functional>

using namespace mlir;
using namespace mlir::kvrm;

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

namespace {

/// Sorts the ops of a block into the places that a program has for them. An op
/// for which there is no place, or no more, is an error.
class Places {
public:
  Places(Operation *parent, StringRef name) : parent(parent), name(name) {}

  /// The place of the one op of a type.
  template <typename OpT> void one(OpT &place) {
    places.push_back({[&place](Operation *op) {
                        auto typed = dyn_cast<OpT>(op);
                        bool fits = typed && !place;
                        if (fits)
                          place = typed;
                        return fits;
                      },
                      [&place] { return bool(place); },
                      OpT::getOperationName()});
  }
  /// The place of an op that may be missing.
  template <typename OpT> void maybe(OpT &place) {
    any([&place](Operation *op) {
      auto typed = dyn_cast<OpT>(op);
      bool fits = typed && !place;
      if (fits)
        place = typed;
      return fits;
    });
  }
  /// Ops that may be missing, or be many.
  void any(std::function<bool(Operation *)> take) {
    places.push_back({std::move(take), [] { return true; }, ""});
  }

  LogicalResult sort(Block &block) {
    for (Operation &op : block.without_terminator())
      if (llvm::none_of(places, [&](Place &place) { return place.take(&op); }))
        return op.emitOpError("has no place in ") << name;
    for (Place &place : places)
      if (!place.isTaken())
        return parent->emitOpError("has no '")
               << place.op << "', which is part of " << name;
    return success();
  }

private:
  struct Place {
    std::function<bool(Operation *)> take;
    std::function<bool()> isTaken;
    StringRef op;
  };
  Operation *parent;
  StringRef name;
  SmallVector<Place> places;
};

class AttentionMatcher {
public:
  explicit AttentionMatcher(KernelOp kernel) : kernel(kernel) {}
  FailureOr<TileProgram> match();

private:
  LogicalResult sortBody();
  FailureOr<TileLoop> matchLoop(scf::ForOp loop, Value state);
  LogicalResult matchTile(scf::ForOp loop);
  std::optional<TileBound> boundOf(Value tile);
  bool mayHoldSummaries(const TileLoop &loop);

  KernelOp kernel;
  GetWorkItemOp item; // the only one: all ops of the program are of this item
  TileRangeOp range;
  SummaryEndOp summaryEnd; // may be null
  WindowEdgeOp windowEdge; // may be null
  LoadQueryOp query;
  SoftmaxInitOp init;
  StoreSoftmaxOp store;
  SmallVector<scf::ForOp> loops;

  // Of the loop that is being matched.
  ScoreOp score;
  AccumulateOp accumulate;
};

} // namespace

LogicalResult AttentionMatcher::sortBody() {
  Places places(kernel, "an attention program");
  places.one(item);
  places.one(range);
  places.one(query);
  places.one(init);
  places.one(store);
  places.maybe(summaryEnd);
  places.maybe(windowEdge);
  places.any([&](Operation *op) {
    auto loop = dyn_cast<scf::ForOp>(op);
    if (loop)
      loops.push_back(loop);
    return bool(loop);
  });
  // The steps of the loops.
  places.any([&](Operation *op) {
    return isa<arith::ConstantOp>(op) && matchPattern(op, m_One()) &&
           !op->use_empty() &&
           llvm::all_of(op->getUsers(), llvm::IsaPred<scf::ForOp>);
  });
  return places.sort(kernel.getBody().front());
}

std::optional<TileBound> AttentionMatcher::boundOf(Value tile) {
  if (tile == range.getBegin())
    return TileBound::Begin;
  if (windowEdge && tile == windowEdge.getEdge())
    return TileBound::WindowEdge;
  if (summaryEnd && tile == summaryEnd.getEnd())
    return TileBound::SummaryEnd;
  if (tile == range.getFull())
    return TileBound::Full;
  if (tile == range.getEnd())
    return TileBound::End;
  return std::nullopt;
}

/// What a loop does to one tile: every value goes where it belongs.
LogicalResult AttentionMatcher::matchTile(scf::ForOp loop) {
  LoadTileOp load;
  OnlineSoftmaxOp softmax;
  score = {};
  accumulate = {};
  Places places(loop, "a loop over tiles");
  places.one(load);
  places.one(score);
  places.one(softmax);
  places.one(accumulate);
  if (failed(places.sort(*loop.getBody())))
    return failure();

  Operation *yield = loop.getBody()->getTerminator();
  Value tile = loop.getInductionVar();
  struct Use {
    Operation *op;
    Value operand, expected;
    StringRef what;
  };
  const Use uses[] = {
      {load, load.getIndex(), tile, "tile of its loop"},
      {score, score.getQuery(), query.getQuery(), "query of its item"},
      {score, score.getKey(), load.getKey(), "keys of its tile"},
      {score, score.getIndex(), tile, "tile of its loop"},
      {softmax, softmax.getScores(), score.getScores(), "scores of its tile"},
      {softmax, softmax.getState(), loop.getRegionIterArg(0),
       "state that its loop carries"},
      {accumulate, accumulate.getWeights(), softmax.getWeights(),
       "weights of its tile"},
      {accumulate, accumulate.getValue(), load.getValue(),
       "values of its tile"},
      {accumulate, accumulate.getState(), softmax.getNewState(),
       "state that goes with its weights"},
      {accumulate, accumulate.getIndex(), tile, "tile of its loop"},
      {yield, yield->getOperand(0), accumulate.getNewState(),
       "state with the tile's values"}};
  for (const Use &use : uses)
    if (use.operand != use.expected)
      return use.op->emitOpError("does not take the ") << use.what;
  if (score.getMasked() != accumulate.getMasked())
    return accumulate.emitOpError("and the score of its tile are not both "
                                  "masked");
  return success();
}

/// Summaries come first, and the row's last tokens may share a tile with them.
bool AttentionMatcher::mayHoldSummaries(const TileLoop &loop) {
  return kernel.getSessionType().getSummaries() > 0 &&
         (loop.begin == TileBound::Begin || loop.end == TileBound::End);
}

FailureOr<TileLoop> AttentionMatcher::matchLoop(scf::ForOp loop, Value state) {
  if (!matchPattern(loop.getStep(), m_One()))
    return loop.emitOpError("over tiles must have a step of 1");
  if (loop.getInitArgs().size() != 1 || loop.getInitArgs().front() != state)
    return loop.emitOpError("over tiles must carry on the softmax state of "
                            "the one before, and nothing else");
  std::optional<TileBound> begin = boundOf(loop.getLowerBound());
  std::optional<TileBound> end = boundOf(loop.getUpperBound());
  if (!begin || !end)
    return loop.emitOpError("must be over tiles from one bound of its item to "
                            "another");
  if (failed(matchTile(loop)))
    return failure();
  TileLoop result = {*begin, *end, score.getMasked(), score.getSummaries()};
  bool hidesNothing = result.end != TileBound::End &&
                      !(kernel.getWindow() && result.begin == TileBound::Begin);
  if (!hidesNothing && !result.masked)
    return score.emitOpError("does not mask tiles that hold tokens a query "
                             "row must not see");
  if (mayHoldSummaries(result) && !result.summaries)
    return score.emitOpError("does not heed summaries, which its tiles may "
                             "hold");
  return result;
}

FailureOr<TileProgram> AttentionMatcher::match() {
  if (failed(sortBody()))
    return failure();
  TileProgram program;
  Value state = init.getState();
  TileBound at = TileBound::Begin;
  for (scf::ForOp loop : loops) {
    FailureOr<TileLoop> next = matchLoop(loop, state);
    if (failed(next))
      return failure();
    if (next->begin != at || next->end <= at)
      return loop.emitOpError("does not begin at the tile where the one before "
                              "it ended, or ends there");
    if (program.scale && program.scale != score.getScaleAttr())
      return score.emitOpError("and the scores before it differ in scale");
    if (program.scale && program.softcap != score.getSoftcapAttr())
      return score.emitOpError("and the scores before it differ in softcap");
    program.scale = score.getScaleAttr();
    program.softcap = score.getSoftcapAttr();
    program.loops.push_back(*next);
    state = loop.getResult(0);
    at = next->end;
  }
  if (at != TileBound::End)
    return kernel.emitOpError("does not attend to all tiles of its item");
  if (summaryEnd && summaryEnd.getEnd().use_empty())
    return summaryEnd.emitOpError("bounds no loop");
  if (windowEdge && windowEdge.getEdge().use_empty())
    return windowEdge.emitOpError("bounds no loop");
  if (store.getState() != state)
    return store.emitOpError("does not take the state after the last tile");
  return program;
}

FailureOr<TileProgram> TileProgram::match(KernelOp kernel) {
  Block &body = kernel.getBody().front();
  if (Operation *last = body.getTerminator(); !isa<ReturnOp>(last))
    return last->emitOpError("ends a kvrm.kernel in place of a kvrm.return");
  if (kernel.attends())
    return AttentionMatcher(kernel).match();
  AppendRowsOp append;
  Places places(kernel, "an append program");
  places.one(append);
  if (failed(places.sort(body)))
    return failure();
  return TileProgram::append();
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

/// With far history summaries come first, with a window the tiles that it cuts.
/// A tile that the row's last tokens share with its summaries is masked.
TileProgram TileProgram::attention(SessionType session, bool hasWindow,
                                   FloatAttr scale, FloatAttr softcap) {
  TileProgram program = {scale, softcap, {}};
  bool hasSummaries = session.getSummaries() > 0;
  TileBound at = TileBound::Begin;
  auto add = [&](TileBound end, bool masked, bool summaries) {
    program.loops.push_back({at, end, masked, summaries});
    at = end;
  };
  if (hasWindow)
    add(TileBound::WindowEdge, /*masked=*/true, /*summaries=*/false);
  if (hasSummaries)
    add(TileBound::SummaryEnd, /*masked=*/false, /*summaries=*/true);
  add(TileBound::Full, /*masked=*/false, /*summaries=*/false);
  add(TileBound::End, /*masked=*/true, hasSummaries);
  return program;
}

/// Returns the state after the loop.
static Value writeLoop(ImplicitLocOpBuilder &b, KernelOp kernel,
                       const TileProgram &program, const TileLoop &tiles,
                       Value item, Value query, Value begin, Value end,
                       Value state) {
  PoolType pool = kernel.getPool();
  int64_t rows = kernel.getQueryRows(), tokens = kernel.getTile().getKv();
  auto tileType = FragmentType::get(b.getContext(), tokens, pool.getHeadDim(),
                                    pool.getElement());
  auto scoreType =
      FragmentType::get(b.getContext(), rows, tokens, b.getF32Type());

  Value one = arith::ConstantIndexOp::create(b, 1);
  auto loop = scf::ForOp::create(b, begin, end, one, ValueRange{state});
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Value tile = loop.getInductionVar(), current = loop.getRegionIterArg(0);
  auto load = LoadTileOp::create(b, tileType, tileType, item, tile);
  Value scores = ScoreOp::create(
      b, scoreType, query, load.getKey(), item, tile, program.scale,
      program.softcap, tiles.masked ? b.getUnitAttr() : UnitAttr(),
      tiles.summaries ? b.getUnitAttr() : UnitAttr());
  auto softmax =
      OnlineSoftmaxOp::create(b, scoreType, current.getType(), scores, current);
  Value next = AccumulateOp::create(b, current.getType(), softmax.getWeights(),
                                    load.getValue(), softmax.getNewState(),
                                    item, tile, tiles.masked);
  scf::YieldOp::create(b, next);
  return loop.getResult(0);
}

static void writeAttention(ImplicitLocOpBuilder &b, KernelOp kernel,
                           const TileProgram &program) {
  int64_t rows = kernel.getQueryRows(), headDim = kernel.getPool().getHeadDim();
  Value item = GetWorkItemOp::create(b, WorkItemType::get(b.getContext()));
  auto range = TileRangeOp::create(b, item);
  Value query = LoadQueryOp::create(
      b, FragmentType::get(b.getContext(), rows, headDim, kernel.getIo()),
      item);
  Value state =
      SoftmaxInitOp::create(b, SoftmaxType::get(b.getContext(), rows, headDim));
  Value summaryEnd, windowEdge;
  auto valueOf = [&](TileBound bound) -> Value {
    switch (bound) {
    case TileBound::Begin:
      return range.getBegin();
    case TileBound::WindowEdge:
      if (!windowEdge)
        windowEdge = WindowEdgeOp::create(b, item);
      return windowEdge;
    case TileBound::SummaryEnd:
      if (!summaryEnd)
        summaryEnd = SummaryEndOp::create(b, item);
      return summaryEnd;
    case TileBound::Full:
      return range.getFull();
    case TileBound::End:
      return range.getEnd();
    }
    llvm_unreachable("no such bound");
  };
  for (const TileLoop &loop : program.loops) {
    Value begin = valueOf(loop.begin), end = valueOf(loop.end);
    state = writeLoop(b, kernel, program, loop, item, query, begin, end, state);
  }
  StoreSoftmaxOp::create(b, state, item);
}

void TileProgram::write(KernelOp kernel) const {
  ImplicitLocOpBuilder b(kernel.getLoc(), kernel.getContext());
  b.setInsertionPointToStart(&kernel.getBody().emplaceBlock());
  if (attends())
    writeAttention(b, kernel, *this);
  else
    AppendRowsOp::create(b);
  kvrm::ReturnOp::create(b);
}
