//===- StepComparison.h - A step beside what it was raised to ---*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Executes a step and its raised form on the same random inputs, under what
// docs/raising.md lets raising assume, and compares all that they return.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FUZZ_STEPCOMPARISON_H
#define KVRM_FUZZ_STEPCOMPARISON_H

#include "GraphInterpreter.h"
#include "GraphMutator.h"

#include "Raise/StepAnalysis.h"

namespace fuzz {

enum class Agreement : uint8_t {
  Equal,     ///< All that is finite agrees.
  Undefined, ///< The step does what is not defined, whatever the position.
  Unknown,   ///< An op that is not known here.
  Differs,
};

struct Comparison {
  Agreement agreement = Agreement::Equal;
  /// What differs, or why nothing could be compared.
  std::string detail;
  /// Elements of the step that were not finite, and so not compared.
  int64_t notFinite = 0, compared = 0;
  /// Of those that were not finite, elements that the raised step makes finite.
  int64_t healed = 0;
  /// The step does what the one does that the inputs were made for.
  bool isUnchanged = false;
  /// Somewhere activations were not finite, or scores not small beside a mask
  /// that is: nothing was compared there.
  bool leavesContract = false;
  /// Rows turned out to depend on each other, so that it was not compared what
  /// they do at positions of their own.
  bool mixesRows = false;
};

class StepComparison {
public:
  using Step = mlir::kvrm::raise::RaisableStep;

  /// Makes inputs for `func`, of which `step` is what raising found.
  StepComparison(mlir::func::FuncOp func, const Step &step,
                 llvm::ArrayRef<unsigned> causalMasks, Random &random);

  /// Compares `func`, a mutant of the function that the inputs are for, with
  /// `raised`. `step` is what raising found in `func`.
  Comparison compare(mlir::func::FuncOp func, const Step &step,
                     mlir::func::FuncOp raised);

  /// The position and the caches among the arguments of a clone of `func`, and
  /// the ops that were its attentions.
  void rootsIn(mlir::func::FuncOp clone,
               llvm::SmallVectorImpl<mlir::Value> &roots,
               llvm::SmallVectorImpl<mlir::Operation *> &stops) const;

private:
  using Tensors = std::vector<TensorRef>;
  /// Positions of a raised step, and the run of the step that each row is from.
  struct Case {
    llvm::SmallVector<int64_t> positions;
    llvm::SmallVector<size_t> runs;
    bool isRagged = false;
  };
  /// One row of a result, in the step and raised; `moved` is what rounding
  /// makes of the latter.
  struct Row {
    std::vector<Scalar> expected, seen, moved;
    bool isReal = true;
    std::string name;
  };

  Tensors drawInputs(Random &random);
  void setPositions(Tensors &run, llvm::ArrayRef<int64_t> positions);
  Tensor maskAt(unsigned argument, llvm::ArrayRef<int64_t> positions);
  llvm::SmallVector<int64_t> drawPositions(size_t run, Random &random);
  Tensors raisedInputs(const Step &step, const Case &each);
  Tensor stackedCache(const Step &step, const Tensors &run, bool ofKeys);
  llvm::SmallVector<Case> casesOf(const Step &step);
  std::vector<Row> rowsOf(const Case &each, const Step &step,
                          const Tensors &seen, const Tensors &moved);
  /// What a run of the step returns of a row in the caches of all layers.
  std::vector<Scalar> cacheRowOf(const Step &step, bool ofKeys,
                                 const Tensors &results, size_t row);
  void addCacheRows(const Case &each, const Step &step, bool ofKeys,
                    const Tensor &seen, const Tensor *moved,
                    std::vector<Row> &list);
  bool runMutant(mlir::func::FuncOp func, Comparison &comparison);
  void compareCase(const Case &each, const Step &step,
                   mlir::func::FuncOp raised, Comparison &comparison);
  Tensors runMoved(const Case &each, const Step &step,
                   mlir::func::FuncOp raised);
  Tensors inputsOfOthers(const Step &step, const Tensors &run, size_t row);
  bool mixesRows(mlir::func::FuncOp func, const Step &step, const Case &each);

  /// Of the base's arguments and results.
  llvm::SmallVector<mlir::Type> types, resultTypes;
  unsigned precision, positionArgument;
  llvm::SmallVector<unsigned> causalMasks;
  int64_t rows, capacity;
  bool hasCommonPosition;
  /// By number: arguments, and ops of the body.
  llvm::SmallVector<unsigned> roots, stops;
  /// Inputs of runs, what the base returns for them, and the mutant at hand.
  std::vector<Tensors> inputs, ofBase, ofMutant;
};

} // namespace fuzz

#endif // KVRM_FUZZ_STEPCOMPARISON_H
