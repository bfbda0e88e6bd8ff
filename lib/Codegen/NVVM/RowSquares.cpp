//===- RowSquares.cpp - What norms need of whole rows, on a GPU -----------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowSquares.h"

#include "ProductKernel.h"

#include "kvrm/Dialect/KVRM/Utils/Products.h"
#include "kvrm/Dialect/KVRM/Utils/StepBuffers.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::kvrm;

/// All that uses an allocation, as ops of its block, in order.
static SmallVector<Operation *> usersOf(Value root) {
  SmallVector<Operation *> users = getBufferUsers(root);
  for (Operation *&user : users)
    user = root.getParentBlock()->findAncestorOpInBlock(*user);
  llvm::sort(users, [](Operation *lhs, Operation *rhs) {
    return lhs != rhs && lhs->isBeforeInBlock(rhs);
  });
  return users;
}

/// Whether an op only reads what it uses of `root`.
static bool onlyReads(Operation *op, Value root) {
  auto stores = dyn_cast<DestinationStyleOpInterface>(op);
  return stores && llvm::none_of(stores.getDpsInits(), [&](Value init) {
           FailureOr<BufferPlace> place = findBuffer(init, op);
           return failed(place) || place->root == root;
         });
}

/// Whether the kernel of a product can add up the squares of what it stores.
static bool canMakeSquares(LinearOp op) {
  auto output = cast<MemRefType>(op.getOutput().getType());
  return op.getParts() == 1 && output.getElementType().isF32() &&
         output.getLayout().isIdentity() &&
         fitsMatrixUnits(getProductOperands(op));
}

/// The product that stores all that `op` reads as its input, if one does.
static LinearOp findMaker(Operation *op, Value input) {
  FailureOr<BufferPlace> place = findBuffer(input, op);
  if (failed(place) || !place->root.getDefiningOp<memref::AllocOp>() ||
      place->root.getParentBlock() != op->getBlock())
    return {};
  SmallVector<Operation *> users = usersOf(place->root);
  for (Operation *user : llvm::reverse(users)) {
    if (!user->isBeforeInBlock(op) || onlyReads(user, place->root))
      continue;
    auto linear = dyn_cast<LinearOp>(user);
    if (!linear || linear.getOutput().getType() != input.getType())
      return {};
    FailureOr<BufferPlace> stored = findBuffer(linear.getOutput(), linear);
    bool isSame = succeeded(stored) && stored->root == place->root &&
                  stored->offset == place->offset;
    return isSame && canMakeSquares(linear) ? linear : LinearOp();
  }
  return {};
}

namespace {
class SquaresPlanner {
public:
  explicit SquaresPlanner(const DeviceOptions &options) : options(options) {}

  template <typename OpT> void visit(OpT op) {
    if (!op.getGain() || !op.hasPureBufferSemantics() ||
        !fitsMatrixUnits(getProductOperands(op)))
      return;
    LinearOp maker;
    if (canNormalizeInKernel(op))
      maker = findMaker(op, op.getInput());
    if (maker) {
      squares[op].taken = madeBy(maker);
      return;
    }
    auto type = MemRefType::get({op.getRows(), op.getDepth()},
                                op.getMultiplicandElement());
    OpBuilder b(op);
    takeNormOut(op, memref::AllocOp::create(b, op.getLoc(), type));
  }

  llvm::DenseMap<Operation *, RowSquares> squares;

private:
  Value madeBy(LinearOp maker) {
    Value &made = squares[maker].made;
    if (made)
      return made;
    OpBuilder b(maker);
    int64_t parts = planProduct(getProductOperands(maker), maker.getColumns(),
                                /*parts=*/1, options)
                        .tiles;
    made = memref::AllocOp::create(
        b, maker.getLoc(),
        MemRefType::get({maker.getRows(), parts}, b.getF32Type()));
    return made;
  }

  const DeviceOptions &options;
};
} // namespace

llvm::DenseMap<Operation *, RowSquares>
kvrm::shareRowSquares(func::FuncOp step, const DeviceOptions &options) {
  SquaresPlanner planner(options);
  for (Operation &op : llvm::make_early_inc_range(step.getBody().front()))
    llvm::TypeSwitch<Operation *>(&op).Case<LinearOp, QKVProjectionOp>(
        [&](auto product) { planner.visit(product); });
  return std::move(planner.squares);
}
