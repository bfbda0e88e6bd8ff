//===- GraphInterpreter.h - What a decode step computes ---------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Executes a decode step of another frontend, or the same step raised, op by op
// as their dialects define them. Integers wrap as the machine's do. Floating
// point is computed in double precision whatever its type, as the real numbers
// that raising speaks of; only rounding to less than a given precision is done,
// since that is something that a step may not add or lose.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FUZZ_GRAPHINTERPRETER_H
#define KVRM_FUZZ_GRAPHINTERPRETER_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "llvm/ADT/DenseMap.h"

#include <memory>
#include <string>
#include <vector>

namespace fuzz {

/// Truth values are 0 and 1, other integers what they are as signed numbers.
union Scalar {
  double real;
  int64_t integer;
};

/// A scalar is a tensor without dims.
struct Tensor {
  llvm::SmallVector<int64_t> shape;
  std::vector<Scalar> elements;
  /// What tensor.empty gives: reading it means nothing.
  bool isEmpty = false;
};

using TensorRef = std::shared_ptr<const Tensor>;

struct Access;
struct Program;

class GraphInterpreter {
public:
  /// Rounds to types of less than `precision` bits of significand.
  GraphInterpreter(mlir::func::FuncOp func, unsigned precision);
  ~GraphInterpreter();

  /// The results of the function; none where what it does is not defined, or
  /// not known here: then `getProblem` says what.
  std::vector<TensorRef> run(llvm::ArrayRef<TensorRef> arguments);
  const std::string &getProblem() const { return problem; }
  bool isUnknown() const { return unknown; }
  /// Of all tokens and queries of kvrm.cached_attention; infinity if anything
  /// that it takes is not finite.
  double getLargestScore() const { return largestScore; }

private:
  friend struct Program;

  void execute(mlir::Operation &op);
  bool executeTensorOp(mlir::Operation &op);
  void executeConstant(mlir::Operation &op);
  void executeElementwise(mlir::Operation &op);
  void executeBranch(mlir::Operation &op);
  void executeSlice(mlir::Operation &op);
  void executeInsertSlice(mlir::Operation &op);
  void executeConcat(mlir::Operation &op);
  void executeLinalg(mlir::linalg::LinalgOp op);
  void runLoops(Program &program, llvm::ArrayRef<int64_t> extents,
                llvm::ArrayRef<Access> accesses,
                llvm::ArrayRef<Scalar *> elements);
  void executeSoftmax(mlir::Operation &op);
  void executeScatter(mlir::Operation &op);
  void executeStableScatter(mlir::Operation &op);
  void scatterTo(Tensor &result, llvm::ArrayRef<int64_t> index, Scalar update,
                 bool updateIsFirst, mlir::Block &region,
                 std::vector<bool> &written);
  void executeTorchAttention(mlir::Operation &op);
  void executeMappedAttention(mlir::Operation &op);
  struct Attention;
  void attend(mlir::Operation &op, const Attention &attention);
  void executeCachedAttention(mlir::Operation &op);

  const Tensor &at(mlir::Value value);
  int64_t indexAt(mlir::OpFoldResult index);
  llvm::SmallVector<int64_t>
  indicesAt(llvm::ArrayRef<mlir::OpFoldResult> indices);
  void set(mlir::Value value, Tensor tensor);
  Program &programOf(mlir::Block &block);
  void undefined(const llvm::Twine &what);
  void notKnown(const llvm::Twine &what);

  mlir::func::FuncOp func;
  unsigned precision;
  llvm::DenseMap<mlir::Value, TensorRef> values;
  llvm::DenseMap<mlir::Block *, std::unique_ptr<Program>> programs;
  std::string problem;
  bool unknown = false;
  double largestScore = 0;
};

/// A tensor of the type, with room for its elements.
Tensor tensorOf(mlir::Type type);
/// The constant that an attribute is.
Tensor tensorOf(mlir::Attribute value);

} // namespace fuzz

#endif // KVRM_FUZZ_GRAPHINTERPRETER_H
