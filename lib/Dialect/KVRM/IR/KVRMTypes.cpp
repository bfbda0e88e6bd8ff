//===- KVRMTypes.cpp - Types of the kvrm dialect --------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "kvrm/Dialect/KVRM/IR/KVRMDialect.h"
#include "kvrm/runtime/abi/pool.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvrm;

/// `, far_history = <...>`, `, padded`, or both, which is for the verifier.
static ParseResult parseHistoryKind(AsmParser &parser,
                                    FarHistoryAttr &farHistory,
                                    bool &isPadded) {
  farHistory = {};
  isPadded = false;
  while (succeeded(parser.parseOptionalComma())) {
    if (!isPadded && succeeded(parser.parseOptionalKeyword("padded"))) {
      isPadded = true;
      continue;
    }
    if (parser.parseKeyword("far_history") || parser.parseEqual())
      return failure();
    FailureOr<FarHistoryAttr> parsed =
        FieldParser<FarHistoryAttr>::parse(parser);
    if (failed(parsed))
      return failure();
    farHistory = *parsed;
  }
  return success();
}

static void printHistoryKind(AsmPrinter &printer, FarHistoryAttr farHistory,
                             bool isPadded) {
  if (farHistory) {
    printer << ", far_history = ";
    printer.printStrippedAttrOrType(farHistory);
  }
  if (isPadded)
    printer << ", padded";
}

#define GET_TYPEDEF_CLASSES
#include "kvrm/Dialect/KVRM/IR/KVRMTypes.cpp.inc"

void KVRMDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "kvrm/Dialect/KVRM/IR/KVRMTypes.cpp.inc"
      >();
}

//===----------------------------------------------------------------------===//
// Elements of KV
//===----------------------------------------------------------------------===//

std::optional<kvrm_element> kvrm::getCacheElement(Type element) {
  for (int32_t i = 0; i < KVRM_ELEMENTS; ++i)
    if (auto known = static_cast<kvrm_element>(i);
        getCacheType(element.getContext(), known) == element)
      return known;
  return std::nullopt;
}

Type kvrm::getCacheType(MLIRContext *context, kvrm_element element) {
  switch (element) {
  case KVRM_F16:
    return Float16Type::get(context);
  case KVRM_BF16:
    return BFloat16Type::get(context);
  case KVRM_F8E4M3:
    return Float8E4M3FNType::get(context);
  case KVRM_INT8:
    return IntegerType::get(context, 8);
  }
  llvm_unreachable("no such element");
}

int64_t kvrm::getCacheRow(int64_t headDim, Type element) {
  kvrm_element known = *getCacheElement(element);
  return kvrm_token_bytes(headDim, known) / kvrm_element_bytes(known);
}

//===----------------------------------------------------------------------===//
// Pool, session and descriptor
//===----------------------------------------------------------------------===//

static LogicalResult checkRange(function_ref<InFlightDiagnostic()> emitError,
                                StringRef name, int64_t value, int64_t limit) {
  if (value < 1 || value > limit)
    return emitError() << name << " is " << value << ", outside 1.." << limit;
  return success();
}

LogicalResult PoolType::verify(function_ref<InFlightDiagnostic()> emitError,
                               int64_t layers, int64_t kvHeads, int64_t headDim,
                               int64_t page, Type element, Layout layout) {
  if (failed(checkRange(emitError, "layers", layers, KVRM_MAX_LAYERS)) ||
      failed(checkRange(emitError, "kv_heads", kvHeads, KVRM_MAX_KV_HEADS)) ||
      failed(checkRange(emitError, "head_dim", headDim, KVRM_MAX_HEAD_DIM)) ||
      failed(checkRange(emitError, "page", page, KVRM_MAX_PAGE_TOKENS)))
    return failure();
  if (!llvm::isPowerOf2_64(page))
    return emitError() << "page is " << page << ", not a power of two";
  if (!getCacheElement(element))
    return emitError() << "element is " << element
                       << ", none of f16, bf16, f8E4M3FN and i8";
  if (layout == Layout::Swizzled && !kvrm_head_shape_of(headDim))
    return emitError() << "head_dim is " << headDim
                       << "; a swizzled pool takes " KVRM_HEAD_SHAPES_TEXT;
  return success();
}

kvrm_page_layout PoolType::getPageLayout() const {
  return kvrm_page_layout_of(getPage(), getHeadDim(),
                             *getCacheElement(getElement()));
}

int64_t PoolType::getScaleBytes() const {
  return kvrm_scale_bytes(*getCacheElement(getElement()));
}

LogicalResult SessionType::verify(function_ref<InFlightDiagnostic()> emitError,
                                  int64_t slots, int64_t pages, PoolType pool,
                                  FarHistoryAttr farHistory, bool isPadded) {
  if (failed(checkRange(emitError, "slots", slots, KVRM_MAX_ROWS)) ||
      failed(checkRange(emitError, "pages", pages, KVRM_MAX_PAGES_PER_SLOT)))
    return failure();
  if (!farHistory)
    return success();
  if (isPadded)
    return emitError() << "padded histories never collapse; far_history is of "
                          "others";
  // Whole pages collapse, and summaries lie in pages of their own.
  int64_t window = farHistory.getWindow(), entries = farHistory.getEntries();
  for (auto [name, tokens] :
       {std::pair<StringRef, int64_t>("window", window), {"entries", entries}})
    if (tokens % pool.getPage())
      return emitError() << "far_history " << name << " of " << tokens
                         << " is not whole pages of " << pool.getPage();
  if (pages <= (window + entries) / pool.getPage())
    return emitError() << "pages is " << pages << ", which leaves no room for "
                       << "new tokens beside a far_history of " << window
                       << " + " << entries;
  return success();
}

LogicalResult
DescriptorType::verify(function_ref<InFlightDiagnostic()> emitError,
                       int64_t rows, int64_t queries, int64_t pages) {
  return failure(
      failed(checkRange(emitError, "rows", rows, KVRM_MAX_ROWS)) ||
      failed(checkRange(emitError, "queries", queries, KVRM_MAX_QUERIES)) ||
      failed(checkRange(emitError, "pages", pages, KVRM_MAX_PAGES_PER_SLOT)));
}

//===----------------------------------------------------------------------===//
// Fragment and softmax: `<` rows `x` cols (`x` element)? `>`
//===----------------------------------------------------------------------===//

static LogicalResult
verifyFragmentShape(function_ref<InFlightDiagnostic()> emitError, int64_t rows,
                    int64_t cols) {
  if (rows < 1 || cols < 1)
    return emitError() << "shape " << rows << "x" << cols << " is not positive";
  return success();
}

LogicalResult FragmentType::verify(function_ref<InFlightDiagnostic()> emitError,
                                   int64_t rows, int64_t cols, Type element) {
  if (!getCacheElement(element) && !element.isF32())
    return emitError() << "element is " << element
                       << ", none of f16, bf16, f8E4M3FN, i8 and f32";
  return verifyFragmentShape(emitError, rows, cols);
}

Type FragmentType::parse(AsmParser &parser) {
  SmallVector<int64_t> shape;
  Type element;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseLess() ||
      parser.parseDimensionList(shape, /*allowDynamic=*/false,
                                /*withTrailingX=*/true) ||
      parser.parseType(element) || parser.parseGreater())
    return {};
  if (shape.size() != 2) {
    parser.emitError(loc, "a fragment has rows and columns");
    return {};
  }
  return parser.getChecked<FragmentType>(loc, parser.getContext(), shape[0],
                                         shape[1], element);
}

void FragmentType::print(AsmPrinter &printer) const {
  printer << "<" << getRows() << "x" << getCols() << "x" << getElement() << ">";
}

LogicalResult SoftmaxType::verify(function_ref<InFlightDiagnostic()> emitError,
                                  int64_t rows, int64_t cols) {
  return verifyFragmentShape(emitError, rows, cols);
}

Type SoftmaxType::parse(AsmParser &parser) {
  SmallVector<int64_t> shape;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseLess() ||
      parser.parseDimensionList(shape, /*allowDynamic=*/false,
                                /*withTrailingX=*/false) ||
      parser.parseGreater())
    return {};
  if (shape.size() != 2) {
    parser.emitError(loc, "a softmax state has rows and columns");
    return {};
  }
  return parser.getChecked<SoftmaxType>(loc, parser.getContext(), shape[0],
                                        shape[1]);
}

void SoftmaxType::print(AsmPrinter &printer) const {
  printer << "<" << getRows() << "x" << getCols() << ">";
}
