//===- GenerateKernels.cpp - Write the tile programs --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Codegen/Passes.h"
#include "kvrm/Dialect/KVRM/IR/TileProgram.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <map>
#include <tuple>

namespace mlir::kvrm {
#define GEN_PASS_DEF_GENERATEKERNELSPASS
#include "kvrm/Codegen/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// Everything that makes two kernels the same kernel.
struct KernelShape {
  StringRef kind; ///< attend or append
  SessionType session;
  DescriptorType descriptor;
  int64_t heads;
  Type io;
  TileAttr tile;
  Transport transport;
  // Of those that attend; the last two if they have such.
  FloatAttr scale;
  IntegerAttr window;
  FloatAttr softcap;

  auto key() const {
    return std::make_tuple(
        kind.str(), session.getAsOpaquePointer(),
        descriptor.getAsOpaquePointer(), heads, io.getAsOpaquePointer(),
        tile.getAsOpaquePointer(), static_cast<int>(transport),
        scale.getAsOpaquePointer(), window.getAsOpaquePointer(),
        softcap.getAsOpaquePointer());
  }
};

class GenerateKernelsPass
    : public kvrm::impl::GenerateKernelsPassBase<GenerateKernelsPass> {
public:
  using GenerateKernelsPassBase::GenerateKernelsPassBase;
  void runOnOperation() override;

private:
  LogicalResult planStep(func::FuncOp func, ArrayRef<AttendOp> attends);
  LogicalResult lowerStep(func::FuncOp func);
  KernelOp getOrCreateKernel(const KernelShape &shape, Location loc);

  std::map<decltype(std::declval<KernelShape>().key()), KernelOp> kernels;
};

} // namespace

KernelOp GenerateKernelsPass::getOrCreateKernel(const KernelShape &shape,
                                                Location loc) {
  KernelOp &kernel = kernels[shape.key()];
  if (kernel)
    return kernel;
  PoolType pool = shape.session.getPool();
  SmallString<64> name;
  llvm::raw_svector_ostream os(name);
  os << shape.kind << "_d" << pool.getHeadDim();
  if (shape.scale)
    os << "_g" << shape.heads / pool.getKvHeads() << "_q" << shape.tile.getQ()
       << "_kv" << shape.tile.getKv();
  else
    os << "_r" << shape.descriptor.getRows() << "_q"
       << shape.descriptor.getQueries();
  os << "_p" << pool.getPage() << "_" << pool.getElement();
  if (shape.window)
    os << "_w" << shape.window.getInt();
  if (shape.transport == Transport::Staged)
    os << "_staged";

  // Two steps may attend alike under descriptors of different shapes; the table
  // then gives the second kernel a name of its own.
  SymbolTable symbols(getOperation());
  auto b = ImplicitLocOpBuilder::atBlockBegin(loc, getOperation().getBody());
  kernel = KernelOp::create(b, name, StringAttr(), shape.heads, shape.io,
                            shape.tile, shape.transport, shape.window,
                            shape.session, shape.descriptor);
  symbols.insert(kernel);
  TileProgram program = TileProgram::append();
  if (shape.scale)
    program = TileProgram::attention(shape.session, bool(shape.window),
                                     shape.scale, shape.softcap);
  program.write(kernel);
  ++numKernels;
  return kernel;
}

/// Leaves on the step what each of its batches attends with.
LogicalResult GenerateKernelsPass::planStep(func::FuncOp func,
                                            ArrayRef<AttendOp> attends) {
  SmallVector<Attribute> plans;
  for (AttendOp op : attends) {
    if (!op.getTileAttr() || !op.getScheduleAttr())
      return op.emitOpError("has no tile or schedule; run "
                            "kvrm-select-schedule first");
    auto stage = op.getGroups().getDefiningOp<StageOp>();
    if (!stage)
      return op.emitOpError("groups do not come from a kvrm.stage");
    if (stage.getDescriptor() != op.getDescriptor())
      return op.emitOpError("takes the groups of another batch");
    auto plan =
        StepPlanAttr::get(&getContext(), op.getTileAttr(), op.getScheduleAttr(),
                          stage.getTransportAttr());
    auto commit = op.getDescriptor().getDefiningOp<CommitOp>();
    plans.resize(commit.getDescriptors().size());
    Attribute &known = plans[getBatch(op.getDescriptor())];
    if (known && known != plan)
      return op.emitOpError(
          "and the step's first attend differ in tile, "
          "schedule or transport; one plan serves all layers");
    known = plan;
  }
  if (llvm::is_contained(plans, Attribute()))
    return func.emitOpError("commits a descriptor that nothing attends with");
  func->setAttr(KVRMDialect::getPlansAttrName(),
                ArrayAttr::get(&getContext(), plans));
  return success();
}

/// Where the result of attention goes. If it is written, as rows, to a part of
/// a larger tensor, as that of each batch is, it is computed there.
static Value createDestination(OpBuilder &b, AttendOp op) {
  auto type = cast<RankedTensorType>(op.getQuery().getType());
  auto empty = [&]() -> Value {
    return tensor::EmptyOp::create(b, op.getLoc(), type.getShape(),
                                   type.getElementType());
  };
  if (!op.getOutput().hasOneUse())
    return empty();
  auto rows = dyn_cast<tensor::CollapseShapeOp>(*op->user_begin());
  if (!rows || !rows->hasOneUse())
    return empty();
  auto insert = dyn_cast<tensor::InsertSliceOp>(*rows->user_begin());
  if (!insert || insert.getSource() != rows.getResult() ||
      !insert.hasUnitStride() || insert->getBlock() != op->getBlock())
    return empty();
  Operation *whole = insert.getDest().getDefiningOp();
  if (auto init = dyn_cast_or_null<tensor::EmptyOp>(whole);
      init && op->isBeforeInBlock(init))
    init->moveBefore(op);
  bool isThere = !whole || (whole->getBlock() == op->getBlock() &&
                            whole->isBeforeInBlock(op));
  if (!isThere || ShapedType::isDynamicShape(insert.getStaticOffsets()) ||
      ShapedType::isDynamicShape(insert.getStaticSizes()))
    return empty();
  Value part = tensor::ExtractSliceOp::create(
      b, op.getLoc(), rows.getResultType(), insert.getDest(),
      insert.getMixedOffsets(), insert.getMixedSizes(),
      insert.getMixedStrides());
  return tensor::ExpandShapeOp::create(b, op.getLoc(), type, part,
                                       rows.getReassociationIndices());
}

LogicalResult GenerateKernelsPass::lowerStep(func::FuncOp func) {
  SmallVector<AppendOp> appends;
  SmallVector<AttendOp> attends;
  func.walk([&](AppendOp op) { appends.push_back(op); });
  func.walk([&](AttendOp op) { attends.push_back(op); });
  if (attends.empty())
    return appends.empty() ? success()
                           : appends.front().emitOpError(
                                 "stands in a step that never attends");
  if (failed(planStep(func, attends)))
    return failure();
  for (AttendOp op : attends) {
    auto type = cast<RankedTensorType>(op.getQuery().getType());
    KernelOp kernel = getOrCreateKernel(
        {"attend", op.getSession().getType(), op.getDescriptor().getType(),
         type.getDimSize(2), type.getElementType(), op.getTileAttr(),
         op.getGroups().getDefiningOp<StageOp>().getTransport(),
         op.getScaleAttr(), op.getWindowAttr(), op.getSoftcapAttr()},
        op.getLoc());
    ImplicitLocOpBuilder b(op.getLoc(), op);
    auto launch = LaunchOp::create(
        b, TypeRange{type}, kernel.getSymName(), op.getSession(),
        op.getDescriptor(), ValueRange{op.getQuery()},
        ValueRange{createDestination(b, op)}, op.getLayer());
    op.getOutput().replaceAllUsesWith(launch.getResult(0));
    op.erase();
    ++numLaunches;
  }
  for (AppendOp op : appends) {
    PoolType pool = op.getSession().getType().getPool();
    KernelOp kernel = getOrCreateKernel(
        {"append", op.getSession().getType(), op.getDescriptor().getType(),
         pool.getKvHeads(),
         cast<RankedTensorType>(op.getKey().getType()).getElementType(),
         TileAttr::get(&getContext(), 1, pool.getPage()), Transport::Native,
         FloatAttr(), IntegerAttr(), FloatAttr()},
        op.getLoc());
    ImplicitLocOpBuilder b(op.getLoc(), op);
    LaunchOp::create(b, TypeRange{}, kernel.getSymName(), op.getSession(),
                     op.getDescriptor(), ValueRange{op.getKey(), op.getValue()},
                     ValueRange{}, op.getLayer());
    op.erase();
    ++numLaunches;
  }
  return success();
}

void GenerateKernelsPass::runOnOperation() {
  kernels.clear();
  for (func::FuncOp func :
       llvm::make_early_inc_range(getOperation().getOps<func::FuncOp>()))
    if (isStep(func) && failed(lowerStep(func)))
      return signalPassFailure();
}
