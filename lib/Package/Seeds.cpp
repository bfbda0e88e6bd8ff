//===- Seeds.cpp - Weights that a package has as seeds --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Frontend/Model.h"
#include "kvrm/Package/Package.h"
#include "kvrm/runtime/abi/limits.h"
#include "kvrm/runtime/support/RankFile.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::StringRef;

/// Whether the runs that a rank has of a weight can be seeded one by one.
static bool canSeed(const WeightLayout &layout) {
  if (layout.blocks && shapeOf(*layout.blocks).hasSubScales)
    return false;
  if (layout.slices.isWhole() || layout.slices.isOfColumns)
    return true;
  int64_t rowBytes = layout.cols * sizeOf(layout.type);
  return llvm::all_of(layout.slices.runsOf(0), [&](const auto &run) {
    return run.to * rowBytes % KVRM_ALIGNMENT == 0 &&
           (layout.rowPanel == 0 || run.to % layout.rowPanel == 0);
  });
}

SeededLayouts kvrm::splitSeeded(const DecoderModel &model,
                                ArrayRef<WeightLayout> layouts) {
  SeededLayouts result;
  int64_t stored = 0;
  for (const WeightLayout &layout : layouts) {
    result.bytes = kvrm_align_up(layout.offset + layout.bytes());
    const WeightSource *source = model.lookup(layout.name);
    if (source && source->seededValues() && canSeed(layout)) {
      result.seeded.push_back(layout);
      continue;
    }
    result.places.push_back(layout.offset);
    result.stored.push_back(layout);
    result.stored.back().offset = stored;
    stored = kvrm_align_up(stored + layout.bytes());
  }
  return result;
}

static StringRef elementName(WeightType type) {
  switch (type) {
  case WeightType::F32:
    return "f32";
  case WeightType::F16:
    return "f16";
  case WeightType::BF16:
    return "bf16";
  }
  llvm_unreachable("not a weight type");
}

namespace {
/// Rows of a weight that follow one another in the whole, too.
struct SeededRun {
  int64_t row; ///< in the layout
  int64_t rows;
  int64_t first; ///< value of its first element
  int64_t pitch; ///< values from a row to the next
};
} // namespace

static std::vector<SeededRun> runsOf(const WeightLayout &layout, int64_t rank) {
  const WeightSlices &slices = layout.slices;
  if (slices.isWhole())
    return {{0, layout.rows, 0, layout.cols}};
  std::vector<SeededRun> runs;
  for (const WeightSlices::Run &run : slices.runsOf(rank))
    if (slices.isOfColumns)
      runs.push_back({0, layout.rows, run.from, slices.wholeSize()});
    else
      runs.push_back({run.to, run.size, run.from * layout.cols, layout.cols});
  return runs;
}

void kvrm::writeSeeds(llvm::raw_ostream &os, const DecoderModel &model,
                      const SeededLayouts &layouts, int64_t rank) {
  llvm::json::OStream out(os, /*IndentSize=*/2);
  out.object([&] {
    out.attribute("bytes", layouts.bytes);
    out.attributeArray("tensors", [&] {
      for (const WeightLayout &layout : layouts.seeded)
        for (const SeededRun &run : runsOf(layout, rank))
          out.object([&] {
            const SeededValues &values =
                *model.lookup(layout.name)->seededValues();
            out.attribute("name", layout.name);
            out.attribute("element", elementName(layout.type));
            out.attribute("rows", run.rows);
            out.attribute("cols", layout.cols);
            out.attribute("row_panel", layout.rowPanel);
            out.attribute("offset", layout.offset + run.row * layout.cols *
                                                        sizeOf(layout.type));
            out.attribute("stream",
                          llvm::formatv("{0:x-16}", values.stream).str());
            if (!layout.slices.isWhole()) {
              out.attribute("first", run.first);
              out.attribute("pitch", run.pitch);
            }
            if (layout.blocks)
              out.attribute("blocks",
                            kvrmblocks::kBlockFormatNames[static_cast<size_t>(
                                *layout.blocks)]);
            out.attribute("center", values.center);
            out.attribute("width", values.width);
          });
    });
    out.attributeArray("copies", [&] {
      for (auto [layout, place] :
           llvm::zip_equal(layouts.stored, layouts.places))
        out.object([&] {
          out.attribute("offset", place);
          out.attribute("from", layout.offset);
          out.attribute("bytes", layout.bytes());
        });
    });
  });
  os << "\n";
}

Error PackageWriter::addSeededWeights(const DecoderModel &model,
                                      ArrayRef<WeightLayout> layouts,
                                      int64_t rank) {
  if (Error error = checkLayouts(model, layouts))
    return error;
  SeededLayouts split = splitSeeded(model, layouts);
  if (split.seeded.empty())
    return addWeights(model, layouts, /*threads=*/0, rank);
  std::string seeds;
  llvm::raw_string_ostream os(seeds);
  writeSeeds(os, model, split, rank);
  if (Error error = addFile(seedsFile(rank), seeds))
    return error;
  return addWeights(model, split.stored, /*threads=*/0, rank);
}
