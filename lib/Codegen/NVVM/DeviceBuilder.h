//===- DeviceBuilder.h - Writing code for one GPU thread --------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A builder with the vocabulary of a GPU thread: global and shared memory, warp
// shuffles, matrix fragments, bulk copies and their barriers. Kernels written
// with it read like the program a thread runs.
//
// State that changes in loops lives in Variables, stack slots that LLVM turns
// into registers, so that loops and branches need not pass it on by hand.
// Shared memory is addressed by i32 byte offsets, global memory by pointers of
// address space 1 and i64 byte offsets.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_CODEGEN_NVVM_DEVICEBUILDER_H
#define KVRM_CODEGEN_NVVM_DEVICEBUILDER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <array>

namespace mlir::kvrm {

/// Four registers of a 16 x 16 operand A, or four f32 of a 16 x 8 result.
using Quad = std::array<Value, 4>;

/// Threads of a warp.
constexpr int64_t kWarpLanes = 32;

class DeviceBuilder : public ImplicitLocOpBuilder {
public:
  /// A register that code may write more than once.
  class Variable {
  public:
    Variable() = default;
    Value get() const { return LLVM::LoadOp::create(*b, type, slot); }
    void set(Value value) const { LLVM::StoreOp::create(*b, value, slot); }

  private:
    friend class DeviceBuilder;
    DeviceBuilder *b = nullptr;
    Value slot;
    Type type;
  };

  /// Starts the body of a kernel; its variables go into its entry block.
  DeviceBuilder(Location loc, LLVM::LLVMFuncOp function);

  Variable variable(Type type);
  Variable variable(Value initial) {
    Variable result = variable(initial.getType());
    result.set(initial);
    return result;
  }

  // Constants and arithmetic. A literal takes the type of the other operand.
  Value i32(int64_t value) {
    return arith::ConstantOp::create(*this, getI32IntegerAttr(value));
  }
  Value i64(int64_t value) {
    return arith::ConstantOp::create(*this, getI64IntegerAttr(value));
  }
  Value f32(float value) {
    return arith::ConstantOp::create(*this, getF32FloatAttr(value));
  }
  Value like(Value other, int64_t value) {
    return arith::ConstantOp::create(*this,
                                     getIntegerAttr(other.getType(), value));
  }
  Value add(Value lhs, Value rhs) {
    return arith::AddIOp::create(*this, lhs, rhs);
  }
  Value add(Value lhs, int64_t rhs) {
    return rhs ? add(lhs, like(lhs, rhs)) : lhs;
  }
  Value sub(Value lhs, Value rhs) {
    return arith::SubIOp::create(*this, lhs, rhs);
  }
  Value sub(Value lhs, int64_t rhs) { return sub(lhs, like(lhs, rhs)); }
  Value mul(Value lhs, Value rhs) {
    return arith::MulIOp::create(*this, lhs, rhs);
  }
  Value mul(Value lhs, int64_t rhs) {
    return rhs == 1 ? lhs : mul(lhs, like(lhs, rhs));
  }
  /// Of values that are not negative.
  Value div(Value lhs, int64_t rhs) {
    return rhs == 1 ? lhs : arith::DivUIOp::create(*this, lhs, like(lhs, rhs));
  }
  Value div(Value lhs, Value rhs) {
    return arith::DivUIOp::create(*this, lhs, rhs);
  }
  Value rem(Value lhs, int64_t rhs) {
    return arith::RemUIOp::create(*this, lhs, like(lhs, rhs));
  }
  Value rem(Value lhs, Value rhs) {
    return arith::RemUIOp::create(*this, lhs, rhs);
  }
  Value divUp(Value lhs, int64_t rhs) { return div(add(lhs, rhs - 1), rhs); }
  Value bitAnd(Value lhs, Value rhs) {
    return arith::AndIOp::create(*this, lhs, rhs);
  }
  Value bitAnd(Value lhs, int64_t rhs) { return bitAnd(lhs, like(lhs, rhs)); }
  Value bitOr(Value lhs, Value rhs) {
    return arith::OrIOp::create(*this, lhs, rhs);
  }
  Value bitXor(Value lhs, Value rhs) {
    return arith::XOrIOp::create(*this, lhs, rhs);
  }
  Value bitXor(Value lhs, int64_t rhs) {
    return rhs ? bitXor(lhs, like(lhs, rhs)) : lhs;
  }
  Value shiftLeft(Value lhs, int64_t rhs) {
    return arith::ShLIOp::create(*this, lhs, like(lhs, rhs));
  }
  Value shiftRight(Value lhs, int64_t rhs) {
    return rhs ? arith::ShRUIOp::create(*this, lhs, like(lhs, rhs)) : lhs;
  }
  Value min(Value lhs, Value rhs) {
    return arith::MinSIOp::create(*this, lhs, rhs);
  }
  Value max(Value lhs, Value rhs) {
    return arith::MaxSIOp::create(*this, lhs, rhs);
  }
  Value lessThan(Value lhs, Value rhs) {
    return arith::CmpIOp::create(*this, arith::CmpIPredicate::slt, lhs, rhs);
  }
  Value lessThan(Value lhs, int64_t rhs) {
    return lessThan(lhs, like(lhs, rhs));
  }
  Value equal(Value lhs, Value rhs) {
    return arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, lhs, rhs);
  }
  Value equal(Value lhs, int64_t rhs) { return equal(lhs, like(lhs, rhs)); }
  Value select(Value condition, Value lhs, Value rhs) {
    return arith::SelectOp::create(*this, condition, lhs, rhs);
  }
  Value widen(Value value) {
    return arith::ExtSIOp::create(*this, getI64Type(), value);
  }
  Value fadd(Value lhs, Value rhs) {
    return arith::AddFOp::create(*this, lhs, rhs);
  }
  Value fsub(Value lhs, Value rhs) {
    return arith::SubFOp::create(*this, lhs, rhs);
  }
  Value fmul(Value lhs, Value rhs) {
    return arith::MulFOp::create(*this, lhs, rhs);
  }
  Value fma(Value lhs, Value rhs, Value sum) {
    return LLVM::FMAOp::create(*this, lhs, rhs, sum);
  }
  Value fmax(Value lhs, Value rhs) {
    return arith::MaxNumFOp::create(*this, lhs, rhs);
  }
  /// 2^x, to 2 ulp, by the special-function unit; results below 2^-126 are 0.
  Value exp2(Value x) {
    return ptx("ex2.approx.ftz.f32 $0, $1;", "=f,f", {x}, getF32Type());
  }
  /// 1/x to 1 ulp.
  Value reciprocal(Value x) {
    return ptx("rcp.approx.ftz.f32 $0, $1;", "=f,f", {x}, getF32Type());
  }

  // Codes of f8E4M3FN, two in an i16, and bytes of a word.
  /// Two codes to two f16 (sm_90).
  Value widenCodes(Value codes) {
    return ptx("cvt.rn.f16x2.e4m3x2 $0, $1;", "=r,h", {codes}, getI32Type());
  }
  /// Two f32 to codes, to nearest even, cut off at +-448 (sm_90).
  Value narrowToCodes(Value low, Value high) {
    return ptx("cvt.rn.satfinite.e4m3x2.f32 $0, $2, $1;", "=h,f,f", {low, high},
               getI16Type());
  }
  /// Two f16, or bf16, times two others. Subnormals count: LLVM's products of
  /// f16 take them for zero in these kernels.
  Value multiplyPairs(Value lhs, Value rhs, Type element) {
    if (element.isF16())
      return ptx("mul.rn.f16x2 $0, $1, $2;", "=r,r,r", {lhs, rhs},
                 getI32Type());
    Value minusZero = i32(static_cast<int32_t>(0x80008000u));
    return ptx("fma.rn.bf16x2 $0, $1, $2, $3;", "=r,r,r,r",
               {lhs, rhs, minusZero}, getI32Type());
  }
  /// Two f16, or bf16, less two others.
  Value subtractPairs(Value lhs, Value rhs, Type element) {
    if (element.isF16())
      return ptx("sub.rn.f16x2 $0, $1, $2;", "=r,r,r", {lhs, rhs},
                 getI32Type());
    Value minusOne = i32(static_cast<int32_t>(0xbf80bf80u));
    return ptx("fma.rn.bf16x2 $0, $1, $2, $3;", "=r,r,r,r",
               {rhs, minusOne, lhs}, getI32Type());
  }
  /// Bytes `first` and `first + 1` of a word, each below the byte `high`.
  Value bytesBelow(int64_t high, Value word, int64_t first) {
    return permuteBytes(word, i32(high), 0x4040 | (first + 1) << 8 | first);
  }
  /// A word of four bytes, each said by four bits of `selector`, the lowest
  /// first: 0 to 3 are those of `word`, 4 to 7 those of `other`.
  Value permuteBytes(Value word, Value other, int64_t selector) {
    return NVVM::PermuteOp::create(*this, getI32Type(), word, other,
                                   i32(selector), NVVM::PermuteMode::DEFAULT);
  }
  Value truncate16(Value word) {
    return arith::TruncIOp::create(*this, getI16Type(), word);
  }

  // Control flow.
  void ifThen(Value condition, function_ref<void()> then);
  void ifThenElse(Value condition, function_ref<void()> then,
                  function_ref<void()> otherwise);
  void whileLoop(function_ref<Value()> condition, function_ref<void()> body);
  void forLoop(Value begin, Value end, Value step,
               function_ref<void(Value)> body);

  // Who am I.
  Value threadId() { return NVVM::ThreadIdXOp::create(*this, getI32Type()); }
  Value blockId() { return NVVM::BlockIdXOp::create(*this, getI32Type()); }
  Value blockIdY() { return NVVM::BlockIdYOp::create(*this, getI32Type()); }
  Value gridSize() { return NVVM::GridDimXOp::create(*this, getI32Type()); }
  Value clusterRank() { return NVVM::ClusterId::create(*this, getI32Type()); }
  Value clusterSize() { return NVVM::ClusterDim::create(*this, getI32Type()); }

  // Global memory: pointers of address space 1.
  Value at(Value base, Value byteOffset) {
    return LLVM::GEPOp::create(*this, base.getType(), getI8Type(), base,
                               ArrayRef<LLVM::GEPArg>{byteOffset});
  }
  Value at(Value base, int64_t byteOffset) {
    return byteOffset ? at(base, i64(byteOffset)) : base;
  }
  Value load(Type type, Value pointer, unsigned alignment = 0);
  void store(Value value, Value pointer, unsigned alignment = 0);
  /// `count` consecutive 32-bit integers, aligned as a whole.
  SmallVector<Value> loadWords(Value pointer, int64_t count);
  /// The same, two or four, from the L2 cache.
  SmallVector<Value> loadWordsFromL2(Value pointer, int64_t count);
  /// Accesses of words that other blocks write, or wait for, at the same time.
  Value loadVolatile(Type type, Value pointer, unsigned alignment) {
    return LLVM::LoadOp::create(*this, type, pointer, alignment,
                                /*isVolatile=*/true);
  }
  void storeVolatile(Value value, Value pointer, unsigned alignment) {
    LLVM::StoreOp::create(*this, value, pointer, alignment,
                          /*isVolatile=*/true);
  }

  // Shared memory: byte addresses in i32.
  Value sharedPointer(Value address);
  Value loadShared(Type type, Value address, unsigned alignment = 0) {
    return load(type, sharedPointer(address), alignment);
  }
  void storeShared(Value value, Value address, unsigned alignment = 0) {
    store(value, sharedPointer(address), alignment);
  }
  /// Writes `value` to the same address of another block of the cluster.
  void storeRemote(Value value, Value address, Value rank, unsigned alignment);

  // Vectors of registers.
  SmallVector<Value> unpack(Value vector);
  Value pack(ValueRange elements);

  // Warps. All lanes must take part.
  Value shuffle(Value value, Value lane);
  Value shuffleXor(Value value, int64_t mask);
  /// The sum over the lanes of an f32, the same in all of them.
  Value sumOverWarp(Value value);
  /// The largest over the lanes of an i32, the same in all of them.
  Value maxOverWarp(Value value);
  void syncWarp() { NVVM::SyncWarpOp::create(*this, i32(-1)); }
  void syncBlock() { NVVM::Barrier0Op::create(*this); }
  /// Barrier `id`, 1 to 15, of the first `threads` threads of a block; barrier
  /// 0 is syncBlock's.
  void syncThreads(int64_t id, int64_t threads);
  /// Four 8 x 8 matrices of 16-bit elements from rows at the lanes' addresses.
  Quad loadMatrix(Value address, bool transposed);
  /// c + a * b for 16 x 16 a and 16 x 8 b, in f32; `element` is f16 or bf16.
  Quad multiply(const Quad &a, Value b0, Value b1, const Quad &c, Type element);
  /// Transposes an 8 x 8 matrix of 16-bit elements, two a lane.
  Value transpose(Value pair);
  /// An f32 rounded to `element`, f32, f16 or bf16.
  Value round(Value value, Type element) {
    return element.isF32() ? value
                           : arith::TruncFOp::create(*this, element, value);
  }
  /// The two values of `element`, f16 or bf16, of a word in f32, the low half's
  /// first.
  std::array<Value, 2> widenPair(Value word, Type element);
  /// Two f32 rounded to `element`, the first in the low half.
  Value roundPair(Value low, Value high, Type element);

  // Barriers in shared memory and the copies that complete on them (sm_90).
  void initBarrier(Value address, int64_t arrivals);
  void fenceBarrierInit() { NVVM::FenceMbarrierInitOp::create(*this); }
  void expectBytes(Value barrier, Value bytes);
  void waitBarrier(Value barrier, Value parity);
  void arriveBarrier(Value barrier);
  /// Whether anybody will read what a copy has read again soon. Of bytes that
  /// nobody will, the L2 cache then lets go first, and keeps activations.
  enum class Reuse { None, Some };
  void bulkCopy(Value sharedAddress, Value source, Value bytes, Value barrier,
                Reuse reuse = Reuse::Some);
  // 16 bytes a lane, completing in groups (sm_80).
  void copyChunk(Value sharedAddress, Value source);
  void commitCopies() { NVVM::CpAsyncCommitGroupOp::create(*this); }
  void waitCopies(int64_t groupsLeft) {
    NVVM::CpAsyncWaitGroupOp::create(*this, groupsLeft);
  }

  // Programmatic dependent launch (sm_90).
  void launchDependents() {
    NVVM::GriddepcontrolOp::create(*this,
                                   NVVM::GridDepActionKind::launch_dependents);
  }
  void waitForPrerequisites() {
    NVVM::GriddepcontrolOp::create(*this, NVVM::GridDepActionKind::wait);
  }
  // Barrier of a cluster; whole warps arrive and wait together.
  void arriveCluster() { NVVM::ClusterArriveOp::create(*this, getUnitAttr()); }
  void waitCluster() { NVVM::ClusterWaitOp::create(*this, getUnitAttr()); }

private:
  /// PTX without side effects, for what NVVM has no op.
  Value ptx(StringRef text, StringRef constraints, ValueRange operands,
            Type result);

  Block *entry;
};

using Variable = DeviceBuilder::Variable;

} // namespace mlir::kvrm

#endif // KVRM_CODEGEN_NVVM_DEVICEBUILDER_H
