//===- SeededWeights.cpp - Weights that a package has as seeds ------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SeededWeights.h"

#include "JsonReader.h"
#include "kvrm/runtime/host/ThreadPool.h"
#include "kvrm/runtime/support/BlockRecord.h"
#include "kvrm/runtime/support/SeededCodes.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <unistd.h>

using namespace kvrm;
using kvrmblocks::BlockFormat;
using kvrmblocks::kBlockFormatNames;

//===----------------------------------------------------------------------===//
// seeds.json
//===----------------------------------------------------------------------===//

static constexpr size_t maxSeededTensors = 1 << 16;
static constexpr int64_t maxSide = int64_t(1) << 31;
static constexpr int64_t maxRowPanel = 4096;

/// A hash of 16 hexadecimal digits: JSON's numbers are too short for it.
static uint64_t readStream(ObjectReader &fields) {
  std::string text = fields.string("stream");
  uint64_t value = 0;
  if (!fields.isOk())
    return value;
  if (text.size() != 16 ||
      text.find_first_not_of("0123456789abcdef") != std::string::npos)
    fields.fail("stream", "is not 16 lower-case hex digits");
  else
    value = std::stoull(text, nullptr, 16);
  return value;
}

static float readFloat(ObjectReader &fields, const char *key) {
  const nlohmann::json *value = fields.find(key);
  if (!value)
    return 0;
  if (!value->is_number())
    fields.fail(key, "is not a number");
  else if (double number = value->get<double>();
           !(number >= -1e4 && number <= 1e4))
    fields.fail(key, value->dump() + " is outside -10000..10000");
  else
    return static_cast<float>(number);
  return 0;
}

/// The blocks that a tensor is in, if it says so.
static void readBlocks(ObjectReader &fields, SeededTensor &tensor) {
  if (!fields.has("blocks"))
    return;
  auto format = static_cast<BlockFormat>(
      fields.oneOf("blocks", std::to_array(kBlockFormatNames)));
  if (!fields.isOk())
    return;
  kvrmblocks::BlockShape shape = kvrmblocks::shapeOf(format);
  if (shape.hasSubScales)
    fields.fail("blocks", "have sub-scales, which no seed makes");
  else if (tensor.rowPanel == 0)
    fields.fail("row_panel", "is 0, of a tensor in blocks");
  else if (tensor.cols % shape.elements != 0)
    fields.fail("cols", std::to_string(tensor.cols) +
                            " are not whole blocks of " +
                            std::to_string(shape.elements));
  else if (tensor.first != 0 || tensor.pitch != tensor.cols)
    fields.fail("pitch", "is of a slice, of a tensor in blocks");
  else
    tensor.blocks = shape;
}

static SeededTensor readTensor(ObjectReader &fields) {
  SeededTensor tensor;
  tensor.element = static_cast<SeededTensor::Element>(
      fields.oneOf("element", std::array{"f32", "f16", "bf16"}));
  tensor.rows = fields.integer("rows", 1, maxSide);
  tensor.cols = fields.integer("cols", 1, maxSide);
  tensor.rowPanel = fields.integer("row_panel", 0, maxRowPanel);
  tensor.offset = fields.integer("offset", 0, maxFileBytes);
  tensor.values.stream = readStream(fields);
  tensor.pitch = tensor.cols;
  if (fields.has("pitch"))
    tensor.pitch = fields.integer("pitch", tensor.cols, maxSide);
  if (fields.has("first"))
    tensor.first = fields.integer("first", 0, maxFileBytes);
  tensor.values.center = readFloat(fields, "center");
  tensor.values.width = readFloat(fields, "width");
  readBlocks(fields, tensor);
  return tensor;
}

/// Whether [begin, begin + size) lies in `bytes`, without overflow.
static bool liesIn(int64_t begin, int64_t size, int64_t bytes) {
  return begin <= bytes && size <= bytes - begin;
}

/// Weights lie in the block and follow one another.
static void checkPlaces(ObjectReader &root, WeightSeeds &seeds) {
  struct Place {
    int64_t begin, bytes;
  };
  std::vector<Place> places;
  for (const SeededTensor &tensor : seeds.tensors) {
    // Sides are at most 2^31 and an element 4 bytes: look before multiplying.
    if (tensor.paddedRows() > maxFileBytes / tensor.cols / 4)
      return root.fail("tensors", "one is larger than a file may be");
    places.push_back({tensor.offset, tensor.bytes()});
  }
  for (const CopiedBytes &copy : seeds.copies)
    places.push_back({copy.offset, copy.bytes});
  std::ranges::sort(places, {}, &Place::begin);
  int64_t end = 0;
  for (const Place &place : places) {
    if (place.begin % KVRM_ALIGNMENT != 0)
      return root.fail("tensors", "offset " + std::to_string(place.begin) +
                                      " is not a multiple of " +
                                      std::to_string(KVRM_ALIGNMENT));
    if (place.begin < end)
      return root.fail("tensors",
                       "two overlap at " + std::to_string(place.begin));
    if (!liesIn(place.begin, place.bytes, seeds.bytes))
      return root.fail("tensors", "one ends outside the " +
                                      std::to_string(seeds.bytes) + " bytes");
    end = place.begin + place.bytes;
  }
}

Expected<WeightSeeds> kvrm::parseSeeds(std::string_view text,
                                       std::string_view where,
                                       int64_t dataBytes) {
  Expected<nlohmann::json> json = parseObject(text, where);
  KVRM_TRY(json.status());
  Status status = Status::ok();
  ObjectReader root(*json, "", where, status);
  WeightSeeds seeds;
  seeds.bytes = root.integer("bytes", 1, maxFileBytes);
  root.each(
      "tensors", 1,
      [&](ObjectReader &fields) {
        seeds.tensors.push_back(readTensor(fields));
      },
      maxSeededTensors);
  root.each(
      "copies", 0,
      [&](ObjectReader &fields) {
        CopiedBytes copy{fields.integer("offset", 0, maxFileBytes),
                         fields.integer("from", 0, maxFileBytes),
                         fields.integer("bytes", 1, maxFileBytes)};
        if (!liesIn(copy.from, copy.bytes, dataBytes))
          fields.fail("from", std::to_string(copy.from) +
                                  " is outside the data of "
                                  "weights.safetensors");
        seeds.copies.push_back(copy);
      },
      maxSeededTensors);
  if (status.isOk())
    checkPlaces(root, seeds);
  KVRM_TRY(status);
  return seeds;
}

//===----------------------------------------------------------------------===//
// Bytes
//===----------------------------------------------------------------------===//

namespace {
/// Stored elements [begin, end) of a tensor, or records.
struct Piece {
  const SeededTensor *tensor;
  int64_t begin, end;
};
} // namespace

static constexpr int64_t pieceElements = 1 << 20;

static void storeElement(const SeededTensor &tensor, int64_t index, float value,
                         uint8_t *base) {
  uint8_t *at = base + tensor.offset + index * tensor.elementBytes();
  if (tensor.element == SeededTensor::Element::F32) {
    std::memcpy(at, &value, sizeof(value));
    return;
  }
  uint16_t half = tensor.element == SeededTensor::Element::F16
                      ? roundToF16(value)
                      : roundToBF16(value);
  std::memcpy(at, &half, sizeof(half));
}

/// Record `index` of a tensor in blocks. Rows that the last panel lacks stay
/// zeros, as the memory is.
static void growRecord(const SeededTensor &tensor, int64_t index,
                       uint8_t *base) {
  const kvrmblocks::BlockShape &shape = *tensor.blocks;
  const SeededCodes codes(tensor.values, shape);
  BlockRecord record(shape, tensor.rowPanel,
                     base + tensor.offset +
                         index * shape.recordBytes(tensor.rowPanel));
  int64_t firstRow = index / tensor.recordsOfRow() * tensor.rowPanel;
  int64_t firstColumn = index % tensor.recordsOfRow() * shape.elements;
  int64_t rows = std::min(tensor.rowPanel, tensor.rows - firstRow);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t first = (firstRow + row) * tensor.cols + firstColumn;
    for (int64_t i = 0; i < shape.elements; ++i)
      record.setCode(row, i, codes.code(first + i));
    record.setScale(row, codes.scale);
    if (shape.hasMinima)
      record.setMinimum(row, codes.minimum);
  }
}

static void growPiece(const Piece &piece, uint8_t *base) {
  const SeededTensor &tensor = *piece.tensor;
  if (tensor.blocks) {
    for (int64_t index = piece.begin; index < piece.end; ++index)
      growRecord(tensor, index, base);
    return;
  }
  for (int64_t index = piece.begin; index < piece.end; ++index) {
    int64_t row = 0, column = index; // of contiguous values
    if (tensor.rowPanel == 0 && tensor.pitch != tensor.cols) {
      row = index / tensor.cols;
      column = index % tensor.cols;
    }
    if (tensor.rowPanel > 0) {
      // [rows / panel][cols][panel].
      int64_t panelElements = tensor.rowPanel * tensor.cols;
      int64_t inPanel = index % panelElements;
      row = index / panelElements * tensor.rowPanel + inPanel % tensor.rowPanel;
      if (row >= tensor.rows)
        continue; // zeros, as the memory is
      column = inPanel / tensor.rowPanel;
    }
    int64_t element = tensor.first + row * tensor.pitch + column;
    storeElement(tensor, index, tensor.values.at(element), base);
  }
}

Expected<AlignedBuffer> kvrm::growWeights(const WeightSeeds &seeds,
                                          std::span<const uint8_t> data) {
  // Memory is taken page by page as weights are made: too late to say so.
  int64_t memory = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  if (seeds.bytes > memory)
    return makeError(StatusCode::ResourceExhausted, "weights: ", seeds.bytes,
                     " bytes are more than the machine's memory, ", memory);
  Expected<AlignedBuffer> weights =
      AlignedBuffer::create(seeds.bytes, "weights");
  KVRM_TRY(weights.status());
  uint8_t *base = weights->data();
  for (const CopiedBytes &copy : seeds.copies)
    std::memcpy(base + copy.offset, data.data() + copy.from,
                static_cast<size_t>(copy.bytes));
  std::vector<Piece> pieces;
  for (const SeededTensor &tensor : seeds.tensors) {
    int64_t elements = tensor.paddedRows() * tensor.cols, each = pieceElements;
    if (tensor.blocks) {
      elements = tensor.records();
      each /= tensor.blocks->elements * tensor.rowPanel;
    }
    for (int64_t begin = 0; begin < elements; begin += each)
      pieces.push_back({&tensor, begin, std::min(begin + each, elements)});
  }
  std::atomic<size_t> next = 0;
  auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++)
      growPiece(pieces[i], base);
  };
  auto threads = static_cast<size_t>(usableCpus());
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < std::min(threads, pieces.size()); ++i)
    helpers.emplace_back(work);
  work();
  helpers.clear(); // waits
  return weights;
}
