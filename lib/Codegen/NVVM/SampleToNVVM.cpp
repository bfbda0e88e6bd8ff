//===- SampleToNVVM.cpp - Choosing tokens on a GPU ------------------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The rule of abi/sampling.h, one block a row. Everything that is added up is
// an integer, so that the order of threads does not matter and the token is the
// one that a host chooses.
//
// A row of 128,256 logits is 513 KB in the L2 cache, some 5 us for one
// multiprocessor to read. A greedy choice reads it once, a draw three times and
// one warp's part again; top-k eight times more and top-p nine: 4 bits of the
// least logit that is kept a time, and for top-p their mass.
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

#include "kvrm/runtime/abi/sampling.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::kvrm;

static constexpr int64_t kThreads = 1024;
static constexpr int64_t kWarps = kThreads / kWarpLanes;
/// Loads of a thread in flight.
static constexpr int64_t kUnroll = 4;
static constexpr int64_t kDigitBits = 4;
static constexpr int64_t kDigits = 1 << kDigitBits;
static constexpr int64_t kSharedBytes = kDigits * kWarps * 8;

namespace {

class SampleKernel {
public:
  SampleKernel(DeviceKernel &kernel, int64_t vocabulary)
      : b(kernel.b), vocabulary(vocabulary), memory(kernel.sharedMemory()),
        row(b.widen(b.blockId())),
        logits(b.at(kernel.pointer(0), b.mul(row, vocabulary * 4))),
        rows(kernel.pointer(1)), sampling(kernel.pointer(2)),
        next(kernel.pointer(3)) {}

  void write();

private:
  using Body = function_ref<void(Value index, Value logit)>;
  /// What a candidate counts for, i64.
  using Measure = function_ref<Value(Value logit)>;

  // 64-bit integers over warps and the block.
  Value shuffle64(Value value, function_ref<Value(Value)> shuffle);
  Value reduceWarp(Value value, function_ref<Value(Value, Value)> combine);
  Value reduceBlock(Value value, function_ref<Value(Value, Value)> combine);
  Value sumBlock(Value value) {
    return reduceBlock(value, [&](Value x, Value y) { return b.add(x, y); });
  }
  SmallVector<Value> sumDigits(ArrayRef<Variable> sums);

  Value load64(Value address) {
    return b.loadShared(b.getI64Type(), address, 8);
  }
  Value field(size_t offset, Type type) {
    Value at = b.at(sampling, b.mul(row, sizeof(kvrm_sampling)));
    return b.load(type, b.at(at, static_cast<int64_t>(offset)));
  }
  Value zeroExtend(Value value) {
    return arith::ExtUIOp::create(b, b.getI64Type(), value);
  }
  Value fractionOf(Value mass, Value fraction);

  void forEachLogit(Body body);
  Value keyOf(Value logit);
  Value weightOf(Value logit);
  Value isCandidate(Value logit) {
    return b.bitXor(b.lessThan(zeroExtend(keyOf(logit)), least.get()),
                    arith::ConstantOp::create(b, b.getBoolAttr(true)));
  }

  Value findBest();
  void keep(Value target, Measure measure);
  void keepDigit(Variable &shift, Variable &prefix, Variable &target,
                 Measure measure);
  Value mass();
  void draw();
  void storeTokenAt(Value position);
  Value massOfSegment(Value begin, Value end);
  void walkSegment(Value begin, Value end, Value before, Value position);
  void store(Value token) { b.store(token, b.at(next, b.mul(row, 4))); }

  DeviceBuilder &b;
  int64_t vocabulary;
  Value memory, row, logits, rows, sampling, next;
  Value most;     ///< the greatest logit
  Value scale;    ///< of the weights' logarithms
  Variable least; ///< i64: the least key of a candidate
};

} // namespace

//===----------------------------------------------------------------------===//
// Warps and the block
//===----------------------------------------------------------------------===//

/// Shuffles the halves of a 64-bit integer.
Value SampleKernel::shuffle64(Value value, function_ref<Value(Value)> shuffle) {
  Type half = b.getI32Type();
  Value low = arith::TruncIOp::create(b, half, value);
  Value high = arith::TruncIOp::create(b, half, b.shiftRight(value, 32));
  return b.bitOr(b.shiftLeft(zeroExtend(shuffle(high)), 32),
                 zeroExtend(shuffle(low)));
}

Value SampleKernel::reduceWarp(Value value,
                               function_ref<Value(Value, Value)> combine) {
  for (int64_t mask = kWarpLanes / 2; mask > 0; mask /= 2)
    value = combine(value, shuffle64(value, [&](Value half) {
                      return b.shuffleXor(half, mask);
                    }));
  return value;
}

/// The same in all threads.
Value SampleKernel::reduceBlock(Value value,
                                function_ref<Value(Value, Value)> combine) {
  value = reduceWarp(value, combine);
  Value warp = b.shiftRight(b.threadId(), 5);
  b.syncBlock(); // what was in the memory is read
  b.ifThen(b.equal(b.bitAnd(b.threadId(), kWarpLanes - 1), 0), [&] {
    b.storeShared(value, b.add(memory, b.shiftLeft(warp, 3)), 8);
  });
  b.syncBlock();
  Value lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  return reduceWarp(load64(b.add(memory, b.shiftLeft(lane, 3))), combine);
}

/// Sums over the block, a number a digit, the same in all threads.
SmallVector<Value> SampleKernel::sumDigits(ArrayRef<Variable> sums) {
  auto add = [&](Value x, Value y) { return b.add(x, y); };
  Value warp = b.shiftRight(b.threadId(), 5);
  Value lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  auto slot = [&](Value digit, Value warp) {
    return b.add(memory, b.shiftLeft(b.add(b.mul(digit, kWarps), warp), 3));
  };
  b.syncBlock();
  for (int64_t digit = 0; digit < kDigits; ++digit) {
    Value sum = reduceWarp(sums[static_cast<size_t>(digit)].get(), add);
    b.ifThen(b.equal(lane, 0),
             [&] { b.storeShared(sum, slot(b.i32(digit), warp), 8); });
  }
  b.syncBlock();
  // A warp adds up one digit.
  b.ifThen(b.lessThan(warp, kDigits), [&] {
    Value sum = reduceWarp(load64(slot(warp, lane)), add);
    b.syncWarp();
    b.ifThen(b.equal(lane, 0),
             [&] { b.storeShared(sum, slot(warp, b.i32(0)), 8); });
  });
  b.syncBlock();
  SmallVector<Value> result;
  for (int64_t digit = 0; digit < kDigits; ++digit)
    result.push_back(load64(slot(b.i32(digit), b.i32(0))));
  return result;
}

//===----------------------------------------------------------------------===//
// Logits
//===----------------------------------------------------------------------===//

/// Calls `body` for the logits of this thread, in any order.
void SampleKernel::forEachLogit(Body body) {
  int64_t width = vocabulary % 4 == 0 ? 4 : 1;
  int64_t runs = vocabulary / width;
  Type type = VectorType::get({width}, b.getF32Type());
  b.forLoop(b.threadId(), b.i32(runs), b.i32(kThreads * kUnroll),
            [&](Value first) {
              SmallVector<Value> loaded;
              for (int64_t i = 0; i < kUnroll; ++i) {
                Value run = b.min(b.add(first, i * kThreads), b.i32(runs - 1));
                loaded.push_back(
                    b.load(type, b.at(logits, b.mul(b.widen(run), width * 4)),
                           static_cast<unsigned>(width * 4)));
              }
              for (int64_t i = 0; i < kUnroll; ++i) {
                Value run = b.add(first, i * kThreads);
                b.ifThen(b.lessThan(run, runs), [&] {
                  Value index = b.mul(run, width);
                  for (auto [j, logit] : llvm::enumerate(b.unpack(loaded[i])))
                    body(b.add(index, static_cast<int64_t>(j)), logit);
                });
              }
            });
}

/// Orders finite logits as they are ordered themselves; 0 for others.
Value SampleKernel::keyOf(Value logit) {
  Value bits =
      arith::BitcastOp::create(b, b.getI32Type(), b.fadd(logit, b.f32(0.0f)));
  constexpr int64_t exponent = 0x7f800000;
  Value isFinite = arith::CmpIOp::create(
      b, arith::CmpIPredicate::ne, b.bitAnd(bits, exponent), b.i32(exponent));
  Value key = b.select(b.lessThan(bits, 0), b.bitXor(bits, -1),
                       b.bitOr(bits, b.i32(INT32_MIN)));
  return b.select(isFinite, key, b.i32(0));
}

/// i64.
Value SampleKernel::weightOf(Value logit) {
  Value x = b.fmul(b.fsub(logit, most), scale);
  Value isCounted = arith::CmpFOp::create(b, arith::CmpFPredicate::OGE, x,
                                          b.f32(-KVRM_WEIGHT_BITS));
  Value bounded = b.fmax(x, b.f32(-KVRM_WEIGHT_BITS));
  Value whole = math::FloorOp::create(b, bounded);
  Value part = b.fsub(bounded, whole);
  Value power = b.f32(kvrm_exp2_coefficients[KVRM_EXP2_DEGREE - 1]);
  for (int i = KVRM_EXP2_DEGREE - 2; i >= 0; --i)
    power = b.fadd(b.fmul(power, part), b.f32(kvrm_exp2_coefficients[i]));
  power = b.fadd(b.fmul(power, part), b.f32(1.0f));
  Value mantissa =
      arith::FPToUIOp::create(b, b.getI32Type(), b.fmul(power, b.f32(0x1p23f)));
  Value shift = arith::FPToUIOp::create(b, b.getI32Type(),
                                        arith::NegFOp::create(b, whole));
  Value weight = arith::ShRUIOp::create(
      b, b.shiftLeft(zeroExtend(mantissa), KVRM_WEIGHT_BITS - 23),
      zeroExtend(shift));
  return b.select(isCounted, weight, b.i64(0));
}

Value SampleKernel::fractionOf(Value mass, Value fraction) {
  fraction = zeroExtend(fraction);
  Value low = b.mul(b.bitAnd(mass, 0xffffffff), fraction);
  return b.add(b.mul(b.shiftRight(mass, 32), fraction), b.shiftRight(low, 32));
}

//===----------------------------------------------------------------------===//
// Candidates
//===----------------------------------------------------------------------===//

/// The first of the greatest: its key, then how far from the end it is; 0 if
/// there is none. The same in all threads.
Value SampleKernel::findBest() {
  auto greater = [&](Value x, Value y) -> Value {
    return arith::MaxUIOp::create(b, x, y);
  };
  Variable best = b.variable(b.i64(0));
  forEachLogit([&](Value index, Value logit) {
    Value key = keyOf(logit);
    Value mark = b.bitOr(b.shiftLeft(zeroExtend(key), 32),
                         zeroExtend(b.sub(b.i32(INT32_MAX), index)));
    mark = b.select(b.equal(key, 0), b.i64(0), mark);
    best.set(greater(best.get(), mark));
  });
  return reduceBlock(best.get(), greater);
}

/// One digit of the least key that is kept, of `kDigitBits` bits from `shift`
/// on; `prefix` is the digits above it.
void SampleKernel::keepDigit(Variable &shift, Variable &prefix,
                             Variable &target, Measure measure) {
  SmallVector<Variable> sums;
  for (int64_t i = 0; i < kDigits; ++i)
    sums.push_back(b.variable(b.i64(0)));
  forEachLogit([&](Value, Value logit) {
    Value key = keyOf(logit);
    Value from = arith::ShRUIOp::create(b, key, shift.get());
    Value isCounted =
        b.bitAnd(isCandidate(logit),
                 b.equal(arith::ShRUIOp::create(
                             b, b.shiftRight(key, kDigitBits), shift.get()),
                         prefix.get()));
    b.ifThen(isCounted, [&] {
      Value digit = b.bitAnd(from, kDigits - 1);
      Value size = measure(logit);
      for (int64_t i = 0; i < kDigits; ++i) {
        Variable &sum = sums[static_cast<size_t>(i)];
        sum.set(b.add(sum.get(), b.select(b.equal(digit, i), size, b.i64(0))));
      }
    });
  });
  SmallVector<Value> totals = sumDigits(sums);
  // From the greatest digit down, as long as all so far are too few.
  Value left = target.get(), digit = b.i32(0);
  Value isFound = arith::ConstantOp::create(b, b.getBoolAttr(false));
  for (int64_t i = kDigits - 1; i >= 0; --i) {
    Value total = totals[static_cast<size_t>(i)];
    Value isTooFew = b.lessThan(total, left);
    digit = b.select(isFound, digit, b.i32(i));
    Value goesOn = b.bitAnd(isTooFew, b.equal(isFound, 0));
    isFound = b.equal(goesOn, 0);
    left = b.select(goesOn, b.sub(left, total), left);
  }
  prefix.set(b.bitOr(b.shiftLeft(prefix.get(), kDigitBits), digit));
  target.set(left);
}

/// Of the candidates, keeps those of the greatest logits: as few as measure
/// `target` together, and all that are equal to the last of them.
void SampleKernel::keep(Value target, Measure measure) {
  Variable shift = b.variable(b.i32(32 - kDigitBits));
  Variable prefix = b.variable(b.i32(0)), left = b.variable(target);
  b.whileLoop([&] { return b.lessThan(b.i32(-1), shift.get()); },
              [&] {
                keepDigit(shift, prefix, left, measure);
                shift.set(b.sub(shift.get(), kDigitBits));
              });
  least.set(b.max(least.get(), zeroExtend(prefix.get())));
}

/// Of the candidates.
Value SampleKernel::mass() {
  Variable sum = b.variable(b.i64(0));
  forEachLogit([&](Value, Value logit) {
    b.ifThen(isCandidate(logit),
             [&] { sum.set(b.add(sum.get(), weightOf(logit))); });
  });
  return sumBlock(sum.get());
}

//===----------------------------------------------------------------------===//
// The draw
//===----------------------------------------------------------------------===//

/// The mass of the candidates in [begin, end), in each lane of a warp.
Value SampleKernel::massOfSegment(Value begin, Value end) {
  Value lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  Variable sum = b.variable(b.i64(0));
  b.forLoop(b.add(begin, lane), end, b.i32(kWarpLanes), [&](Value index) {
    Value logit =
        b.load(b.getF32Type(), b.at(logits, b.mul(b.widen(index), 4)));
    b.ifThen(isCandidate(logit),
             [&] { sum.set(b.add(sum.get(), weightOf(logit))); });
  });
  return reduceWarp(sum.get(), [&](Value x, Value y) { return b.add(x, y); });
}

/// One warp: stores the first token of a segment at which the sum, `before`
/// before it, is over `position`.
void SampleKernel::walkSegment(Value begin, Value end, Value before,
                               Value position) {
  Value lane = b.bitAnd(b.threadId(), kWarpLanes - 1);
  Variable first = b.variable(begin), sum = b.variable(before);
  b.whileLoop(
      [&] { return b.lessThan(first.get(), end); },
      [&] {
        Value index = b.add(first.get(), lane);
        Value logit = b.load(
            b.getF32Type(),
            b.at(logits,
                 b.mul(b.widen(b.min(index, b.i32(vocabulary - 1))), 4)));
        Value isThere = b.bitAnd(b.lessThan(index, end), isCandidate(logit));
        Value upTo = b.select(isThere, weightOf(logit), b.i64(0));
        for (int64_t step = 1; step < kWarpLanes; step *= 2) {
          Value lower = shuffle64(upTo, [&](Value half) {
            return b.shuffle(half, b.max(b.sub(lane, step), b.i32(0)));
          });
          upTo = b.select(b.lessThan(lane, step), upTo, b.add(upTo, lower));
        }
        upTo = b.add(upTo, sum.get());
        Value isOver = b.lessThan(position, upTo);
        Value found = b.select(isOver, index, b.i32(INT32_MAX));
        for (int64_t mask = kWarpLanes / 2; mask > 0; mask /= 2)
          found = b.min(found, b.shuffleXor(found, mask));
        b.ifThen(b.bitAnd(b.equal(lane, 0), b.lessThan(found, INT32_MAX)),
                 [&] { store(found); });
        // The last lane has the sum of all.
        sum.set(shuffle64(upTo, [&](Value half) {
          return b.shuffle(half, b.i32(kWarpLanes - 1));
        }));
        first.set(b.select(b.lessThan(found, INT32_MAX), end,
                           b.add(first.get(), kWarpLanes)));
      });
}

/// Stores the first token at which the sum of weights is over `position`. Each
/// warp adds up a segment; the one in which that token is looks for it.
void SampleKernel::storeTokenAt(Value position) {
  int64_t segment = llvm::divideCeil(vocabulary, kWarps);
  Value warp = b.shiftRight(b.threadId(), 5);
  Value begin = b.min(b.mul(warp, segment), b.i32(vocabulary));
  Value end = b.min(b.add(begin, segment), b.i32(vocabulary));
  Value own = massOfSegment(begin, end);
  b.syncBlock();
  b.ifThen(b.equal(b.bitAnd(b.threadId(), kWarpLanes - 1), 0),
           [&] { b.storeShared(own, b.add(memory, b.shiftLeft(warp, 3)), 8); });
  b.syncBlock();
  Variable before = b.variable(b.i64(0));
  b.forLoop(b.i32(0), warp, b.i32(1), [&](Value other) {
    before.set(
        b.add(before.get(), load64(b.add(memory, b.shiftLeft(other, 3)))));
  });
  Value isHere = b.bitAnd(b.equal(b.lessThan(position, before.get()), 0),
                          b.lessThan(position, b.add(before.get(), own)));
  b.ifThen(isHere, [&] { walkSegment(begin, end, before.get(), position); });
}

void SampleKernel::draw() {
  least = b.variable(b.i64(1));
  Value topK = field(offsetof(kvrm_sampling, top_k), b.getI32Type());
  Value topP = field(offsetof(kvrm_sampling, top_p), b.getI32Type());
  b.ifThen(b.lessThan(b.i32(0), topK),
           [&] { keep(b.widen(topK), [&](Value) { return b.i64(1); }); });
  b.ifThen(b.equal(b.equal(topP, 0), 0), [&] {
    keep(b.max(fractionOf(mass(), topP), b.i64(1)),
         [&](Value logit) { return weightOf(logit); });
  });
  Value random = field(offsetof(kvrm_sampling, random), b.getI32Type());
  storeTokenAt(fractionOf(mass(), random));
}

void SampleKernel::write() {
  Value count =
      b.load(b.getI32Type(), b.at(b.at(rows, b.mul(row, sizeof(kvrm_row))),
                                  offsetof(kvrm_row, count)));
  b.ifThen(b.lessThan(b.i32(0), count), [&] {
    Value best = findBest();
    Value index = b.sub(b.i32(INT32_MAX),
                        arith::TruncIOp::create(b, b.getI32Type(), best));
    Value isThere = b.equal(b.equal(best, 0), 0);
    index = b.select(isThere, index, b.i32(-1));
    scale = field(offsetof(kvrm_sampling, scale), b.getF32Type());
    Value isGreedy =
        arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, scale, b.f32(0.0f));
    b.ifThenElse(
        b.bitOr(isGreedy, b.equal(isThere, 0)),
        [&] { b.ifThen(b.equal(b.threadId(), 0), [&] { store(index); }); },
        [&] {
          most = b.load(b.getF32Type(), b.at(logits, b.mul(b.widen(index), 4)));
          draw();
        });
  });
}

void kvrm::writeSampleKernel(Location loc, int64_t vocabulary,
                             gpu::GPUModuleOp module,
                             const DeviceOptions &options) {
  DeviceKernel kernel(module, loc, deviceKernelName({}, DeviceRole::Sample),
                      /*pointers=*/4, kThreads, kSharedBytes,
                      DeviceRole::Sample);
  waitForInputs(kernel.b, options);
  SampleKernel(kernel, vocabulary).write();
  kernel.finish();
}
