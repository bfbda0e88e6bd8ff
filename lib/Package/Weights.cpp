//===- Weights.cpp - The layout of a package's weights --------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The file is cut into pieces of a few hundred thousand elements; each thread
// takes a piece, converts it and writes it to its place. The format is
// https://github.com/huggingface/safetensors: an 8-byte header size, a JSON
// header (padded with spaces), then the data without gaps.
//
//===----------------------------------------------------------------------===//

#include "kvrm/Package/Weights.h"

#include "BlockRecords.h"

#include "kvrm/runtime/abi/limits.h"

#include "kvrm/runtime/support/SeededValues.h"

#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/Errno.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <unistd.h>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace kvrm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;

//===----------------------------------------------------------------------===//
// Conversion
//===----------------------------------------------------------------------===//

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static int64_t
convertWithF16C(const float *in, uint16_t *out, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128(
        reinterpret_cast<__m128i *>(out + i),
        _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  return i;
}

static bool hasF16C() {
  static const bool present =
      __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  return present;
}
#endif

void kvrm::convertToF16(const float *in, uint16_t *out, int64_t count) {
  int64_t i = 0;
#if defined(__x86_64__)
  if (hasF16C())
    i = convertWithF16C(in, out, count);
#endif
  for (; i < count; ++i)
    out[i] = roundToF16(in[i]);
}

void kvrm::convertToBF16(const float *in, uint16_t *out, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = roundToBF16(in[i]);
}

/// Whether no element has all exponent bits set.
template <typename T>
static bool allFinite(const T *in, int64_t count, T exponentMask) {
  bool finite = true;
  for (int64_t i = 0; i < count; ++i)
    finite &= (in[i] & exponentMask) != exponentMask;
  return finite;
}

/// Converts one row of floats; returns whether all values stay finite.
static bool convertRow(const float *in, uint16_t *out, int64_t count,
                       WeightType type) {
  if (type == WeightType::F16) {
    convertToF16(in, out, count);
    return allFinite<uint16_t>(out, count, 0x7c00);
  }
  assert(type == WeightType::BF16);
  convertToBF16(in, out, count);
  return allFinite<uint16_t>(out, count, 0x7f80);
}

static bool convertRow(const float *in, uint32_t *out, int64_t count,
                       WeightType type) {
  assert(type == WeightType::F32);
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(float));
  return allFinite<uint32_t>(out, count, 0x7f800000);
}

namespace {
/// Packs pieces of weights. One per thread; holds the buffers.
class Packer {
public:
  /// Packs stored rows [begin, end), whole panels, to `out`.
  bool pack(const WeightSource &source, const WeightLayout &layout,
            int64_t begin, int64_t end, void *out) {
    if (layout.blocks)
      return packBlocks(source, layout, begin, end,
                        static_cast<uint8_t *>(out));
    if (layout.type == WeightType::F32)
      return packAs<uint32_t>(source, layout, begin, end, out, converted32);
    return packAs<uint16_t>(source, layout, begin, end, out, converted16);
  }

private:
  template <typename T>
  bool packAs(const WeightSource &source, const WeightLayout &layout,
              int64_t begin, int64_t end, void *outBytes,
              std::vector<T> &converted) {
    auto *out = static_cast<T *>(outBytes);
    int64_t cols = layout.cols;
    int64_t panel = layout.rowPanel;
    if (panel <= 1) {
      floats.resize(static_cast<size_t>((end - begin) * cols));
      source.readRows(begin, end, floats.data());
      return convertRow(floats.data(), out, (end - begin) * cols, layout.type);
    }
    // Rows are kept an odd number of cache lines apart, or the transposition
    // would thrash one set of the cache.
    int64_t lineElements = 64 / static_cast<int64_t>(sizeof(T));
    int64_t stride = (llvm::divideCeil(cols, lineElements) | 1) * lineElements;
    converted.resize(static_cast<size_t>(panel * stride));
    floats.resize(static_cast<size_t>(panel * cols));
    bool finite = true;
    for (int64_t row = begin; row < end; row += panel) {
      int64_t present = std::min(panel, layout.rows - row);
      source.readRows(row, row + present, floats.data());
      for (int64_t r = 0; r < panel; ++r) {
        T *to = converted.data() + r * stride;
        if (r < present)
          finite &= convertRow(floats.data() + r * cols, to, cols, layout.type);
        else
          std::fill_n(to, cols, T(0));
      }
      for (int64_t c = 0; c < cols; ++c)
        for (int64_t r = 0; r < panel; ++r)
          *out++ = converted[static_cast<size_t>(r * stride + c)];
    }
    return finite;
  }

  std::vector<float> floats;
  std::vector<uint16_t> converted16;
  std::vector<uint32_t> converted32;
};
} // namespace

bool kvrm::packWeight(const WeightSource &source, const WeightLayout &layout,
                      void *out) {
  return Packer().pack(source, layout, 0, layout.paddedRows(), out);
}

//===----------------------------------------------------------------------===//
// Layout
//===----------------------------------------------------------------------===//

int64_t kvrm::sizeOf(WeightType type) {
  return type == WeightType::F32 ? 4 : 2;
}

static StringRef nameOf(WeightType type) {
  switch (type) {
  case WeightType::F32:
    return "F32";
  case WeightType::F16:
    return "F16";
  case WeightType::BF16:
    return "BF16";
  }
  llvm_unreachable("not a weight type");
}

Error kvrm::checkLayouts(const DecoderModel &model,
                         ArrayRef<WeightLayout> layouts) {
  llvm::StringSet<> names;
  int64_t end = 0;
  for (const WeightLayout &layout : layouts) {
    auto fail = [&](const Twine &message) {
      return llvm::createStringError("weight '" + layout.name +
                                     "': " + message);
    };
    if (layout.name.empty() || StringRef(layout.name).starts_with("__"))
      return fail("the name is empty or reserved");
    if (!names.insert(layout.name).second)
      return fail("laid out twice");
    const WeightSource *source = model.lookup(layout.name);
    if (!source)
      return fail("the model has none");
    // A package has the positions of its slots.
    bool isTable = StringRef(layout.name).starts_with("rope_");
    // What a rank has stands for the whole.
    const WeightSlices &slices = layout.slices;
    int64_t rows = layout.rows, cols = layout.cols;
    if (!slices.isWhole())
      (slices.isOfColumns ? cols : rows) *= slices.ranks;
    bool rowsFit = isTable ? rows <= source->rows() : rows == source->rows();
    if (rows < 1 || !rowsFit || cols != source->cols())
      return fail(formatv("laid out as [{0}][{1}], but the model has "
                          "[{2}][{3}]",
                          rows, cols, source->rows(), source->cols())
                      .str());
    if (!slices.isWhole() &&
        slices.wholeSize() != (slices.isOfColumns ? cols : rows))
      return fail(formatv("its parts are {0} {1}, not all {2}",
                          slices.wholeSize(),
                          slices.isOfColumns ? "columns" : "rows",
                          slices.isOfColumns ? cols : rows)
                      .str());
    if (layout.rowPanel < 0 || layout.rowPanel > 4096)
      return fail(
          formatv("row panel {0} is not in [0, 4096]", layout.rowPanel).str());
    if (layout.blocks &&
        (layout.rowPanel == 0 || source->blockFormat() != layout.blocks))
      return fail("laid out in panels of blocks that the model has not");
    if (layout.offset % KVRM_ALIGNMENT)
      return fail(formatv("offset {0} is not a multiple of {1}", layout.offset,
                          KVRM_ALIGNMENT)
                      .str());
    if (layout.offset < end)
      return fail(formatv("offset {0} is before {1}, the end of the weight "
                          "before it",
                          layout.offset, end)
                      .str());
    end = layout.offset + layout.bytes();
  }
  return Error::success();
}

//===----------------------------------------------------------------------===//
// File
//===----------------------------------------------------------------------===//

/// The header with its size in front, a multiple of KVRM_ALIGNMENT.
static std::string makeHeader(ArrayRef<WeightLayout> layouts) {
  std::string text;
  llvm::raw_string_ostream os(text);
  os << std::string(8, '\0');
  llvm::json::OStream json(os);
  auto tensor = [&](StringRef name, StringRef type, ArrayRef<int64_t> shape,
                    int64_t begin, int64_t end) {
    json.attributeObject(name, [&] {
      json.attribute("dtype", type);
      json.attributeArray("shape", [&] {
        for (int64_t dim : shape)
          json.value(dim);
      });
      json.attributeArray("data_offsets", [&] {
        json.value(begin);
        json.value(end);
      });
    });
  };
  json.object([&] {
    json.attributeObject("__metadata__",
                         [&] { json.attribute("format", "kvrm"); });
    int64_t pads = 0, end = 0;
    auto padTo = [&](int64_t offset) {
      if (int64_t gap = offset - end)
        tensor("__pad." + std::to_string(pads++), "U8", {gap}, end, offset);
    };
    for (const WeightLayout &layout : layouts) {
      padTo(layout.offset);
      end = layout.offset + layout.bytes();
      if (layout.blocks)
        tensor(layout.name, "U8",
               {layout.paddedRows() / layout.rowPanel,
                layout.cols / shapeOf(*layout.blocks).elements,
                shapeOf(*layout.blocks).recordBytes(layout.rowPanel)},
               layout.offset, end);
      else if (layout.rowPanel > 0)
        tensor(layout.name, nameOf(layout.type),
               {layout.paddedRows() / layout.rowPanel, layout.cols,
                layout.rowPanel},
               layout.offset, end);
      else
        tensor(layout.name, nameOf(layout.type), {layout.rows, layout.cols},
               layout.offset, end);
    }
    padTo(kvrm_align_up(end));
  });
  text.resize(
      static_cast<size_t>(kvrm_align_up(static_cast<int64_t>(text.size()))),
      ' ');
  llvm::support::endian::write64le(text.data(), text.size() - 8);
  return text;
}

namespace {
/// Stored rows [begin, end) of a layout.
struct Piece {
  const WeightLayout *layout;
  const WeightSource *source;
  int64_t begin;
  int64_t end;
};

/// A file open for writing at any place.
class OutputFile {
public:
  explicit OutputFile(StringRef path) : path(path) {}
  ~OutputFile() {
    if (descriptor >= 0)
      ::close(descriptor);
  }

  Error open() {
    if (std::error_code code =
            llvm::sys::fs::openFileForWrite(path, descriptor))
      return fail(code.message());
    return Error::success();
  }

  /// Writes all of `bytes`. Several threads may call this at once.
  Error write(ArrayRef<char> bytes, int64_t offset) {
    while (!bytes.empty()) {
      ssize_t written =
          ::pwrite(descriptor, bytes.data(), bytes.size(), offset);
      if (written < 0) {
        if (errno == EINTR)
          continue;
        return fail(llvm::sys::StrError());
      }
      bytes = bytes.drop_front(static_cast<size_t>(written));
      offset += written;
    }
    return Error::success();
  }

  Error resize(int64_t bytes) {
    if (::ftruncate(descriptor, bytes) != 0)
      return fail(llvm::sys::StrError());
    return Error::success();
  }

  Error close() {
    int result = ::close(descriptor);
    descriptor = -1;
    return result == 0 ? Error::success() : fail(llvm::sys::StrError());
  }

private:
  Error fail(const Twine &message) {
    return llvm::createStringError(path + ": cannot write: " + message);
  }

  std::string path;
  int descriptor = -1;
};
} // namespace

/// Names the tensor that the first bad row of a piece is of: a weight may be of
/// several.
static Error notFinite(const Piece &piece, Packer &packer) {
  WeightLayout row = *piece.layout;
  row.rowPanel = row.blocks ? 1 : 0;
  std::vector<char> packed(static_cast<size_t>(row.rowBytes()));
  std::string who = "weight '" + row.name + "'";
  for (int64_t i = piece.begin; i < std::min(piece.end, row.rows); ++i) {
    if (packer.pack(*piece.source, row, i, i + 1, packed.data()))
      continue;
    if (std::string origin = piece.source->origin(i); !origin.empty())
      who = std::move(origin);
    break;
  }
  if (row.blocks)
    return llvm::createStringError(
        who + ": a scale or minimum of its blocks is not finite");
  return llvm::createStringError(who + ": a value is not finite in " +
                                 nameOf(row.type));
}

Error kvrm::writeWeights(StringRef path, const DecoderModel &model,
                         ArrayRef<WeightLayout> layouts, unsigned threads,
                         int64_t rank) {
  if (Error error = checkLayouts(model, layouts))
    return error;
  std::vector<std::unique_ptr<const WeightSource>> slices;
  auto sourceOf = [&](const WeightLayout &layout) {
    const WeightSource *whole = model.lookup(layout.name);
    if (layout.slices.isWhole())
      return whole;
    slices.push_back(sliceWeight(*whole, layout.slices, rank));
    return slices.back().get();
  };

  constexpr int64_t pieceElements = 1 << 18;
  std::vector<Piece> pieces;
  int64_t dataBytes = 0;
  for (const WeightLayout &layout : layouts) {
    int64_t unit = std::max<int64_t>(layout.rowPanel, 1);
    int64_t units = std::max<int64_t>(pieceElements / (unit * layout.cols), 1);
    int64_t step = units * unit;
    const WeightSource *source = sourceOf(layout);
    for (int64_t row = 0; row < layout.paddedRows(); row += step)
      pieces.push_back(
          {&layout, source, row, std::min(row + step, layout.paddedRows())});
    dataBytes = kvrm_align_up(layout.offset + layout.bytes());
  }

  OutputFile file(path);
  if (Error error = file.open())
    return error;
  std::string header = makeHeader(layouts);
  auto headerBytes = static_cast<int64_t>(header.size());
  if (Error error = file.resize(headerBytes + dataBytes))
    return error;
  if (Error error = file.write(header, 0))
    return error;

  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  std::optional<Error> firstError;
  auto convert = [&](const Piece &piece, Packer &packer,
                     std::vector<char> &packed) -> Error {
    const WeightLayout &layout = *piece.layout;
    int64_t rowBytes = layout.rowBytes();
    packed.resize(static_cast<size_t>((piece.end - piece.begin) * rowBytes));
    if (!packer.pack(*piece.source, layout, piece.begin, piece.end,
                     packed.data()))
      return notFinite(piece, packer);
    return file.write(packed,
                      headerBytes + layout.offset + piece.begin * rowBytes);
  };
  auto work = [&] {
    Packer packer;
    std::vector<char> packed;
    while (!failed.load(std::memory_order_relaxed)) {
      size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= pieces.size())
        return;
      if (Error error = convert(pieces[index], packer, packed)) {
        std::lock_guard lock(mutex);
        if (firstError)
          llvm::consumeError(std::move(error));
        else
          firstError.emplace(std::move(error));
        failed.store(true, std::memory_order_relaxed);
        return;
      }
    }
  };
  if (threads == 0)
    threads = std::max(1u, std::thread::hardware_concurrency());
  threads = static_cast<unsigned>(
      std::min<size_t>(threads, std::max<size_t>(pieces.size(), 1)));
  std::vector<std::thread> helpers;
  for (unsigned i = 1; i < threads; ++i)
    helpers.emplace_back(work);
  work();
  for (std::thread &helper : helpers)
    helper.join();
  if (firstError)
    return std::move(*firstError);
  return file.close();
}
