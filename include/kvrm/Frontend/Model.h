//===- Model.h - A decoder as the compiler sees it --------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What every front end produces and what the decoder builder and the package
// writer consume: a configuration, and named sources of weight values. Values
// are read on demand, so that a model never lies in memory as floats.
//
// Names of weights (N is a layer), each a row-major matrix [rows][cols]:
//
//   token_embd         [vocabulary][hidden]
//   output_norm        [1][hidden]
//   output             [vocabulary][hidden]; the source of token_embd if tied
//   blk.N.attn_norm    [1][hidden]
//   blk.N.attn_qkv     [(heads + 2 * kvHeads) * headDim][hidden]: q, k, v rows
//   blk.N.attn_output  [hidden][heads * headDim]
//   blk.N.ffn_norm     [1][hidden]
//   blk.N.ffn_gate_up  [2 * feedForward][hidden]: gate, then up rows
//   blk.N.ffn_down     [hidden][feedForward]
//   rope_cos, rope_sin [context][ropeDim / 2]
//
// RoPE is in the half-split form: of each head of q and k, element i and
// element i + ropeDim / 2 (i < ropeDim / 2) are the pair rotated by angle i of
// the position; elements from ropeDim on are not rotated. Front ends permute q
// and k rows into this order.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_MODEL_H
#define KVRM_FRONTEND_MODEL_H

#include "kvrm/runtime/support/SeededValues.h"

#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvrm {

struct DecoderConfig {
  std::string name;
  std::string architecture;
  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kvHeads = 0;
  int64_t headDim = 0;
  int64_t feedForward = 0;
  int64_t context = 0;
  double ropeTheta = 10000.0;
  double normEpsilon = 1e-5;
  int64_t ropeDim = 0;
  int32_t bos = -1; ///< -1: the model has none
  int32_t eos = -1; ///< -1: the model has none
  /// Tokens that end a turn: eos, then others, each once.
  std::vector<int32_t> ends;
  bool tiedEmbeddings = false;

  /// Adds `token` to `ends` unless it is there; -1 is none.
  void addEnd(int32_t token);
};

/// Where a weight's values come from.
class WeightSource {
public:
  virtual ~WeightSource();
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  /// Writes rows [begin, end), row-major, to `out`. Several threads may call
  /// this at once.
  virtual void readRows(int64_t begin, int64_t end, float *out) const = 0;
  /// What a user knows a row by: its file and tensor; empty if it has none.
  virtual std::string origin(int64_t /*row*/) const { return {}; }
  /// What makes the values, row after row, if a seed does; else null.
  virtual const SeededValues *seededValues() const { return nullptr; }
};

/// A byte-level BPE, in the terms of tokenizer.json.
struct TokenizerData {
  enum class Kind : uint8_t {
    Normal,      ///< text in the GPT-2 byte alphabet
    Special,     ///< control token, plain text, not shown
    UserDefined, ///< matched verbatim, plain text, shown
    Unused
  };
  std::vector<std::string> tokens; ///< by id
  std::vector<Kind> kinds;         ///< by id
  std::vector<std::string> merges; ///< "left right", best first
  /// Split expressions (PCRE), applied in turn.
  std::vector<std::string> patterns;
  /// A word that is a token as it stands is not taken apart.
  bool ignoreMerges = false;
  bool addBos = false;
  int32_t bos = -1;
  int32_t eos = -1;
  std::string chatTemplate;
};

class DecoderModel {
public:
  DecoderConfig config;
  std::optional<TokenizerData> tokenizer;
  /// Why there is no tokenizer, for a note to the user.
  std::string tokenizerNote;
  /// What the weights are read from.
  std::vector<std::string> files;

  /// The source of the weight `name`, or null.
  const WeightSource *lookup(llvm::StringRef name) const;
  void set(llvm::StringRef name, std::shared_ptr<const WeightSource> source);
  /// Gives the weight `name` the source of `existing`.
  void share(llvm::StringRef name, llvm::StringRef existing);

  /// Adds rope_cos and rope_sin for `config`. Frequency i is
  /// ropeTheta^(-2i / ropeDim), divided by factors[i] unless `factors` is
  /// empty. Angles are computed in double.
  void addRopeTables(std::vector<float> factors = {});

  /// Checks `config` against the limits of the ABI and that every weight is
  /// there in the right shape. Messages start with `origin`.
  llvm::Error verify(llvm::StringRef origin) const;

private:
  llvm::StringMap<std::shared_ptr<const WeightSource>> weights;
};

/// Opens a GGUF file with a Llama decoder in it, or the first of several parts
/// of one. Files stay mapped as long as the model lives.
llvm::Expected<DecoderModel> openGGUF(llvm::StringRef path);

struct SynthOptions {
  int64_t layers = 2;
  int64_t hidden = 64;
  int64_t heads = 4;
  int64_t kvHeads = 2;
  int64_t headDim = 16;
  int64_t feedForward = 128;
  int64_t vocabulary = 256;
  int64_t context = 2048;
  uint64_t seed = 1;
  bool tiedEmbeddings = false;
};

/// A decoder of any shape with seeded weights: the same options give the same
/// values on every machine.
llvm::Expected<DecoderModel> synthModel(const SynthOptions &options);

} // namespace kvrm

#endif // KVRM_FRONTEND_MODEL_H
