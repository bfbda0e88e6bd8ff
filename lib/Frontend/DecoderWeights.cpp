//===- DecoderWeights.cpp - The weights of a decoder ----------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DecoderWeights.h"

#include "Lookup.h"

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
using llvm::Twine;

TensorStore::~TensorStore() = default;

/// Of each element of a head in the half-split form of Model.h, the element of
/// the file. Elements that do not turn are shared among both halves. Scores are
/// sums over a head, and so do not see it.
static std::vector<int64_t> headOrderOf(const DecoderConfig &config,
                                        HeadOrder order) {
  int64_t turning = config.rope.dim, half = config.headDim / 2;
  int64_t still = (config.headDim - turning) / 2;
  std::vector<int64_t> source(static_cast<size_t>(config.headDim));
  auto place = [&](int64_t pair, int64_t first, int64_t second) {
    source[static_cast<size_t>(pair)] = first;
    source[static_cast<size_t>(pair + half)] = second;
  };
  for (int64_t i = 0; i < turning / 2; ++i)
    if (order == HeadOrder::Neighbours)
      place(i, 2 * i, 2 * i + 1);
    else
      place(i, i, i + turning / 2);
  for (int64_t i = 0; i < still; ++i)
    place(turning / 2 + i, turning + i, turning + still + i);
  return source;
}

namespace {
class WeightReader {
public:
  WeightReader(DecoderModel &model, TensorStore &tensors,
               const TensorNames &names, const WeightConventions &conventions)
      : model(model), c(model.config), tensors(tensors), names(names),
        conventions(conventions),
        headOrder(headOrderOf(model.config, conventions.headOrder)) {}

  Error read();

private:
  Error addMatrix(StringRef weight, const Twine &name, int64_t rows,
                  int64_t cols);
  Error addNorm(StringRef weight, const Twine &name, int64_t count);
  Error readLayer(int64_t layer);
  Error readProjection(int64_t layer);
  /// A tensor of a layer, and how many heads of it are to be reordered.
  struct Part {
    const char *name;
    int64_t rows;
    int64_t heads;
  };
  Error addParts(int64_t layer, const char *whole,
                 std::initializer_list<Part> parts);
  Error readHeadNorms(int64_t layer);
  Error readGateUp(int64_t layer);
  /// Query, key and value, which end in `suffix`.
  Expected<SourcePtr> projection(int64_t layer, StringRef suffix, int64_t cols);
  Expected<SourcePtr>
  rowsOf(int64_t layer,
         std::initializer_list<std::pair<const char *, int64_t>> parts,
         StringRef suffix, int64_t cols);
  std::string inLayer(int64_t layer, StringRef name) {
    return names.layerPrefix + std::to_string(layer) + "." + name.str();
  }

  DecoderModel &model;
  const DecoderConfig &c;
  TensorStore &tensors;
  const TensorNames &names;
  const WeightConventions &conventions;
  std::vector<int64_t> headOrder;
};
} // namespace

Error WeightReader::addMatrix(StringRef weight, const Twine &name, int64_t rows,
                              int64_t cols) {
  Expected<SourcePtr> source = tensors.take(name + ".weight", rows, cols);
  if (!source)
    return source.takeError();
  model.set(weight, std::move(*source));
  return Error::success();
}

Error WeightReader::addNorm(StringRef weight, const Twine &name,
                            int64_t count) {
  Expected<SourcePtr> source = tensors.take(name + ".weight", count, 0);
  if (!source)
    return source.takeError();
  model.set(weight, columnToRow(std::move(*source), conventions.normOffset));
  return Error::success();
}

/// Tensors of so many rows each, one below the other.
Expected<SourcePtr> WeightReader::rowsOf(
    int64_t layer,
    std::initializer_list<std::pair<const char *, int64_t>> parts,
    StringRef suffix, int64_t cols) {
  std::vector<SourcePtr> sources;
  for (auto [name, rows] : parts) {
    Expected<SourcePtr> source =
        tensors.take(inLayer(layer, name) + suffix, rows, cols);
    if (!source)
      return source.takeError();
    sources.push_back(std::move(*source));
  }
  return concatRows(std::move(sources));
}

Expected<SourcePtr> WeightReader::projection(int64_t layer, StringRef suffix,
                                             int64_t cols) {
  int64_t q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
  const TensorNames::Layer &l = names.layer;
  Expected<SourcePtr> rows =
      *l.qkv ? rowsOf(layer, {{l.qkv, q + 2 * kv}}, suffix, cols)
             : rowsOf(layer, {{l.q, q}, {l.k, kv}, {l.v, kv}}, suffix, cols);
  if (!rows)
    return rows.takeError();
  return reorderHeads(std::move(*rows), c.heads + c.kvHeads, headOrder);
}

/// Adds query, key and value, or gate and up, as weights of their own where
/// only so they stay in blocks.
Error WeightReader::addParts(int64_t layer, const char *whole,
                             std::initializer_list<Part> parts) {
  if (model.lookup(layerWeight(layer, whole))->blockFormat())
    return Error::success();
  std::vector<SourcePtr> sources;
  for (const Part &part : parts) {
    Expected<SourcePtr> source = tensors.take(
        inLayer(layer, part.name) + ".weight", part.rows, c.hidden);
    if (!source)
      return source.takeError();
    sources.push_back(reorderHeads(std::move(*source), part.heads, headOrder));
  }
  if (llvm::none_of(sources, [](const SourcePtr &source) {
        return source->blockFormat().has_value();
      }))
    return Error::success();
  for (const PartNames &known : partNames())
    if (StringRef(known.whole) == whole)
      for (auto [part, source] : llvm::zip_equal(known.parts, sources))
        model.set(layerWeight(layer, part), std::move(source));
  return Error::success();
}

Error WeightReader::readProjection(int64_t layer) {
  Expected<SourcePtr> weight = projection(layer, ".weight", c.hidden);
  if (!weight)
    return weight.takeError();
  model.set(layerWeight(layer, "attn_qkv"), std::move(*weight));
  const TensorNames::Layer &l = names.layer;
  int64_t q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
  if (!*l.qkv)
    if (Error error =
            addParts(layer, "attn_qkv",
                     {{l.q, q, c.heads}, {l.k, kv, c.kvHeads}, {l.v, kv, 0}}))
      return error;
  if (!c.hasProjectionBias)
    return Error::success();
  Expected<SourcePtr> bias = projection(layer, ".bias", 0);
  if (!bias)
    return bias.takeError();
  model.set(layerWeight(layer, "attn_qkv_bias"), columnToRow(std::move(*bias)));
  return Error::success();
}

Error WeightReader::readHeadNorms(int64_t layer) {
  if (c.headNorm == HeadNorm::None)
    return Error::success();
  bool isAll = c.headNorm == HeadNorm::AllHeads;
  auto add = [&](const char *weight, const char *name, int64_t heads) -> Error {
    Expected<SourcePtr> source =
        tensors.take(inLayer(layer, name) + ".weight", heads * c.headDim, 0);
    if (!source)
      return source.takeError();
    model.set(layerWeight(layer, weight),
              columnToRow(reorderHeads(std::move(*source), heads, headOrder),
                          conventions.normOffset));
    return Error::success();
  };
  return firstOf(
      {[&] {
         return add("attn_q_norm", names.layer.qNorm, isAll ? c.heads : 1);
       },
       [&] {
         return add("attn_k_norm", names.layer.kNorm, isAll ? c.kvHeads : 1);
       }});
}

Error WeightReader::readGateUp(int64_t layer) {
  const TensorNames::Layer &l = names.layer;
  int64_t rows = c.feedForward;
  Expected<SourcePtr> weight =
      *l.gateUp
          ? rowsOf(layer, {{l.gateUp, 2 * rows}}, ".weight", c.hidden)
          : rowsOf(layer, {{l.gate, rows}, {l.up, rows}}, ".weight", c.hidden);
  if (!weight)
    return weight.takeError();
  model.set(layerWeight(layer, "ffn_gate_up"), std::move(*weight));
  if (*l.gateUp)
    return Error::success();
  return addParts(layer, "ffn_gate_up", {{l.gate, rows, 0}, {l.up, rows, 0}});
}

Error WeightReader::readLayer(int64_t layer) {
  const TensorNames::Layer &l = names.layer;
  auto norm = [&](const char *weight, const char *name, bool isThere) {
    return isThere ? addNorm(layerWeight(layer, weight), inLayer(layer, name),
                             c.hidden)
                   : Error::success();
  };
  auto matrix = [&](const char *weight, const char *name, int64_t cols) {
    return addMatrix(layerWeight(layer, weight), inLayer(layer, name), c.hidden,
                     cols);
  };
  return firstOf({
      [&] { return norm("attn_norm", l.attnNorm, c.hasNormsBefore); },
      [&] { return readProjection(layer); },
      [&] { return readHeadNorms(layer); },
      [&] { return matrix("attn_output", l.attnOutput, c.heads * c.headDim); },
      [&] { return norm("attn_post_norm", l.attnPostNorm, c.hasNormsAfter); },
      [&] { return norm("ffn_norm", l.ffnNorm, c.hasNormsBefore); },
      [&] { return readGateUp(layer); },
      [&] { return matrix("ffn_down", l.down, c.feedForward); },
      [&] { return norm("ffn_post_norm", l.ffnPostNorm, c.hasNormsAfter); },
  });
}

Error WeightReader::read() {
  if (Error error =
          addMatrix("token_embd", names.embedding, c.vocabulary, c.hidden))
    return error;
  if (Error error = addNorm("output_norm", names.outputNorm, c.hidden))
    return error;
  if (c.tiedEmbeddings)
    model.share("output", "token_embd");
  else if (Error error =
               addMatrix("output", names.output, c.vocabulary, c.hidden))
    return error;
  for (int64_t layer = 0; layer < c.layers; ++layer)
    if (Error error = readLayer(layer))
      return error;
  model.addRopeTables();
  return tensors.checkAllTaken();
}

Error kvrm::addDecoderWeights(DecoderModel &model, TensorStore &tensors,
                              const TensorNames &names,
                              const WeightConventions &conventions) {
  return WeightReader(model, tensors, names, conventions).read();
}
