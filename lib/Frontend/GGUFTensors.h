//===- GGUFTensors.h - The tensors of GGUF files ---------------*- C++ -* -===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_GGUFTENSORS_H
#define KVRM_FRONTEND_GGUFTENSORS_H

#include "DecoderWeights.h"
#include "GGUFParts.h"

#include "llvm/ADT/StringSet.h"

#include <vector>

namespace kvrm {

/// The tensors of a model's files, as weights. The files outlive it; sources
/// keep their mappings.
class GGUFTensors final : public TensorStore {
public:
  GGUFTensors(const GGUFParts &parts, llvm::StringRef architecture)
      : parts(parts), architecture(architecture) {}

  bool has(llvm::StringRef name) const override {
    return parts.tensor(name).tensor;
  }
  llvm::Expected<SourcePtr> take(const llvm::Twine &name, int64_t rows,
                                 int64_t cols) override;
  llvm::Error checkAllTaken() const override;
  /// Values of the vector `name`; empty if it is not there.
  llvm::Expected<std::vector<double>> takeValues(llvm::StringRef name,
                                                 int64_t count);

private:
  const GGUFParts &parts;
  llvm::StringRef architecture;
  llvm::StringSet<> taken;
};

} // namespace kvrm

#endif // KVRM_FRONTEND_GGUFTENSORS_H
