//===- StepBuilder.h - One decoder step as phase-1 IR -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_STEPBUILDER_H
#define KVRM_FRONTEND_STEPBUILDER_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/Dialect/KVRM/Utils/Columns.h"
#include "kvrm/Frontend/DecoderBuilder.h"

#include "mlir/Dialect/MLProgram/IR/MLProgram.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace kvrm {

/// Rows of a step that take the same number of tokens: `rows` is how many
/// requests they serve, `queries` how many tokens of each.
struct BatchShape {
  int64_t rows, queries;
  bool selectsSlot;

  int64_t tokens() const { return rows * queries; }
};

/// A batch in the step that is built.
struct Batch {
  BatchShape shape;
  int64_t firstToken; ///< of the step's
  // Arguments, the last two if it selects slots.
  mlir::Value tokens, positions, counts, slots;
};

/// Of each token, `[tokens, head_dim / 2]`.
struct Angles {
  mlir::Value cosines, sines;
};

/// Builds one entry point. Inside, activations are `[tokens, width]`, batch
/// after batch and row after row.
class StepBuilder {
public:
  StepBuilder(mlir::ModuleOp module, const DecoderConfig &config,
              const GraphShape &shape, llvm::StringRef name,
              llvm::ArrayRef<BatchShape> shapes)
      : b(module.getLoc(), mlir::OpBuilder::atBlockEnd(module.getBody())),
        config(config), shape(shape), name(name) {
    for (const BatchShape &batch : shapes) {
      batches.push_back({batch, tokens, {}, {}, {}, {}});
      tokens += batch.tokens();
      rows += batch.rows;
    }
  }

  void build();

private:
  using BodyFn = llvm::function_ref<mlir::Value(
      mlir::OpBuilder &, mlir::Location, mlir::ValueRange)>;

  mlir::RankedTensorType f32(llvm::ArrayRef<int64_t> dims) {
    return mlir::RankedTensorType::get(dims, b.getF32Type());
  }
  mlir::RankedTensorType activations(llvm::ArrayRef<int64_t> dims) {
    return mlir::RankedTensorType::get(dims, activationType());
  }
  mlir::Value empty(llvm::ArrayRef<int64_t> dims) {
    return mlir::tensor::EmptyOp::create(b, dims, b.getF32Type());
  }
  mlir::Value weight(llvm::StringRef name, llvm::ArrayRef<int64_t> dims,
                     mlir::Type element) {
    return mlir::ml_program::GlobalLoadConstOp::create(
        b, mlir::RankedTensorType::get(dims, element),
        mlir::SymbolRefAttr::get(b.getContext(), name));
  }
  /// Rows of a matrix: its elements, or the values of its blocks.
  mlir::Value matrixRows(const WeightPiece &piece, int64_t width);
  mlir::Value vector(llvm::StringRef name, int64_t width) {
    return weight(name, {width}, b.getF32Type());
  }
  mlir::Type activationType();
  /// A scalar of a body, rounded to the element of activations.
  mlir::Value toActivation(mlir::OpBuilder &nested, mlir::Location loc,
                           mlir::Value value);
  mlir::Value layerVector(int64_t layer, const char *weightName,
                          int64_t width) {
    return vector(layerWeight(layer, weightName), width);
  }

  /// An elementwise op over `dims` with one map an input. Its elements are f32
  /// unless it is said which.
  mlir::Value elementwise(llvm::ArrayRef<int64_t> dims, mlir::ValueRange inputs,
                          llvm::ArrayRef<mlir::AffineMap> maps, BodyFn body,
                          mlir::Type element = {});
  mlir::Value identityMapped(mlir::Value like, mlir::ValueRange inputs,
                             BodyFn body, mlir::Type element = {});
  mlir::Value insertRows(mlir::Value part, mlir::Value joined, int64_t first);
  mlir::Value embed(const Batch &batch);
  /// Over the last dimension; elements are f32 unless it is said which.
  mlir::Value rmsNorm(mlir::Value x, mlir::Value weight,
                      mlir::Type element = {});
  /// x * matrix^T for the matrix `name`, `[width of the result][in]`.
  mlir::Value linear(mlir::Value x, llvm::StringRef name, int64_t width);
  mlir::Value multiply(mlir::Value x, mlir::Value weight);
  mlir::Value columns(mlir::Value x, int64_t begin, int64_t width) {
    return mlir::kvrm::sliceColumns(b, x, begin, width);
  }
  mlir::Value rowsOf(const Batch &batch, mlir::Value x);
  mlir::Value splitHeads(const Batch &batch, mlir::Value x, int64_t heads);
  /// f32 to the element of activations.
  mlir::Value castToActivations(mlir::Value x);
  mlir::Value gatherRope(llvm::StringRef table, const Batch &batch);
  mlir::Value rotate(mlir::Value x, int64_t heads, const Angles &angles);
  mlir::Value lastTokens(const Batch &batch, mlir::Value x);
  mlir::Type cacheType();
  llvm::SmallVector<mlir::Type> argumentTypes();
  void createFunction();
  mlir::Value
  forEachBatch(int64_t count,
               llvm::function_ref<mlir::Value(const Batch &)> build);
  mlir::Value add(mlir::Value x, mlir::Value y);
  mlir::Value attendCache(const Batch &batch, mlir::Value q, mlir::Value k,
                          mlir::Value v, int64_t layer);
  mlir::Value normBefore(mlir::Value x, int64_t layer, const char *weightName);
  mlir::Value normAfter(mlir::Value x, int64_t layer, const char *weightName);
  mlir::Value projection(mlir::Value x, int64_t layer);
  mlir::Value headNorm(mlir::Value x, int64_t layer, const char *weightName,
                       int64_t heads);
  Angles gatherAngles(llvm::StringRef cosTable, llvm::StringRef sinTable);
  Angles noAngles();
  mlir::Value attend(mlir::Value x, int64_t layer, const Angles &angles);
  mlir::Value activate(mlir::Value gate, mlir::Value up);
  mlir::Value capLogits(mlir::Value logits);
  mlir::Value feedForward(mlir::Value x, int64_t layer);

  mlir::ImplicitLocOpBuilder b;
  const DecoderConfig &config;
  const GraphShape &shape;
  llvm::StringRef name;
  llvm::SmallVector<Batch> batches;
  int64_t tokens = 0, rows = 0;     ///< of all batches
  mlir::Value keyCache, valueCache; ///< as the layers so far leave them
};

/// The matrix whose rows are embeddings. In blocks it is that of the logits if
/// the model ties the two, so that it is stored once.
llvm::StringRef embeddingOf(const DecoderConfig &config,
                            const GraphShape &shape);

/// How the matrix `name` of so many rows is stored, by a graph's shape.
std::vector<WeightPiece> piecesOf(const GraphShape &shape, llvm::StringRef name,
                                  int64_t rows);

/// The type of the global that holds a piece of a matrix.
mlir::RankedTensorType typeOf(mlir::MLIRContext *context,
                              const GraphShape &shape, const WeightPiece &piece,
                              int64_t width);

} // namespace kvrm

#endif // KVRM_FRONTEND_STEPBUILDER_H
