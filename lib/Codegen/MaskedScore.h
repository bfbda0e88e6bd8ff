//===- MaskedScore.h - The score of an unseen token -------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_MASKEDSCORE_H
#define KVRM_CODEGEN_MASKEDSCORE_H

#include "kvrm/runtime/abi/descriptor.h"

namespace mlir::kvrm {

/// The score of a token that a query row does not see, and the maximum of a
/// row that has met no token. Below any score, so that its weight is 0, and
/// finite: the difference of two such is 0, where that of infinities is no
/// number. Partials hold it (abi/partial.h), so all who merge them agree on it.
inline constexpr float kMaskedScore = -1e30f;

// A kernel adds the runtime's bias to a summary's score: what that hides must
// score what the kernel hides by itself.
static_assert(kMaskedScore == KVRM_UNUSED_SUMMARY);

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_MASKEDSCORE_H
