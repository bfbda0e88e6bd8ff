//===- GGUFParts.cpp - Models in one GGUF file or in several --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUFParts.h"

#include "Lookup.h"

#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"

using namespace kvrm;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;

/// What gguf-split counts with is 16 bits wide.
static constexpr int64_t mostParts = 65535;

static std::string suffixOf(int64_t part, int64_t count) {
  return formatv("-{0:d5}-of-{1:d5}.gguf", part, count).str();
}

namespace {
struct Place {
  int64_t number = 0; ///< from 0
  int64_t count = 1;
};
} // namespace

/// Which part of how many a file says to be.
static Expected<Place> placeOf(const GGUFFile &file) {
  Place place;
  if (Error error = firstOf(
          {[&] { return assign(place.count, file.getInt("split.count", 1)); },
           [&] { return assign(place.number, file.getInt("split.no", 0)); }}))
    return error;
  place.count = std::max<int64_t>(place.count, 1); // 0 is not split either
  if (place.count > mostParts || place.number < 0 ||
      place.number >= place.count)
    return fileError(file.name(),
                     formatv("metadata 'split.no', {0}, and 'split.count', "
                             "{1}, name no part",
                             place.number, place.count)
                         .str());
  return place;
}

Error GGUFParts::openOthers(StringRef path, int64_t count) {
  StringRef stem = path;
  if (!stem.consume_back(suffixOf(1, count)))
    return fileError(path, formatv("is part 1 of {0}, whose name has to end "
                                   "with '{1}' for the others to be found",
                                   count, suffixOf(1, count))
                               .str());
  for (int64_t number = 1; number < count; ++number) {
    Expected<FilePtr> file =
        GGUFFile::open((stem + suffixOf(number + 1, count)).str());
    if (!file)
      return fileError(path, formatv("is part 1 of {0}: {1}", count,
                                     llvm::toString(file.takeError()))
                                 .str());
    Expected<Place> place = placeOf(**file);
    if (!place)
      return place.takeError();
    if (place->number != number || place->count != count)
      return fileError((*file)->name(),
                       formatv("says to be part {0} of {1}, not part {2} of "
                               "{3}",
                               place->number + 1, place->count, number + 1,
                               count)
                           .str());
    files.push_back(std::move(*file));
  }
  return checkTensors();
}

/// No two parts have the same tensor, of which one would be left out.
Error GGUFParts::checkTensors() const {
  llvm::StringSet<> names;
  for (const FilePtr &file : files)
    for (const GGUFTensor &tensor : file->tensors())
      if (!names.insert(tensor.name).second)
        return fileError(file->name(), "tensor '" + tensor.name +
                                           "' is in another part, too");
  return Error::success();
}

Expected<GGUFParts> GGUFParts::open(StringRef path) {
  Expected<FilePtr> file = GGUFFile::open(path);
  if (!file)
    return file.takeError();
  Expected<Place> place = placeOf(**file);
  if (!place)
    return place.takeError();
  if (place->number != 0)
    return fileError(path, formatv("is part {0} of {1}: name the first, which "
                                   "ends with '{2}'",
                                   place->number + 1, place->count,
                                   suffixOf(1, place->count))
                               .str());
  GGUFParts parts;
  parts.files.push_back(std::move(*file));
  if (place->count > 1)
    if (Error error = parts.openOthers(path, place->count))
      return error;
  return parts;
}

GGUFParts::Found GGUFParts::tensor(StringRef name) const {
  for (const FilePtr &file : files)
    if (const GGUFTensor *tensor = file->tensor(name))
      return {file, tensor};
  return {};
}
