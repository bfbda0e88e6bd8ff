//===- KVRMOps.cpp - Operations of the kvrm dialect -----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/IR/TileProgram.h"
#include "kvrm/runtime/abi.h"

#include "mlir/Dialect/Utils/IndexingUtils.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributes.h"

using namespace mlir;
using namespace mlir::kvrm;

#include "kvrm/Dialect/KVRM/IR/KVRMInterfaces.cpp.inc"
#define GET_OP_CLASSES
#include "kvrm/Dialect/KVRM/IR/KVRMOps.cpp.inc"

//===----------------------------------------------------------------------===//
// Checks that several ops share
//===----------------------------------------------------------------------===//

static LogicalResult verifyLayer(Operation *op, int64_t layer, int64_t layers) {
  if (layer >= layers)
    return op->emitOpError("layer ")
           << layer << " is outside 0.." << layers - 1;
  return success();
}

/// Queries, keys and values are static `[rows, queries, heads, head_dim]`.
static LogicalResult verifyHeadTensor(Operation *op, StringRef name, Type type,
                                      int64_t rows, int64_t queries,
                                      int64_t headDim) {
  auto shaped = cast<ShapedType>(type);
  if (!shaped.hasStaticShape() || shaped.getRank() != 4)
    return op->emitOpError(name)
           << " must have a static shape [rows, queries, heads, head_dim], got "
           << type;
  const int64_t expected[] = {rows, queries, shaped.getDimSize(2), headDim};
  if (shaped.getShape() != ArrayRef(expected))
    return op->emitOpError(name)
           << " is " << type << ", expected " << rows << " rows, " << queries
           << " queries and head_dim " << headDim;
  return success();
}

static LogicalResult verifyHeads(Operation *op, int64_t heads,
                                 int64_t kvHeads) {
  if (heads < 1 || heads % kvHeads)
    return op->emitOpError() << heads << " query heads are not a multiple of "
                             << kvHeads << " KV heads";
  return success();
}

static LogicalResult verifyScale(Operation *op, const APFloat &scale) {
  if (!scale.isFinite() || scale.isNegative() || scale.isZero())
    return op->emitOpError("scale must be positive and finite");
  return success();
}

static LogicalResult verifySoftcap(Operation *op,
                                   const std::optional<APFloat> &softcap) {
  if (softcap &&
      (!softcap->isFinite() || softcap->isNegative() || softcap->isZero()))
    return op->emitOpError("softcap must be positive and finite");
  return success();
}

/// Summaries stand for tokens that a window would hide; a session that drops
/// tokens must still have all that a window shows.
static LogicalResult verifyWindow(Operation *op, std::optional<uint64_t> window,
                                  SessionType session) {
  FarHistoryAttr far = session.getFarHistory();
  if (!window || !far)
    return success();
  if (far.getEntries() > 0)
    return op->emitOpError("has a window of ")
           << *window << " tokens in a session that keeps summaries";
  int64_t seen = far.getLeastSeen(session.getPool().getPage());
  if (static_cast<int64_t>(*window) > seen)
    return op->emitOpError("has a window of ")
           << *window << " tokens in a session that may keep no more than "
           << seen;
  return success();
}

static LogicalResult verifySessionOfDescriptor(Operation *op,
                                               SessionType session,
                                               DescriptorType descriptor) {
  if (session.getPages() != descriptor.getPages())
    return op->emitOpError("descriptor has ")
           << descriptor.getPages() << " pages a row, session "
           << session.getPages() << " a slot";
  if (descriptor.getRows() > session.getSlots())
    return op->emitOpError("descriptor has ")
           << descriptor.getRows() << " rows for " << session.getSlots()
           << " slots";
  return success();
}

MemRefType kvrm::getRowFieldType(MLIRContext *context, int64_t rows) {
  constexpr auto stride =
      static_cast<int64_t>(sizeof(kvrm_row) / sizeof(int32_t));
  return MemRefType::get(
      {rows}, IntegerType::get(context, 32),
      StridedLayoutAttr::get(context, /*offset=*/0, {stride}));
}

LogicalResult kvrm::verifyRowField(Operation *op, DescriptorType descriptor,
                                   ShapedType result) {
  if (!result.hasStaticShape() || result.getDimSize(0) != descriptor.getRows())
    return op->emitOpError("result is ")
           << result << ", expected " << descriptor.getRows() << " elements";
  MemRefType view = getRowFieldType(op->getContext(), descriptor.getRows());
  if (isa<MemRefType>(result) && result != view)
    return op->emitOpError("result is ")
           << result << ", expected a view of the descriptor, " << view;
  return success();
}

//===----------------------------------------------------------------------===//
// Phase 1
//===----------------------------------------------------------------------===//

bool kvrm::detail::isPositiveShape(ShapedType type, int64_t rank) {
  return type.hasStaticShape() && type.getRank() == rank &&
         llvm::all_of(type.getShape(), [](int64_t dim) { return dim > 0; });
}

LogicalResult CachedAttentionOp::verify() {
  auto cache = cast<RankedTensorType>(getKeyCache().getType());
  if (!kvrm::detail::isPositiveShape(cache, 5))
    return emitOpError("caches must have a static, positive shape [layers, "
                       "slots, kv_heads, capacity, head_dim], got ")
           << cache;
  auto query = cast<RankedTensorType>(getQuery().getType());
  if (!kvrm::detail::isPositiveShape(query, 4))
    return emitOpError("query must have a static, positive shape [rows, "
                       "queries, heads, head_dim], got ")
           << query;
  int64_t rows = query.getDimSize(0), queries = query.getDimSize(1);
  int64_t kvHeads = cache.getDimSize(2);
  int64_t headDim =
      cache.getDimSize(4) - getCacheRow(0, cache.getElementType());
  if (headDim < 1)
    return emitOpError("caches of ")
           << cache.getElementType() << " have rows of head_dim elements and a "
           << "scale, got " << cache;
  if (failed(verifyHeadTensor(*this, "query", query, rows, queries, headDim)) ||
      failed(verifyHeadTensor(*this, "key", getKey().getType(), rows, queries,
                              headDim)))
    return failure();
  auto key = cast<RankedTensorType>(getKey().getType());
  if (key.getElementType() != query.getElementType())
    return emitOpError("query of ")
           << query.getElementType() << " and key of " << key.getElementType();
  if (key.getDimSize(2) != kvHeads)
    return emitOpError("key has ")
           << key.getDimSize(2) << " heads, caches have " << kvHeads;
  for (auto [name, field] :
       {std::pair<StringRef, Value>("positions", getPositions()),
        {"counts", getCounts()},
        {"slots", getSlots()}}) {
    if (!field)
      continue;
    auto type = cast<RankedTensorType>(field.getType());
    if (type.getRank() != 1 || type.getDimSize(0) != rows)
      return emitOpError(name)
             << " is " << type << ", expected " << rows << " elements";
  }
  if (rows > cache.getDimSize(1))
    return emitOpError("has ")
           << rows << " rows for " << cache.getDimSize(1) << " slots";
  if (!getSlots() && rows != cache.getDimSize(1))
    return emitOpError("has ") << rows << " rows for " << cache.getDimSize(1)
                               << " slots and does not say which slots";
  return failure(failed(verifyHeads(*this, query.getDimSize(2), kvHeads)) ||
                 failed(verifyLayer(*this, getLayer(), cache.getDimSize(0))) ||
                 failed(verifyScale(*this, getScale())) ||
                 failed(verifySoftcap(*this, getSoftcap())));
}

//===----------------------------------------------------------------------===//
// Phase 2
//===----------------------------------------------------------------------===//

LogicalResult CommitOp::verify() {
  size_t batches = getDescriptors().size();
  if (batches < 1 || batches > KVRM_MAX_BATCHES)
    return emitOpError("has ") << batches << " descriptors, outside 1.."
                               << int64_t(KVRM_MAX_BATCHES);
  return failure(llvm::any_of(getDescriptors().getTypes(), [&](Type type) {
    return failed(verifySessionOfDescriptor(*this, getSession().getType(),
                                            cast<DescriptorType>(type)));
  }));
}

LogicalResult StageOp::verify() {
  return verifySessionOfDescriptor(*this, getSession().getType(),
                                   getDescriptor().getType());
}

LogicalResult AppendOp::verify() {
  PoolType pool = getSession().getType().getPool();
  DescriptorType desc = getDescriptor().getType();
  if (failed(verifySessionOfDescriptor(*this, getSession().getType(), desc)) ||
      failed(verifyHeadTensor(*this, "key", getKey().getType(), desc.getRows(),
                              desc.getQueries(), pool.getHeadDim())))
    return failure();
  int64_t heads = cast<RankedTensorType>(getKey().getType()).getDimSize(2);
  if (heads != pool.getKvHeads())
    return emitOpError("key has ")
           << heads << " heads, the pool has " << pool.getKvHeads();
  return verifyLayer(*this, getLayer(), pool.getLayers());
}

LogicalResult AttendOp::verify() {
  PoolType pool = getSession().getType().getPool();
  DescriptorType desc = getDescriptor().getType();
  if (failed(verifySessionOfDescriptor(*this, getSession().getType(), desc)) ||
      failed(verifyHeadTensor(*this, "query", getQuery().getType(),
                              desc.getRows(), desc.getQueries(),
                              pool.getHeadDim())))
    return failure();
  if (auto tile = getTileAttr()) {
    if (tile.getKv() % pool.getPage())
      return emitOpError("tile of ")
             << tile.getKv() << " tokens is not whole pages of "
             << pool.getPage();
    if (desc.getQueries() % tile.getQ())
      return emitOpError("tile of ")
             << tile.getQ() << " queries does not divide the step's "
             << desc.getQueries();
  }
  int64_t heads = cast<RankedTensorType>(getQuery().getType()).getDimSize(2);
  return failure(
      failed(verifyHeads(*this, heads, pool.getKvHeads())) ||
      failed(verifyLayer(*this, getLayer(), pool.getLayers())) ||
      failed(verifyScale(*this, getScale())) ||
      failed(verifySoftcap(*this, getSoftcap())) ||
      failed(verifyWindow(*this, getWindow(), getSession().getType())));
}

//===----------------------------------------------------------------------===//
// Phase 3
//===----------------------------------------------------------------------===//

StringRef KernelOp::getDefaultDialect() { return "kvrm"; }

LogicalResult KernelOp::verify() {
  if (failed(verifySessionOfDescriptor(*this, getSessionType(),
                                       getDescriptorType())) ||
      failed(verifyHeads(*this, getHeads(), getPool().getKvHeads())) ||
      failed(verifyWindow(*this, getWindow(), getSessionType())))
    return failure();
  if (getTile().getKv() % getPool().getPage())
    return emitOpError("tile of ")
           << getTile().getKv() << " tokens is not whole pages of "
           << getPool().getPage();
  if (getDescriptorType().getQueries() % getTile().getQ())
    return emitOpError("tile of ")
           << getTile().getQ() << " queries does not divide the step's "
           << getDescriptorType().getQueries();
  return success();
}

LogicalResult KernelOp::verifyRegions() { return TileProgram::match(*this); }

bool KernelOp::attends() {
  return !getBody().front().getOps<GetWorkItemOp>().empty();
}

/// Whether two operands of a launch are of one kind and shape; buffers may
/// start anywhere.
static bool areAlike(Value lhs, Value rhs) {
  auto left = cast<ShapedType>(lhs.getType());
  auto right = cast<ShapedType>(rhs.getType());
  return isa<MemRefType>(left) == isa<MemRefType>(right) &&
         left.getShape() == right.getShape() &&
         left.getElementType() == right.getElementType();
}

/// Kernels are given where a buffer starts, and nothing of its strides.
static bool hasGaps(Value operand) {
  auto type = dyn_cast<MemRefType>(operand.getType());
  if (!type || !type.hasStaticShape())
    return false;
  SmallVector<int64_t> strides;
  int64_t offset = 0;
  return failed(type.getStridesAndOffset(strides, offset)) ||
         strides != computeSuffixProduct(type.getShape());
}

LogicalResult LaunchOp::verify() {
  bool attends = getInputs().size() == 1 && getOutputs().size() == 1;
  bool appends = getInputs().size() == 2 && getOutputs().empty();
  if (!attends && !appends)
    return emitOpError("takes a query and an output, or a key and a value");
  if (attends && !areAlike(getInputs()[0], getOutputs()[0]))
    return emitOpError("query and output differ in type");
  if (appends && !areAlike(getInputs()[0], getInputs()[1]))
    return emitOpError("key and value differ in type");
  for (Value operand : llvm::concat<Value>(getInputs(), getOutputs()))
    if (hasGaps(operand))
      return emitOpError("takes a buffer that is not contiguous: ")
             << operand.getType();
  PoolType pool = getSession().getType().getPool();
  DescriptorType desc = getDescriptor().getType();
  for (Value input : getInputs())
    if (failed(verifyHeadTensor(*this, "input", input.getType(), desc.getRows(),
                                desc.getQueries(), pool.getHeadDim())))
      return failure();
  int64_t heads = cast<ShapedType>(getInputs()[0].getType()).getDimSize(2);
  if (appends && heads != pool.getKvHeads())
    return emitOpError("key has ")
           << heads << " heads, the pool has " << pool.getKvHeads();
  if (attends && failed(verifyHeads(*this, heads, pool.getKvHeads())))
    return failure();
  return failure(
      failed(verifySessionOfDescriptor(*this, getSession().getType(), desc)) ||
      failed(verifyLayer(*this, getLayer(), pool.getLayers())));
}

LogicalResult LaunchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  // Once kernels are lowered the symbol names a function.
  Operation *target = symbols.lookupNearestSymbolFrom(*this, getKernelAttr());
  if (!target)
    return emitOpError("names no kernel '") << getKernel() << "'";
  auto kernel = dyn_cast<KernelOp>(target);
  if (!kernel) {
    if (isa<FunctionOpInterface>(target))
      return success();
    return emitOpError("names '")
           << getKernel() << "', neither a kernel nor a function";
  }
  if (kernel.getSessionType() != getSession().getType() ||
      kernel.getDescriptorType() != getDescriptor().getType())
    return emitOpError("and kernel '")
           << getKernel() << "' differ in session or descriptor";
  Type element = cast<ShapedType>(getInputs()[0].getType()).getElementType();
  if (element != kernel.getIo())
    return emitOpError("passes ") << element << ", kernel '" << getKernel()
                                  << "' has io " << kernel.getIo();
  if (isAttention()) {
    int64_t heads = cast<ShapedType>(getInputs()[0].getType()).getDimSize(2);
    if (heads != static_cast<int64_t>(kernel.getHeads()))
      return emitOpError("has ") << heads << " query heads, kernel '"
                                 << getKernel() << "' " << kernel.getHeads();
  }
  if (kernel.attends() != isAttention())
    return emitOpError(isAttention() ? "attends, kernel '"
                                     : "appends, kernel '")
           << getKernel() << (isAttention() ? "' appends" : "' attends");
  return success();
}

/// Reads of the inputs and writes of the outputs that are buffers.
static void addBufferEffects(
    MutableOperandRange inputs, MutableOperandRange outputs,
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  for (OpOperand &input : inputs)
    if (isa<MemRefType>(input.get().getType()))
      effects.emplace_back(MemoryEffects::Read::get(), &input);
  for (OpOperand &output : outputs) {
    if (!isa<MemRefType>(output.get().getType()))
      continue;
    effects.emplace_back(MemoryEffects::Read::get(), &output);
    effects.emplace_back(MemoryEffects::Write::get(), &output);
  }
}

void LaunchOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  effects.emplace_back(MemoryEffects::Read::get(), DescriptorResource::get());
  if (isAttention())
    effects.emplace_back(MemoryEffects::Read::get(), PoolResource::get());
  else
    effects.emplace_back(MemoryEffects::Write::get(), PoolResource::get());
  addBufferEffects(getInputsMutable(), getOutputsMutable(), effects);
}

void DispatchOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addBufferEffects(getInputsMutable(), getOutputsMutable(), effects);
}

void DeviceDispatchOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  if (getAppends()) {
    effects.emplace_back(MemoryEffects::Read::get(), DescriptorResource::get());
    effects.emplace_back(MemoryEffects::Write::get(), PoolResource::get());
  }
  addBufferEffects(getInputsMutable(), getOutputsMutable(), effects);
}

static LogicalResult verifyGrid(Operation *op, ArrayRef<int64_t> blocks) {
  if (blocks.size() != 3 ||
      llvm::any_of(blocks, [](int64_t count) { return count < 1; }))
    return op->emitOpError("grid must be three positive numbers");
  return success();
}

/// A dense kernel that takes as many buffers as `op` has operands, and `more`
/// arguments.
static LogicalResult verifyDenseKernel(Operation *op, SymbolRefAttr name,
                                       SymbolTableCollection &symbols,
                                       unsigned more = 0) {
  auto kernel = symbols.lookupNearestSymbolFrom<FunctionOpInterface>(op, name);
  if (!kernel)
    return op->emitOpError("names no function '") << name << "'";
  auto launch = kernel->getAttrOfType<DeviceKernelAttr>(
      KVRMDialect::getDeviceKernelAttrName());
  if (!launch || launch.getRole() != DeviceRole::Dense)
    return op->emitOpError("names '") << name << "', no dense kernel";
  if (kernel.getNumArguments() != op->getNumOperands() + more)
    return op->emitOpError("passes ")
           << op->getNumOperands() + more
           << (more ? " arguments to '" : " buffers to '") << name
           << "', which takes " << kernel.getNumArguments();
  return success();
}

LogicalResult DeviceDispatchOp::verify() {
  return verifyGrid(*this, getGrid());
}

LogicalResult
DeviceDispatchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  return verifyDenseKernel(*this, getKernelAttr(), symbols,
                           getAppends() ? KVRM_APPEND_ARGS : 0);
}

void DeviceProductOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  OpOperand &output = getOutputMutable();
  for (OpOperand &operand : getOperation()->getOpOperands()) {
    if (&operand == &output)
      effects.emplace_back(MemoryEffects::Write::get(), &operand);
    else
      effects.emplace_back(MemoryEffects::Read::get(), &operand);
  }
}

/// A buffer whose rows follow one another.
static LogicalResult verifyProductBuffer(Operation *op, StringRef name,
                                         Value buffer, Type element,
                                         int64_t rows, int64_t columns) {
  auto type = cast<MemRefType>(buffer.getType());
  if (type.getElementType() != element ||
      type.getShape() != ArrayRef{rows, columns})
    return op->emitOpError(name) << " is " << type << ", expected " << rows
                                 << " x " << columns << " of " << element;
  // Strides of rows; where it starts does not matter.
  SmallVector<int64_t> strides;
  int64_t offset;
  if (failed(type.getStridesAndOffset(strides, offset)) ||
      strides != ArrayRef{columns, int64_t{1}})
    return op->emitOpError(name) << " is " << type << ", with gaps in it";
  return success();
}

LogicalResult SampleOp::verify() {
  MemRefType type = getLogits().getType();
  if (!type.hasStaticShape() || !type.getLayout().isIdentity())
    return emitOpError("logits must be contiguous and of static shape");
  return success();
}

LogicalResult DeviceProductOp::verify() {
  if (failed(verifyGrid(*this, getGrid())))
    return failure();
  auto input = cast<MemRefType>(getInput().getType());
  auto output = cast<MemRefType>(getOutput().getType());
  if (!detail::isPositiveShape(input, 2) || !detail::isPositiveShape(output, 2))
    return emitOpError("input and output must have static, positive shapes of "
                       "rank 2, got ")
           << input << " and " << output;
  Type element = input.getElementType(), sum = output.getElementType();
  if (!element.isF16() && !element.isBF16())
    return emitOpError("input is of ") << element << ", not of f16 or bf16";
  if (sum != element && !sum.isF32())
    return emitOpError("output is of ")
           << sum << ", neither of the input's element nor of f32";
  if (getAddend() && !sum.isF32())
    return emitOpError("has an addend, and output is not of f32");
  int64_t rows = output.getDimSize(0), columns = output.getDimSize(1);
  int64_t depth = input.getDimSize(1);
  if (failed(verifyProductBuffer(*this, "input", getInput(), element, rows,
                                 depth)) ||
      failed(verifyProductBuffer(*this, "weight", getWeight(), element, columns,
                                 depth)) ||
      failed(verifyProductBuffer(*this, "output", getOutput(), sum, rows,
                                 columns)))
    return failure();
  return getAddend() ? verifyProductBuffer(*this, "addend", getAddend(), sum,
                                           rows, columns)
                     : success();
}

LogicalResult
DeviceProductOp::verifySymbolUses(SymbolTableCollection &symbols) {
  return verifyDenseKernel(*this, getKernelAttr(), symbols);
}

LogicalResult DispatchOp::verify() {
  if (auto tasks = static_cast<int64_t>(getTasks()); tasks < 1)
    return emitOpError("needs at least one task, got ") << tasks;
  size_t tensors = llvm::count_if(getOutputs(), [](Value output) {
    return isa<RankedTensorType>(output.getType());
  });
  if (tensors != getResults().size())
    return emitOpError("has ") << getResults().size() << " results for "
                               << tensors << " output tensors";
  return success();
}

LogicalResult DispatchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto callee = symbols.lookupNearestSymbolFrom<FunctionOpInterface>(
      *this, getCalleeAttr());
  if (!callee)
    return emitOpError("names no function '") << getCallee() << "'";
  // A function that is lowered already has another type.
  auto type = dyn_cast<FunctionType>(callee.getFunctionType());
  if (!type)
    return success();
  // Operands may still be tensors, and a buffer's offset is not the callee's
  // business: shapes and elements have to agree.
  SmallVector<Value> operands(getInputs());
  llvm::append_range(operands, getOutputs());
  auto agrees = [](Value operand, Type input) {
    auto given = cast<ShapedType>(operand.getType());
    auto taken = dyn_cast<MemRefType>(input);
    return taken && given.hasRank() && given.getShape() == taken.getShape() &&
           given.getElementType() == taken.getElementType();
  };
  if (type.getNumInputs() != operands.size() + 2 ||
      !llvm::all_of(llvm::zip_equal(operands, type.getInputs().drop_front(2)),
                    [&](auto pair) {
                      return agrees(std::get<0>(pair), std::get<1>(pair));
                    }))
    return emitOpError("passes (begin, end, ")
           << ValueRange(operands).getTypes() << "), function '" << getCallee()
           << "' takes " << type;
  return success();
}

//===----------------------------------------------------------------------===//
// Tile program
//===----------------------------------------------------------------------===//

LogicalResult kvrm::detail::verifyInKernel(Operation *op) {
  if (!op->getParentOfType<KernelOp>())
    return op->emitOpError("stands outside a kvrm.kernel");
  return success();
}

static KernelOp kernelOf(Operation *op) {
  return op->getParentOfType<KernelOp>();
}

static LogicalResult expectFragment(Operation *op, StringRef name,
                                    FragmentType type, int64_t rows,
                                    int64_t cols) {
  if (type.getRows() != rows || type.getCols() != cols)
    return op->emitOpError(name)
           << " is " << type.getRows() << "x" << type.getCols() << ", expected "
           << rows << "x" << cols;
  return success();
}

static LogicalResult verifyKeepsSummaries(Operation *op) {
  if (kernelOf(op).getSessionType().getSummaries() == 0)
    return op->emitOpError("wants summaries in a kernel of a session that "
                           "keeps none");
  return success();
}

LogicalResult SummaryEndOp::verify() { return verifyKeepsSummaries(*this); }

LogicalResult WindowEdgeOp::verify() {
  if (!kernelOf(*this).getWindow())
    return emitOpError("stands in a kernel without a window");
  return success();
}

LogicalResult LoadQueryOp::verify() {
  KernelOp kernel = kernelOf(*this);
  if (getQuery().getType().getElement() != kernel.getIo())
    return emitOpError("query of ") << getQuery().getType().getElement()
                                    << " in a kernel of io " << kernel.getIo();
  return expectFragment(*this, "query", getQuery().getType(),
                        kernel.getQueryRows(), kernel.getPool().getHeadDim());
}

LogicalResult LoadTileOp::verify() {
  KernelOp kernel = kernelOf(*this);
  FragmentType type = getKey().getType();
  if (type.getElement() != kernel.getPool().getElement())
    return emitOpError("tile of ") << type.getElement() << " from a pool of "
                                   << kernel.getPool().getElement();
  return expectFragment(*this, "tile", type, kernel.getTile().getKv(),
                        kernel.getPool().getHeadDim());
}

LogicalResult ScoreOp::verify() {
  FragmentType query = getQuery().getType(), key = getKey().getType();
  if (query.getCols() != key.getCols())
    return emitOpError("query has ")
           << query.getCols() << " columns, key " << key.getCols();
  if (!getScores().getType().getElement().isF32())
    return emitOpError("scores are ")
           << getScores().getType().getElement() << ", expected f32";
  if (getSummaries() && failed(verifyKeepsSummaries(*this)))
    return failure();
  return failure(failed(expectFragment(*this, "scores", getScores().getType(),
                                       query.getRows(), key.getRows())) ||
                 failed(verifyScale(*this, getScale())) ||
                 failed(verifySoftcap(*this, getSoftcap())));
}

/// The state of a kernel's item: its query rows by head_dim.
static LogicalResult verifyKernelState(Operation *op, SoftmaxType state) {
  KernelOp kernel = kernelOf(op);
  int64_t rows = kernel.getQueryRows(), cols = kernel.getPool().getHeadDim();
  if (state.getRows() != rows || state.getCols() != cols)
    return op->emitOpError("state is ")
           << state.getRows() << "x" << state.getCols() << ", expected " << rows
           << "x" << cols;
  return success();
}

LogicalResult SoftmaxInitOp::verify() {
  return verifyKernelState(*this, getState().getType());
}

LogicalResult OnlineSoftmaxOp::verify() {
  if (getScores().getType().getRows() != getState().getType().getRows())
    return emitOpError("scores have ")
           << getScores().getType().getRows() << " rows, state "
           << getState().getType().getRows();
  return success();
}

LogicalResult StoreSoftmaxOp::verify() {
  return verifyKernelState(*this, getState().getType());
}

LogicalResult AccumulateOp::verify() {
  FragmentType weights = getWeights().getType(), value = getValue().getType();
  if (weights.getCols() != value.getRows())
    return emitOpError("weights have ")
           << weights.getCols() << " columns, value " << value.getRows()
           << " rows";
  SoftmaxType state = getState().getType();
  if (state.getRows() != weights.getRows() ||
      state.getCols() != value.getCols())
    return emitOpError("state is ")
           << state.getRows() << "x" << state.getCols() << ", expected "
           << weights.getRows() << "x" << value.getCols();
  return success();
}
