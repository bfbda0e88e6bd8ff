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

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::StringRef;

SeededLayouts kvrm::splitSeeded(const DecoderModel &model,
                                ArrayRef<WeightLayout> layouts) {
  SeededLayouts result;
  int64_t stored = 0;
  for (const WeightLayout &layout : layouts) {
    result.bytes = kvrm_align_up(layout.offset + layout.bytes());
    const WeightSource *source = model.lookup(layout.name);
    if (source && source->seededValues()) {
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

void kvrm::writeSeeds(llvm::raw_ostream &os, const DecoderModel &model,
                      const SeededLayouts &layouts) {
  llvm::json::OStream out(os, /*IndentSize=*/2);
  out.object([&] {
    out.attribute("bytes", layouts.bytes);
    out.attributeArray("tensors", [&] {
      for (const WeightLayout &layout : layouts.seeded)
        out.object([&] {
          const SeededValues &values =
              *model.lookup(layout.name)->seededValues();
          out.attribute("name", layout.name);
          out.attribute("element", elementName(layout.type));
          out.attribute("rows", layout.rows);
          out.attribute("cols", layout.cols);
          out.attribute("row_panel", layout.rowPanel);
          out.attribute("offset", layout.offset);
          out.attribute("stream",
                        llvm::formatv("{0:x-16}", values.stream).str());
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
                                      ArrayRef<WeightLayout> layouts) {
  if (Error error = checkLayouts(model, layouts))
    return error;
  SeededLayouts split = splitSeeded(model, layouts);
  if (split.seeded.empty())
    return addWeights(model, layouts);
  std::string seeds;
  llvm::raw_string_ostream os(seeds);
  writeSeeds(os, model, split);
  if (Error error = addFile("seeds.json", seeds))
    return error;
  return addWeights(model, split.stored);
}
