//===- LtApi.h - The calls of cuBLASLt in use -------------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Declarations of our own of what cuBLASLt documents, as DriverApi.h has those
// of the driver: no header of CUDA is needed to build. All of it is the same in
// versions 12 and 13.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_CUDA_LTAPI_H
#define KVRM_RUNTIME_CUDA_LTAPI_H

#include "kvrm/runtime/cuda/CudaDriver.h"

#include <cstddef>
#include <cstdint>

namespace kvrm::cuda {

struct LtHandle;
struct LtMatmulDesc;
struct LtMatrixLayout;
struct LtPreference;

/// cublasStatus_t, as far as we look at it.
using LtResult = int32_t;
enum : LtResult {
  ltSuccess = 0,
  ltAllocFailed = 3,
  ltInvalidValue = 7,
  ltNotSupported = 15,
};

/// cudaDataType_t.
enum LtType : int32_t {
  ltF32 = 0,
  ltF16 = 2,
  ltBF16 = 14,
};

/// cublasComputeType_t: CUBLAS_COMPUTE_32F.
constexpr int32_t ltComputeF32 = 68;

/// cublasOperation_t.
enum LtOperation : int32_t {
  ltAsIs = 0,
  ltTransposed = 1,
};

/// cublasLtMatmulDescAttributes_t.
enum LtDescAttribute : int32_t {
  ltTransposeA = 3,
  ltTransposeB = 4,
};

/// cublasLtMatmulPreferenceAttributes_t.
enum LtPreferenceAttribute : int32_t {
  ltMaxWorkspaceBytes = 1, ///< uint64_t
  ltReductions = 3,        ///< uint32_t, a set of LtReduction
  ltMinAlignmentA = 5,     ///< uint32_t, as are B, C and D
  ltMinAlignmentB = 6,
  ltMinAlignmentC = 7,
  ltMinAlignmentD = 8,
};

/// cublasLtReductionScheme_t: how parts of a sum that is cut along the depth
/// are added up. The others add in the output's element.
enum LtReduction : uint32_t {
  ltReduceInF32 = 2, ///< in the compute type
};

/// cublasLtMatmulAlgo_t.
struct LtAlgorithm {
  uint64_t data[8];
};

/// cublasLtMatmulHeuristicResult_t.
struct LtHeuristic {
  LtAlgorithm algorithm;
  size_t workspaceBytes;
  LtResult result;
  float waves;
  int32_t reserved[4];
};
static_assert(sizeof(LtHeuristic) == 96 && offsetof(LtHeuristic, result) == 72);

/// Every call: its name, and its parameters. All return an LtResult. Matrices
/// are column-major: a layout has so many rows, columns, and elements from a
/// column to the next.
// clang-format off
#define KVRM_LT_CALLS(CALL)                                                    \
  CALL(cublasLtCreate, (LtHandle **handle))                                    \
  CALL(cublasLtDestroy, (LtHandle *handle))                                    \
  CALL(cublasLtMatmulDescCreate,                                               \
       (LtMatmulDesc **desc, int32_t compute, LtType scale))                   \
  CALL(cublasLtMatmulDescDestroy, (LtMatmulDesc *desc))                        \
  CALL(cublasLtMatmulDescSetAttribute,                                         \
       (LtMatmulDesc *desc, LtDescAttribute attribute, const void *value,      \
        size_t bytes))                                                         \
  CALL(cublasLtMatrixLayoutCreate,                                             \
       (LtMatrixLayout **layout, LtType type, uint64_t rows, uint64_t columns, \
        int64_t leading))                                                      \
  CALL(cublasLtMatrixLayoutDestroy, (LtMatrixLayout *layout))                  \
  CALL(cublasLtMatmulPreferenceCreate, (LtPreference **preference))            \
  CALL(cublasLtMatmulPreferenceDestroy, (LtPreference *preference))            \
  CALL(cublasLtMatmulPreferenceSetAttribute,                                   \
       (LtPreference *preference, LtPreferenceAttribute attribute,             \
        const void *value, size_t bytes))                                      \
  CALL(cublasLtMatmulAlgoGetHeuristic,                                         \
       (LtHandle *handle, LtMatmulDesc *desc, LtMatrixLayout *a,               \
        LtMatrixLayout *b, LtMatrixLayout *c, LtMatrixLayout *d,               \
        LtPreference *preference, int32_t wanted, LtHeuristic *results,        \
        int32_t *found))                                                       \
  CALL(cublasLtMatmul,                                                         \
       (LtHandle *handle, LtMatmulDesc *desc, const void *alpha,               \
        const void *a, LtMatrixLayout *aLayout, const void *b,                 \
        LtMatrixLayout *bLayout, const void *beta, const void *c,              \
        LtMatrixLayout *cLayout, void *d, LtMatrixLayout *dLayout,             \
        const LtAlgorithm *algorithm, void *workspace, size_t workspaceBytes,  \
        StreamObject *stream))
// clang-format on

/// The entry points.
struct LtApi {
// NOLINTBEGIN(bugprone-macro-parentheses): a declarator takes none.
#define KVRM_LT_POINTER(name, parameters) LtResult(*name) parameters = nullptr;
  KVRM_LT_CALLS(KVRM_LT_POINTER)
#undef KVRM_LT_POINTER
  // NOLINTEND(bugprone-macro-parentheses)
  size_t (*cublasLtGetVersion)() = nullptr;
  const char *(*cublasLtGetStatusName)(LtResult result) = nullptr;
};

} // namespace kvrm::cuda

#endif // KVRM_RUNTIME_CUDA_LTAPI_H
