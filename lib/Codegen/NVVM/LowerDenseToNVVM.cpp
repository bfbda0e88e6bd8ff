//===- LowerDenseToNVVM.cpp - The dense part of a step on a GPU -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Products.h"
#include "kvrm/Dialect/KVRM/Utils/StepBuffers.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_LOWERDENSETONVVMPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// What one launch runs: an op, or ops of linalg that do not wait for one
/// another.
using DenseGroup = SmallVector<Operation *, 1>;

/// The launch that appends what a projection makes, and nobody else uses.
struct Append {
  LaunchOp launch;
  AppendTarget target;
};

/// A kernel, and what it was written for.
struct KnownKernel {
  DenseGroup ops;
  std::optional<AppendTarget> append; ///< of a projection
  RowSquares squares;                 ///< of a product
  std::string name;
  DenseLaunch launch;
};

class LowerDenseToNVVMPass
    : public kvrm::impl::LowerDenseToNVVMPassBase<LowerDenseToNVVMPass> {
public:
  using LowerDenseToNVVMPassBase::LowerDenseToNVVMPassBase;
  void runOnOperation() override;

private:
  LogicalResult lowerStep(func::FuncOp step);
  LogicalResult lower(const DenseGroup &group);
  FailureOr<DenseLaunch> writeKernel(const KnownKernel &kernel,
                                     const DenseBuffers &buffers);
  FailureOr<KnownKernel> kernelFor(const DenseGroup &group,
                                   const std::optional<AppendTarget> &append,
                                   const RowSquares &squares,
                                   const DenseBuffers &buffers);
  LogicalResult writeSampling(ModuleOp module);
  void writeReductions(ModuleOp module);
  void launch(const DenseGroup &group, const KnownKernel &kernel,
              const DenseBuffers &buffers, IntegerAttr layer);
  LogicalResult lowerMath();

  gpu::GPUModuleOp device;
  DeviceOptions target;
  DenseMap<Operation *, RowSquares> squaresOf;
  SmallVector<KnownKernel> kernels;
  SmallVector<Operation *> lowered;
};

/// Compares the ops of two groups: equal ones have one kernel. Buffers may
/// differ, as long as their types are equal and the same of them are one.
class GroupComparison {
public:
  bool areEqual(const DenseGroup &lhs, const DenseGroup &rhs) {
    return llvm::equal(lhs, rhs, [&](Operation *left, Operation *right) {
      return areEqual(left, right);
    });
  }

private:
  bool areEqual(Operation *lhs, Operation *rhs) {
    return OperationEquivalence::isEquivalentTo(
        lhs, rhs,
        [&](Value left, Value right) { return success(areEqual(left, right)); },
        [&](Value left, Value right) { pair(left, right); },
        OperationEquivalence::IgnoreLocations);
  }
  bool areEqual(Value left, Value right) {
    auto known = rightOf.find(left);
    if (known != rightOf.end())
      return known->second == right;
    Attribute leftConstant, rightConstant;
    bool isLeft = matchPattern(left, m_Constant(&leftConstant));
    bool isRight = matchPattern(right, m_Constant(&rightConstant));
    if (isLeft || isRight)
      return isLeft && isRight && leftConstant == rightConstant;
    if (left.getType() != right.getType() || leftOf.contains(right))
      return false;
    pair(left, right);
    return true;
  }
  void pair(Value left, Value right) {
    rightOf[left] = right;
    leftOf[right] = left;
  }

  DenseMap<Value, Value> rightOf, leftOf;
};

} // namespace

//===----------------------------------------------------------------------===//
// Groups
//===----------------------------------------------------------------------===//

/// Most ops of a launch: what keeps its arguments few.
static constexpr size_t kMaxGroup = 6;

static SmallVector<linalg::LinalgOp> loopsOf(const DenseGroup &group) {
  return llvm::map_to_vector(
      group, [](Operation *op) { return cast<linalg::LinalgOp>(op); });
}

/// Whether one of two ops of linalg writes memory that the other uses. Views of
/// one buffer count as the same.
static FailureOr<bool> areDependent(Operation *lhs, Operation *rhs) {
  auto rootsOf =
      [](Operation *op,
         ArrayRef<Value> buffers) -> FailureOr<llvm::SmallDenseSet<Value>> {
    llvm::SmallDenseSet<Value> roots;
    for (Value buffer : buffers) {
      FailureOr<BufferPlace> place = findBuffer(buffer, op);
      if (failed(place))
        return failure();
      roots.insert(place->root);
    }
    return roots;
  };
  for (auto [writer, user] : {std::pair(lhs, rhs), {rhs, lhs}}) {
    FailureOr<DenseBuffers> written = DenseBuffers::of(loopsOf({writer}));
    FailureOr<DenseBuffers> used = DenseBuffers::of(loopsOf({user}));
    if (failed(written) || failed(used))
      return failure();
    FailureOr<llvm::SmallDenseSet<Value>> outputs =
        rootsOf(writer, written->outputs);
    SmallVector<Value> all = used->inputs;
    llvm::append_range(all, used->outputs);
    FailureOr<llvm::SmallDenseSet<Value>> buffers = rootsOf(user, all);
    if (failed(outputs) || failed(buffers))
      return failure();
    if (llvm::any_of(*outputs,
                     [&](Value root) { return buffers->contains(root); }))
      return true;
  }
  return false;
}

/// Whether `op` can join a group, whose launch then moves behind it.
static FailureOr<bool> canJoin(const DenseGroup &group, Operation *op) {
  if (group.empty() || group.size() == kMaxGroup ||
      !isa<linalg::LinalgOp>(op) || !isa<linalg::LinalgOp>(group.front()))
    return false;
  for (Operation *other : group) {
    FailureOr<bool> isDependent = areDependent(other, op);
    if (failed(isDependent))
      return failure();
    if (*isDependent)
      return false;
  }
  return true;
}

static FailureOr<DenseBuffers>
buffersOf(const DenseGroup &group, const std::optional<AppendTarget> &append,
          const RowSquares &squares) {
  if (auto projection = dyn_cast<QKVProjectionOp>(group.front()))
    return DenseBuffers::of(projection, squares, append);
  if (auto linear = dyn_cast<LinearOp>(group.front()))
    return DenseBuffers::of(linear, squares);
  if (auto norm = dyn_cast<RmsNormOp>(group.front()))
    return DenseBuffers::of(norm);
  if (auto unpack = dyn_cast<UnpackBlocksOp>(group.front()))
    return DenseBuffers::of(unpack);
  return DenseBuffers::of(loopsOf(group));
}

//===----------------------------------------------------------------------===//
// Appends
//===----------------------------------------------------------------------===//

/// The one other op that uses an allocation, by whatever view, if `op` has all
/// of it.
static Operation *findOtherUser(Value buffer, Operation *op) {
  FailureOr<BufferPlace> place = findBuffer(buffer, op);
  if (failed(place) || place->offset != 0 ||
      !place->root.getDefiningOp<memref::AllocOp>() ||
      getExtentBytes(cast<MemRefType>(buffer.getType())) !=
          getExtentBytes(cast<MemRefType>(place->root.getType())))
    return nullptr;
  Operation *found = nullptr;
  for (Operation *user : getBufferUsers(place->root)) {
    if (user != op && found && user != found)
      return nullptr;
    if (user != op)
      found = user;
  }
  return found;
}

/// The append that alone uses what a projection makes for it. Nothing between
/// the two may touch the pool.
static std::optional<Append> findAppend(QKVProjectionOp op) {
  auto launch = dyn_cast_or_null<LaunchOp>(findOtherUser(op.getKey(), op));
  if (!launch || launch.isAttention() || launch->getBlock() != op->getBlock() ||
      findOtherUser(op.getValue(), op) != launch ||
      !op->isBeforeInBlock(launch))
    return std::nullopt;
  // Tokens go where the committed descriptor says: it has to be there.
  Operation *commit = launch.getDescriptor().getDefiningOp();
  if (commit && !commit->isBeforeInBlock(op))
    return std::nullopt;
  // A kernel that appends does for all rows of its step.
  if (commit && commit->getNumResults() != 1)
    return std::nullopt;
  auto isContiguous = [](Value buffer) {
    return cast<MemRefType>(buffer.getType()).getLayout().isIdentity();
  };
  auto isFrom = [&](Value input, Value output) {
    FailureOr<BufferPlace> from = findBuffer(output, op);
    FailureOr<BufferPlace> to = findBuffer(input, launch);
    return succeeded(from) && succeeded(to) && from->root == to->root &&
           to->offset == 0 && isContiguous(input) && isContiguous(output);
  };
  for (Operation *between = op->getNextNode(); between != launch;
       between = between->getNextNode())
    if (isa<LaunchOp>(between))
      return std::nullopt;
  PoolType pool = launch.getSession().getType().getPool();
  int64_t queries = launch.getDescriptor().getType().getQueries();
  if (!isFrom(launch.getInputs()[0], op.getKey()) ||
      !isFrom(launch.getInputs()[1], op.getValue()) ||
      pool.getHeadDim() != op.getHeadDim() ||
      pool.getKvHeads() * pool.getHeadDim() != op.getKeyColumns() ||
      // A scale is of a whole row, of which a thread has a pair.
      pool.hasScales() ||
      (!isa<Float8E4M3FNType>(pool.getElement()) &&
       pool.getElement() != getElementTypeOrSelf(op.getKey())) ||
      launch.getDescriptor().getType().getRows() * queries != op.getRows())
    return std::nullopt;
  return Append{launch, {pool, queries}};
}

//===----------------------------------------------------------------------===//
// Sums over ranks
//===----------------------------------------------------------------------===//

/// Whether an op adds two buffers of f32, element by element.
static bool isAddition(linalg::GenericOp op) {
  auto isWhole = [](Value buffer) {
    auto type = dyn_cast<MemRefType>(buffer.getType());
    return type && type.getElementType().isF32() &&
           type.getLayout().isIdentity();
  };
  if (op.getNumDpsInputs() != 2 || op.getNumDpsInits() != 1 ||
      op.getNumParallelLoops() != op.getNumLoops() ||
      !llvm::all_of(op->getOperands(), isWhole) ||
      !llvm::all_of(op.getIndexingMapsArray(),
                    [](AffineMap map) { return map.isIdentity(); }))
    return false;
  auto sum = op.getBody()
                 ->getTerminator()
                 ->getOperand(0)
                 .getDefiningOp<arith::AddFOp>();
  auto isInput = [&](Value value) {
    auto argument = dyn_cast<BlockArgument>(value);
    return argument && argument.getArgNumber() < 2;
  };
  return sum && isInput(sum.getLhs()) && isInput(sum.getRhs()) &&
         sum.getLhs() != sum.getRhs();
}

/// Marks the sums over ranks that the next op adds to something.
static void markAdded(func::FuncOp step) {
  step.walk([](AllReduceOp op) {
    auto add =
        dyn_cast_or_null<linalg::GenericOp>(findOtherUser(op.getOutput(), op));
    if (!add || add->getBlock() != op->getBlock() || !isAddition(add))
      return;
    if (nextAccess(op) == add)
      op->setAttr(kAddedAttrName, UnitAttr::get(op.getContext()));
  });
}

//===----------------------------------------------------------------------===//
// Weights that a step makes
//===----------------------------------------------------------------------===//

/// Marks the products whose weight is a buffer of the step.
static void markMadeWeights(func::FuncOp step) {
  step.walk([](LinearOp op) {
    if (isMadeByStep(op.getWeight(), op))
      op->setAttr(kMadeWeightAttrName, UnitAttr::get(op.getContext()));
  });
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

FailureOr<DenseLaunch>
LowerDenseToNVVMPass::writeKernel(const KnownKernel &kernel,
                                  const DenseBuffers &buffers) {
  Operation *first = kernel.ops.front();
  if (auto linear = dyn_cast<LinearOp>(first))
    return writeLinearKernel(linear, kernel.squares, kernel.name, device,
                             target);
  if (auto projection = dyn_cast<QKVProjectionOp>(first))
    return writeQKVProjectionKernel(projection, kernel.squares, kernel.append,
                                    kernel.name, device, target);
  if (auto norm = dyn_cast<RmsNormOp>(first))
    return writeNormKernel(norm, kernel.name, device, target);
  if (auto unpack = dyn_cast<UnpackBlocksOp>(first))
    return writeUnpackKernel(unpack, kernel.name, device, target);
  return writeLoopsKernel(loopsOf(kernel.ops), buffers, kernel.name, device,
                          target);
}

static StringRef kindOf(Operation *op) {
  return llvm::TypeSwitch<Operation *, StringRef>(op)
      .Case<LinearOp>([](auto) { return "linear"; })
      .Case<QKVProjectionOp>([](auto) { return "qkv"; })
      .Case<RmsNormOp>([](auto) { return "norm"; })
      .Case<UnpackBlocksOp>([](auto) { return "unpack"; })
      .Default([](Operation *) { return "loops"; });
}

FailureOr<KnownKernel> LowerDenseToNVVMPass::kernelFor(
    const DenseGroup &group, const std::optional<AppendTarget> &append,
    const RowSquares &squares, const DenseBuffers &buffers) {
  for (const KnownKernel &known : kernels)
    if (known.append == append && known.squares.isLike(squares) &&
        GroupComparison().areEqual(known.ops, group))
      return known;
  std::string name =
      (kindOf(group.front()) + "_" + Twine(kernels.size())).str();
  KnownKernel kernel{group, append, squares, name, {}};
  FailureOr<DenseLaunch> launch = writeKernel(kernel, buffers);
  if (failed(launch))
    return failure();
  kernel.launch = *launch;
  kernels.push_back(kernel);
  ++numKernels;
  return kernel;
}

/// Whether a library can run it, and would be faster: of many rows, none of its
/// buffers with gaps.
static bool isForLibrary(LinearOp op) {
  auto isWhole = [](Value buffer) {
    auto type = cast<MemRefType>(buffer.getType());
    auto [strides, offset] = type.getStridesAndOffset();
    return strides == SmallVector<int64_t>{type.getDimSize(1), 1};
  };
  return !op.getFormat() && op.getRows() > kStreamedRows &&
         hasProductShape(op) && hasProductBody(op) &&
         llvm::all_of(op->getOperands(), isWhole);
}

void LowerDenseToNVVMPass::launch(const DenseGroup &group,
                                  const KnownKernel &kernel,
                                  const DenseBuffers &buffers,
                                  IntegerAttr layer) {
  Operation *last = group.back();
  OpBuilder b(last);
  auto name =
      SymbolRefAttr::get(b.getContext(), device.getSymName(),
                         FlatSymbolRefAttr::get(b.getContext(), kernel.name));
  auto grid = b.getDenseI64ArrayAttr(kernel.launch.grid);
  auto linear = dyn_cast<LinearOp>(last);
  if (!linear || !isForLibrary(linear)) {
    DeviceDispatchOp::create(b, last->getLoc(), name, grid,
                             kernel.launch.perProcessor, buffers.inputs,
                             buffers.outputs, layer);
    return;
  }
  Value addend =
      linear.getExtras().empty() ? Value() : linear.getExtras().front();
  DeviceProductOp::create(b, last->getLoc(), name, grid,
                          kernel.launch.perProcessor, linear.getInput(),
                          linear.getWeight(), addend, linear.getOutput());
  ++numProducts;
}

/// Puts the launch of a group where its last op is.
LogicalResult LowerDenseToNVVMPass::lower(const DenseGroup &group) {
  if (group.empty())
    return success();
  std::optional<Append> append;
  if (auto projection = dyn_cast<QKVProjectionOp>(group.front()))
    append = findAppend(projection);
  auto appendTarget = append ? std::optional(append->target) : std::nullopt;
  RowSquares squares = squaresOf.lookup(group.front());
  FailureOr<DenseBuffers> buffers = buffersOf(group, appendTarget, squares);
  if (failed(buffers))
    return failure();
  FailureOr<KnownKernel> kernel =
      kernelFor(group, appendTarget, squares, *buffers);
  if (failed(kernel))
    return failure();
  launch(group, *kernel, *buffers,
         append ? append->launch.getLayerAttr() : IntegerAttr());
  llvm::append_range(lowered, group);
  if (append) {
    lowered.push_back(append->launch);
    ++numAppends;
  }
  numLowered += group.size();
  return success();
}

LogicalResult LowerDenseToNVVMPass::lowerStep(func::FuncOp step) {
  squaresOf = shareRowSquares(step, target);
  DenseGroup group;
  for (Operation &op : llvm::make_early_inc_range(step.getBody().front())) {
    bool isDense = isa<LinearOp, QKVProjectionOp, RmsNormOp, UnpackBlocksOp,
                       linalg::LinalgOp>(op);
    // What touches no memory, or takes some, may stand between ops of a group.
    if (!isDense && (isMemoryEffectFree(&op) || isa<memref::AllocOp>(op)))
      continue;
    if (isDense &&
        !cast<DestinationStyleOpInterface>(op).hasPureBufferSemantics())
      return op.emitOpError("is not on buffers; run kvrm-bufferize-step first");
    FailureOr<bool> joins = isDense ? canJoin(group, &op) : false;
    if (failed(joins))
      return failure();
    if (!*joins) {
      if (failed(lower(group)))
        return failure();
      group.clear();
    }
    if (isDense)
      group.push_back(&op);
  }
  return lower(group);
}

/// Writes the one kernel of all kvrm.sample.
LogicalResult LowerDenseToNVVMPass::writeSampling(ModuleOp module) {
  SampleOp first;
  WalkResult walked = module.walk([&](SampleOp op) {
    if (first && op.getVocabulary() != first.getVocabulary()) {
      op.emitOpError("chooses from ")
          << op.getVocabulary() << " logits, and another from "
          << first.getVocabulary();
      return WalkResult::interrupt();
    }
    first = first ? first : op;
    return WalkResult::advance();
  });
  if (first && !walked.wasInterrupted())
    writeSampleKernel(first.getLoc(), first.getVocabulary(), device, target);
  return failure(walked.wasInterrupted());
}

/// Writes a kernel for the sums over ranks of each size.
void LowerDenseToNVVMPass::writeReductions(ModuleOp module) {
  int64_t ranks = getRanks(module);
  llvm::StringSet<> written;
  module.walk([&](AllReduceOp op) {
    std::optional<std::string> name = reduceKernelName(op, ranks);
    if (!name)
      return;
    if (written.insert(*name).second)
      writeReduceKernel(op, *name, ranks, /*adds=*/false, device, target);
    std::string adding = *name + kAddSuffix.str();
    if (op->hasAttr(kAddedAttrName) && written.insert(adding).second)
      writeReduceKernel(op, adding, ranks, /*adds=*/true, device, target);
  });
}

/// What the GPU has no instruction for.
LogicalResult LowerDenseToNVVMPass::lowerMath() {
  RewritePatternSet patterns(&getContext());
  populateMathPolynomialApproximationPatterns(patterns, [](StringRef name) {
    return name != "math.sqrt" && name != "math.rsqrt";
  });
  return applyPatternsGreedily(device, std::move(patterns));
}

/// Of keys and values that kernels append themselves.
static void eraseUnusedBuffers(func::FuncOp step) {
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(step.getBody().front())))
    if (isa<memref::AllocOp, ViewLikeOpInterface>(op) && op.use_empty())
      op.erase();
}

void LowerDenseToNVVMPass::runOnOperation() {
  ModuleOp module = getOperation();
  kernels.clear();
  lowered.clear();
  FailureOr<DeviceOptions> options = readDeviceOptions(module.getLoc(), arch);
  if (failed(options))
    return signalPassFailure();
  target = *options;
  auto devices = module.getOps<gpu::GPUModuleOp>();
  if (devices.empty())
    return;
  device = *devices.begin();
  for (func::FuncOp step : getSteps(module)) {
    markAdded(step);
    markMadeWeights(step);
  }
  for (func::FuncOp step : getSteps(module))
    if (failed(lowerStep(step)))
      return signalPassFailure();
  for (Operation *op : lowered)
    op->erase();
  for (func::FuncOp step : getSteps(module))
    eraseUnusedBuffers(step);
  writeReductions(module);
  if (failed(writeSampling(module)) || failed(lowerMath()))
    signalPassFailure();
}
