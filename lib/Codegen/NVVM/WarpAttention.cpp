//===- WarpAttention.cpp - What a warp makes of a strip of a history -----------
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WarpAttention.h"

#include "../MaskedScore.h"
#include "../ScoreScale.h"

#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

#include "llvm/Support/MathExtras.h"

#include <cmath>

using namespace mlir;
using namespace mlir::kvrm;

WarpAttention::WarpAttention(DeviceKernel &device, KernelOp kernel,
                             const DeviceOptions &options,
                             const StripShape &strip, int64_t rows)
    : rows(rows), device(device), b(device.b), kernel(kernel),
      io(kernel.getIo()), strip(strip), headDim(strip.headDim),
      group(kernel.getGroupSize()), codes(b, options, io) {
  if (strip.hasScales())
    unit.emplace(b);
}

void WarpAttention::start(Value lane, Value firstRow,
                          const TileProgram &program) {
  this->lane = lane;
  this->firstRow = firstRow;
  laneRow = b.shiftRight(lane, 2);
  laneColumn = b.bitAnd(lane, 3);
  ScoreScale scale(program);
  scoreScale = scale.score;
  softcap = scale.softcap;
}

void WarpAttention::makeState() {
  for (int64_t n = 0; n < queryColumns(); ++n) {
    auto pair = [&] {
      return std::array<Variable, 2>{b.variable(b.getF32Type()),
                                     b.variable(b.getF32Type())};
    };
    state.maximum.push_back(pair());
    state.sum.push_back(pair());
    auto &acc = state.acc.emplace_back();
    for (int64_t i = 0; i < dimBlocks(); ++i) {
      auto &quad = acc.emplace_back();
      for (Variable &element : quad)
        element = b.variable(b.getF32Type());
    }
  }
}

Value WarpAttention::sumOfRow(int64_t n, int64_t half) {
  Value sum = state.sum[n][half].get();
  for (int64_t mask = 4; mask < kWarpLanes; mask *= 2)
    sum = b.fadd(sum, b.shuffleXor(sum, mask));
  return sum;
}

void WarpAttention::attend(const StripRange &range, Value address, Value index,
                           const TileLoop &tiles) {
  stage = address;
  score(range, index, tiles);
  updateSoftmax(range, index, tiles.masked);
  accumulate(range, index, tiles.masked);
}

void WarpAttention::finish() {
  if (!unit)
    return;
  Value factor = unit->factor();
  for (auto &blocks : state.acc)
    for (auto &quad : blocks)
      for (Variable &element : quad)
        element.set(b.fmul(element.get(), factor));
}

/// Element offset of query row `row` in q and out, for the current item.
Value kvrm::queryElement(DeviceBuilder &b, KernelOp kernel,
                         const WorkItemVariables &item, Value row) {
  int64_t group = kernel.getGroupSize();
  Value token = b.add(b.mul(item.queryTile.get(), kernel.getTile().getQ()),
                      b.div(row, group));
  Value head = b.add(b.mul(item.kvHead.get(), group),
                     group == 1 ? b.i32(0) : b.rem(row, group));
  Value index = b.add(
      b.mul(item.row.get(), kernel.getDescriptorType().getQueries()), token);
  index = b.add(b.mul(index, kernel.getHeads()), head);
  return b.mul(b.widen(index), kernel.getPool().getHeadDim());
}

/// Operand B of the first product: lane 4g + t holds query row 8n + g, at
/// head_dim 16k + 2t and 16k + 2t + 8; over a cache of bytes, at 16k + 4t and
/// 16k + 4t + 2.
void WarpAttention::loadQuery(const WorkItemVariables &item) {
  if (int64_t entries = kernel.getSessionType().getSummaries()) {
    DescriptorType descriptor = kernel.getDescriptorType();
    kvrm_descriptor_layout layout = kvrm_descriptor_layout_of(
        {static_cast<int32_t>(descriptor.getRows()),
         static_cast<int32_t>(descriptor.getQueries()),
         static_cast<int32_t>(descriptor.getPages()), 0, 0, 0, 0,
         static_cast<int32_t>(entries)});
    biases = b.at(device.parameter(offsetof(kvrm_device_args, descriptor)),
                  b.add(b.mul(b.widen(item.row.get()), entries * 4),
                        layout.summary_biases));
  }
  query.assign(queryColumns(), {});
  for (int64_t n = 0; n < queryColumns(); ++n) {
    Value row = b.add(laneRow, 8 * n);
    Value isRow = b.lessThan(row, rows);
    Value safe = rowOf(b.select(isRow, row, b.i32(0)));
    Value element = queryElement(b, kernel, item, safe);
    Value column = b.shiftLeft(laneColumn, isOfBytes() ? 2 : 1);
    Value base = b.at(device.parameter(offsetof(kvrm_device_args, q)),
                      b.mul(b.add(element, b.widen(column)), kIoBytes));
    int64_t halfBytes = isOfBytes() ? 4 : 16;
    for (int64_t k = 0; k < dimBlocks(); ++k) {
      std::array<Value, 2> words;
      for (int64_t half = 0; half < 2; ++half)
        words[half] = b.select(
            isRow,
            b.load(b.getI32Type(), b.at(base, 32 * k + halfBytes * half), 4),
            b.i32(0));
      query[n].push_back(words);
    }
  }
}

void WarpAttention::initSoftmax() {
  for (int64_t n = 0; n < queryColumns(); ++n) {
    for (int64_t half = 0; half < 2; ++half) {
      state.maximum[n][half].set(b.f32(kMaskedScore));
      state.sum[n][half].set(b.f32(0));
    }
    for (auto &quad : state.acc[n])
      for (Variable &element : quad)
        element.set(b.f32(0));
  }
  if (unit)
    unit->reset();
}

/// Address of a chunk of a token's first block, in the half of the stage that
/// begins at `half`. `lane` and the token have the lowest three bits in common.
Value WarpAttention::swizzledRow(int64_t half, Value token, Value chunk) {
  Value swizzled = b.bitXor(chunk, strip.swizzle(b, lane));
  return b.add(b.add(stage, half),
               b.add(b.mul(token, strip.rowBytes()), b.shiftLeft(swizzled, 4)));
}

/// From there to pair `block` of chunks of the same row. Rows are whole
/// multiples of `aligned`, the largest power of two: address bits below it are
/// of the chunk alone, so that XOR goes through the swizzle's; the rest is
/// added.
Value WarpAttention::blockOfRow(Value row, int64_t block) {
  int64_t offset = 2 * KVRM_CHUNK_BYTES * block;
  int64_t aligned = strip.rowAlignment();
  return b.add(b.bitXor(row, offset % aligned), offset - offset % aligned);
}

/// The scale of token g of a block of the strip, or of token g + 8, in f32.
Value WarpAttention::loadScale(bool isValue, int64_t block, int64_t half) {
  int64_t token = 16 * block + 8 * half;
  Value address = b.add(b.add(stage, b.shiftLeft(laneRow, 1)),
                        strip.scalesAt(isValue) + token * strip.scaleBytes);
  return widenScales(b, b.loadShared(b.getI16Type(), address, 2));
}

/// Of the four codes of a word: pairs of values, or of codes less their scale.
std::array<Value, 2> WarpAttention::widen(Value word) {
  return strip.hasScales() ? widenIntegers(b, word, io) : codes.widen(word);
}

/// Operands A of the first product, of tokens g and g + 8: of the blocks of
/// head_dim that one matrix load brings, from `block` on.
SmallVector<Quad> WarpAttention::loadKeys(Value row, int64_t block) {
  if (!isOfBytes())
    return {b.loadMatrix(blockOfRow(row, block), false)};
  Quad words = b.loadMatrix(blockOfRow(row, block / 2), false);
  SmallVector<Quad> blocks;
  for (int64_t chunk = 0; chunk < 2; ++chunk) {
    std::array<Value, 2> low = widen(words[2 * chunk]);
    std::array<Value, 2> high = widen(words[2 * chunk + 1]);
    blocks.push_back({low[0], high[0], low[1], high[1]});
  }
  return blocks;
}

/// Operands A of the second product, alike; of tokens 2t, 2t + 1 and 2t + 8, 2t
/// + 9 the bits that are kept, if there are such masks.
SmallVector<Quad> WarpAttention::loadValues(Value row, int64_t block,
                                            const std::array<Value, 2> &keep) {
  Quad words =
      b.loadMatrix(blockOfRow(row, isOfBytes() ? block / 2 : block), true);
  if (keep[0])
    for (int64_t j = 0; j < 4; ++j)
      words[j] = b.bitAnd(words[j], keep[j / 2]);
  if (!isOfBytes())
    return {words};
  SmallVector<Quad> blocks;
  for (int64_t chunk = 0; chunk < 2; ++chunk) {
    // Bytes 0 and 2 are the even column of both tokens, 1 and 3 the odd one.
    auto columns = [&](Value word) {
      return widen(b.permuteBytes(word, word, 0x3120));
    };
    std::array<Value, 2> first = columns(words[chunk]);
    std::array<Value, 2> last = columns(words[2 + chunk]);
    blocks.push_back({first[0], first[1], last[0], last[1]});
  }
  return blocks;
}

/// softcap * tanh(score) to base 2. The instruction for tanh keeps 11 bits,
/// too few of a score of 50: by the exponential of -2 |score| it is
/// (1 - e) / (1 + e), with the sign of the score.
Value WarpAttention::capped(Value score) {
  Value size = math::AbsFOp::create(b, score);
  Value power = b.exp2(b.fmul(size, b.f32(kMinusTwoLog2e)));
  Value one = b.f32(1.0f);
  Value tanh = b.fmul(b.fsub(one, power), b.reciprocal(b.fadd(one, power)));
  return b.fmul(math::CopySignOp::create(b, tanh, score), b.f32(softcap));
}

/// The score of a token that may be a summary.
Value WarpAttention::addBias(const StripRange &range, Value score,
                             Value place) {
  int64_t entries = kernel.getSessionType().getSummaries();
  Value entry = b.min(place, b.i32(static_cast<int32_t>(entries - 1)));
  Value bias =
      b.load(b.getF32Type(), b.at(biases, b.shiftLeft(b.widen(entry), 2)), 4);
  Value isSummary = b.lessThan(place, range.summaryPlaces);
  return b.fadd(score, b.select(isSummary, bias, b.f32(0)));
}

void WarpAttention::score(const StripRange &range, Value index,
                          const TileLoop &tiles) {
  Value base = swizzledRow(0, b.bitAnd(lane, 15), b.shiftRight(lane, 4));
  scores.assign(tokenBlocks(), {});
  for (int64_t m = 0; m < tokenBlocks(); ++m) {
    Value zero = b.f32(0);
    scores[m].assign(queryColumns(), Quad{zero, zero, zero, zero});
    SmallVector<Quad> odd = scores[m];
    Value blockBase = b.add(base, m * 16 * strip.rowBytes());
    for (int64_t k = 0; k < dimBlocks();)
      for (const Quad &keys : loadKeys(blockBase, k)) {
        // Two sums, so that products wait half as long for one another.
        SmallVector<Quad> &sums = k % 2 ? odd : scores[m];
        for (int64_t n = 0; n < queryColumns(); ++n)
          sums[n] =
              b.multiply(keys, query[n][k][0], query[n][k][1], sums[n], io);
        ++k;
      }
    for (int64_t n = 0; n < queryColumns(); ++n)
      for (int64_t i = 0; i < 4; ++i)
        scores[m][n][i] = b.fadd(scores[m][n][i], odd[n][i]);
  }

  Value scale = b.f32(scoreScale);
  for (int64_t m = 0; m < tokenBlocks(); ++m) {
    std::array<Value, 2> scales = {scale, scale}; // of tokens g and g + 8
    if (strip.hasScales())
      for (int64_t half = 0; half < 2; ++half)
        scales[half] = b.fmul(loadScale(/*isValue=*/false, m, half), scale);
    for (int64_t n = 0; n < queryColumns(); ++n)
      for (int64_t i = 0; i < 4; ++i) {
        Value score = b.fmul(scores[m][n][i], scales[i / 2]);
        if (softcap > 0)
          score = capped(score);
        // Elements 0 and 1 are of token g, 2 and 3 of token g + 8; even ones of
        // query row 8n + 2t, odd ones of the next.
        Value token;
        if (tiles.masked || tiles.summaries)
          token = tokenOf(index, m, i / 2);
        if (tiles.summaries)
          score = addBias(range, score, token);
        if (tiles.masked) {
          Value row = rowOf(b.add(b.shiftLeft(laneColumn, 1), 8 * n + i % 2));
          Value own = b.add(b.add(range.firstPlace, b.div(row, group)), 1);
          Value visible = b.lessThan(token, b.min(range.visibleEnd, own));
          if (std::optional<uint64_t> window = kernel.getWindow()) {
            // Of a query row past the step's tokens, any.
            Value oldest = b.sub(own, static_cast<int64_t>(*window));
            visible = b.bitAnd(visible, b.lessThan(b.sub(oldest, 1), token));
          }
          score = b.select(visible, score, b.f32(kMaskedScore));
        }
        scores[m][n][i] = score;
      }
  }
}

WarpAttention::ValueScales
WarpAttention::readValueScales(const StripRange &range, Value index,
                               bool masked) {
  ValueScales result;
  if (!unit)
    return result;
  SmallVector<Value> scales;
  for (int64_t m = 0; m < tokenBlocks(); ++m)
    for (int64_t half = 0; half < 2; ++half) {
      Value scale = loadScale(/*isValue=*/true, m, half);
      // Memory past the history holds anything. Its codes are numbers.
      if (masked)
        scale = b.select(b.lessThan(tokenOf(index, m, half), range.visibleEnd),
                         scale, b.f32(0));
      scales.push_back(scale);
    }
  result.change = unit->raise(scales);
  for (size_t i = 0; i < scales.size(); i += 2) {
    Value first = unit->partOf(scales[i]);
    result.parts.push_back({first, unit->partOf(scales[i + 1])});
  }
  return result;
}

void WarpAttention::updateSoftmax(const StripRange &range, Value index,
                                  bool masked) {
  ValueScales scales = readValueScales(range, index, masked);
  for (int64_t n = 0; n < queryColumns(); ++n) {
    std::array<Value, 2> alpha;
    for (int64_t half = 0; half < 2; ++half) {
      Value old = state.maximum[n][half].get(), next;
      for (int64_t m = 0; m < tokenBlocks(); ++m) {
        Value two = b.fmax(scores[m][n][half], scores[m][n][half + 2]);
        next = next ? b.fmax(next, two) : two;
      }
      for (int64_t mask = 4; mask < kWarpLanes; mask *= 2)
        next = b.fmax(next, b.shuffleXor(next, mask));
      next = b.fmax(next, old);
      alpha[half] = rescale(old, next);
      state.maximum[n][half].set(next);
      // A row that has met no token yet keeps weights of nothing.
      Value floor = b.fmax(next, b.f32(kMaskedScore / 2));
      Value sum = b.fmul(state.sum[n][half].get(), alpha[half]);
      for (int64_t m = 0; m < tokenBlocks(); ++m)
        for (int64_t i = half; i < 4; i += 2) {
          Value weight = rescale(scores[m][n][i], floor);
          scores[m][n][i] =
              unit ? b.fmul(weight, scales.parts[m][i / 2]) : weight;
          sum = b.fadd(sum, weight);
        }
      state.sum[n][half].set(sum);
      if (unit)
        alpha[half] = b.fmul(alpha[half], scales.change);
    }
    for (auto &quad : state.acc[n])
      for (int64_t i = 0; i < 4; ++i)
        quad[i].set(b.fmul(quad[i].get(), alpha[i % 2]));
  }
}

void WarpAttention::accumulate(const StripRange &range, Value index,
                               bool masked) {
  Value laneToken =
      b.add(b.bitAnd(lane, 7), b.shiftLeft(b.shiftRight(lane, 4), 3));
  Value laneChunk = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value base = swizzledRow(strip.halfBytes(), laneToken, laneChunk);
  for (int64_t m = 0; m < tokenBlocks(); ++m) {
    SmallVector<std::array<Value, 2>> weights;
    for (int64_t n = 0; n < queryColumns(); ++n) {
      const Quad &p = scores[m][n];
      weights.push_back({b.transpose(b.roundPair(p[0], p[1], io)),
                         b.transpose(b.roundPair(p[2], p[3], io))});
    }
    // Memory past the history holds anything, and 0 times infinity is not 0:
    // tokens 2t, 2t + 1 and 2t + 8, 2t + 9 are cleared where no row sees them.
    // Codes with a scale are all numbers.
    std::array<Value, 2> keep;
    if (masked && !strip.hasScales()) {
      Value token = b.add(b.mul(index, strip.tokens),
                          b.add(b.shiftLeft(laneColumn, 1), 16 * m));
      for (int64_t half = 0; half < 2; ++half) {
        Value first = b.add(token, 8 * half);
        Value low = b.select(b.lessThan(first, range.visibleEnd), b.i32(0xffff),
                             b.i32(0));
        Value high =
            b.select(b.lessThan(b.add(first, 1), range.visibleEnd),
                     b.i32(static_cast<int32_t>(0xffff0000u)), b.i32(0));
        keep[half] = b.bitOr(low, high);
      }
    }
    Value blockBase = b.add(base, m * 16 * strip.rowBytes());
    for (int64_t i = 0; i < dimBlocks();)
      for (const Quad &values : loadValues(blockBase, i, keep)) {
        for (int64_t n = 0; n < queryColumns(); ++n) {
          auto &acc = state.acc[n][i];
          Quad sum = b.multiply(
              values, weights[n][0], weights[n][1],
              {acc[0].get(), acc[1].get(), acc[2].get(), acc[3].get()}, io);
          for (int64_t j = 0; j < 4; ++j)
            acc[j].set(sum[j]);
        }
        ++i;
      }
  }
}
