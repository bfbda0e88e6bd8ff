//===- AttentionMatcher.h - Attention over a static cache -------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Recognises one layer's attention from its last contraction, probabilities
// times values, backwards, by what elements of the tensors are and not by the
// ops that make them. What is not proved is a refusal that says why.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_ATTENTIONMATCHER_H
#define KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_ATTENTIONMATCHER_H

#include "PointEvaluator.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::kvrm::raise {

/// A point of a cache that one token was written to: `written` if the index of
/// tokens is the position, what the argument has there else.
struct CacheRead {
  BlockArgument cache;
  SmallVector<const Expr *> index;
  /// The dim of tokens.
  unsigned tokenDim = 0;
  const Expr *position = nullptr;
  const Expr *written = nullptr;

  int64_t size(unsigned dim) const {
    return cast<RankedTensorType>(cache.getType()).getDimSize(dim);
  }
};

/// Which dim of a cache is what. Those of one element may be missing.
struct CacheDims {
  std::optional<unsigned> layer, row, head, token, column;
  /// The index along `layer`.
  int64_t layerIndex = 0;
};

/// A layer that is `kvrm.cached_attention`, at the point (row, head, column) of
/// its output.
struct AttentionLayer {
  /// The contraction that gives the output.
  Operation *op = nullptr;
  BlockArgument keyCache, valueCache;
  CacheDims keyDims, valueDims;
  int64_t rows = 1, heads = 1, kvHeads = 1, capacity = 1, headDim = 1;
  double scale = 1;
  const Expr *row = nullptr, *kvHead = nullptr, *column = nullptr;
  const Expr *head = nullptr;
  const Expr *position = nullptr;
  /// At (row, head, column), and what is written at (row, kvHead, column).
  const Expr *query = nullptr, *key = nullptr, *value = nullptr;
  /// The output's dims but for that of columns, those of rows first: their
  /// indices, in this order, count through rows and heads.
  SmallVector<unsigned> outputOrder;
  unsigned outputColumn = 0;
  /// What was taken for granted beside the contract of the pass.
  bool hasFiniteMask = false, isOneHot = false;
};

struct Refusal {
  Operation *op = nullptr;
  std::string reason;
};

class AttentionMatcher {
public:
  AttentionMatcher(PointEvaluator &evaluator, func::FuncOp func)
      : evaluator(evaluator), pool(evaluator.exprs()), func(func) {}

  /// The cache that a contraction sums over the tokens of, if there is one.
  std::optional<CacheRead> findCandidate(Operation *op);

  /// The layer that a candidate is; else `refusal` says why it is none.
  FailureOr<AttentionLayer> match(Operation *op);
  const Refusal &getRefusal() const { return refusal; }

  /// `expr` as a point of a cache with a token written.
  std::optional<CacheRead> readCache(const Expr *expr);
  /// The same, if nothing on the way is rounded to less than the cache is.
  std::optional<CacheRead> readUnrounded(const Expr *expr);
  /// Symbols that all layers share.
  const Expr *symbol(StringRef name, int64_t extent);

private:
  /// A contraction's two factors, one of them a cache whose tokens it sums.
  struct Candidate {
    Value output;
    const Expr *sum = nullptr;
    unsigned cacheOperand = 0;
    SmallVector<const Expr *> index;
    CacheRead values;
  };
  /// `number` times `value`.
  struct Scaled {
    double number = 1;
    const Expr *value = nullptr;
  };

  std::optional<Candidate> candidateOf(Operation *op);
  std::optional<CacheRead> readOneHot(const Expr *expr);
  std::optional<CacheRead> readAt(const Expr *isWritten, const Expr *written,
                                  const Expr *old);

  LogicalResult matchShape(const Candidate &candidate);
  LogicalResult tryShape(const Candidate &candidate,
                         std::optional<unsigned> rowDim,
                         std::optional<unsigned> headDim);
  LogicalResult matchValues(const Candidate &candidate);
  LogicalResult matchProbability(const Expr *probability);
  LogicalResult matchScores(const Expr *scores);
  LogicalResult matchProduct(const Expr *product);
  LogicalResult matchMask();
  LogicalResult matchRounding();
  LogicalResult matchWritten(const CacheRead &read, const Expr *column,
                             const Expr *&written, StringRef what);
  bool isOfGroup(const Expr *written, const Expr *seen, const Expr *column);
  LogicalResult matchPosition(const CacheRead &keys);
  std::optional<CacheDims> dimsOf(const CacheRead &read, const Expr *column);

  /// Takes selects off that are for rows with every token masked.
  const Expr *skipDeadRows(const Expr *probability);
  const Expr *denominatorOf(const Expr *quotient, const Expr *&numerator);
  bool sumsSame(const Expr *sum, const Expr *numerator);
  /// The condition under which a term that is added to scores lets them be.
  const Expr *maskTerm(const Expr *term);
  bool isMaskValue(const Expr *expr);
  Scaled peelScale(const Expr *expr);
  bool splitConstant(const Expr *expr, double &number, const Expr *&rest);
  /// Past roundings, which are noted.
  const Expr *strip(const Expr *expr);
  LogicalResult refuse(const Twine &reason);
  LogicalResult refuse(const Twine &reason, const Expr *seen);

  PointEvaluator &evaluator;
  ExprPool &pool;
  func::FuncOp func;
  llvm::DenseMap<std::pair<StringRef, int64_t>, const Expr *> symbols;

  // Of the layer that is being matched.
  AttentionLayer layer;
  CacheRead values;
  const Expr *token = nullptr, *kvHeadOfHead = nullptr, *mask = nullptr;
  /// Scores that conditions of dead rows compare with minus infinity.
  SmallVector<const Expr *> comparedScores;
  llvm::SmallPtrSet<const void *, 4> roundedTo;
  double maskFactor = 1;
  Refusal refusal;
};

} // namespace mlir::kvrm::raise

#endif // KVRM_LIB_DIALECT_KVRM_TRANSFORMS_RAISE_ATTENTIONMATCHER_H
