//===- BlockRecords.h - Weights in blocks, as packages have them *- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_PACKAGE_BLOCKRECORDS_H
#define KVRM_PACKAGE_BLOCKRECORDS_H

#include "kvrm/Package/Weights.h"

namespace kvrm {

/// Writes stored rows [begin, end) of a layout in blocks, whole panels, to
/// `out`. Returns false if a scale or a minimum is not finite.
bool packBlocks(const WeightSource &source, const WeightLayout &layout,
                int64_t begin, int64_t end, uint8_t *out);

} // namespace kvrm

#endif // KVRM_PACKAGE_BLOCKRECORDS_H
