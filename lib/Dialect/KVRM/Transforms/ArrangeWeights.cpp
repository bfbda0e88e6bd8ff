//===- ArrangeWeights.cpp - Products as this compiler has them ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Arrange/WeightView.h"

#include "kvrm/Dialect/KVRM/Transforms/Passes.h"
#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Dialect/KVRM/Utils/Reshape.h"
#include "kvrm/Dialect/KVRM/Utils/Steps.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::kvrm {
#define GEN_PASS_DEF_ARRANGEWEIGHTSPASS
#include "kvrm/Dialect/KVRM/Transforms/Passes.h.inc"
} // namespace mlir::kvrm

using namespace mlir;
using namespace mlir::kvrm;

namespace {

/// A generic that is a product of activations and a weight: each of its loops
/// is one of rows, of columns (of the weight's too) or of the depth.
struct Product {
  linalg::GenericOp op;
  OpOperand *activations;
  WeightPartAttr weight; ///< `[columns][depth]`
  /// Dims of the activations, rows and then depth; of the result, rows and then
  /// columns.
  SmallVector<int64_t> activationOrder, resultOrder;
  int64_t rows = 1;

  static std::optional<Product> match(linalg::GenericOp op);

private:
  bool matchLoops(OpOperand *weightOperand, const WeightView &view);
};

/// The shape of what is computed of a product: `[rows, sum of columns]`.
struct MergedProduct {
  Value activations; ///< `[rows][depth]`
  SmallVector<Product> products;
};

} // namespace

static Value withoutWidening(Value value) {
  auto widened = value.getDefiningOp<arith::ExtFOp>();
  return widened ? widened.getIn() : value;
}

/// Whether a body yields `out + a * b`.
static bool isProductSum(Block &body) {
  auto sum = body.getTerminator()->getOperand(0).getDefiningOp<arith::AddFOp>();
  if (!sum || body.getNumArguments() != 3)
    return false;
  Value out = body.getArgument(2);
  Value added = sum.getLhs() == out ? sum.getRhs() : sum.getLhs();
  auto product = added.getDefiningOp<arith::MulFOp>();
  if (!product || (sum.getLhs() != out && sum.getRhs() != out))
    return false;
  Value a = withoutWidening(product.getLhs()),
        b = withoutWidening(product.getRhs());
  Value first = body.getArgument(0), second = body.getArgument(1);
  return (a == first && b == second) || (a == second && b == first);
}

/// The dim of `map` that is just the loop.
static std::optional<unsigned> dimOf(AffineMap map, unsigned loop) {
  return map.getResultPosition(getAffineDimExpr(loop, map.getContext()));
}

bool Product::matchLoops(OpOperand *weightOperand, const WeightView &view) {
  AffineMap x = op.getMatchingIndexingMap(activations);
  AffineMap w = op.getMatchingIndexingMap(weightOperand);
  AffineMap y = op.getMatchingIndexingMap(op.getDpsInitOperand(0));
  if (!x.isProjectedPermutation() || !w.isProjectedPermutation() ||
      !y.isProjectedPermutation())
    return false;
  SmallVector<int64_t> ranges = op.getStaticLoopRanges(), depth;
  SmallVector<unsigned> weightRows, weightColumns;
  SmallVector<int64_t> columns;
  // Rows and columns in the order of the result, the depth in that of the
  // activations.
  for (AffineExpr expr : y.getResults()) {
    unsigned loop = cast<AffineDimExpr>(expr).getPosition();
    std::optional<unsigned> inX = dimOf(x, loop), inW = dimOf(w, loop);
    if (inX.has_value() == inW.has_value())
      return false;
    if (inX) {
      rows *= ranges[loop];
      activationOrder.push_back(*inX);
      resultOrder.push_back(*dimOf(y, loop));
    } else {
      weightRows.push_back(*inW);
      columns.push_back(*dimOf(y, loop));
    }
  }
  for (AffineExpr expr : x.getResults()) {
    unsigned loop = cast<AffineDimExpr>(expr).getPosition();
    std::optional<unsigned> inW = dimOf(w, loop);
    if (dimOf(y, loop))
      continue;
    if (!inW)
      return false;
    activationOrder.push_back(*dimOf(x, loop));
    weightColumns.push_back(*inW);
  }
  if (weightRows.size() + weightColumns.size() != w.getNumResults() ||
      weightColumns.empty())
    return false;
  llvm::append_range(resultOrder, columns);
  weight = view.asMatrix(weightRows, weightColumns);
  return true;
}

std::optional<Product> Product::match(linalg::GenericOp op) {
  if (op.getNumDpsInputs() != 2 || op.getNumDpsInits() != 1 ||
      !op.hasPureTensorSemantics() || op.getNumReductionLoops() == 0 ||
      !isProductSum(*op.getBody()) ||
      !getElementTypeOrSelf(op->getResult(0)).isF32())
    return std::nullopt;
  for (unsigned i = 0; i < 2; ++i) {
    OpOperand *weight = op.getDpsInputOperand(i);
    std::optional<WeightView> view = WeightView::of(weight->get());
    if (!view)
      continue;
    Product product{op, op.getDpsInputOperand(1 - i), {}, {}, {}};
    if (getElementTypeOrSelf(product.activations->get()).isF32() &&
        product.matchLoops(weight, *view))
      return product;
  }
  return std::nullopt;
}

/// `value` with its dims in another order: dim i of the result is `order[i]`.
static Value transpose(ImplicitLocOpBuilder &b, Value value,
                       ArrayRef<int64_t> order) {
  if (llvm::is_sorted(order))
    return value;
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<int64_t> shape;
  for (int64_t dim : order)
    shape.push_back(type.getDimSize(dim));
  Value init = tensor::EmptyOp::create(b, shape, type.getElementType());
  return linalg::TransposeOp::create(b, value, init, order)->getResult(0);
}

/// A fill, or a generic that yields nothing but a number.
static TypedAttr findFilled(Value value) {
  auto generic = value.getDefiningOp<linalg::GenericOp>();
  Attribute number;
  if (!generic || generic.getNumDpsInputs() != 0 ||
      !matchPattern(generic.getBody()->getTerminator()->getOperand(0),
                    m_Constant(&number)))
    return {};
  return cast<TypedAttr>(number);
}

static bool isZero(Value value) {
  auto number = dyn_cast_or_null<FloatAttr>(findFilled(value));
  return number && number.getValue().isZero();
}

namespace {
class ArrangeWeightsPass
    : public kvrm::impl::ArrangeWeightsPassBase<ArrangeWeightsPass> {
public:
  using ArrangeWeightsPassBase::ArrangeWeightsPassBase;

  void runOnOperation() override;

private:
  void arrange(func::FuncOp step);
  void write(const MergedProduct &merged);
  Value resultOf(ImplicitLocOpBuilder &b, const Product &product, Value result);
  Value load(ImplicitLocOpBuilder &b, ArrayRef<Attribute> parts,
             const Product &first);
  void narrowTable(ml_program::GlobalOp global, ArrayRef<func::FuncOp> steps);
  ml_program::GlobalOp lookup(FlatSymbolRefAttr name) {
    return symbols->lookup<ml_program::GlobalOp>(name.getValue());
  }

  SymbolTable *symbols = nullptr;
  Type matrixElement;                                       ///< null: as it is
  llvm::DenseMap<Attribute, ml_program::GlobalOp> matrices; ///< by their parts
};
} // namespace

/// The matrix that is made of `parts`.
Value ArrangeWeightsPass::load(ImplicitLocOpBuilder &b,
                               ArrayRef<Attribute> parts,
                               const Product &first) {
  ArrayAttr key = b.getArrayAttr(parts);
  ml_program::GlobalOp &matrix = matrices[key];
  if (!matrix) {
    int64_t rows = 0;
    for (Attribute part : parts)
      rows += cast<WeightPartAttr>(part).getRows();
    WeightPartAttr part = first.weight;
    ml_program::GlobalOp source =
        lookup(FlatSymbolRefAttr::get(part.getTensor()));
    Type element = getElementTypeOrSelf(source.getType());
    if (matrixElement && element.isF32())
      element = matrixElement;
    auto type = RankedTensorType::get({rows, part.getColumns()}, element);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(source);
    matrix = ml_program::GlobalOp::create(
        b, (part.getTensor().getValue() + ".matrix").str(), type,
        /*is_mutable=*/false, ml_program::ExternAttr::get(b.getContext(), type),
        b.getStringAttr("private"));
    matrix->setAttr(KVRMDialect::getPartsAttrName(), key);
    symbols->insert(matrix);
  }
  return ml_program::GlobalLoadConstOp::create(
      b, matrix.getType(), FlatSymbolRefAttr::get(matrix.getSymNameAttr()));
}

/// The columns of a product in the shape that the generic gave them.
Value ArrangeWeightsPass::resultOf(ImplicitLocOpBuilder &b,
                                   const Product &product, Value result) {
  linalg::GenericOp op = product.op;
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  SmallVector<int64_t> shape, back(product.resultOrder.size());
  for (auto [at, dim] : llvm::enumerate(product.resultOrder)) {
    shape.push_back(type.getDimSize(dim));
    back[dim] = static_cast<int64_t>(at);
  }
  result = transpose(b, kvrm::reshape(b, result, shape), back);
  Value init = op.getDpsInits()[0];
  if (isZero(init))
    return result;
  SmallVector<AffineMap> maps(3, b.getMultiDimIdentityMap(type.getRank()));
  SmallVector<utils::IteratorType> loops(type.getRank(),
                                         utils::IteratorType::parallel);
  Value empty =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  return linalg::GenericOp::create(
             b, TypeRange{type}, ValueRange{init, result}, empty, maps, loops,
             [](OpBuilder &nested, Location loc, ValueRange args) {
               Value sum = arith::AddFOp::create(nested, loc, args[0], args[1]);
               linalg::YieldOp::create(nested, loc, sum);
             })
      .getResult(0);
}

void ArrangeWeightsPass::write(const MergedProduct &merged) {
  const Product &first = merged.products.front();
  linalg::GenericOp firstOp = first.op;
  ImplicitLocOpBuilder b(firstOp.getLoc(), firstOp);
  SmallVector<Attribute> parts;
  int64_t columns = 0;
  for (const Product &product : merged.products) {
    parts.push_back(product.weight);
    WeightPartAttr part = product.weight;
    columns += part.getRows();
  }
  Value weight = load(b, parts, first);
  Value zero = arith::ConstantOp::create(b, b.getF32FloatAttr(0.0f));
  Value empty =
      tensor::EmptyOp::create(b, ArrayRef{first.rows, columns}, b.getF32Type());
  Value init = linalg::FillOp::create(b, zero, empty).getResult(0);
  Value all = linalg::MatmulTransposeBOp::create(
                  b, b.getLoc(), TypeRange{init.getType()},
                  ValueRange{merged.activations, weight}, ValueRange{init})
                  ->getResult(0);
  int64_t begin = 0;
  for (const Product &product : merged.products) {
    WeightPartAttr part = product.weight;
    linalg::GenericOp op = product.op;
    b.setInsertionPoint(op);
    Value result = merged.products.size() == 1
                       ? all
                       : sliceColumns(b, all, begin, part.getRows());
    begin += part.getRows();
    op->getResult(0).replaceAllUsesWith(resultOf(b, product, result));
    op.erase();
  }
}

void ArrangeWeightsPass::arrange(func::FuncOp step) {
  // By activations and depth: what they are multiplied with is one matrix.
  llvm::MapVector<std::pair<Value, ArrayAttr>, MergedProduct> found;
  for (auto op : step.getOps<linalg::GenericOp>()) {
    std::optional<Product> product = Product::match(op);
    if (!product)
      continue;
    Builder builder(&getContext());
    auto key = std::pair(product->activations->get(),
                         builder.getI64ArrayAttr(product->activationOrder));
    found[key].products.push_back(*product);
  }
  for (auto &[key, merged] : found) {
    Product &first = merged.products.front();
    ImplicitLocOpBuilder b(first.op.getLoc(), first.op);
    // Not the key's: a product that was written may have made another.
    Value ordered =
        transpose(b, first.activations->get(), first.activationOrder);
    WeightPartAttr part = first.weight;
    merged.activations =
        kvrm::reshape(b, ordered, {first.rows, part.getColumns()});
    write(merged);
  }
}

/// The tensors that a value in the body of `op` is made of.
static void collectTensors(Value value, linalg::GenericOp op,
                           SetVector<Value> &tensors) {
  if (auto argument = dyn_cast<BlockArgument>(value);
      argument && argument.getOwner() == op.getBody()) {
    tensors.insert(op.getMatchingOpOperand(argument)->get());
    return;
  }
  Operation *definition = value.getDefiningOp();
  if (!definition || !op->isProperAncestor(definition)) {
    tensors.insert(value);
    return;
  }
  for (Value operand : definition->getOperands())
    collectTensors(operand, op, tensors);
}

/// Whether the index of a read depends on the step's tokens.
static bool readsByToken(tensor::ExtractOp read, Value tokens) {
  auto generic = read->getParentOfType<linalg::GenericOp>();
  if (!generic)
    return false;
  SetVector<Value> tensors;
  for (Value index : read.getIndices())
    collectTensors(index, generic, tensors);
  SetVector<Operation *> slice;
  BackwardSliceOptions options;
  options.inclusive = true;
  options.omitUsesFromAbove = false;
  for (Value tensor : tensors)
    if (tensor.getDefiningOp())
      (void)getBackwardSlice(tensor, &slice, options);
  return tensors.contains(tokens) || llvm::any_of(slice, [&](Operation *op) {
           return llvm::is_contained(op->getOperands(), tokens);
         });
}

/// Embeddings have the element of matrices, and are widened where they are
/// read.
void ArrangeWeightsPass::narrowTable(ml_program::GlobalOp global,
                                     ArrayRef<func::FuncOp> steps) {
  auto type = cast<RankedTensorType>(global.getType());
  if (!matrixElement || !type.getElementType().isF32() ||
      !isa_and_present<ml_program::ExternAttr>(global.getValueAttr()))
    return;
  SmallVector<ml_program::GlobalLoadConstOp> loads;
  SmallVector<tensor::ExtractOp> reads;
  for (func::FuncOp step : steps)
    for (auto load : step.getOps<ml_program::GlobalLoadConstOp>()) {
      if (load.getGlobal() != SymbolRefAttr::get(global))
        continue;
      loads.push_back(load);
      for (Operation *user : load->getUsers()) {
        auto read = dyn_cast<tensor::ExtractOp>(user);
        if (!read || !readsByToken(read, step.getArgument(0)))
          return;
        reads.push_back(read);
      }
    }
  if (matrixElement == type.getElementType())
    return;
  RankedTensorType narrow = type.clone(matrixElement);
  global.setTypeAttr(TypeAttr::get(narrow));
  global.setValueAttr(ml_program::ExternAttr::get(&getContext(), narrow));
  for (ml_program::GlobalLoadConstOp load : loads)
    load.getResult().setType(narrow);
  for (tensor::ExtractOp read : reads) {
    OpBuilder b(&getContext());
    b.setInsertionPointAfter(read);
    read.getResult().setType(matrixElement);
    auto wide = arith::ExtFOp::create(b, read.getLoc(), b.getF32Type(),
                                      read.getResult());
    read.getResult().replaceAllUsesExcept(wide, wide);
  }
}

/// Makes fills of generics that are no more than that: what starts from zero
/// is seen to.
static void specializeFills(func::FuncOp step) {
  for (auto op : llvm::make_early_inc_range(step.getOps<linalg::GenericOp>())) {
    TypedAttr number =
        findFilled(op->getNumResults() == 1 ? op->getResult(0) : Value());
    if (!number)
      continue;
    ImplicitLocOpBuilder b(op.getLoc(), op);
    Value scalar = arith::ConstantOp::create(b, number);
    Value filled =
        linalg::FillOp::create(b, scalar, op.getDpsInits()[0]).getResult(0);
    op->getResult(0).replaceAllUsesWith(filled);
    op.erase();
  }
}

/// Found in one walk: a module has many globals, and many ops.
static llvm::DenseSet<StringAttr> usedSymbols(ModuleOp module) {
  llvm::DenseSet<StringAttr> used;
  std::optional<SymbolTable::UseRange> uses =
      SymbolTable::getSymbolUses(&module.getBodyRegion());
  for (SymbolTable::SymbolUse use : *uses)
    used.insert(use.getSymbolRef().getRootReference());
  return used;
}

void ArrangeWeightsPass::runOnOperation() {
  if (element != "" && element != "f32" && element != "f16" &&
      element != "bf16") {
    getOperation().emitError("element is '")
        << element << "', none of f32, f16 and bf16";
    return signalPassFailure();
  }
  Builder builder(&getContext());
  matrixElement = element == "f16"    ? Type(builder.getF16Type())
                  : element == "bf16" ? Type(builder.getBF16Type())
                  : element == "f32"  ? Type(builder.getF32Type())
                                      : Type();
  matrices.clear();
  SymbolTable table(getOperation());
  symbols = &table;
  SmallVector<func::FuncOp> steps = getSteps(getOperation());
  for (func::FuncOp step : steps) {
    arrange(step);
    specializeFills(step);
    for (Operation &op :
         llvm::make_early_inc_range(llvm::reverse(step.getBody().front())))
      if (isOpTriviallyDead(&op))
        op.erase();
  }
  llvm::DenseSet<StringAttr> used = usedSymbols(getOperation());
  for (auto global : llvm::make_early_inc_range(
           getOperation().getOps<ml_program::GlobalOp>())) {
    if (global->hasAttr(KVRMDialect::getPartsAttrName()))
      continue;
    if (!used.contains(global.getSymNameAttr()) &&
        isa_and_present<ml_program::ExternAttr>(global.getValueAttr())) {
      global.erase();
      continue;
    }
    narrowTable(global, steps);
  }
}
