//===- FakeProducts.cpp - A product library over host memory --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FakeProducts.h"

#include "../cuda/LtApi.h"
#include "ToyModel.h"

#include "kvrm/runtime/abi/program.h"

#include <algorithm>
#include <bit>

using namespace kvrm::cuda;
using fake::Launch;
using fake::machine;
using fake::violate;

//===----------------------------------------------------------------------===//
// Objects
//===----------------------------------------------------------------------===//

namespace kvrm::cuda {
struct LtHandle {};

struct LtMatmulDesc {
  int32_t transposeA = ltAsIs;
  int32_t transposeB = ltAsIs;
};

struct LtMatrixLayout {
  LtType type;
  int64_t rows, columns, leading;

  int64_t bytes() const { return columns * leading * (type == ltF32 ? 4 : 2); }
};

struct LtPreference {
  uint64_t workspaceBytes = 0;
  uint32_t alignment = 256; ///< the library's default
};
} // namespace kvrm::cuda

/// What an algorithm says that it is for, and the workspace that it needs.
static constexpr uint64_t algorithmMark = 0x6d6d;
static constexpr size_t neededBytes = 1000;

/// Fails a call that was told to, or that has no context.
#define ENTER(name)                                                            \
  do {                                                                         \
    if (fake::isFailing(#name))                                                \
      return machine().failResult;                                             \
    if (!fake::hasContext()) {                                                 \
      violate(#name " without a context");                                     \
      return ltInvalidValue;                                                   \
    }                                                                          \
  } while (false)

/// Makes an object that is to be given back.
template <typename T> static LtResult make(T **object, T value) {
  *object = new T(value);
  ++machine().live;
  return ltSuccess;
}

template <typename T> static LtResult giveBack(T *object, const char *call) {
  delete object;
  --machine().live;
  return fake::isFailing(call) ? machine().failResult : ltSuccess;
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

static float loadElement(uint64_t address, int64_t index, bool isBF16) {
  uint16_t bits = std::bit_cast<const uint16_t *>(address)[index];
  return isBF16 ? std::bit_cast<float>(uint32_t(bits) << 16)
                : toy::fromHalf(bits);
}

/// To the nearest; of ties the even one.
static uint16_t roundElement(float value, bool isBF16) {
  if (!isBF16)
    return toy::toHalf(value);
  auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

namespace {

/// A launch as runProduct() takes it.
class Product {
public:
  explicit Product(const Launch &launch) {
    std::memcpy(numbers, &launch.args, sizeof(numbers));
  }
  void run() const {
    for (int64_t row = 0; row < rows(); ++row)
      for (int64_t column = 0; column < columns(); ++column)
        store(row * columns() + column, sum(row, column));
  }

private:
  int64_t rows() const { return int64_t(numbers[4]); }
  int64_t columns() const { return int64_t(numbers[5]); }
  int64_t depth() const { return int64_t(numbers[6]); }
  bool isBF16() const { return numbers[7] % 2 == KVRM_PRODUCT_BF16; }
  bool isF32() const { return numbers[7] >= KVRM_PRODUCT_F16_F32; }

  /// Weights that are 0 cost nothing: tests have few others.
  float sum(int64_t row, int64_t column) const {
    const auto *weight =
        std::bit_cast<const uint16_t *>(numbers[2]) + column * depth();
    float total = 0;
    for (int64_t k = 0; k < depth(); ++k)
      if (weight[k] != 0)
        total += loadElement(numbers[1], row * depth() + k, isBF16()) *
                 loadElement(numbers[2], column * depth() + k, isBF16());
    if (numbers[3] == 0)
      return total;
    int64_t index = row * columns() + column;
    return total + (isF32() ? std::bit_cast<const float *>(numbers[3])[index]
                            : loadElement(numbers[3], index, isBF16()));
  }
  void store(int64_t index, float value) const {
    if (isF32())
      std::bit_cast<float *>(numbers[0])[index] = value;
    else
      std::bit_cast<uint16_t *>(numbers[0])[index] =
          roundElement(value, isBF16());
  }

  uint64_t numbers[fake::productParameters];
};

} // namespace

void fake::runProduct(const Launch &launch) { Product(launch).run(); }

/// A kvrm_product_type; -1 for what the fake does not know.
static int32_t typeOf(LtType element, LtType sum) {
  if (element != ltF16 && element != ltBF16)
    return -1;
  int32_t type = element == ltBF16 ? KVRM_PRODUCT_BF16 : KVRM_PRODUCT_F16;
  if (sum == ltF32)
    return type + KVRM_PRODUCT_F16_F32;
  return sum == element ? type : -1;
}

/// Whether it is out^T[N][M] = weight[N][K] * in^T[K][M], without gaps.
static bool isKnown(const LtMatmulDesc &desc, const LtMatrixLayout &a,
                    const LtMatrixLayout &b, const LtMatrixLayout &c,
                    const LtMatrixLayout &d) {
  bool isWhole = true;
  for (const LtMatrixLayout *layout : {&a, &b, &c, &d})
    isWhole &= layout->leading == layout->rows;
  return isWhole && desc.transposeA == ltTransposed &&
         desc.transposeB == ltAsIs && a.type == b.type && c.type == d.type &&
         typeOf(a.type, d.type) >= 0 && a.rows == b.rows &&
         a.columns == d.rows && b.columns == d.columns && c.rows == d.rows &&
         c.columns == d.columns;
}

//===----------------------------------------------------------------------===//
// Exported
//===----------------------------------------------------------------------===//

// NOLINTBEGIN(readability-identifier-naming,bugprone-macro-parentheses): names
// of the library's, and of functions.
extern "C" {
#define KVRM_LT_DECLARE(name, parameters) LtResult name parameters;
KVRM_LT_CALLS(KVRM_LT_DECLARE)
#undef KVRM_LT_DECLARE
size_t cublasLtGetVersion();
const char *cublasLtGetStatusName(LtResult result);
}
// NOLINTEND(bugprone-macro-parentheses)

size_t cublasLtGetVersion() {
  return static_cast<size_t>(machine().productVersion);
}

const char *cublasLtGetStatusName(LtResult result) {
  return result == ltNotSupported ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                  : "CUBLAS_STATUS_UNKNOWN";
}

LtResult cublasLtCreate(LtHandle **handle) {
  ENTER(cublasLtCreate);
  return make(handle, LtHandle());
}

LtResult cublasLtDestroy(LtHandle *handle) {
  return giveBack(handle, "cublasLtDestroy");
}

LtResult cublasLtMatmulDescCreate(LtMatmulDesc **desc, int32_t compute,
                                  LtType scale) {
  ENTER(cublasLtMatmulDescCreate);
  if (compute != ltComputeF32 || scale != ltF32)
    violate("sums that are not f32");
  return make(desc, LtMatmulDesc());
}

LtResult cublasLtMatmulDescDestroy(LtMatmulDesc *desc) {
  return giveBack(desc, "cublasLtMatmulDescDestroy");
}

LtResult cublasLtMatmulDescSetAttribute(LtMatmulDesc *desc,
                                        LtDescAttribute attribute,
                                        const void *value, size_t bytes) {
  ENTER(cublasLtMatmulDescSetAttribute);
  if (bytes != sizeof(int32_t))
    return ltInvalidValue;
  std::memcpy(attribute == ltTransposeA ? &desc->transposeA : &desc->transposeB,
              value, bytes);
  return ltSuccess;
}

LtResult cublasLtMatrixLayoutCreate(LtMatrixLayout **layout, LtType type,
                                    uint64_t rows, uint64_t columns,
                                    int64_t leading) {
  ENTER(cublasLtMatrixLayoutCreate);
  return make(layout,
              LtMatrixLayout{type, int64_t(rows), int64_t(columns), leading});
}

LtResult cublasLtMatrixLayoutDestroy(LtMatrixLayout *layout) {
  return giveBack(layout, "cublasLtMatrixLayoutDestroy");
}

LtResult cublasLtMatmulPreferenceCreate(LtPreference **preference) {
  ENTER(cublasLtMatmulPreferenceCreate);
  return make(preference, LtPreference());
}

LtResult cublasLtMatmulPreferenceDestroy(LtPreference *preference) {
  return giveBack(preference, "cublasLtMatmulPreferenceDestroy");
}

LtResult cublasLtMatmulPreferenceSetAttribute(LtPreference *preference,
                                              LtPreferenceAttribute attribute,
                                              const void *value, size_t bytes) {
  ENTER(cublasLtMatmulPreferenceSetAttribute);
  bool isBytes = attribute == ltMaxWorkspaceBytes;
  if (bytes != (isBytes ? sizeof(uint64_t) : sizeof(uint32_t)))
    return ltInvalidValue;
  if (isBytes)
    std::memcpy(&preference->workspaceBytes, value, bytes);
  else if (attribute != ltReductions)
    std::memcpy(&preference->alignment, value, bytes);
  return ltSuccess;
}

LtResult cublasLtMatmulAlgoGetHeuristic(LtHandle *, LtMatmulDesc *desc,
                                        LtMatrixLayout *a, LtMatrixLayout *b,
                                        LtMatrixLayout *c, LtMatrixLayout *d,
                                        LtPreference *preference,
                                        int32_t wanted, LtHeuristic *results,
                                        int32_t *found) {
  ENTER(cublasLtMatmulAlgoGetHeuristic);
  *found = 0;
  if (machine().hasNoProducts || preference->workspaceBytes < neededBytes ||
      wanted < 1)
    return ltNotSupported;
  if (!isKnown(*desc, *a, *b, *c, *d))
    return ltInvalidValue;
  // Of the second the library itself says that it does not work.
  *found = std::min(wanted, 3);
  for (int32_t i = 0; i < *found; ++i) {
    results[i] = {};
    results[i].algorithm.data[0] = algorithmMark;
    results[i].algorithm.data[1] = preference->alignment;
    results[i].algorithm.data[2] = static_cast<uint64_t>(i);
    results[i].workspaceBytes = neededBytes;
    results[i].result = i == 1 ? ltNotSupported : ltSuccess;
  }
  return ltSuccess;
}

LtResult cublasLtMatmul(LtHandle *, LtMatmulDesc *desc, const void *alpha,
                        const void *a, LtMatrixLayout *aLayout, const void *b,
                        LtMatrixLayout *bLayout, const void *beta,
                        const void *c, LtMatrixLayout *cLayout, void *d,
                        LtMatrixLayout *dLayout, const LtAlgorithm *algorithm,
                        void *workspace, size_t workspaceBytes,
                        StreamObject *stream) {
  if (fake::isFailing("cublasLtMatmul")) {
    fake::invalidate(stream);
    return machine().failResult;
  }
  auto addressOf = [](const void *pointer) {
    return reinterpret_cast<uint64_t>(pointer);
  };
  float scales[2];
  std::memcpy(&scales[0], alpha, sizeof(float));
  std::memcpy(&scales[1], beta, sizeof(float));
  bool isFit = fake::hasContext() && scales[0] == 1 &&
               (scales[1] == 0 || scales[1] == 1) &&
               algorithm->data[0] == algorithmMark && algorithm->data[2] != 1 &&
               isKnown(*desc, *aLayout, *bLayout, *cLayout, *dLayout) &&
               workspaceBytes >= neededBytes &&
               fake::isOnDevice(addressOf(workspace), workspaceBytes);
  for (auto [pointer, layout] :
       {std::pair(a, aLayout), {b, bLayout}, {c, cLayout}, {d, dLayout}})
    isFit &= fake::isOnDevice(addressOf(pointer),
                              static_cast<size_t>(layout->bytes())) &&
             addressOf(pointer) % algorithm->data[1] == 0;
  if (!isFit) {
    violate("a product that does not fit");
    return ltInvalidValue;
  }
  machine().productWay = static_cast<int>(algorithm->data[2]);
  machine().elapsedMilliseconds =
      algorithm->data[2] == 2 ? machine().secondWayMilliseconds : 0.25f;
  Launch launch;
  launch.symbol = fake::productSymbol;
  const uint64_t numbers[fake::productParameters] = {
      addressOf(d),
      addressOf(b),
      addressOf(a),
      scales[1] == 1 ? addressOf(c) : 0,
      uint64_t(dLayout->columns),
      uint64_t(dLayout->rows),
      uint64_t(aLayout->rows),
      uint64_t(typeOf(aLayout->type, dLayout->type))};
  std::memcpy(&launch.args, numbers, sizeof(numbers));
  return fake::launch(stream, std::move(launch));
}
// NOLINTEND(readability-identifier-naming)
