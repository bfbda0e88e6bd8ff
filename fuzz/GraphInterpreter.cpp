//===- GraphInterpreter.cpp - What a decode step computes -----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GraphInterpreter.h"

#include "ScalarKernels.h"

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/IndexingUtils.h"
#include "mlir/IR/TypeUtilities.h"
#include "llvm/ADT/TypeSwitch.h"

#include <cmath>

using namespace mlir;
using namespace fuzz;

static ArrayRef<int64_t> shapeOf(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor ? tensor.getShape() : ArrayRef<int64_t>();
}

static bool isReal(Type type) {
  return isa<FloatType>(getElementTypeOrSelf(type));
}

Tensor fuzz::tensorOf(Type type) {
  Tensor tensor;
  llvm::append_range(tensor.shape, shapeOf(type));
  tensor.elements.resize(ShapedType::getNumElements(shapeOf(type)), Scalar{});
  return tensor;
}

static Scalar scalarOf(const APInt &value) {
  Scalar scalar;
  scalar.integer = value.getBitWidth() == 1
                       ? static_cast<int64_t>(value.getZExtValue())
                       : value.getSExtValue();
  return scalar;
}

static Scalar scalarOf(APFloat value) {
  bool losesInfo = false;
  value.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven,
                &losesInfo);
  Scalar scalar;
  scalar.real = value.convertToDouble();
  return scalar;
}

/// The elements of a blob, a truth value a byte.
static DenseElementsAttr denseOf(DenseResourceElementsAttr resource) {
  ShapedType type = resource.getType();
  if (!type.getElementType().isInteger(1))
    return DenseElementsAttr::getFromRawBuffer(type, resource.getData());
  SmallVector<bool> bits(
      llvm::map_range(resource.getData(), [](char byte) { return byte != 0; }));
  return DenseElementsAttr::get(type, bits);
}

Tensor fuzz::tensorOf(Attribute value) {
  if (auto resource = dyn_cast<DenseResourceElementsAttr>(value))
    value = denseOf(resource);
  Tensor tensor = tensorOf(cast<TypedAttr>(value).getType());
  if (auto integer = dyn_cast<IntegerAttr>(value))
    tensor.elements[0] = scalarOf(integer.getValue());
  else if (auto real = dyn_cast<FloatAttr>(value))
    tensor.elements[0] = scalarOf(real.getValue());
  else if (auto integers = dyn_cast<DenseIntElementsAttr>(value))
    for (auto [to, from] :
         llvm::zip_equal(tensor.elements, integers.getValues<APInt>()))
      to = scalarOf(from);
  else
    for (auto [to, from] :
         llvm::zip_equal(tensor.elements,
                         cast<DenseFPElementsAttr>(value).getValues<APFloat>()))
      to = scalarOf(from);
  return tensor;
}

/// Calls `visit` with each index of `shape`, the last dim first.
template <typename Visit>
static void forEach(ArrayRef<int64_t> shape, Visit visit) {
  SmallVector<int64_t> index(shape.size(), 0);
  for (int64_t left = ShapedType::getNumElements(shape); left > 0; --left) {
    visit(index);
    for (auto dim = static_cast<int64_t>(shape.size()) - 1; dim >= 0; --dim) {
      if (++index[dim] < shape[dim])
        break;
      index[dim] = 0;
    }
  }
}

/// The place of an index among a tensor's elements, or -1 if it has none.
static int64_t placeOf(ArrayRef<int64_t> shape, ArrayRef<int64_t> index) {
  int64_t place = 0;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    if (index[dim] < 0 || index[dim] >= shape[dim])
      return -1;
    place = place * shape[dim] + index[dim];
  }
  return place;
}

//===----------------------------------------------------------------------===//
// Blocks of scalars
//===----------------------------------------------------------------------===//

namespace fuzz {
/// A block of scalars as steps over numbered slots, arguments first.
struct Program {
  struct Step {
    Operation *op = nullptr;
    Kernel kernel = nullptr;
    KernelInfo info;
    SmallVector<unsigned, 4> operands;
    unsigned result = 0;
    /// Of an scf.if, whose results are slots from `result` on.
    std::unique_ptr<Program> ifTrue, ifFalse;
    /// What a tensor.extract reads, set anew in each execution of the graph.
    const Tensor *tensor = nullptr;
  };

  explicit Program(GraphInterpreter &graph) : graph(graph) {}

  /// Numbers what `block` computes; `slots` are those of what encloses it.
  void compile(Block &block, llvm::DenseMap<Value, unsigned> &slots,
               unsigned &numSlots);
  /// Reads what comes from outside.
  void enter();
  void run(ArrayRef<int64_t> loops, Scalar *frame);

  GraphInterpreter &graph;
  std::vector<Step> steps;
  SmallVector<unsigned> yielded;
  SmallVector<std::pair<unsigned, Value>> captured;
  std::vector<Scalar> frame;

private:
  unsigned slotOf(Value value, llvm::DenseMap<Value, unsigned> &slots,
                  unsigned &numSlots);
  void runStep(Step &step, ArrayRef<int64_t> loops, Scalar *frame);
};
} // namespace fuzz

unsigned Program::slotOf(Value value, llvm::DenseMap<Value, unsigned> &slots,
                         unsigned &numSlots) {
  auto [entry, isNew] = slots.try_emplace(value, numSlots);
  if (isNew) {
    captured.emplace_back(numSlots, value);
    ++numSlots;
  }
  return entry->second;
}

void Program::compile(Block &block, llvm::DenseMap<Value, unsigned> &slots,
                      unsigned &numSlots) {
  for (Operation &op : block.without_terminator()) {
    Step step;
    step.op = &op;
    step.kernel = kernelOf(op);
    if (step.kernel)
      step.info = infoOf(op, graph.precision);
    for (Value operand : op.getOperands())
      if (!isa<tensor::ExtractOp>(op) || operand != op.getOperand(0))
        step.operands.push_back(slotOf(operand, slots, numSlots));
    if (auto branch = dyn_cast<scf::IfOp>(op)) {
      step.ifTrue = std::make_unique<Program>(graph);
      step.ifTrue->compile(*branch.thenBlock(), slots, numSlots);
      step.ifFalse = std::make_unique<Program>(graph);
      if (!branch.getElseRegion().empty())
        step.ifFalse->compile(*branch.elseBlock(), slots, numSlots);
      for (Program *part : {step.ifTrue.get(), step.ifFalse.get()})
        captured.append(part->captured);
    }
    step.result = numSlots;
    for (Value result : op.getResults())
      slots[result] = numSlots++;
    steps.push_back(std::move(step));
  }
  for (Value value : block.getTerminator()->getOperands())
    yielded.push_back(slotOf(value, slots, numSlots));
}

void Program::enter() {
  for (auto [slot, value] : captured) {
    if (isa<RankedTensorType>(value.getType()))
      return graph.notKnown("a tensor among scalars");
    frame[slot] = graph.at(value).elements[0];
  }
  auto bind = [&](auto &self, Program &program) -> void {
    for (Step &step : program.steps) {
      if (auto extract = dyn_cast<tensor::ExtractOp>(step.op)) {
        step.tensor = &graph.at(extract.getTensor());
        if (step.tensor->isEmpty)
          graph.undefined("reads what was not written");
      }
      if (step.ifTrue) {
        self(self, *step.ifTrue);
        self(self, *step.ifFalse);
      }
    }
  };
  bind(bind, *this);
}

void Program::run(ArrayRef<int64_t> loops, Scalar *frame) {
  for (Step &step : steps)
    runStep(step, loops, frame);
}

void Program::runStep(Step &step, ArrayRef<int64_t> loops, Scalar *frame) {
  if (step.kernel) {
    Scalar operands[4] = {};
    for (auto [to, slot] : llvm::zip(operands, step.operands))
      to = frame[slot];
    bool isDefined = true;
    frame[step.result] = step.kernel(step.info, operands, isDefined);
    if (!isDefined)
      graph.undefined(step.op->getName().getStringRef());
    return;
  }
  if (auto loop = dyn_cast<linalg::IndexOp>(step.op)) {
    frame[step.result].integer = loops[loop.getDim()];
  } else if (auto constant = dyn_cast<arith::ConstantOp>(step.op)) {
    frame[step.result] = tensorOf(constant.getValue()).elements[0];
  } else if (step.tensor) {
    SmallVector<int64_t> index;
    for (unsigned slot : step.operands)
      index.push_back(frame[slot].integer);
    int64_t place = placeOf(step.tensor->shape, index);
    if (place < 0)
      return graph.undefined("extracts from outside");
    frame[step.result] = step.tensor->elements[place];
  } else if (step.ifTrue) {
    Program &taken =
        frame[step.operands[0]].integer ? *step.ifTrue : *step.ifFalse;
    taken.run(loops, frame);
    for (auto [number, slot] : llvm::enumerate(taken.yielded))
      frame[step.result + number] = frame[slot];
  } else {
    graph.notKnown(step.op->getName().getStringRef());
  }
}

//===----------------------------------------------------------------------===//
// The function
//===----------------------------------------------------------------------===//

GraphInterpreter::GraphInterpreter(func::FuncOp func, unsigned precision)
    : func(func), precision(precision) {}

GraphInterpreter::~GraphInterpreter() = default;

void GraphInterpreter::undefined(const llvm::Twine &what) {
  if (problem.empty())
    problem = what.str();
}

void GraphInterpreter::notKnown(const llvm::Twine &what) {
  undefined(what);
  unknown = true;
}

std::vector<TensorRef>
GraphInterpreter::run(llvm::ArrayRef<TensorRef> arguments) {
  values.clear();
  problem.clear();
  unknown = false;
  largestScore = 0;
  for (auto [argument, tensor] :
       llvm::zip_equal(func.getArguments(), arguments))
    values[argument] = tensor;
  Block &body = func.getBody().front();
  for (Operation &op : body.without_terminator()) {
    execute(op);
    if (!problem.empty())
      return {};
  }
  std::vector<TensorRef> results;
  for (Value value : body.getTerminator()->getOperands()) {
    if (at(value).isEmpty)
      undefined("returns what was not written");
    results.push_back(values[value]);
  }
  return problem.empty() ? results : std::vector<TensorRef>();
}

const Tensor &GraphInterpreter::at(Value value) {
  const TensorRef &known = values[value];
  assert(known && "ops are executed in order");
  return *known;
}

void GraphInterpreter::set(Value value, Tensor tensor) {
  values[value] = std::make_shared<const Tensor>(std::move(tensor));
}

int64_t GraphInterpreter::indexAt(OpFoldResult index) {
  if (std::optional<int64_t> number = getConstantIntValue(index))
    return *number;
  return at(cast<Value>(index)).elements[0].integer;
}

SmallVector<int64_t>
GraphInterpreter::indicesAt(ArrayRef<OpFoldResult> indices) {
  return llvm::map_to_vector(indices,
                             [&](OpFoldResult at) { return indexAt(at); });
}

Program &GraphInterpreter::programOf(Block &block) {
  std::unique_ptr<Program> &program = programs[&block];
  if (!program) {
    program = std::make_unique<Program>(*this);
    llvm::DenseMap<Value, unsigned> slots;
    unsigned numSlots = 0;
    for (BlockArgument argument : block.getArguments())
      slots[argument] = numSlots++;
    program->compile(block, slots, numSlots);
    program->frame.resize(numSlots);
  }
  program->enter();
  return *program;
}

/// A tensor of which nobody may read anything: what is read all the same is not
/// a number.
static Tensor emptyOf(Type type) {
  Tensor tensor = tensorOf(type);
  tensor.isEmpty = true;
  if (isReal(type))
    for (Scalar &element : tensor.elements)
      element.real = NAN;
  return tensor;
}

void GraphInterpreter::execute(Operation &op) {
  if (executeTensorOp(op))
    return;
  if (isa<linalg::LinalgOp>(op))
    return executeLinalg(cast<linalg::LinalgOp>(op));
  StringRef name = op.getName().getStringRef();
  if (name == "linalg.softmax")
    return executeSoftmax(op);
  if (name == "tm_tensor.scatter" || name == "iree_linalg_ext.scatter")
    return executeScatter(op);
  if (name == "stablehlo.scatter")
    return executeStableScatter(op);
  if (name == "tm_tensor.attention")
    return executeTorchAttention(op);
  if (name == "iree_linalg_ext.attention")
    return executeMappedAttention(op);
  if (isa<kvrm::CachedAttentionOp>(op))
    return executeCachedAttention(op);
  if (kernelOf(op))
    return executeElementwise(op);
  notKnown(name);
}

bool GraphInterpreter::executeTensorOp(Operation &op) {
  return llvm::TypeSwitch<Operation *, bool>(&op)
      .Case([&](arith::ConstantOp constant) {
        set(constant, tensorOf(constant.getValue()));
        return true;
      })
      .Case([&](tensor::EmptyOp empty) {
        set(empty, emptyOf(empty.getType()));
        return true;
      })
      .Case([&](tensor::SplatOp splat) {
        Tensor result = tensorOf(splat.getType());
        llvm::fill(result.elements, at(splat.getInput()).elements[0]);
        set(splat, std::move(result));
        return true;
      })
      .Case([&](tensor::FromElementsOp list) {
        Tensor result = tensorOf(list.getType());
        for (auto [to, from] :
             llvm::zip_equal(result.elements, list.getElements()))
          to = at(from).elements[0];
        set(list, std::move(result));
        return true;
      })
      .Case<tensor::CastOp, tensor::ExpandShapeOp, tensor::CollapseShapeOp>(
          [&](auto reshape) {
            Tensor result = at(reshape->getOperand(0));
            result.shape.assign(shapeOf(reshape.getType()).begin(),
                                shapeOf(reshape.getType()).end());
            set(reshape, std::move(result));
            return true;
          })
      .Case([&](tensor::ExtractOp extract) {
        SmallVector<int64_t> index;
        for (Value value : extract.getIndices())
          index.push_back(at(value).elements[0].integer);
        const Tensor &tensor = at(extract.getTensor());
        int64_t place = placeOf(tensor.shape, index);
        if (place < 0 || tensor.isEmpty)
          undefined("extracts from outside");
        Tensor result = tensorOf(extract.getType());
        result.elements[0] = tensor.elements[std::max<int64_t>(place, 0)];
        set(extract, std::move(result));
        return true;
      })
      .Case([&](scf::IfOp) { return executeBranch(op), true; })
      .Case([&](tensor::ExtractSliceOp) { return executeSlice(op), true; })
      .Case([&](tensor::InsertSliceOp) { return executeInsertSlice(op), true; })
      .Case([&](tensor::ConcatOp) { return executeConcat(op), true; })
      .Default(false);
}

/// An op on scalars, or on each element of tensors.
void GraphInterpreter::executeElementwise(Operation &op) {
  Kernel kernel = kernelOf(op);
  KernelInfo info = infoOf(op, precision);
  Tensor result = tensorOf(op.getResult(0).getType());
  bool isDefined = true;
  for (auto [place, to] : llvm::enumerate(result.elements)) {
    Scalar operands[4] = {};
    for (auto [operand, value] : llvm::zip(operands, op.getOperands())) {
      const Tensor &tensor = at(value);
      isDefined &= !tensor.isEmpty;
      // The condition of a select may be one for all.
      operand = tensor.elements[tensor.elements.size() == 1 ? 0 : place];
    }
    to = kernel(info, operands, isDefined);
  }
  if (!isDefined)
    undefined(op.getName().getStringRef());
  set(op.getResult(0), std::move(result));
}

void GraphInterpreter::executeBranch(Operation &op) {
  auto branch = cast<scf::IfOp>(op);
  bool isTaken = at(branch.getCondition()).elements[0].integer != 0;
  Region &region = isTaken ? branch.getThenRegion() : branch.getElseRegion();
  if (region.empty())
    return;
  for (Operation &nested : region.front().without_terminator())
    execute(nested);
  for (auto [result, value] : llvm::zip_equal(
           op.getResults(), region.front().getTerminator()->getOperands()))
    values[result] = values[value];
}

//===----------------------------------------------------------------------===//
// Slices
//===----------------------------------------------------------------------===//

/// Calls `visit` with the places, in a tensor of `shape`, of a slice's elements
/// in order. False if the slice reaches outside.
static bool forSlice(ArrayRef<int64_t> shape, ArrayRef<int64_t> offsets,
                     ArrayRef<int64_t> sizes, ArrayRef<int64_t> strides,
                     llvm::function_ref<void(int64_t)> visit) {
  bool isInside = true;
  forEach(sizes, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> place;
    for (auto [at, offset, stride] : llvm::zip_equal(index, offsets, strides))
      place.push_back(offset + at * stride);
    int64_t found = placeOf(shape, place);
    isInside &= found >= 0;
    visit(std::max<int64_t>(found, 0));
  });
  return isInside;
}

void GraphInterpreter::executeSlice(Operation &op) {
  auto slice = cast<tensor::ExtractSliceOp>(op);
  const Tensor &source = at(slice.getSource());
  Tensor result = tensorOf(slice.getType());
  result.isEmpty = source.isEmpty;
  size_t next = 0;
  if (!forSlice(source.shape, indicesAt(slice.getMixedOffsets()),
                indicesAt(slice.getMixedSizes()),
                indicesAt(slice.getMixedStrides()), [&](int64_t place) {
                  result.elements[next++] = source.elements[place];
                }))
    undefined("a slice of what is outside");
  set(slice, std::move(result));
}

void GraphInterpreter::executeInsertSlice(Operation &op) {
  auto insert = cast<tensor::InsertSliceOp>(op);
  const Tensor &source = at(insert.getSource());
  Tensor result = at(insert.getDest());
  result.isEmpty = false;
  size_t next = 0;
  if (source.isEmpty)
    undefined("inserts what was not written");
  if (!forSlice(result.shape, indicesAt(insert.getMixedOffsets()),
                indicesAt(insert.getMixedSizes()),
                indicesAt(insert.getMixedStrides()), [&](int64_t place) {
                  result.elements[place] = source.elements[next++];
                }))
    undefined("a slice inserted outside");
  set(insert, std::move(result));
}

void GraphInterpreter::executeConcat(Operation &op) {
  auto concat = cast<tensor::ConcatOp>(op);
  Tensor result = tensorOf(concat.getType());
  int64_t begin = 0;
  auto dim = static_cast<size_t>(concat.getDim());
  for (Value piece : concat.getInputs()) {
    const Tensor &source = at(piece);
    SmallVector<int64_t> offsets(source.shape.size(), 0);
    SmallVector<int64_t> strides(source.shape.size(), 1);
    offsets[dim] = begin;
    begin += source.shape[dim];
    size_t next = 0;
    forSlice(result.shape, offsets, source.shape, strides, [&](int64_t place) {
      result.elements[place] = source.elements[next++];
    });
  }
  set(concat, std::move(result));
}

//===----------------------------------------------------------------------===//
// Linalg
//===----------------------------------------------------------------------===//

namespace fuzz {
/// Where an operand's element is, from the loops' indices.
struct Access {
  Access(AffineMap map, ArrayRef<int64_t> shape);
  /// -1 if it is outside.
  int64_t place(ArrayRef<int64_t> loops) const;

  AffineMap map;
  SmallVector<int64_t> shape;
  /// By loop, if each index is a loop or 0.
  SmallVector<int64_t> strides;
  bool isSimple = true;
};
} // namespace fuzz

Access::Access(AffineMap map, ArrayRef<int64_t> shape)
    : map(map), shape(shape), strides(map.getNumDims(), 0) {
  SmallVector<int64_t> ofDims = computeStrides(shape);
  for (auto [expr, stride] : llvm::zip_equal(map.getResults(), ofDims)) {
    auto constant = dyn_cast<AffineConstantExpr>(expr);
    if (auto dim = dyn_cast<AffineDimExpr>(expr))
      strides[dim.getPosition()] += stride;
    else if (!constant || constant.getValue() != 0)
      isSimple = false;
  }
}

static int64_t evaluate(AffineExpr expr, ArrayRef<int64_t> loops) {
  if (auto dim = dyn_cast<AffineDimExpr>(expr))
    return loops[dim.getPosition()];
  if (auto constant = dyn_cast<AffineConstantExpr>(expr))
    return constant.getValue();
  auto binary = cast<AffineBinaryOpExpr>(expr);
  int64_t lhs = evaluate(binary.getLHS(), loops);
  int64_t rhs = evaluate(binary.getRHS(), loops);
  switch (expr.getKind()) {
  case AffineExprKind::Add:
    return lhs + rhs;
  case AffineExprKind::Mul:
    return lhs * rhs;
  case AffineExprKind::Mod:
    return rhs > 0 ? (lhs % rhs + rhs) % rhs : -1;
  case AffineExprKind::FloorDiv:
    return rhs > 0 ? llvm::divideFloorSigned(lhs, rhs) : -1;
  case AffineExprKind::CeilDiv:
    return rhs > 0 ? llvm::divideCeilSigned(lhs, rhs) : -1;
  default:
    llvm_unreachable("a binary expression");
  }
}

int64_t Access::place(ArrayRef<int64_t> loops) const {
  if (isSimple) {
    int64_t place = 0;
    for (size_t loop = 0; loop < loops.size(); ++loop)
      place += loops[loop] * strides[loop];
    return place;
  }
  SmallVector<int64_t> index;
  for (AffineExpr expr : map.getResults())
    index.push_back(evaluate(expr, loops));
  return placeOf(shape, index);
}

/// Runs a body at each point, on the elements of all operands that are there;
/// the last of them are outputs.
void GraphInterpreter::runLoops(Program &program, ArrayRef<int64_t> extents,
                                ArrayRef<Access> accesses,
                                ArrayRef<Scalar *> elements) {
  Scalar *frame = program.frame.data();
  size_t count = accesses.size(), firstOutput = count - program.yielded.size();
  SmallVector<int64_t> places(count);
  forEach(extents, [&](ArrayRef<int64_t> loops) {
    for (size_t number = 0; number < count; ++number) {
      places[number] = accesses[number].place(loops);
      if (places[number] < 0)
        return undefined("an index outside of its operand");
      frame[number] = elements[number][places[number]];
    }
    program.run(loops, frame);
    for (size_t number = firstOutput; number < count; ++number)
      elements[number][places[number]] =
          frame[program.yielded[number - firstOutput]];
  });
}

void GraphInterpreter::executeLinalg(linalg::LinalgOp op) {
  if (!op.hasPureTensorSemantics())
    return notKnown("linalg on buffers");
  SmallVector<Access> accesses;
  SmallVector<const Tensor *> inputs;
  std::vector<Tensor> outputs;
  for (OpOperand &operand : op->getOpOperands()) {
    const Tensor &tensor = at(operand.get());
    accesses.emplace_back(op.getMatchingIndexingMap(&operand), tensor.shape);
    if (tensor.isEmpty && op.payloadUsesValueFromOperand(&operand))
      return undefined("reads what was not written");
    if (!op.isDpsInit(&operand)) {
      inputs.push_back(&tensor);
      continue;
    }
    outputs.push_back(tensor);
    outputs.back().isEmpty = false;
  }
  Program &program = programOf(*op.getBlock());
  if (!problem.empty())
    return;
  SmallVector<Scalar *> elements;
  for (const Tensor *input : inputs) // not written to
    elements.push_back(const_cast<Scalar *>(input->elements.data()));
  for (Tensor &output : outputs)
    elements.push_back(output.elements.data());
  runLoops(program, op.getStaticLoopRanges(), accesses, elements);
  for (auto [result, tensor] : llvm::zip_equal(op->getResults(), outputs))
    set(result, std::move(tensor));
}

/// Makes `row` probabilities.
static void softmax(MutableArrayRef<double> row) {
  double highest = -INFINITY, sum = 0;
  for (double score : row)
    highest = std::isnan(score) ? NAN : std::max(highest, score);
  for (double &score : row)
    sum += score = std::exp(score - highest);
  for (double &score : row)
    score /= sum;
}

void GraphInterpreter::executeSoftmax(Operation &op) {
  auto softmaxOp = cast<linalg::SoftmaxOp>(op);
  Tensor result = at(softmaxOp.getInput());
  if (result.isEmpty)
    return undefined("reads what was not written");
  auto dim = static_cast<size_t>(softmaxOp.getDimension());
  int64_t size = result.shape[dim], stride = computeStrides(result.shape)[dim];
  SmallVector<int64_t> firsts(result.shape);
  firsts[dim] = 1;
  forEach(firsts, [&](ArrayRef<int64_t> index) {
    int64_t first = placeOf(result.shape, index);
    SmallVector<double> row;
    for (int64_t at = 0; at < size; ++at)
      row.push_back(result.elements[first + at * stride].real);
    softmax(row);
    for (int64_t at = 0; at < size; ++at)
      result.elements[first + at * stride].real = row[at];
  });
  set(op.getResult(0), std::move(result));
}

//===----------------------------------------------------------------------===//
// Scatters
//===----------------------------------------------------------------------===//

/// Combines an update with what is at `index`. Where one was written before,
/// the order of updates would tell.
void GraphInterpreter::scatterTo(Tensor &result, ArrayRef<int64_t> index,
                                 Scalar update, bool updateIsFirst,
                                 Block &region, std::vector<bool> &written) {
  int64_t place = placeOf(result.shape, index);
  if (place < 0)
    return undefined("an update outside");
  if (written[place])
    undefined("two updates of one element");
  written[place] = true;
  Program &program = programOf(region);
  Scalar *frame = program.frame.data();
  frame[updateIsFirst ? 0 : 1] = update;
  frame[updateIsFirst ? 1 : 0] = result.elements[place];
  program.run({}, frame);
  result.elements[place] = frame[program.yielded[0]];
}

/// Dims of updates behind those of the batch lie along the last of the result;
/// an index is added to them.
void GraphInterpreter::executeScatter(Operation &op) {
  const Tensor &updates = at(op.getOperand(0)), &indices = at(op.getOperand(1));
  Tensor result = at(op.getOperand(2));
  auto map = op.getAttrOfType<DenseI64ArrayAttr>("dimension_map");
  if (updates.isEmpty || indices.isEmpty || result.isEmpty)
    return undefined("reads what was not written");
  size_t batch = std::max<size_t>(indices.shape.size(), 2) - 1;
  size_t window = updates.shape.size() - batch;
  auto isInside = [&](int64_t dim) {
    return dim >= 0 && dim < static_cast<int64_t>(result.shape.size());
  };
  if (updates.shape.size() < batch || window > result.shape.size() || !map ||
      !llvm::all_of(map.asArrayRef(), isInside) ||
      (indices.shape.size() > 1 ? indices.shape.back() : 1) != map.size())
    return notKnown("a scatter of another form");
  std::vector<bool> written(result.elements.size(), false);
  size_t next = 0;
  forEach(updates.shape, [&](ArrayRef<int64_t> at) {
    SmallVector<int64_t> target(result.shape.size(), 0);
    llvm::copy(at.drop_front(batch), target.end() - window);
    for (auto [column, dim] : llvm::enumerate(map.asArrayRef())) {
      SmallVector<int64_t> index(at.take_front(batch));
      if (indices.shape.size() > 1)
        index.push_back(static_cast<int64_t>(column));
      int64_t place = placeOf(indices.shape, index);
      if (place < 0)
        return undefined("an update without an index");
      target[dim] += indices.elements[place].integer;
    }
    scatterTo(result, target, updates.elements[next++], /*updateIsFirst=*/true,
              op.getRegion(0).front(), written);
  });
  set(op.getResult(0), std::move(result));
}

/// The numbers of `name = [...]` or `name = number` in an attribute's text.
static SmallVector<int64_t> numbersOf(StringRef text, StringRef name) {
  SmallVector<int64_t> numbers;
  SmallVector<StringRef> fields;
  // A comma between fields stands before a letter.
  size_t at = text.find('<');
  StringRef rest = text.substr(at + 1);
  while (!rest.empty()) {
    auto [key, value] = rest.split('=');
    size_t end =
        value.find_first_of(value.ltrim().starts_with("[") ? "]" : ",>");
    StringRef list = value.substr(0, end).trim(" [");
    rest = value.substr(end).ltrim("],> ");
    if (key.trim() != name)
      continue;
    list.split(fields, ',', -1, /*KeepEmpty=*/false);
    for (StringRef field : fields)
      (void)field.trim().getAsInteger(10, numbers.emplace_back());
  }
  return numbers;
}

namespace {
/// The attribute of a stablehlo.scatter.
struct ScatterNumbers {
  explicit ScatterNumbers(StringRef text)
      : window(numbersOf(text, "update_window_dims")),
        inserted(numbersOf(text, "inserted_window_dims")),
        batching(numbersOf(text, "input_batching_dims")),
        indexBatching(numbersOf(text, "scatter_indices_batching_dims")),
        columns(numbersOf(text, "scatter_dims_to_operand_dims")) {
    SmallVector<int64_t> vector = numbersOf(text, "index_vector_dim");
    vectorDim = vector.empty() ? 0 : vector[0];
  }
  bool isConsistent(const Tensor &old, const Tensor &indices,
                    const Tensor &updates) const;

  SmallVector<int64_t> window, inserted, batching, indexBatching, columns;
  int64_t vectorDim = 0;
};
} // namespace

/// What StableHLO's verifier asks for.
bool ScatterNumbers::isConsistent(const Tensor &old, const Tensor &indices,
                                  const Tensor &updates) const {
  auto areDims = [](ArrayRef<int64_t> dims, const Tensor &tensor) {
    llvm::SmallDenseSet<int64_t> seen;
    return llvm::all_of(dims, [&](int64_t dim) {
      return dim >= 0 && dim < static_cast<int64_t>(tensor.shape.size()) &&
             seen.insert(dim).second;
    });
  };
  auto indexRank = static_cast<int64_t>(indices.shape.size());
  if (!areDims(window, updates) || !areDims(inserted, old) ||
      !areDims(batching, old) || !areDims(columns, old) ||
      !areDims(indexBatching, indices) || vectorDim < 0 ||
      vectorDim > indexRank || batching.size() != indexBatching.size() ||
      window.size() + inserted.size() + batching.size() != old.shape.size() ||
      llvm::is_contained(indexBatching, vectorDim) ||
      llvm::any_of(batching, [&](int64_t dim) {
        return llvm::is_contained(inserted, dim) ||
               llvm::is_contained(columns, dim);
      }))
    return false;
  int64_t width = vectorDim < indexRank ? indices.shape[vectorDim] : 1;
  if (width != static_cast<int64_t>(columns.size()))
    return false;
  // Dims that number updates are those of indices.
  SmallVector<int64_t> numbering, numbered;
  for (auto [dim, size] : llvm::enumerate(indices.shape))
    if (static_cast<int64_t>(dim) != vectorDim)
      numbering.push_back(size);
  SmallVector<int64_t> oldWindow, updateWindow;
  for (auto [dim, size] : llvm::enumerate(updates.shape))
    (llvm::is_contained(window, dim) ? updateWindow : numbered).push_back(size);
  for (auto [dim, size] : llvm::enumerate(old.shape))
    if (!llvm::is_contained(inserted, dim) &&
        !llvm::is_contained(batching, dim))
      oldWindow.push_back(size);
  for (auto [dim, index] : llvm::zip_equal(batching, indexBatching))
    if (old.shape[dim] != indices.shape[index])
      return false;
  return numbering == numbered && llvm::is_sorted(window) &&
         llvm::is_sorted(inserted) && llvm::is_sorted(batching) &&
         llvm::all_of(llvm::zip_equal(updateWindow, oldWindow), [](auto pair) {
           return std::get<0>(pair) <= std::get<1>(pair);
         });
}

void GraphInterpreter::executeStableScatter(Operation &op) {
  Tensor result = at(op.getOperand(0));
  const Tensor &indices = at(op.getOperand(1)), &updates = at(op.getOperand(2));
  if (updates.isEmpty || indices.isEmpty || result.isEmpty)
    return undefined("reads what was not written");
  std::string text;
  llvm::raw_string_ostream(text) << op.getAttr("scatter_dimension_numbers");
  ScatterNumbers numbers(text);
  if (!numbers.isConsistent(result, indices, updates))
    return undefined("a scatter that StableHLO does not verify");
  std::vector<bool> written(result.elements.size(), false);
  size_t next = 0;
  forEach(updates.shape, [&](ArrayRef<int64_t> at) {
    SmallVector<int64_t> batch, window, index(result.shape.size(), 0);
    for (auto [dim, place] : llvm::enumerate(at))
      (llvm::is_contained(numbers.window, dim) ? window : batch)
          .push_back(place);
    size_t nextWindow = 0;
    for (size_t dim = 0; dim < index.size(); ++dim)
      if (!llvm::is_contained(numbers.inserted, dim) &&
          !llvm::is_contained(numbers.batching, dim))
        index[dim] = window[nextWindow++];
    for (auto [dim, from] :
         llvm::zip_equal(numbers.batching, numbers.indexBatching))
      index[dim] += batch[from - (from > numbers.vectorDim ? 1 : 0)];
    for (auto [column, dim] : llvm::enumerate(numbers.columns)) {
      SmallVector<int64_t> point(batch);
      if (numbers.vectorDim < static_cast<int64_t>(indices.shape.size()))
        point.insert(point.begin() + numbers.vectorDim,
                     static_cast<int64_t>(column));
      index[dim] += indices.elements[placeOf(indices.shape, point)].integer;
    }
    Scalar update = updates.elements[next++];
    // What is outside is dropped.
    if (placeOf(result.shape, index) >= 0)
      scatterTo(result, index, update, /*updateIsFirst=*/false,
                op.getRegion(0).front(), written);
  });
  set(op.getResult(0), std::move(result));
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

namespace {
/// An operand of an attention, and the loops along its dims.
struct MappedOperand {
  const Tensor *tensor;
  AffineMap map;

  const Scalar &at(ArrayRef<int64_t> loops) const {
    SmallVector<int64_t> index;
    for (AffineExpr dim : map.getResults())
      index.push_back(loops[cast<AffineDimExpr>(dim).getPosition()]);
    return tensor->elements[placeOf(tensor->shape, index)];
  }
};
} // namespace

struct GraphInterpreter::Attention {
  /// Queries, keys, values, and perhaps a mask.
  SmallVector<MappedOperand, 4> operands;
  AffineMap written; ///< of the result
  double scale = 1;
  bool isTruth = false;    ///< the mask's elements are truth values
  Program *body = nullptr; ///< what becomes of a score; null: nothing
};

/// `[batch..., row, column]` each; the scale follows from the width.
void GraphInterpreter::executeTorchAttention(Operation &op) {
  unsigned count = op.getNumOperands();
  auto type = cast<RankedTensorType>(op.getResult(0).getType());
  if (count < 4 || count > 5 || type.getRank() < 2 ||
      !op.getDiscardableAttrs().empty())
    return notKnown("an attention of another form");
  unsigned row = static_cast<unsigned>(type.getRank()) - 2, column = row + 1;
  unsigned depth = row + 2, token = row + 3;
  auto over = [&](unsigned first, unsigned second) {
    SmallVector<unsigned> loops = llvm::to_vector(llvm::seq(0u, row));
    loops.append({first, second});
    return AffineMap::getMultiDimMapWithTargets(row + 4, loops,
                                                op.getContext());
  };
  Attention attention;
  attention.operands = {{&at(op.getOperand(0)), over(row, depth)},
                        {&at(op.getOperand(1)), over(token, depth)},
                        {&at(op.getOperand(2)), over(token, column)}};
  if (count == 5) {
    attention.operands.push_back({&at(op.getOperand(3)), over(row, token)});
    attention.isTruth = !isReal(op.getOperand(3).getType());
  }
  attention.written = over(row, column);
  int64_t width = attention.operands.front().tensor->shape.back();
  attention.scale = 1 / std::sqrt(static_cast<double>(width));
  attend(op, attention);
}

/// Queries, keys, values, the scale, perhaps a mask, and what is written to.
void GraphInterpreter::executeMappedAttention(Operation &op) {
  auto maps = op.getAttrOfType<ArrayAttr>("indexing_maps");
  unsigned count = op.getNumOperands();
  if (!maps || maps.size() != count || count < 5 || count > 6 ||
      !op.getDiscardableAttrs().empty())
    return notKnown("an attention of another form");
  auto mapOf = [&](unsigned number) {
    return cast<AffineMapAttr>(maps[number]).getValue();
  };
  Attention attention;
  for (unsigned number : {0u, 1u, 2u})
    attention.operands.push_back({&at(op.getOperand(number)), mapOf(number)});
  if (count == 6) {
    attention.operands.push_back({&at(op.getOperand(4)), mapOf(4)});
    attention.isTruth = !isReal(op.getOperand(4).getType());
  }
  attention.written = mapOf(count - 1);
  attention.scale = at(op.getOperand(3)).elements[0].real;
  attention.body = &programOf(op.getRegion(0).front());
  attend(op, attention);
}

void GraphInterpreter::attend(Operation &op, const Attention &attention) {
  AffineMap written = attention.written;
  Tensor result = tensorOf(op.getResult(0).getType());
  SmallVector<int64_t> sizes(written.getNumDims());
  SmallVector<MappedOperand, 4> all(attention.operands);
  all.push_back({&result, written});
  for (const MappedOperand &operand : all) {
    if (operand.map.getNumDims() != sizes.size() ||
        !operand.map.isProjectedPermutation() ||
        operand.map.getNumResults() != operand.tensor->shape.size())
      return notKnown("an attention of another form");
    for (auto [dim, size] : llvm::enumerate(operand.tensor->shape)) {
      int64_t &loop = sizes[operand.map.getDimPosition(dim)];
      if (loop != 0 && loop != size)
        return notKnown("an attention of another form");
      loop = size;
    }
  }
  for (const MappedOperand &operand : attention.operands)
    if (operand.tensor->isEmpty)
      return undefined("reads what was not written");
  const MappedOperand &query = attention.operands[0];
  const MappedOperand &key = attention.operands[1];
  const MappedOperand &value = attention.operands[2];
  const MappedOperand *mask =
      attention.operands.size() == 4 ? &attention.operands[3] : nullptr;
  // Loops that are not the result's are over tokens, or else over columns.
  SmallVector<unsigned> tokens, columns;
  SmallVector<int64_t> tokenSizes, columnSizes;
  for (unsigned loop = 0; loop < sizes.size(); ++loop)
    if (!written.isFunctionOfDim(loop)) {
      bool isToken = value.map.isFunctionOfDim(loop);
      (isToken ? tokens : columns).push_back(loop);
      (isToken ? tokenSizes : columnSizes).push_back(sizes[loop]);
    }
  forEach(result.shape, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> loops(sizes.size());
    auto place = [&](ArrayRef<unsigned> which, ArrayRef<int64_t> at) {
      for (auto [loop, number] : llvm::zip_equal(which, at))
        loops[loop] = number;
    };
    for (auto [dim, at] : llvm::enumerate(index))
      loops[written.getDimPosition(dim)] = at;
    SmallVector<double> row, values;
    forEach(tokenSizes, [&](ArrayRef<int64_t> token) {
      place(tokens, token);
      double score = 0;
      forEach(columnSizes, [&](ArrayRef<int64_t> column) {
        place(columns, column);
        score += query.at(loops).real * key.at(loops).real;
      });
      score *= attention.scale;
      if (attention.body) {
        Scalar *frame = attention.body->frame.data();
        frame[0].real = score;
        attention.body->run({}, frame);
        score = frame[attention.body->yielded[0]].real;
      }
      if (attention.isTruth && !mask->at(loops).integer)
        score = -INFINITY;
      else if (mask && !attention.isTruth)
        score += mask->at(loops).real;
      row.push_back(score);
      values.push_back(value.at(loops).real);
    });
    softmax(row);
    double sum = 0;
    for (auto [weight, element] : llvm::zip_equal(row, values))
      sum += weight * element;
    result.elements[placeOf(result.shape, index)].real = sum;
  });
  set(op.getResult(0), std::move(result));
}

namespace {
/// A kvrm.cached_attention with one token a row, each in its own slot.
struct CachedAttention {
  /// The point (row, head, column) of queries, keys or values.
  static Scalar at(const Tensor &tensor, int64_t row, int64_t head,
                   int64_t column) {
    return tensor.elements[placeOf(tensor.shape, {row, 0, head, column})];
  }
  int64_t place(int64_t row, int64_t head, int64_t token,
                int64_t column) const {
    return placeOf(keys.shape, {layer, row, head, token, column});
  }
  void write(const Tensor &key, const Tensor &value, const Tensor &positions);
  /// Of all tokens of the capacity, whether they are seen or not.
  SmallVector<double> scores(const Tensor &query, int64_t row, int64_t head);

  Tensor keys, values;
  int64_t layer = 0, group = 1;
  double scale = 1, largest = 0;
};
} // namespace

void CachedAttention::write(const Tensor &key, const Tensor &value,
                            const Tensor &positions) {
  int64_t sizes[] = {key.shape[0], key.shape[2], key.shape[3]};
  forEach(sizes, [&](ArrayRef<int64_t> point) {
    int64_t to = place(point[0], point[1], positions.elements[point[0]].integer,
                       point[2]);
    if (to < 0)
      return;
    keys.elements[to] = at(key, point[0], point[1], point[2]);
    values.elements[to] = at(value, point[0], point[1], point[2]);
    if (!std::isfinite(values.elements[to].real))
      largest = INFINITY;
  });
}

SmallVector<double> CachedAttention::scores(const Tensor &query, int64_t row,
                                            int64_t head) {
  SmallVector<double> scores;
  for (int64_t token = 0; token < keys.shape[3]; ++token) {
    double score = 0;
    for (int64_t column = 0; column < keys.shape[4]; ++column)
      score += at(query, row, head, column).real *
               keys.elements[place(row, head / group, token, column)].real;
    scores.push_back(score * scale);
    double size = std::fabs(scores.back());
    largest = std::isfinite(size) ? std::max(largest, size) : INFINITY;
  }
  return scores;
}

void GraphInterpreter::executeCachedAttention(Operation &op) {
  auto attention = cast<kvrm::CachedAttentionOp>(op);
  const Tensor &query = at(attention.getQuery()), &key = at(attention.getKey());
  const Tensor &value = at(attention.getValue());
  const Tensor &positions = at(attention.getPositions());
  if (attention.getCounts() || attention.getSlots() || attention.getWindow() ||
      attention.getSoftcap() || query.shape[1] != 1)
    return notKnown("an attention that raising does not make");
  if (query.isEmpty || key.isEmpty || value.isEmpty)
    return undefined("attention of what was not written");
  if (!isa<FloatType>(getElementTypeOrSelf(attention.getKeyCache())))
    return notKnown("a cache of codes with scales");
  CachedAttention state;
  state.keys = at(attention.getKeyCache());
  state.values = at(attention.getValueCache());
  state.layer = static_cast<int64_t>(attention.getLayer());
  state.group = query.shape[2] / key.shape[2];
  state.scale = attention.getScale().convertToFloat();
  state.write(key, value, positions);
  Tensor result = tensorOf(attention.getQuery().getType());
  int64_t queries[] = {query.shape[0], query.shape[2]};
  forEach(queries, [&](ArrayRef<int64_t> point) {
    int64_t row = point[0], head = point[1];
    SmallVector<double> weights = state.scores(query, row, head);
    int64_t last = positions.elements[row].integer;
    weights.truncate(
        std::clamp<int64_t>(last + 1, 0, static_cast<int64_t>(weights.size())));
    softmax(weights);
    for (int64_t column = 0; column < query.shape[3]; ++column) {
      double sum = 0;
      for (auto [token, weight] : llvm::enumerate(weights))
        sum += weight *
               state.values
                   .elements[state.place(row, head / state.group,
                                         static_cast<int64_t>(token), column)]
                   .real;
      result.elements[placeOf(query.shape, {row, 0, head, column})].real = sum;
    }
  });
  largestScore = std::max(largestScore, state.largest);
  set(attention.getOutput(), std::move(result));
  set(attention.getNewKeyCache(), std::move(state.keys));
  set(attention.getNewValueCache(), std::move(state.values));
}
