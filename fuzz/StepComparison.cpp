//===- StepComparison.cpp - A step beside what it was raised to -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StepComparison.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/IR/TypeUtilities.h"

#include <cmath>

using namespace mlir;
using namespace fuzz;
using kvrm::raise::AttentionLayer;
using kvrm::raise::CacheDims;

/// At so many positions a step is executed: each row is at both ends of its
/// capacity, and between, or beside rows that are.
static size_t numRunsOf(const kvrm::raise::RaisableStep &step) {
  if (step.hasCommonPosition)
    return 4;
  return step.layers.front().rows == 1 ? 3 : 2;
}

static bool isReal(Type type) {
  return isa<FloatType>(getElementTypeOrSelf(type));
}

/// The least significand of the arguments: how precise the step is.
static unsigned precisionOf(func::FuncOp func) {
  unsigned least = 53;
  for (Type type : func.getArgumentTypes())
    if (isReal(type))
      least = std::min(
          least,
          cast<FloatType>(getElementTypeOrSelf(type)).getFPMantissaWidth());
  return least;
}

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

StepComparison::StepComparison(func::FuncOp func, const Step &step,
                               ArrayRef<unsigned> causalMasks, Random &random)
    : types(func.getArgumentTypes()), resultTypes(func.getResultTypes()),
      precision(precisionOf(func)),
      positionArgument(BlockArgument(step.position).getArgNumber()),
      causalMasks(causalMasks), rows(step.layers.front().rows),
      capacity(step.layers.front().capacity),
      hasCommonPosition(step.hasCommonPosition) {
  roots.push_back(positionArgument);
  llvm::append_range(roots, step.cacheArguments.set_bits());
  for (auto [number, op] : llvm::enumerate(func.getBody().front()))
    if (llvm::any_of(step.layers, [&](const AttentionLayer &layer) {
          return layer.op == &op;
        }))
      stops.push_back(static_cast<unsigned>(number));
  Tensors first = drawInputs(random);
  GraphInterpreter interpreter(func, precision);
  for (size_t run = 0; run < numRunsOf(step); ++run) {
    inputs.push_back(first);
    setPositions(inputs.back(), drawPositions(run, random));
    ofBase.push_back(interpreter.run(inputs.back()));
  }
}

void StepComparison::rootsIn(func::FuncOp clone,
                             SmallVectorImpl<Value> &rootValues,
                             SmallVectorImpl<Operation *> &stopOps) const {
  for (unsigned number : roots)
    rootValues.push_back(clone.getArgument(number));
  for (auto [number, op] : llvm::enumerate(clone.getBody().front()))
    if (llvm::is_contained(stops, number))
      stopOps.push_back(&op);
}

/// Numbers of [-1, 1], and indices that are within anything that is indexed.
StepComparison::Tensors StepComparison::drawInputs(Random &random) {
  Tensors drawn;
  std::uniform_real_distribution<double> real(-1, 1);
  for (Type type : types) {
    auto tensor = std::make_shared<Tensor>(tensorOf(type));
    uint64_t below = getElementTypeOrSelf(type).isInteger(1) ? 2 : 4;
    for (Scalar &element : tensor->elements) {
      if (isReal(type))
        element.real = real(random);
      else
        element.integer = static_cast<int64_t>(random() % below);
    }
    drawn.push_back(std::move(tensor));
  }
  return drawn;
}

/// Both ends of the capacity, and what is between.
SmallVector<int64_t> StepComparison::drawPositions(size_t run, Random &random) {
  SmallVector<int64_t> positions;
  for (int64_t row = 0; row < rows; ++row) {
    size_t kind =
        (hasCommonPosition ? run : run + static_cast<size_t>(row)) % 4;
    auto any = static_cast<int64_t>(random() % capacity);
    positions.push_back(kind == 1 ? 0 : kind == 2 ? capacity - 1 : any);
    if (hasCommonPosition)
      positions.back() = positions.front();
  }
  return positions;
}

void StepComparison::setPositions(Tensors &run, ArrayRef<int64_t> positions) {
  auto argument = std::make_shared<Tensor>(*run[positionArgument]);
  for (auto [at, element] : llvm::enumerate(argument->elements))
    element.integer = positions[at];
  run[positionArgument] = argument;
  for (unsigned number : causalMasks)
    run[number] = std::make_shared<Tensor>(maskAt(number, positions));
}

/// What the contract says of a mask: its row is the first dim of as many as
/// there are, its token the last dim.
Tensor StepComparison::maskAt(unsigned argument, ArrayRef<int64_t> positions) {
  Tensor mask = tensorOf(types[argument]);
  int64_t tokens = mask.shape.back(), ofRow = tokens;
  for (int64_t size : llvm::reverse(ArrayRef(mask.shape).drop_back())) {
    if (size == rows)
      break;
    ofRow *= size;
  }
  for (auto [flat, element] : llvm::enumerate(mask.elements)) {
    auto place = static_cast<int64_t>(flat);
    bool isSeen = place % tokens <= positions[place / ofRow % rows];
    if (isReal(types[argument]))
      element.real = isSeen ? 0 : -1e9;
    else
      element.integer = isSeen;
  }
  return mask;
}

/// The point (row, head, token, column) of a layer of a cache argument.
static int64_t placeIn(ArrayRef<int64_t> shape, const CacheDims &dims,
                       ArrayRef<int64_t> point) {
  SmallVector<int64_t> index(shape.size(), 0);
  const std::optional<unsigned> places[] = {dims.row, dims.head, dims.token,
                                            dims.column};
  if (dims.layer)
    index[*dims.layer] = dims.layerIndex;
  for (size_t at = 0; at < point.size(); ++at)
    if (places[at])
      index[*places[at]] = point[at];
  int64_t place = 0;
  for (size_t dim = 0; dim < shape.size(); ++dim)
    place = place * shape[dim] + index[dim];
  return place;
}

/// Calls `visit` with each point (row, head, token, column) and its place in
/// the caches of the raised step.
static void
forPoints(const kvrm::raise::RaisableStep &step, size_t layer,
          llvm::function_ref<void(ArrayRef<int64_t>, int64_t)> visit) {
  const AttentionLayer &first = step.layers.front();
  int64_t sizes[] = {first.rows, first.kvHeads, first.capacity, first.headDim};
  int64_t count = sizes[0] * sizes[1] * sizes[2] * sizes[3];
  for (int64_t flat = 0; flat < count; ++flat) {
    int64_t point[4], rest = flat;
    for (int dim = 3; dim >= 0; --dim) {
      point[dim] = rest % sizes[dim];
      rest /= sizes[dim];
    }
    visit(point, step.layerNumbers[layer] * count + flat);
  }
}

static BlockArgument cacheOf(const AttentionLayer &layer, bool ofKeys) {
  return ofKeys ? layer.keyCache : layer.valueCache;
}

static const CacheDims &dimsOf(const AttentionLayer &layer, bool ofKeys) {
  return ofKeys ? layer.keyDims : layer.valueDims;
}

Tensor StepComparison::stackedCache(const Step &step, const Tensors &run,
                                    bool ofKeys) {
  const AttentionLayer &first = step.layers.front();
  Tensor stacked;
  stacked.shape = {static_cast<int64_t>(step.layers.size()), first.rows,
                   first.kvHeads, first.capacity, first.headDim};
  stacked.elements.resize(ShapedType::getNumElements(stacked.shape));
  for (auto [number, layer] : llvm::enumerate(step.layers)) {
    const Tensor &cache = *run[cacheOf(layer, ofKeys).getArgNumber()];
    forPoints(step, number, [&](ArrayRef<int64_t> point, int64_t place) {
      stacked.elements[place] =
          cache.elements[placeIn(cache.shape, dimsOf(layer, ofKeys), point)];
    });
  }
  return stacked;
}

StepComparison::Tensors StepComparison::raisedInputs(const Step &step,
                                                     const Case &each) {
  const Tensors &run = inputs[each.runs.front()];
  Tensors raised;
  for (auto [number, tensor] : llvm::enumerate(run)) {
    if (number == BlockArgument(step.position).getArgNumber()) {
      auto positions = std::make_shared<Tensor>();
      positions->shape = {static_cast<int64_t>(each.positions.size())};
      positions->elements.resize(each.positions.size());
      for (auto [to, from] :
           llvm::zip_equal(positions->elements, each.positions))
        to.integer = from;
      raised.push_back(std::move(positions));
    } else if (!step.cacheArguments.test(number)) {
      raised.push_back(tensor);
    }
  }
  for (bool ofKeys : {true, false})
    raised.push_back(std::make_shared<Tensor>(stackedCache(step, run, ofKeys)));
  return raised;
}

/// A few runs as they are; where rows share the position, a step in which each
/// row is at that of another run, too.
SmallVector<StepComparison::Case> StepComparison::casesOf(const Step &step) {
  unsigned argument = BlockArgument(step.position).getArgNumber();
  auto count = static_cast<size_t>(step.layers.front().rows);
  auto positionOf = [&](size_t run, size_t row) {
    const std::vector<Scalar> &elements = inputs[run][argument]->elements;
    return elements[elements.size() == 1 ? 0 : row].integer;
  };
  SmallVector<Case> cases;
  // Of a shared position, one of its own for each row says nearly all.
  size_t numCases = step.hasCommonPosition ? 2 : inputs.size();
  for (size_t run = 0; run < numCases; ++run) {
    Case each;
    each.isRagged = step.hasCommonPosition && run == 1;
    for (size_t row = 0; row < count; ++row) {
      each.runs.push_back(each.isRagged ? (row + 1) % inputs.size() : run);
      each.positions.push_back(positionOf(each.runs.back(), row));
    }
    bool isPromised = llvm::all_of(each.positions, [&](int64_t at) {
      return at >= 0 && at < step.layers.front().capacity;
    });
    bool isDefined = llvm::none_of(
        each.runs, [&](size_t at) { return ofMutant[at].empty(); });
    if (isPromised && isDefined)
      cases.push_back(std::move(each));
  }
  return cases;
}

//===----------------------------------------------------------------------===//
// Results
//===----------------------------------------------------------------------===//

static std::vector<Scalar> rowOf(const Tensor &tensor, size_t row,
                                 size_t rows) {
  size_t size = tensor.elements.size() / rows;
  auto begin = tensor.elements.begin() + static_cast<ptrdiff_t>(row * size);
  return {begin, begin + static_cast<ptrdiff_t>(size)};
}

std::vector<Scalar> StepComparison::cacheRowOf(const Step &step, bool ofKeys,
                                               const Tensors &results,
                                               size_t row) {
  // The caller passes caches on by their order.
  llvm::SmallDenseMap<unsigned, unsigned> resultOf;
  for (auto [argument, result] : llvm::zip_equal(step.cacheArguments.set_bits(),
                                                 step.cacheResults.set_bits()))
    resultOf[argument] = result;
  std::vector<Scalar> elements;
  for (auto [number, layer] : llvm::enumerate(step.layers)) {
    const Tensor &cache =
        *results[resultOf.lookup(cacheOf(layer, ofKeys).getArgNumber())];
    forPoints(step, number, [&](ArrayRef<int64_t> point, int64_t) {
      if (static_cast<size_t>(point[0]) == row)
        elements.push_back(
            cache.elements[placeIn(cache.shape, dimsOf(layer, ofKeys), point)]);
    });
  }
  return elements;
}

void StepComparison::addCacheRows(const Case &each, const Step &step,
                                  bool ofKeys, const Tensor &seen,
                                  const Tensor *moved, std::vector<Row> &list) {
  size_t count = each.runs.size(), begin = list.size();
  list.resize(begin + count);
  for (size_t number = 0; number < step.layers.size(); ++number)
    forPoints(step, number, [&](ArrayRef<int64_t> point, int64_t place) {
      Row &made = list[begin + static_cast<size_t>(point[0])];
      made.seen.push_back(seen.elements[place]);
      if (moved)
        made.moved.push_back(moved->elements[place]);
    });
  for (size_t row = 0; row < count; ++row) {
    Row &made = list[begin + row];
    made.expected = cacheRowOf(step, ofKeys, ofMutant[each.runs[row]], row);
    made.name = std::string(ofKeys ? "key" : "value") + " caches, row " +
                std::to_string(row);
  }
}

std::vector<StepComparison::Row> StepComparison::rowsOf(const Case &each,
                                                        const Step &step,
                                                        const Tensors &seen,
                                                        const Tensors &moved) {
  std::vector<Row> list;
  size_t next = 0;
  for (size_t number = 0; number < step.cacheResults.size(); ++number) {
    if (step.cacheResults.test(number))
      continue;
    const Tensor &tensor = *seen[next];
    // What has no rows is the first row's.
    auto count = static_cast<size_t>(step.layers.front().rows);
    if (tensor.shape.size() < 2 || tensor.shape[0] != step.layers.front().rows)
      count = 1;
    for (size_t row = 0; row < count; ++row) {
      Row made;
      made.expected = rowOf(*ofMutant[each.runs[row]][number], row, count);
      made.seen = rowOf(tensor, row, count);
      if (!moved.empty())
        made.moved = rowOf(*moved[next], row, count);
      made.isReal = isReal(resultTypes[number]);
      made.name =
          "result " + std::to_string(number) + ", row " + std::to_string(row);
      list.push_back(std::move(made));
    }
    ++next;
  }
  for (bool ofKeys : {true, false}) {
    size_t at = next + (ofKeys ? 0 : 1);
    addCacheRows(each, step, ofKeys, *seen[at],
                 moved.empty() ? nullptr : moved[at].get(), list);
  }
  return list;
}

//===----------------------------------------------------------------------===//
// Comparing
//===----------------------------------------------------------------------===//

/// The largest finite number of a row, and the most that rounding moves.
static double toleranceOf(ArrayRef<Scalar> expected, ArrayRef<Scalar> seen,
                          ArrayRef<Scalar> moved) {
  double largest = 0, most = 0;
  for (Scalar scalar : expected)
    if (std::isfinite(scalar.real))
      largest = std::max(largest, std::fabs(scalar.real));
  for (auto [before, after] : llvm::zip(seen, moved))
    if (std::isfinite(before.real) && std::isfinite(after.real))
      most = std::max(most, std::fabs(before.real - after.real));
  return 1e-9 * largest + 16 * most;
}

/// Counts what is compared; what differs first goes to the detail.
static void compareRow(ArrayRef<Scalar> expected, ArrayRef<Scalar> seen,
                       ArrayRef<Scalar> moved, bool isReal, StringRef name,
                       Comparison &comparison) {
  double tolerance = isReal ? toleranceOf(expected, seen, moved) : 0;
  for (auto [number, left, right] : llvm::enumerate(expected, seen)) {
    if (isReal && !std::isfinite(left.real)) {
      ++comparison.notFinite;
      comparison.healed += std::isfinite(right.real);
      continue;
    }
    ++comparison.compared;
    bool isSame = isReal ? std::fabs(left.real - right.real) <= tolerance
                         : left.integer == right.integer;
    if (isSame || comparison.agreement == Agreement::Differs)
      continue;
    comparison.agreement = Agreement::Differs;
    llvm::raw_string_ostream os(comparison.detail);
    os << name << ", element " << number << ": ";
    if (isReal)
      os << left.real << ", raised " << right.real;
    else
      os << left.integer << ", raised " << right.integer;
  }
}

/// The raised step where its inputs and scales are a little off: what it makes
/// of that is what rounding may explain.
StepComparison::Tensors StepComparison::runMoved(const Case &each,
                                                 const Step &step,
                                                 func::FuncOp raised) {
  Tensors moved = raisedInputs(step, each);
  for (auto [tensor, type] :
       llvm::zip_equal(moved, raised.getArgumentTypes())) {
    if (!isReal(type))
      continue;
    auto copy = std::make_shared<Tensor>(*tensor);
    for (auto [at, element] : llvm::enumerate(copy->elements))
      element.real *= 1 + (at % 2 == 0 ? 1e-14 : -1e-14);
    tensor = copy;
  }
  SmallVector<std::pair<kvrm::CachedAttentionOp, APFloat>> scales;
  raised.walk([&](kvrm::CachedAttentionOp op) {
    scales.emplace_back(op, op.getScale());
    APFloat next = op.getScale();
    next.next(/*nextDown=*/false);
    op.setScale(next);
  });
  Tensors results = GraphInterpreter(raised, precision).run(moved);
  for (auto &[op, scale] : scales)
    op.setScale(scale);
  return results;
}

/// Beside a mask of -10000 such scores leave nothing of what is masked.
static double largestScoreOf(const kvrm::raise::RaisableStep &step) {
  bool hasFiniteMask =
      llvm::any_of(step.layers, [](const AttentionLayer &layer) {
        return layer.hasFiniteMask;
      });
  return hasFiniteMask ? 1e3 : std::numeric_limits<double>::max();
}

void StepComparison::compareCase(const Case &each, const Step &step,
                                 func::FuncOp raised, Comparison &comparison) {
  GraphInterpreter interpreter(raised, precision);
  Tensors seen = interpreter.run(raisedInputs(step, each));
  if (seen.empty()) {
    comparison.agreement =
        interpreter.isUnknown() ? Agreement::Unknown : Agreement::Differs;
    comparison.detail = "raised: " + interpreter.getProblem();
    return;
  }
  if (!(interpreter.getLargestScore() <= largestScoreOf(step))) {
    comparison.leavesContract = true;
    return;
  }
  Comparison found;
  for (const Row &row : rowsOf(each, step, seen, {}))
    compareRow(row.expected, row.seen, {}, row.isReal, row.name, found);
  if (found.agreement == Agreement::Differs) {
    Tensors moved = runMoved(each, step, raised);
    found = Comparison();
    for (const Row &row : rowsOf(each, step, seen, moved))
      compareRow(row.expected, row.seen, row.moved, row.isReal, row.name,
                 found);
  }
  comparison.notFinite += found.notFinite;
  comparison.healed += found.healed;
  comparison.compared += found.compared;
  if (found.agreement == Agreement::Equal)
    return;
  comparison.agreement = Agreement::Differs;
  comparison.detail = found.detail + (each.isRagged ? ", ragged" : "") + ", at";
  for (int64_t position : each.positions)
    comparison.detail += " " + std::to_string(position);
}

/// The inputs of a run with other tokens and histories for all rows but one.
StepComparison::Tensors StepComparison::inputsOfOthers(const Step &step,
                                                       const Tensors &run,
                                                       size_t row) {
  Tensors others = run;
  for (auto [number, type] : llvm::enumerate(types)) {
    auto copy = std::make_shared<Tensor>(*run[number]);
    bool isToken = !isReal(type) && !copy->shape.empty() &&
                   copy->shape[0] == rows && number != positionArgument &&
                   !llvm::is_contained(causalMasks, number);
    size_t size = copy->elements.size() / static_cast<size_t>(rows);
    for (auto [place, element] : llvm::enumerate(copy->elements))
      if (isToken && place / size != row)
        element.integer = (element.integer + 1) % 4;
    others[number] = copy;
  }
  for (auto [number, layer] : llvm::enumerate(step.layers))
    for (bool ofKeys : {true, false}) {
      TensorRef &cache = others[cacheOf(layer, ofKeys).getArgNumber()];
      auto copy = std::make_shared<Tensor>(*cache);
      forPoints(step, number, [&](ArrayRef<int64_t> point, int64_t) {
        int64_t place = placeIn(copy->shape, dimsOf(layer, ofKeys), point);
        if (static_cast<size_t>(point[0]) != row)
          copy->elements[place].real += 1;
      });
      cache = copy;
    }
  return others;
}

/// Whether a row of the step changes with the tokens or the history of others:
/// that rows do not is an assumption where they share a position.
bool StepComparison::mixesRows(func::FuncOp func, const Step &step,
                               const Case &each) {
  GraphInterpreter interpreter(func, precision);
  size_t count = each.runs.size();
  for (size_t row = 0; row < count; ++row) {
    const Tensors &before = ofMutant[each.runs[row]];
    Tensors after =
        interpreter.run(inputsOfOthers(step, inputs[each.runs[row]], row));
    for (size_t number = 0; number < after.size(); ++number) {
      const Tensor &tensor = *after[number];
      if (step.cacheResults.test(number) || tensor.shape.size() < 2 ||
          tensor.shape[0] != rows)
        continue;
      Comparison found;
      compareRow(rowOf(*before[number], row, count), rowOf(tensor, row, count),
                 {}, isReal(resultTypes[number]), "", found);
      if (found.agreement == Agreement::Differs)
        return true;
    }
    for (bool ofKeys : {true, false}) {
      Comparison found;
      compareRow(cacheRowOf(step, ofKeys, before, row),
                 cacheRowOf(step, ofKeys, after, row), {}, /*isReal=*/true, "",
                 found);
      if (found.agreement == Agreement::Differs)
        return true;
    }
  }
  return false;
}

bool StepComparison::runMutant(func::FuncOp func, Comparison &comparison) {
  GraphInterpreter interpreter(func, precision);
  ofMutant.clear();
  bool isDefined = false;
  comparison.isUnchanged = true;
  for (auto [run, base] : llvm::zip_equal(inputs, ofBase)) {
    ofMutant.push_back(interpreter.run(run));
    isDefined |= !ofMutant.back().empty();
    if (ofMutant.back().empty()) {
      comparison.detail = interpreter.getProblem();
      comparison.isUnchanged = false;
      if (interpreter.isUnknown()) {
        comparison.agreement = Agreement::Unknown;
        return false;
      }
      continue;
    }
    Comparison found;
    for (auto [left, right, type] :
         llvm::zip(base, ofMutant.back(), resultTypes))
      compareRow(left->elements, right->elements, {}, isReal(type), "", found);
    comparison.isUnchanged &= found.agreement == Agreement::Equal;
  }
  if (!isDefined)
    comparison.agreement = Agreement::Undefined;
  else
    comparison.detail.clear();
  return isDefined;
}

Comparison StepComparison::compare(func::FuncOp func, const Step &step,
                                   func::FuncOp raised) {
  Comparison comparison;
  if (!runMutant(func, comparison))
    return comparison;
  for (const Case &each : casesOf(step)) {
    compareCase(each, step, raised, comparison);
    if (comparison.agreement == Agreement::Equal)
      continue;
    comparison.mixesRows = each.isRagged && mixesRows(func, step, each);
    if (!comparison.mixesRows)
      break;
    comparison.agreement = Agreement::Equal;
    comparison.detail.clear();
  }
  if (comparison.compared == 0 && comparison.agreement == Agreement::Equal) {
    comparison.agreement = Agreement::Undefined;
    comparison.detail = "nothing is in the contract";
  }
  return comparison;
}
