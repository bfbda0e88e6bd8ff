//===- DeviceBuilder.cpp - Writing code for one GPU thread ----------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DeviceBuilder.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvrm;

/// Lanes 0 to 31 take part, and lane numbers are not clamped.
static constexpr int64_t kAllLanes = -1;
static constexpr int64_t kLastLane = 31;

DeviceBuilder::DeviceBuilder(Location loc, LLVM::LLVMFuncOp function)
    : ImplicitLocOpBuilder(loc, function.getContext()),
      entry(function.addEntryBlock(*this)) {
  setInsertionPointToStart(entry);
}

DeviceBuilder::Variable DeviceBuilder::variable(Type type) {
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(entry);
  Variable result;
  result.b = this;
  result.type = type;
  result.slot = LLVM::AllocaOp::create(
      *this, LLVM::LLVMPointerType::get(getContext()), type, i32(1));
  return result;
}

void DeviceBuilder::ifThen(Value condition, function_ref<void()> then) {
  auto op = scf::IfOp::create(*this, condition, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.thenBlock());
  then();
}

void DeviceBuilder::ifThenElse(Value condition, function_ref<void()> then,
                               function_ref<void()> otherwise) {
  auto op = scf::IfOp::create(*this, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.thenBlock());
  then();
  setInsertionPointToStart(op.elseBlock());
  otherwise();
}

void DeviceBuilder::whileLoop(function_ref<Value()> condition,
                              function_ref<void()> body) {
  auto op = scf::WhileOp::create(*this, TypeRange{}, ValueRange{});
  OpBuilder::InsertionGuard guard(*this);
  createBlock(&op.getBefore());
  scf::ConditionOp::create(*this, condition(), ValueRange{});
  createBlock(&op.getAfter());
  body();
  scf::YieldOp::create(*this);
}

void DeviceBuilder::forLoop(Value begin, Value end, Value step,
                            function_ref<void(Value)> body) {
  auto op = scf::ForOp::create(*this, begin, end, step);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  body(op.getInductionVar());
}

Value DeviceBuilder::load(Type type, Value pointer, unsigned alignment) {
  return LLVM::LoadOp::create(*this, type, pointer, alignment);
}

void DeviceBuilder::store(Value value, Value pointer, unsigned alignment) {
  LLVM::StoreOp::create(*this, value, pointer, alignment);
}

SmallVector<Value> DeviceBuilder::loadWords(Value pointer, int64_t count) {
  return unpack(load(VectorType::get({count}, getI32Type()), pointer,
                     static_cast<unsigned>(count * 4)));
}

SmallVector<Value> DeviceBuilder::loadWordsFromL2(Value pointer,
                                                  int64_t count) {
  StringRef text = count == 4 ? "ld.global.cg.v4.b32 {$0, $1, $2, $3}, [$4];"
                              : "ld.global.cg.v2.b32 {$0, $1}, [$2];";
  // With side effects, so that it stays behind the wait for what stored them.
  auto op = NVVM::InlinePtxOp::create(
      *this, SmallVector<Type>(static_cast<size_t>(count), getI32Type()),
      ValueRange{pointer}, ValueRange{}, text, Value());
  return SmallVector<Value>(op->getResults());
}

Value DeviceBuilder::sharedPointer(Value address) {
  return LLVM::IntToPtrOp::create(
      *this, LLVM::LLVMPointerType::get(getContext(), 3), address);
}

void DeviceBuilder::storeRemote(Value value, Value address, Value rank,
                                unsigned alignment) {
  Value remote =
      NVVM::MapaOp::create(*this, LLVM::LLVMPointerType::get(getContext(), 7),
                           sharedPointer(address), rank);
  store(value, remote, alignment);
}

SmallVector<Value> DeviceBuilder::unpack(Value vector) {
  SmallVector<Value> elements;
  int64_t count = cast<VectorType>(vector.getType()).getNumElements();
  for (int64_t i = 0; i < count; ++i)
    elements.push_back(LLVM::ExtractElementOp::create(*this, vector, i32(i)));
  return elements;
}

Value DeviceBuilder::pack(ValueRange elements) {
  auto type = VectorType::get({static_cast<int64_t>(elements.size())},
                              elements.front().getType());
  Value vector = LLVM::UndefOp::create(*this, type);
  for (auto [i, element] : llvm::enumerate(elements))
    vector = LLVM::InsertElementOp::create(*this, vector, element, i32(i));
  return vector;
}

std::array<Value, 2> DeviceBuilder::widenPair(Value word, Type element) {
  Value pair =
      LLVM::BitcastOp::create(*this, VectorType::get({2}, element), word);
  SmallVector<Value> values = unpack(pair);
  Value low = arith::ExtFOp::create(*this, getF32Type(), values[0]);
  return {low, arith::ExtFOp::create(*this, getF32Type(), values[1])};
}

Value DeviceBuilder::shuffle(Value value, Value lane) {
  return NVVM::ShflOp::create(*this, value.getType(), i32(kAllLanes), value,
                              lane, i32(kLastLane), NVVM::ShflKind::idx,
                              UnitAttr());
}

Value DeviceBuilder::shuffleXor(Value value, int64_t mask) {
  return NVVM::ShflOp::create(*this, value.getType(), i32(kAllLanes), value,
                              i32(mask), i32(kLastLane), NVVM::ShflKind::bfly,
                              UnitAttr());
}

Value DeviceBuilder::sumOverWarp(Value value) {
  for (int64_t mask = kWarpLanes / 2; mask > 0; mask /= 2)
    value = fadd(value, shuffleXor(value, mask));
  return value;
}

Value DeviceBuilder::maxOverWarp(Value value) {
  return NVVM::ReduxOp::create(*this, getI32Type(), value, NVVM::ReduxKind::MAX,
                               i32(kAllLanes));
}

static Quad unpackStruct(DeviceBuilder &b, Value value) {
  Quad result;
  for (int64_t i = 0; i < 4; ++i)
    result[i] = LLVM::ExtractValueOp::create(b, value, i);
  return result;
}

Quad DeviceBuilder::loadMatrix(Value address, bool transposed) {
  SmallVector<Type> words(4, getI32Type());
  Value loaded = NVVM::LdMatrixOp::create(
      *this, LLVM::LLVMStructType::getLiteral(getContext(), words),
      sharedPointer(address), /*num=*/4,
      transposed ? NVVM::MMALayout::col : NVVM::MMALayout::row,
      NVVM::LdStMatrixShapeAttr::get(getContext(), 8, 8),
      NVVM::LdStMatrixEltType::B16);
  return unpackStruct(*this, loaded);
}

Quad DeviceBuilder::multiply(const Quad &a, Value b0, Value b1, const Quad &c,
                             Type element) {
  // Registers are i32 for bf16, pairs of elements for f16.
  auto operand = [&](Value word) -> Value {
    if (element.isBF16())
      return word;
    return LLVM::BitcastOp::create(*this, VectorType::get({2}, element), word);
  };
  SmallVector<Type> sums(4, getF32Type());
  auto type = element.isBF16() ? NVVM::MMATypes::bf16 : NVVM::MMATypes::f16;
  Value result = NVVM::MmaOp::create(
      *this, LLVM::LLVMStructType::getLiteral(getContext(), sums),
      ValueRange{operand(a[0]), operand(a[1]), operand(a[2]), operand(a[3])},
      ValueRange{operand(b0), operand(b1)}, ValueRange(ArrayRef<Value>(c)),
      ArrayRef<int64_t>{16, 8, 16}, std::nullopt, std::nullopt,
      std::array<NVVM::MMATypes, 2>{type, type},
      std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                     NVVM::MMALayout::col});
  return unpackStruct(*this, result);
}

Value DeviceBuilder::roundPair(Value low, Value high, Type element) {
  Value pair = LLVM::FPTruncOp::create(*this, VectorType::get({2}, element),
                                       pack({low, high}));
  return LLVM::BitcastOp::create(*this, getI32Type(), pair);
}

void DeviceBuilder::initBarrier(Value address, int64_t arrivals) {
  NVVM::MBarrierInitOp::create(*this, sharedPointer(address), i32(arrivals),
                               Value());
}

void DeviceBuilder::expectBytes(Value barrier, Value bytes) {
  NVVM::MBarrierArriveExpectTxOp::create(
      *this, TypeRange{}, sharedPointer(barrier), bytes,
      NVVM::MemScopeKind::CTA, /*relaxed=*/false, Value());
}

void DeviceBuilder::waitBarrier(Value barrier, Value parity) {
  // nvvm.mbarrier.try_wait.parity asks for a time hint, and a warp that sleeps
  // wakes up late; a loop around nvvm.mbarrier.try_wait is not known to be
  // uniform, and its lanes part.
  NVVM::InlinePtxOp::create(
      *this, TypeRange{}, ValueRange{barrier, parity}, ValueRange{},
      "{\n"
      ".reg .pred done;\n"
      "wait:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [$0], $1;\n"
      "@!done bra.uni wait;\n"
      "}",
      Value());
}

void DeviceBuilder::arriveBarrier(Value barrier) {
  NVVM::InlinePtxOp::create(*this, TypeRange{}, ValueRange{barrier},
                            ValueRange{},
                            "{\n"
                            ".reg .b64 state;\n"
                            "mbarrier.arrive.shared.b64 state, [$0];\n"
                            "}",
                            Value());
}

void DeviceBuilder::syncThreads(int64_t id, int64_t threads) {
  NVVM::BarrierOp::create(*this, TypeRange{}, i32(id), i32(threads),
                          NVVM::BarrierReductionAttr(), Value());
}

void DeviceBuilder::bulkCopy(Value sharedAddress, Value source, Value bytes,
                             Value barrier, Reuse reuse) {
  // A block's own shared memory is part of its cluster's window, the only
  // destination that PTX before 8.6 knows.
  SmallVector<Value> operands = {sharedAddress, source, bytes, barrier};
  StringRef copy =
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[$0], [$1], $2, [$3];";
  if (reuse == Reuse::None) {
    operands.push_back(
        ptx("createpolicy.fractional.L2::evict_first.b64 $0, 1.0;", "=l", {},
            getI64Type()));
    copy = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
           ".L2::cache_hint [$0], [$1], $2, [$3], $4;";
  }
  NVVM::InlinePtxOp::create(*this, TypeRange{}, operands, ValueRange{}, copy,
                            Value());
}

void DeviceBuilder::copyChunk(Value sharedAddress, Value source) {
  NVVM::CpAsyncOp::create(*this, sharedPointer(sharedAddress), source, 16,
                          NVVM::LoadCacheModifierKind::CG, Value());
}

Value DeviceBuilder::transpose(Value pair) {
  // All lanes of a warp take part: unlike `ptx`, this has side effects, so that
  // LLVM does not move it to where lanes have parted.
  return NVVM::InlinePtxOp::create(
             *this, TypeRange{getI32Type()}, ValueRange{pair}, ValueRange{},
             "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", Value())
      ->getResult(0);
}

Value DeviceBuilder::ptx(StringRef text, StringRef constraints,
                         ValueRange operands, Type result) {
  return LLVM::InlineAsmOp::create(
             *this, result, operands, text, constraints,
             /*has_side_effects=*/false, /*is_align_stack=*/false,
             LLVM::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr())
      .getResult(0);
}
