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
  FloatAttr scale; ///< attend only

  auto key() const {
    return std::make_tuple(kind.str(), session.getAsOpaquePointer(),
                           descriptor.getAsOpaquePointer(), heads,
                           io.getAsOpaquePointer(), tile.getAsOpaquePointer(),
                           static_cast<int>(transport),
                           scale ? scale.getAsOpaquePointer() : nullptr);
  }
};

class GenerateKernelsPass
    : public kvrm::impl::GenerateKernelsPassBase<GenerateKernelsPass> {
public:
  using GenerateKernelsPassBase::GenerateKernelsPassBase;
  void runOnOperation() override;

private:
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
  if (shape.transport == Transport::Staged)
    os << "_staged";

  // Two steps may attend alike under descriptors of different shapes; the table
  // then gives the second kernel a name of its own.
  SymbolTable symbols(getOperation());
  auto b = ImplicitLocOpBuilder::atBlockBegin(loc, getOperation().getBody());
  kernel =
      KernelOp::create(b, name, StringAttr(), shape.heads, shape.io, shape.tile,
                       shape.transport, shape.session, shape.descriptor);
  symbols.insert(kernel);
  TileProgram program = shape.scale
                            ? TileProgram::attention(shape.session, shape.scale)
                            : TileProgram::append();
  program.write(kernel);
  ++numKernels;
  return kernel;
}

LogicalResult GenerateKernelsPass::lowerStep(func::FuncOp func) {
  SmallVector<AppendOp> appends;
  SmallVector<AttendOp> attends;
  func.walk([&](AppendOp op) { appends.push_back(op); });
  func.walk([&](AttendOp op) { attends.push_back(op); });
  for (AttendOp op : attends) {
    if (!op.getTileAttr() || !op.getScheduleAttr())
      return op.emitOpError("has no tile or schedule; run "
                            "kvrm-select-schedule first");
    if (op.getScheduleAttr() != attends.front().getScheduleAttr() ||
        op.getTileAttr() != attends.front().getTileAttr())
      return op.emitOpError("and the step's first attend differ in tile or "
                            "schedule; one plan serves all layers");
    if (!op.getGroups().getDefiningOp<StageOp>())
      return op.emitOpError("groups do not come from a kvrm.stage");
  }
  if (attends.empty())
    return appends.empty() ? success()
                           : appends.front().emitOpError(
                                 "stands in a step that never attends");
  auto stage = attends.front().getGroups().getDefiningOp<StageOp>();
  func->setAttr(KVRMDialect::getPlanAttrName(),
                StepPlanAttr::get(&getContext(), attends.front().getTileAttr(),
                                  attends.front().getScheduleAttr(),
                                  stage.getTransportAttr()));

  for (AttendOp op : attends) {
    auto type = cast<RankedTensorType>(op.getQuery().getType());
    KernelOp kernel = getOrCreateKernel(
        {"attend", op.getSession().getType(), op.getDescriptor().getType(),
         type.getDimSize(2), type.getElementType(), op.getTileAttr(),
         op.getGroups().getDefiningOp<StageOp>().getTransport(),
         op.getScaleAttr()},
        op.getLoc());
    ImplicitLocOpBuilder b(op.getLoc(), op);
    Value init =
        tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
    auto launch = LaunchOp::create(b, TypeRange{type}, kernel.getSymName(),
                                   op.getSession(), op.getDescriptor(),
                                   ValueRange{op.getQuery()}, ValueRange{init},
                                   op.getLayer());
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
         FloatAttr()},
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
