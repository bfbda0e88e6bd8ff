//===- LoopsToNVVM.cpp - Any op of linalg on a GPU ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The kernel that there is for ops that no other kernel takes: a thread runs
// one iteration of the parallel loops, with the others inside. It is right for
// every op and fast for elementwise ones. Of large elementwise ops a thread
// runs eight neighbours of the last loop: it loads and stores 16 bytes and more
// at once, and finds its place once. Ops that do not wait for one another share
// a launch, each with blocks of its own: a launch takes longer than most of
// them.
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace mlir::kvrm;

static constexpr int64_t kThreads = 128;
/// Neighbours that a thread of a large op runs, and the threads that there then
/// are at least: enough to fill a GPU.
static constexpr int64_t kNeighbours = 8;
static constexpr int64_t kManyThreads = 32768;

FailureOr<DenseBuffers> DenseBuffers::of(ArrayRef<linalg::LinalgOp> ops) {
  llvm::SetVector<Value> inputs, outputs;
  for (linalg::LinalgOp op : ops) {
    llvm::SetVector<Value> used(op->operand_begin(), op->operand_end());
    getUsedValuesDefinedAbove(op->getRegions(), used);
    for (Value value : used) {
      if (isa<MemRefType>(value.getType())) {
        bool isWritten = llvm::is_contained(op.getDpsInits(), value);
        (isWritten ? outputs : inputs).insert(value);
      } else if (!matchPattern(value, m_Constant())) {
        return op.emitOpError("uses a value that is neither a buffer nor a "
                              "constant");
      }
    }
  }
  return DenseBuffers{inputs.takeVector(), outputs.takeVector()};
}

namespace {

/// Writes the code of one op.
class LoopsWriter {
public:
  LoopsWriter(linalg::LinalgOp op, const DenseBuffers &buffers,
              DeviceKernel &kernel)
      : op(op), b(kernel.b), ranges(op.getStaticLoopRanges()),
        neighbours(countNeighbours(op)) {
    size_t index = 0;
    for (Value value :
         llvm::concat<const Value>(buffers.inputs, buffers.outputs))
      bound[value] = {kernel.pointer(index++),
                      cast<MemRefType>(value.getType())};
  }

  /// Iterations of the parallel loops.
  static int64_t parallelWork(linalg::LinalgOp op);
  /// Of the last loop, that one thread runs.
  static int64_t countNeighbours(linalg::LinalgOp op);
  static int64_t countThreads(linalg::LinalgOp op) {
    return parallelWork(op) / countNeighbours(op);
  }
  /// `block` counts from the op's first.
  void write(Value block);

private:
  Value asIndex(Value value) {
    return arith::IndexCastOp::create(b, b.getIndexType(), value);
  }
  Value asI64(Value value) {
    return arith::IndexCastOp::create(b, b.getI64Type(), value);
  }
  void placeThread(Value thread);
  void reduce(unsigned loop);
  void runBody(int64_t neighbour);
  SmallVector<Value> elementOf(OpOperand &operand);
  Value readOperand(OpOperand &operand, int64_t neighbour);
  Value readOnce(void *reader, const StridedBuffer &buffer, ValueRange index,
                 int64_t neighbour);
  void runNeighbours();
  Value constant(Value value) {
    return b.clone(*value.getDefiningOp())->getResult(0);
  }

  linalg::LinalgOp op;
  DeviceBuilder &b;
  SmallVector<int64_t> ranges;
  DenseMap<Value, StridedBuffer> bound;
  int64_t neighbours;
  SmallVector<Value> loops; ///< induction variables, of type index
  SmallVector<Variable> results;
  /// With neighbours: what operands and loads have for all of them, and what
  /// each of them yields.
  DenseMap<void *, SmallVector<Value>> runs;
  SmallVector<SmallVector<Value>> yielded;
};

} // namespace

int64_t LoopsWriter::parallelWork(linalg::LinalgOp op) {
  int64_t work = 1;
  for (auto [kind, range] :
       llvm::zip_equal(op.getIteratorTypesArray(), op.getStaticLoopRanges()))
    if (kind == utils::IteratorType::parallel)
      work *= range;
  return work;
}

/// Whether neighbours of the last loop find their elements one after another,
/// the first at a multiple of their number.
static bool isRun(MemRefType type) {
  // Vectors of other elements are packed in memory.
  Type element = type.getElementType();
  if (!element.isIntOrFloat() || element.getIntOrFloatBitWidth() % 8 != 0)
    return false;
  auto [strides, offset] = type.getStridesAndOffset();
  if (strides.empty() || strides.pop_back_val() != 1)
    return false;
  strides.push_back(offset);
  return llvm::all_of(strides, [](int64_t size) {
    return !ShapedType::isDynamic(size) && size % kNeighbours == 0;
  });
}

/// What a run of such elements is aligned to, as far as a thread can use it.
static unsigned runAlignment(Type element) {
  constexpr int64_t widest = 16;
  int64_t bytes = kNeighbours * element.getIntOrFloatBitWidth() / 8;
  return static_cast<unsigned>(std::min(bytes, widest));
}

/// Whether all neighbours read or write one element, or a run of them.
static bool isRunOrShared(linalg::LinalgOp op, OpOperand &operand) {
  auto type = dyn_cast<MemRefType>(operand.get().getType());
  AffineMap map = op.getMatchingIndexingMap(&operand);
  unsigned last = op.getNumLoops() - 1;
  if (!type || !map.isFunctionOfDim(last))
    return op.isDpsInput(&operand);
  ArrayRef<AffineExpr> indices = map.getResults();
  auto isFunctionOfLast = [&](AffineExpr index) {
    return index.isFunctionOfDim(last);
  };
  return indices.back() == getAffineDimExpr(last, op.getContext()) &&
         llvm::none_of(indices.drop_back(), isFunctionOfLast) && isRun(type);
}

int64_t LoopsWriter::countNeighbours(linalg::LinalgOp op) {
  SmallVector<int64_t> ranges = op.getStaticLoopRanges();
  bool isLarge = parallelWork(op) >= kNeighbours * kManyThreads;
  if (!isLarge || op.getNumParallelLoops() != op.getNumLoops() ||
      ranges.back() % kNeighbours != 0)
    return 1;
  return llvm::all_of(op->getOpOperands(),
                      [&](OpOperand &each) { return isRunOrShared(op, each); })
             ? kNeighbours
             : 1;
}

/// Parallel loops from the number of the thread, the last one fastest.
void LoopsWriter::placeThread(Value thread) {
  loops.assign(ranges.size(), Value());
  SmallVector<utils::IteratorType> kinds = op.getIteratorTypesArray();
  for (size_t loop = ranges.size(); loop-- > 0;) {
    if (kinds[loop] != utils::IteratorType::parallel)
      continue;
    int64_t each = loop + 1 == ranges.size() ? neighbours : 1;
    Value place = b.rem(thread, ranges[loop] / each);
    loops[loop] = asIndex(b.mul(place, each));
    thread = b.div(thread, ranges[loop] / each);
  }
}

/// The element of a buffer that an iteration reads or writes.
SmallVector<Value> LoopsWriter::elementOf(OpOperand &operand) {
  return llvm::map_to_vector(
      op.getMatchingIndexingMap(&operand).getResults(), [&](AffineExpr expr) {
        return asI64(affine::expandAffineExpr(b, op.getLoc(), expr, loops, {}));
      });
}

/// The element of a run, which the first neighbour loads for all: `index` is
/// then its own.
Value LoopsWriter::readOnce(void *reader, const StridedBuffer &buffer,
                            ValueRange index, int64_t neighbour) {
  SmallVector<Value> &run = runs[reader];
  if (neighbour == 0) {
    Type element = buffer.type.getElementType();
    run = b.unpack(b.load(VectorType::get({neighbours}, element),
                          buffer.at(b, index), runAlignment(element)));
  }
  return run[neighbour];
}

Value LoopsWriter::readOperand(OpOperand &operand, int64_t neighbour) {
  Value value = operand.get();
  if (!isa<MemRefType>(value.getType()))
    return constant(value);
  const StridedBuffer &buffer = bound.find(value)->second;
  AffineMap map = op.getMatchingIndexingMap(&operand);
  if (neighbours == 1 || !map.isFunctionOfDim(ranges.size() - 1))
    return buffer.load(b, elementOf(operand));
  return readOnce(&operand, buffer, elementOf(operand), neighbour);
}

/// Whether a load of the body takes a run: its last index is the last loop, of
/// which no other index is a function.
static bool readsRun(memref::LoadOp load, unsigned lastLoop) {
  auto isLast = [&](Operation *op) {
    auto index = dyn_cast<linalg::IndexOp>(op);
    return index && index.getDim() == lastLoop;
  };
  SmallVector<Value> others(load.getIndices());
  if (others.empty() || !isRun(load.getMemRefType()))
    return false;
  Operation *last = others.pop_back_val().getDefiningOp();
  if (!last || !isLast(last))
    return false;
  while (!others.empty()) {
    Operation *definition = others.pop_back_val().getDefiningOp();
    // An argument of the body may differ between neighbours.
    if (!definition || isLast(definition) || isa<memref::LoadOp>(definition))
      return false;
    if (definition->getBlock() == load->getBlock())
      llvm::append_range(others, definition->getOperands());
  }
  return true;
}

void LoopsWriter::runBody(int64_t neighbour) {
  SmallVector<Value> arguments;
  for (OpOperand *input : op.getDpsInputOperands())
    arguments.push_back(readOperand(*input, neighbour));
  for (Variable &result : results)
    arguments.push_back(result.get());
  auto replace = [&](Operation &nested, IRMapping &mapping) -> Value {
    for (Value operand : nested.getOperands())
      if (!mapping.contains(operand) && !isa<MemRefType>(operand.getType()) &&
          operand.getParentBlock() != op.getBlock())
        mapping.map(operand, constant(operand));
    if (auto index = dyn_cast<linalg::IndexOp>(nested))
      return loops[index.getDim()];
    auto load = dyn_cast<memref::LoadOp>(nested);
    if (!load)
      return {};
    SmallVector<Value> indices =
        llvm::map_to_vector(load.getIndices(), [&](Value index) {
          return asI64(mapping.lookupOrDefault(index));
        });
    const StridedBuffer &buffer = bound.find(load.getMemRef())->second;
    if (neighbours > 1 && readsRun(load, ranges.size() - 1))
      return readOnce(load.getOperation(), buffer, indices, neighbour);
    return buffer.load(b, indices);
  };
  yielded.push_back(cloneScalars(b, *op.getBlock(), arguments, replace));
  for (auto [result, value] : llvm::zip_equal(results, yielded.back()))
    result.set(value);
}

/// The loops from `loop` on that are not parallel, then the body.
void LoopsWriter::reduce(unsigned loop) {
  while (loop < ranges.size() && loops[loop])
    ++loop;
  if (loop == ranges.size())
    return runBody(/*neighbour=*/0);
  b.forLoop(b.i32(0), b.i32(ranges[loop]), b.i32(1), [&](Value value) {
    loops[loop] = asIndex(value);
    reduce(loop + 1);
    loops[loop] = {};
  });
}

/// An elementwise op's neighbours, one after another, and one store of what
/// they make.
void LoopsWriter::runNeighbours() {
  size_t last = ranges.size() - 1;
  Value first = loops[last];
  SmallVector<OpOperand *> outputs = llvm::map_to_vector(
      op.getDpsInitsMutable(), [](OpOperand &output) { return &output; });
  for (int64_t i = 0; i < neighbours; ++i) {
    loops[last] = arith::AddIOp::create(
        b, first, arith::ConstantIndexOp::create(b, i).getResult());
    for (auto [output, result] : llvm::zip_equal(outputs, results))
      result.set(readOperand(*output, i));
    runBody(i);
  }
  loops[last] = first;
  for (auto [k, output] : llvm::enumerate(outputs)) {
    SmallVector<Value> elements;
    for (const SmallVector<Value> &values : yielded)
      elements.push_back(values[k]);
    const StridedBuffer &buffer = bound.find(output->get())->second;
    b.store(b.pack(elements), buffer.at(b, elementOf(*output)),
            runAlignment(elements.front().getType()));
  }
}

void LoopsWriter::write(Value block) {
  Value thread = b.add(b.mul(block, kThreads), b.threadId());
  b.ifThen(b.lessThan(thread, countThreads(op)), [&] {
    placeThread(thread);
    for (Value output : op.getDpsInits())
      results.push_back(b.variable(getElementTypeOrSelf(output)));
    if (neighbours > 1)
      return runNeighbours();
    for (auto [output, result] :
         llvm::zip_equal(op.getDpsInitsMutable(), results))
      result.set(readOperand(output, /*neighbour=*/0));
    reduce(0);
    for (auto [output, result] :
         llvm::zip_equal(op.getDpsInitsMutable(), results))
      bound.lookup(output.get()).store(b, result.get(), elementOf(output));
  });
}

/// What the code takes for granted.
static LogicalResult checkLoops(linalg::LinalgOp op) {
  if (llvm::any_of(op.getStaticLoopRanges(), ShapedType::isDynamic))
    return op.emitOpError("in a step must have static loops");
  if (LoopsWriter::parallelWork(op) > std::numeric_limits<int32_t>::max())
    return op.emitOpError("has more parallel iterations than a grid has "
                          "threads, 2^31 - 1");
  SmallVector<utils::IteratorType> kinds = op.getIteratorTypesArray();
  for (OpOperand &output : op.getDpsInitsMutable()) {
    AffineMap map = op.getMatchingIndexingMap(&output);
    for (auto [loop, kind] : llvm::enumerate(kinds)) {
      bool isParallel = kind == utils::IteratorType::parallel;
      if (map.isFunctionOfDim(loop) != isParallel &&
          op.getStaticLoopRanges()[loop] != 1)
        return op.emitOpError("writes an element in several parallel "
                              "iterations, or one of a reduction's own");
    }
  }
  for (Operation &nested : op.getBlock()->without_terminator())
    if (nested.getNumRegions() != 0 ||
        !(isa<linalg::IndexOp, memref::LoadOp>(nested) ||
          isMemoryEffectFree(&nested)))
      return op.emitOpError("holds ")
             << nested.getName() << ", which is no scalar op";
  return success();
}

FailureOr<DenseLaunch> kvrm::writeLoopsKernel(ArrayRef<linalg::LinalgOp> ops,
                                              const DenseBuffers &buffers,
                                              StringRef name,
                                              gpu::GPUModuleOp module,
                                              const DeviceOptions &options) {
  for (linalg::LinalgOp op : ops)
    if (failed(checkLoops(op)))
      return failure();
  linalg::LinalgOp front = ops.front();
  DeviceKernel kernel(module, front.getLoc(), name, buffers.size(), kThreads,
                      /*sharedBytes=*/0);
  DeviceBuilder &b = kernel.b;
  waitForInputs(b, options);
  int64_t blocks = 0;
  for (linalg::LinalgOp op : ops) {
    int64_t first = blocks;
    blocks += llvm::divideCeil(LoopsWriter::countThreads(op), kThreads);
    // Unsigned: blocks before the first wrap round and are too large, too.
    Value block = b.sub(b.blockId(), first);
    Value isMine = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, block,
                                         b.i32(blocks - first));
    b.ifThen(isMine, [&] { LoopsWriter(op, buffers, kernel).write(block); });
  }
  kernel.finish();
  return DenseLaunch{{blocks, 1, 1}, /*perProcessor=*/false};
}
