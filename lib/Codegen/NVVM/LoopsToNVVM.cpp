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
// every op and fast for elementwise ones. Ops that do not wait for one another
// share a launch, each with blocks of its own: a launch takes longer than most
// of them.
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
      : op(op), b(kernel.b), ranges(op.getStaticLoopRanges()) {
    size_t index = 0;
    for (Value value :
         llvm::concat<const Value>(buffers.inputs, buffers.outputs))
      bound[value] = {kernel.pointer(index++),
                      cast<MemRefType>(value.getType())};
  }

  /// Iterations of the parallel loops.
  static int64_t parallelWork(linalg::LinalgOp op);
  /// `block` counts from the op's first.
  void write(Value block);

private:
  Value asIndex(Value value) {
    return arith::IndexCastOp::create(b, b.getIndexType(), value);
  }
  Value asI64(Value value) {
    return arith::IndexCastOp::create(b, b.getI64Type(), value);
  }
  void placeThread(Value iteration);
  void reduce(unsigned loop);
  void runBody();
  SmallVector<Value> elementOf(OpOperand &operand);
  Value readOperand(OpOperand &operand);
  Value constant(Value value) {
    return b.clone(*value.getDefiningOp())->getResult(0);
  }

  linalg::LinalgOp op;
  DeviceBuilder &b;
  SmallVector<int64_t> ranges;
  DenseMap<Value, StridedBuffer> bound;
  SmallVector<Value> loops; ///< induction variables, of type index
  SmallVector<Variable> results;
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

/// Parallel loops from the number of the iteration, the last one fastest.
void LoopsWriter::placeThread(Value iteration) {
  loops.assign(ranges.size(), Value());
  SmallVector<utils::IteratorType> kinds = op.getIteratorTypesArray();
  for (size_t loop = ranges.size(); loop-- > 0;) {
    if (kinds[loop] != utils::IteratorType::parallel)
      continue;
    loops[loop] = asIndex(b.rem(iteration, ranges[loop]));
    iteration = b.div(iteration, ranges[loop]);
  }
}

/// The element of a buffer that an iteration reads or writes.
SmallVector<Value> LoopsWriter::elementOf(OpOperand &operand) {
  return llvm::map_to_vector(
      op.getMatchingIndexingMap(&operand).getResults(), [&](AffineExpr expr) {
        return asI64(affine::expandAffineExpr(b, op.getLoc(), expr, loops, {}));
      });
}

Value LoopsWriter::readOperand(OpOperand &operand) {
  Value value = operand.get();
  if (!isa<MemRefType>(value.getType()))
    return constant(value);
  return bound.lookup(value).load(b, elementOf(operand));
}

void LoopsWriter::runBody() {
  SmallVector<Value> arguments;
  for (OpOperand *input : op.getDpsInputOperands())
    arguments.push_back(readOperand(*input));
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
    return bound.lookup(load.getMemRef()).load(b, indices);
  };
  SmallVector<Value> yielded =
      cloneScalars(b, *op.getBlock(), arguments, replace);
  for (auto [result, value] : llvm::zip_equal(results, yielded))
    result.set(value);
}

/// The loops from `loop` on that are not parallel, then the body.
void LoopsWriter::reduce(unsigned loop) {
  while (loop < ranges.size() && loops[loop])
    ++loop;
  if (loop == ranges.size())
    return runBody();
  b.forLoop(b.i32(0), b.i32(ranges[loop]), b.i32(1), [&](Value value) {
    loops[loop] = asIndex(value);
    reduce(loop + 1);
    loops[loop] = {};
  });
}

void LoopsWriter::write(Value block) {
  Value iteration = b.add(b.mul(block, kThreads), b.threadId());
  b.ifThen(b.lessThan(iteration, parallelWork(op)), [&] {
    placeThread(iteration);
    for (OpOperand &output : op.getDpsInitsMutable())
      results.push_back(b.variable(readOperand(output)));
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
    blocks += llvm::divideCeil(LoopsWriter::parallelWork(op), kThreads);
    // Unsigned: blocks before the first wrap round and are too large, too.
    Value block = b.sub(b.blockId(), first);
    Value isMine = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, block,
                                         b.i32(blocks - first));
    b.ifThen(isMine, [&] { LoopsWriter(op, buffers, kernel).write(block); });
  }
  kernel.finish();
  return DenseLaunch{{blocks, 1, 1}, /*perProcessor=*/false};
}
