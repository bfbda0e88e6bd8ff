//===- TileProgram.h - What a kernel's body may say -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The body of a kvrm.kernel has one of two forms: it appends, or it is the
// attention of one work item, a few loops over its KV tiles. This is the one
// place that knows them. The verifier reads a body here, and so does whoever
// lowers it: a target is handed what a program says, not ops to recognise.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_KVRM_IR_TILEPROGRAM_H
#define KVRM_DIALECT_KVRM_IR_TILEPROGRAM_H

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"

namespace mlir::kvrm {

/// Where a loop over the tiles of an item may begin or end, in order.
enum class TileBound { Begin, WindowEdge, SummaryEnd, Full, End };

/// A loop over tiles [begin, end): load, score, online softmax, accumulate.
struct TileLoop {
  TileBound begin, end;
  bool masked;    ///< hides tokens that a query row must not see
  bool summaries; ///< tiles may hold summaries of the far history

  bool operator==(const TileLoop &) const = default;
};

/// The loops of an attention program take all tiles of an item once, in order.
/// They mask those from Full on, and with a window those before its edge, and
/// heed summaries wherever there may be some.
struct TileProgram {
  FloatAttr scale;                ///< of all scores; null if it appends
  FloatAttr softcap;              ///< of all scores; null if there is none
  SmallVector<TileLoop, 3> loops; ///< none if it appends

  bool attends() const { return !loops.empty(); }
  bool operator==(const TileProgram &) const = default;

  /// The program that appends.
  static TileProgram append() { return {}; }
  /// Attention with no more masks and summaries than a session, and a window
  /// if it is to have one, call for.
  static TileProgram attention(SessionType session, bool hasWindow,
                               FloatAttr scale, FloatAttr softcap);

  /// Reads a kernel's body. Fails, with an error at what is wrong, if that is
  /// not a tile program.
  static FailureOr<TileProgram> match(KernelOp kernel);

  /// Writes this program as the body of a kernel that has none yet.
  void write(KernelOp kernel) const;
};

} // namespace mlir::kvrm

#endif // KVRM_DIALECT_KVRM_IR_TILEPROGRAM_H
