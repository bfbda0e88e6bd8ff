//===- KVRMAttrs.cpp - Attributes of the kvrm dialect ---------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/runtime/abi/limits.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvrm;

/// `, splits = N` or `, blocks = N`, or neither where both are 1.
static ParseResult parseScheduleCount(AsmParser &parser, int64_t &splits,
                                      int64_t &blocks) {
  splits = blocks = 1;
  if (failed(parser.parseOptionalComma()))
    return success();
  if (succeeded(parser.parseOptionalKeyword("blocks")))
    return failure(parser.parseEqual() || parser.parseInteger(blocks));
  return failure(parser.parseKeyword("splits") || parser.parseEqual() ||
                 parser.parseInteger(splits));
}

static void printScheduleCount(AsmPrinter &printer, int64_t splits,
                               int64_t blocks) {
  if (splits != 1)
    printer << ", splits = " << splits;
  if (blocks != 1)
    printer << ", blocks = " << blocks;
}

#include "kvrm/Dialect/KVRM/IR/KVRMEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "kvrm/Dialect/KVRM/IR/KVRMAttrs.cpp.inc"

static_assert(static_cast<int>(BlockFormat::Q4_0) ==
              static_cast<int>(kvrmblocks::BlockFormat::Q4_0));
static_assert(static_cast<int>(BlockFormat::Q8_0) ==
              static_cast<int>(kvrmblocks::BlockFormat::Q8_0));
static_assert(static_cast<int>(BlockFormat::Q6_K) ==
              static_cast<int>(kvrmblocks::BlockFormat::Q6_K));
static_assert(static_cast<int>(BlockFormat::FP8_G128) ==
              static_cast<int>(kvrmblocks::BlockFormat::FP8_G128));
static_assert(static_cast<int>(Transport::Native) == KVRM_TRANSPORT_NATIVE);
static_assert(static_cast<int>(Transport::Staged) == KVRM_TRANSPORT_STAGED);
static_assert(static_cast<int>(ScheduleKind::Rows) == KVRM_SCHEDULE_ROWS);
static_assert(static_cast<int>(ScheduleKind::Split) == KVRM_SCHEDULE_SPLIT);
static_assert(static_cast<int>(ScheduleKind::Workqueue) ==
              KVRM_SCHEDULE_WORKQUEUE);
static_assert(static_cast<int>(ScheduleKind::Cluster) == KVRM_SCHEDULE_CLUSTER);

void KVRMDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "kvrm/Dialect/KVRM/IR/KVRMAttrs.cpp.inc"
      >();
}

LogicalResult ScheduleAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                   ScheduleKind kind, int64_t splits,
                                   int64_t blocks) {
  if (splits < 1 || splits > 64)
    return emitError() << "splits is " << splits << ", outside 1..64";
  if (kind != ScheduleKind::Split && splits != 1)
    return emitError() << "only a split schedule has splits";
  if (blocks < 1 || blocks > KVRM_MAX_CLUSTER || !llvm::isPowerOf2_64(blocks))
    return emitError() << "blocks is " << blocks
                       << ", not a power of two up to "
                       << int64_t{KVRM_MAX_CLUSTER};
  if (kind != ScheduleKind::Cluster && blocks != 1)
    return emitError() << "only a cluster schedule has blocks";
  return success();
}

LogicalResult
DeviceKernelAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                         DeviceRole /*role*/, int64_t threads,
                         int64_t sharedBytes) {
  constexpr int64_t mostThreads = 1024;
  if (threads < 1 || threads > mostThreads)
    return emitError() << "threads is " << threads << ", outside 1.."
                       << mostThreads;
  if (sharedBytes < 0)
    return emitError() << "shared_bytes is " << sharedBytes;
  return success();
}

LogicalResult
FarHistoryAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                       int64_t window, int64_t entries, int64_t sinks) {
  constexpr int64_t most =
      int64_t{KVRM_MAX_PAGES_PER_SLOT} * KVRM_MAX_PAGE_TOKENS;
  if (window < 1 || window > most)
    return emitError() << "window is " << window << ", outside 1.." << most;
  if (entries < 0 || entries > KVRM_MAX_SUMMARIES)
    return emitError() << "entries is " << entries << ", outside 0.."
                       << int64_t{KVRM_MAX_SUMMARIES};
  if (sinks < 0 || sinks > entries)
    return emitError() << "sinks is " << sinks << ", outside 0.." << entries;
  if (entries - sinks == 1)
    return emitError() << "one of " << entries << " entries is no sink; it "
                       << "takes two to merge";
  return success();
}

LogicalResult WeightAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 WeightFormat format, int64_t offset,
                                 int64_t panel, int64_t rows,
                                 BlockFormatAttr block) {
  if (offset < 0 || offset % KVRM_ALIGNMENT)
    return emitError() << "offset is " << offset << ", not a multiple of "
                       << int64_t{KVRM_ALIGNMENT};
  if ((format == WeightFormat::Blocks) != static_cast<bool>(block))
    return emitError() << "blocks have a block format, and nothing else has";
  if (format == WeightFormat::RowMajor)
    return panel == 0 && rows == 0
               ? success()
               : emitError() << "only panels and blocks have a panel and rows";
  if (panel < 1)
    return emitError() << "panel is " << panel << ", not positive";
  if (rows < 1)
    return emitError() << "rows is " << rows << ", not positive";
  return success();
}

static int64_t product(ArrayRef<int64_t> sizes) {
  return llvm::product_of(sizes);
}

int64_t WeightPartAttr::getRows() { return product(getRowSizes()); }
int64_t WeightPartAttr::getColumns() { return product(getColumnSizes()); }

LogicalResult WeightPartAttr::verify(
    function_ref<InFlightDiagnostic()> emitError, StringAttr /*tensor*/,
    int64_t offset, ArrayRef<int64_t> rowSizes, ArrayRef<int64_t> rowStrides,
    ArrayRef<int64_t> columnSizes, ArrayRef<int64_t> columnStrides) {
  if (offset < 0)
    return emitError() << "offset is " << offset << ", negative";
  for (auto [name, sizes, strides] :
       {std::tuple("rows", rowSizes, rowStrides),
        std::tuple("columns", columnSizes, columnStrides)}) {
    if (sizes.empty() || sizes.size() != strides.size())
      return emitError() << name << " are " << sizes.size() << " sizes and "
                         << strides.size() << " strides";
    if (llvm::any_of(sizes, [](int64_t size) { return size < 1; }) ||
        llvm::any_of(strides, [](int64_t stride) { return stride < 0; }))
      return emitError() << name << " have a size below 1 or a negative stride";
  }
  return success();
}

LogicalResult ShardAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                int64_t dim, ArrayRef<int64_t> parts) {
  if (dim < 0)
    return emitError() << "dim is " << dim << ", negative";
  if (parts.empty() ||
      llvm::any_of(parts, [](int64_t part) { return part < 1; }))
    return emitError() << "parts are none, or one is below 1";
  return success();
}

LogicalResult TileAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                               int64_t q, int64_t kv) {
  if (q < 1 || q > KVRM_MAX_QUERIES)
    return emitError() << "q is " << q << ", outside 1.."
                       << int64_t{KVRM_MAX_QUERIES};
  if (kv < 1 || !llvm::isPowerOf2_64(kv))
    return emitError() << "kv is " << kv << ", not a power of two";
  return success();
}
