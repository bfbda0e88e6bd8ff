//===- ReduceToNVVM.cpp - Sums over ranks by their mailboxes --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every rank writes its values to a mailbox in each other rank's memory, and
// reads those of the others from its own: one way over the link, and no flag,
// since a word says itself whether it has come (docs/tensor-parallel.md has the
// protocol). What it costs is that a rank sends all values to all ranks; of
// many values or ranks a library's sums are better.
//
//===----------------------------------------------------------------------===//

#include "DenseKernels.h"

#include "kvrm/runtime/abi/partial.h"

using namespace mlir;
using namespace mlir::kvrm;

static constexpr int64_t kThreads = 256;
static constexpr int64_t kWidth = 4; ///< elements of a thread
static constexpr int64_t kBytes = kWidth * 4;
/// Elements that a rank sends, to all others together.
static constexpr int64_t kMostSent = 1 << 20;

std::optional<std::string> kvrm::reduceKernelName(AllReduceOp op,
                                                  int64_t ranks) {
  int64_t elements = op.getElements();
  if (!getElementTypeOrSelf(op.getInput()).isF32() || elements % kWidth != 0 ||
      ranks > KVRM_MAX_PEERS || elements * (ranks - 1) > kMostSent)
    return std::nullopt;
  return "reduce_" + std::to_string(elements);
}

std::array<int64_t, 3> kvrm::reduceKernelGrid(AllReduceOp op) {
  auto quads = static_cast<uint64_t>(op.getElements() / kWidth);
  return {static_cast<int64_t>(llvm::divideCeil(quads, kThreads)), 1, 1};
}

namespace {
class ReduceKernel {
public:
  ReduceKernel(DeviceKernel &kernel, int64_t ranks, bool adds)
      : b(kernel.b), ranks(ranks), out(kernel.pointer(0)),
        in(kernel.pointer(1)), peers(kernel.pointer(2)),
        addend(adds ? kernel.pointer(3) : Value()) {}

  void write(Value offset);

private:
  using Words = SmallVector<Value>;

  Value pointerIn(size_t offset) {
    return b.load(out.getType(), b.at(peers, static_cast<int64_t>(offset)), 8);
  }
  Value boxOf(size_t boxes, int64_t rank) {
    return pointerIn(boxes + static_cast<size_t>(rank) * sizeof(uint64_t));
  }
  Value empty() { return b.i32(static_cast<int32_t>(KVRM_EMPTY_PARTIAL)); }
  Words loadOwn(Value offset);
  void post(const Words &own, Value offset);
  void receive(Value box);

  DeviceBuilder &b;
  int64_t ranks;
  Value out, in, peers;
  Value addend;               ///< null: none
  SmallVector<Variable> came; ///< words of another rank
};
} // namespace

/// A value that looks as if it had not come is another NaN.
ReduceKernel::Words ReduceKernel::loadOwn(Value offset) {
  Words words = b.loadWords(b.at(in, offset), kWidth);
  for (Value &word : words)
    word = b.select(b.equal(word, empty()), b.i32(0x7fffffff), word);
  return words;
}

void ReduceKernel::post(const Words &own, Value offset) {
  Value rank =
      b.load(b.getI64Type(), b.at(peers, offsetof(kvrm_peers, rank)), 8);
  for (int64_t other = 0; other < ranks; ++other)
    b.ifThen(b.bitXor(b.equal(rank, other), 1), [&] {
      Value box = boxOf(offsetof(kvrm_peers, outboxes), other);
      b.storeVolatile(b.pack(own), b.at(box, offset), kBytes);
    });
}

/// Waits until all words at `box` have come, and empties it. Now and then it is
/// looked whether anybody will send them.
void ReduceKernel::receive(Value box) {
  constexpr int64_t looks = 1024;
  Variable waits = b.variable(b.i32(1)), count = b.variable(b.i32(0));
  auto vector = VectorType::get({kWidth}, b.getI32Type());
  b.whileLoop([&] { return b.equal(waits.get(), 1); },
              [&] {
                Words words = b.unpack(b.loadVolatile(vector, box, kBytes));
                Value missing = b.i32(0);
                for (auto [word, variable] : llvm::zip_equal(words, came)) {
                  variable.set(word);
                  missing = b.select(b.equal(word, empty()), b.i32(1), missing);
                }
                waits.set(missing);
                count.set(b.add(count.get(), 1));
                b.ifThen(b.equal(b.bitAnd(count.get(), looks - 1), 0), [&] {
                  Value flag = pointerIn(offsetof(kvrm_peers, aborted));
                  Value isAborted = b.loadVolatile(b.getI32Type(), flag, 4);
                  waits.set(
                      b.select(b.equal(isAborted, 0), waits.get(), b.i32(0)));
                });
              });
  b.storeVolatile(b.pack(Words(kWidth, empty())), box, kBytes);
}

/// Adds up in the order of the ranks, on each of them, and then to the addend.
void ReduceKernel::write(Value offset) {
  Words own = loadOwn(offset);
  post(own, offset);
  Words added;
  if (addend)
    added = b.loadWords(b.at(addend, offset), kWidth);
  SmallVector<Variable> sums;
  for (int64_t i = 0; i < kWidth; ++i) {
    sums.push_back(b.variable(b.f32(0.0f)));
    came.push_back(b.variable(b.getI32Type()));
  }
  Value rank =
      b.load(b.getI64Type(), b.at(peers, offsetof(kvrm_peers, rank)), 8);
  for (int64_t from = 0; from < ranks; ++from) {
    b.ifThenElse(
        b.equal(rank, from),
        [&] {
          for (auto [word, variable] : llvm::zip_equal(own, came))
            variable.set(word);
        },
        [&] {
          receive(b.at(boxOf(offsetof(kvrm_peers, inboxes), from), offset));
        });
    for (auto [sum, word] : llvm::zip_equal(sums, came))
      sum.set(b.fadd(sum.get(),
                     arith::BitcastOp::create(b, b.getF32Type(), word.get())));
  }
  auto values =
      llvm::map_to_vector(sums, [](const Variable &sum) { return sum.get(); });
  for (auto [value, word] : llvm::zip(values, added))
    value = b.fadd(arith::BitcastOp::create(b, b.getF32Type(), word), value);
  b.store(b.pack(values), b.at(out, offset), kBytes);
}

void kvrm::writeReduceKernel(AllReduceOp op, StringRef name, int64_t ranks,
                             bool adds, gpu::GPUModuleOp module,
                             const DeviceOptions &options) {
  DeviceKernel kernel(module, op.getLoc(), name, /*pointers=*/adds ? 4 : 3,
                      kThreads,
                      /*sharedBytes=*/0);
  DeviceBuilder &b = kernel.b;
  waitForInputs(b, options);
  Value quad = b.add(b.mul(b.blockId(), kThreads), b.threadId());
  b.ifThen(b.lessThan(quad, op.getElements() / kWidth), [&] {
    ReduceKernel(kernel, ranks, adds).write(b.mul(b.widen(quad), kBytes));
  });
  kernel.finish();
}
