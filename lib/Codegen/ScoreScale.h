//===- ScoreScale.h - What scores are multiplied with -----------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_SCORESCALE_H
#define KVRM_CODEGEN_SCORESCALE_H

#include "kvrm/Dialect/KVRM/IR/TileProgram.h"

#include <numbers>

namespace mlir::kvrm {

/// Kernels take powers of 2, so scores are to base 2: a constant that is
/// multiplied with anyway holds the logarithm.
struct ScoreScale {
  explicit ScoreScale(const TileProgram &program) {
    double scale = program.scale.getValueAsDouble(), cap = 0;
    if (program.softcap)
      cap = program.softcap.getValueAsDouble();
    score =
        static_cast<float>(cap > 0 ? scale / cap : scale * std::numbers::log2e);
    softcap = static_cast<float>(cap * std::numbers::log2e);
  }

  float score;   ///< of products: to base 2, or to the softcap
  float softcap; ///< of what tanh leaves, to base 2; 0: none
};

/// exp(-2 x) = exp2(kMinusTwoLog2e * x), by which both targets compute tanh.
inline constexpr float kMinusTwoLog2e =
    static_cast<float>(-2 * std::numbers::log2e);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_SCORESCALE_H
