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
//   token_embd           [vocabulary][hidden]
//   output_norm          [1][hidden]
//   output               [vocabulary][hidden]; the source of token_embd if tied
//   blk.N.attn_norm      [1][hidden]
//   blk.N.attn_qkv       [(heads + 2 * kvHeads) * headDim][hidden]: q, k, v
//   blk.N.attn_qkv_bias  [1][(heads + 2 * kvHeads) * headDim]
//   blk.N.attn_q_norm    [1][headDim], or of all heads, [1][heads * headDim]
//   blk.N.attn_k_norm    the same of the kvHeads
//   blk.N.attn_output    [hidden][heads * headDim]
//   blk.N.attn_post_norm [1][hidden]
//   blk.N.ffn_norm       [1][hidden]
//   blk.N.ffn_gate_up    [2 * feedForward][hidden]: gate, then up rows
//   blk.N.ffn_down       [hidden][feedForward]
//   blk.N.ffn_post_norm  [1][hidden]
//   rope_cos, rope_sin   [context][headDim / 2]
//   rope_cos_local, rope_sin_local: the same, of layers with a window
//
// Where the files have a matrix in blocks, and its parts in blocks of unlike
// formats, the parts are weights, too: blk.N.attn_q, attn_k and attn_v, and
// blk.N.ffn_gate and ffn_up.
//
// Which of bias, norms and tables there are, the configuration says.
//
// RoPE is in the half-split form: of each head of q and k, element i and
// element i + headDim / 2 (i < headDim / 2) are the pair rotated by angle i of
// the position. Front ends permute q and k rows into this order; where only
// some elements of a head turn, the angles of the other pairs are 0.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_FRONTEND_MODEL_H
#define KVRM_FRONTEND_MODEL_H

#include "kvrm/Frontend/DecoderConfig.h"
#include "kvrm/Frontend/Quantization.h"
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

struct BlockCodes;

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
  /// The blocks that the files have all rows in, if there are such.
  virtual std::optional<BlockFormat> blockFormat() const {
    return std::nullopt;
  }
  /// Copies the blocks of rows [begin, end), as GGUF has them, to `out`. Only
  /// of what is in blocks; several threads may call this at once.
  virtual void readBlocks(int64_t begin, int64_t end, uint8_t *out) const;
  /// The same blocks of one row, field by field.
  virtual void readCodes(int64_t row, BlockCodes *out) const;
  /// What makes the values, row after row, if a seed does; else null.
  virtual const SeededValues *seededValues() const { return nullptr; }
};

/// A BPE, in the terms of tokenizer.json: over bytes, or over characters in the
/// manner of SentencePiece.
struct TokenizerData {
  enum class Kind : uint8_t {
    Normal,      ///< text in the GPT-2 byte alphabet, or plain with characters
    Special,     ///< control token, plain text, not shown
    UserDefined, ///< matched verbatim, plain text, shown
    Unused
  };
  std::vector<std::string> tokens; ///< by id
  std::vector<Kind> kinds;         ///< by id
  /// Added tokens to which the white space before or behind them belongs.
  std::vector<int32_t> stripsBefore, stripsBehind;
  std::vector<std::string> merges; ///< "left right", best first
  /// Split expressions (PCRE), applied in turn.
  std::vector<std::string> patterns;
  /// Over characters: U+2581 stands for a space, and what is no token is the
  /// tokens <0x00> to <0xFF> of its bytes.
  bool isOverCharacters = false;
  /// Where such a text, between added tokens, gets a space in front.
  enum class Prefix : uint8_t {
    None,
    First, ///< at its beginning, unless one is there
    Each,  ///< and behind each added token
    Always ///< there too, and even if one is there
  };
  Prefix prefix = Prefix::None;
  /// Text is brought to Unicode's normalization form C first.
  bool normalizesToNFC = false;
  /// A word that is a token as it stands is not taken apart.
  bool ignoreMerges = false;
  bool addBos = false;
  int32_t bos = -1;
  int32_t eos = -1;
  std::string chatTemplate;
};

/// Rows of a matrix that are stored as a weight of their own.
struct WeightPiece {
  std::string name;
  int64_t rows = 0;
  std::optional<BlockFormat> format; ///< none: elements as the graph has them
};
/// By the name of the matrix.
using MatrixPieces = llvm::StringMap<std::vector<WeightPiece>>;

class DecoderModel {
public:
  DecoderConfig config;
  std::optional<TokenizerData> tokenizer;
  /// Why there is no tokenizer, for a note to the user.
  std::string tokenizerNote;
  /// What weights and, if it is in files of its own, the tokenizer are read
  /// from.
  std::vector<std::string> files;

  /// The source of the weight `name`, or null.
  const WeightSource *lookup(llvm::StringRef name) const;
  /// The same, which is there.
  std::shared_ptr<const WeightSource> get(llvm::StringRef name) const {
    return weights.at(name);
  }
  void set(llvm::StringRef name, std::shared_ptr<const WeightSource> source);
  /// Gives the weight `name` the source of `existing`.
  void share(llvm::StringRef name, llvm::StringRef existing);

  /// Of each matrix that the files have in blocks, or parts of it, the weights
  /// that it is stored as, one below the other, to stay so: itself, or its
  /// parts.
  MatrixPieces matricesInBlocks() const;

  /// Adds rope_cos and rope_sin, and the local ones, for `config`. Angles are
  /// computed in double.
  void addRopeTables();

  /// Checks `config` against the limits of the ABI and that every weight is
  /// there in the right shape. Messages start with `origin`.
  llvm::Error verify(llvm::StringRef origin) const;

private:
  std::vector<WeightPiece> piecesOf(llvm::StringRef matrix) const;

  llvm::StringMap<std::shared_ptr<const WeightSource>> weights;
};

/// Opens the decoder at `path`: a folder as Hugging Face's transformers write
/// it, or a GGUF file, or the first of several parts of one. `capacity`, tokens
/// a slot, is what angles that depend on it are chosen by; 0: the model's
/// context. Files stay mapped as long as the model lives.
llvm::Expected<DecoderModel> openModel(llvm::StringRef path,
                                       int64_t capacity = 0);
llvm::Expected<DecoderModel> openGGUF(llvm::StringRef path,
                                      int64_t capacity = 0);
llvm::Expected<DecoderModel> openFolder(llvm::StringRef path,
                                        int64_t capacity = 0);

/// Gives a decoder that came without one the tokenizer, the chat template and
/// the tokens that end a turn, of a folder as transformers write it. Errors:
/// one line for a tokenizer that is missing or not supported.
llvm::Error addFolderTokenizer(llvm::StringRef folder, DecoderModel &model);

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
