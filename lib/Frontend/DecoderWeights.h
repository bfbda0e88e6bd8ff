//===- DecoderWeights.h - The weights of a decoder --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every format has the same tensors under names of its own. A front end says
// how they are called, and where they are; what they become is said once.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_DECODERWEIGHTS_H
#define KVRM_FRONTEND_DECODERWEIGHTS_H

#include "WeightSources.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/Error.h"

namespace kvrm {

/// The tensors of a model's files.
class TensorStore {
public:
  virtual ~TensorStore();

  virtual bool has(llvm::StringRef name) const = 0;
  /// The tensor [rows][cols], or [rows] if `cols` is 0, which is a column then.
  /// Fails if it is not there or of another shape.
  virtual llvm::Expected<SourcePtr> take(const llvm::Twine &name, int64_t rows,
                                         int64_t cols) = 0;
  /// Fails if there is a tensor that was not taken: it would change the result.
  virtual llvm::Error checkAllTaken() const = 0;
};

/// Names of tensors, to which ".weight" or ".bias" is added. Those of a layer
/// follow its prefix. Empty ones are not there.
struct TensorNames {
  struct Layer {
    const char *attnNorm = "";
    const char *q = "", *k = "", *v = "";
    const char *qkv = ""; ///< in their stead, one below the other
    const char *qNorm = "", *kNorm = "";
    const char *attnOutput = "";
    const char *attnPostNorm = "";
    const char *ffnNorm = "";
    const char *gate = "", *up = "";
    const char *gateUp = ""; ///< in their stead, one below the other
    const char *down = "";
    const char *ffnPostNorm = "";
  };

  const char *embedding = "";
  const char *outputNorm = "";
  const char *output = ""; ///< not there: the embedding
  std::string layerPrefix; ///< "blk." of "blk.3.attn_norm"
  Layer layer;
};

/// How the rows of a head of query and key are ordered in the files.
enum class HeadOrder : uint8_t {
  Halves,     ///< i turns with i + dim / 2
  Neighbours, ///< 2i turns with 2i + 1
};

struct WeightConventions {
  HeadOrder headOrder = HeadOrder::Halves;
  /// Norms multiply with this plus the weight.
  float normOffset = 0.0f;
};

/// Gives `model`, whose configuration is read, its weights and its tables.
/// Fails, too, if a tensor of the files has no place.
llvm::Error addDecoderWeights(DecoderModel &model, TensorStore &tensors,
                              const TensorNames &names,
                              const WeightConventions &conventions);

} // namespace kvrm

#endif // KVRM_FRONTEND_DECODERWEIGHTS_H
