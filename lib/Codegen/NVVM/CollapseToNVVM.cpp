//===- CollapseToNVVM.cpp - Pages of a past become summaries --------------===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What HostSummaries does on the CPU: mean keys and values of a page's tokens,
// and weighted means of two entries. A block has one KV head of K or of V, and
// a thread one of its columns, in all pages: no thread reads what another
// writes, and the writes of the list take effect in their order.
//
// A scale is of all columns: threads find the largest together, and each writes
// the scale itself, so that it reads what it wrote. They all wait between what
// they read for an entry and what they write.
//
// A page of 16 tokens of 32 layers and 8 heads of 128 is 2 MiB, some 1 us to
// read; a step of many rows collapses a few.
//
//===----------------------------------------------------------------------===//

#include "WorkItems.h"

#include "kvrm/Dialect/KVRM/Utils/StoredElements.h"

using namespace mlir;
using namespace mlir::kvrm;

namespace {

class CollapseKernel {
public:
  CollapseKernel(DeviceKernel &kernel, PoolType pool)
      : kernel(kernel), b(kernel.b), pool(pool), strip(pool),
        list(kernel.parameter(offsetof(kvrm_device_args, delta))),
        head(b.at(
            kernel.parameter(offsetof(kvrm_device_args, k_pool)),
            b.mul(b.widen(b.blockId()),
                  kernel.parameter(offsetof(kvrm_device_args, head_stride))))),
        column(b.threadId()) {}

  void write();
  /// Of shared memory: the largest magnitude of each warp.
  static int64_t sharedBytes(PoolType pool) {
    return pool.hasScales() ? pool.getHeadDim() / kWarpLanes * 4 : 0;
  }

private:
  /// The column's element of a token, both i32.
  Value elementAt(Value page, Value token);
  Value scaleAt(Value page, Value token);
  Value load(Value page, Value token);
  void store(Value value, Value page, Value token);
  void storeCode(Value code, Value scale, Value page, Value token);
  Value largestOfBlock(Value magnitude);
  Value wordAt(Value offset) {
    return b.load(b.getI32Type(), b.at(list, offset), 4);
  }
  Value toFloat(Value word) {
    return LLVM::BitcastOp::create(b, b.getF32Type(), word);
  }

  void clear(Value page);
  void writeEntry(Value source, ArrayRef<Value> fields);

  DeviceKernel &kernel;
  DeviceBuilder &b;
  PoolType pool;
  StripShape strip;
  Value list, head, column;
};

} // namespace

Value CollapseKernel::elementAt(Value page, Value token) {
  int64_t inChunk = KVRM_CHUNK_BYTES / strip.elementBytes;
  Value chunk = b.bitXor(b.div(column, inChunk), strip.swizzle(b, token));
  Value offset = b.add(b.mul(b.widen(page), pool.getPageBytes()),
                       b.mul(b.widen(token), strip.rowBytes()));
  Value inRow = b.add(b.mul(chunk, KVRM_CHUNK_BYTES),
                      b.mul(b.rem(column, inChunk), strip.elementBytes));
  return b.at(head, b.add(offset, b.widen(inRow)));
}

Value CollapseKernel::scaleAt(Value page, Value token) {
  Value start = b.mul(b.widen(page), pool.getPageBytes());
  return b.at(head, b.add(start, strip.scaleInPage(b, b.widen(token))));
}

Value CollapseKernel::load(Value page, Value token) {
  Value element =
      b.load(getStoredType(pool.getElement()), elementAt(page, token),
             static_cast<unsigned>(strip.elementBytes));
  Value value = widenElements(b, element, pool.getElement());
  if (!strip.hasScales())
    return value;
  Value scale = b.load(b.getI16Type(), scaleAt(page, token), strip.scaleBytes);
  return b.fmul(value, widenScales(b, scale));
}

void CollapseKernel::storeCode(Value code, Value scale, Value page,
                               Value token) {
  b.store(scale, scaleAt(page, token), strip.scaleBytes);
  b.store(code, elementAt(page, token), 1);
}

/// The largest i32 over the block, all of whose threads take part.
Value CollapseKernel::largestOfBlock(Value magnitude) {
  Value shared = kernel.sharedMemory();
  Value warp = b.shiftRight(b.threadId(), 5);
  Value ofWarp = b.maxOverWarp(magnitude);
  b.storeShared(ofWarp, b.add(shared, b.shiftLeft(warp, 2)), 4);
  b.syncBlock();
  Value largest = ofWarp;
  for (int64_t i = 0; i < pool.getHeadDim() / kWarpLanes; ++i)
    largest =
        b.max(largest, b.loadShared(b.getI32Type(), b.add(shared, 4 * i), 4));
  b.syncBlock();
  return largest;
}

void CollapseKernel::store(Value value, Value page, Value token) {
  if (!strip.hasScales())
    return b.store(narrowElements(b, value, pool.getElement()),
                   elementAt(page, token),
                   static_cast<unsigned>(strip.elementBytes));
  Value scale = scaleOfRow(b, largestOfBlock(magnitudesOf(b, value)));
  storeCode(narrowScaled(b, value, widenScales(b, scale)), scale, page, token);
}

void CollapseKernel::clear(Value page) {
  b.forLoop(b.i32(0), b.i32(strip.page), b.i32(1), [&](Value token) {
    if (!strip.hasScales())
      return store(b.f32(0), page, token);
    auto zero = [&](Type type) -> Value {
      return arith::ConstantOp::create(b, b.getIntegerAttr(type, 0));
    };
    storeCode(zero(b.getI8Type()), zero(b.getI16Type()), page, token);
  });
}

/// `fields` are the words of a kvrm_collapse_write.
void CollapseKernel::writeEntry(Value source, ArrayRef<Value> fields) {
  static_assert(offsetof(kvrm_collapse_write, page) == 0 &&
                offsetof(kvrm_collapse_write, token) == 4 &&
                offsetof(kvrm_collapse_write, first_token) == 8 &&
                offsetof(kvrm_collapse_write, tokens) == 12 &&
                offsetof(kvrm_collapse_write, merge_page) == 16 &&
                offsetof(kvrm_collapse_write, merge_token) == 20 &&
                offsetof(kvrm_collapse_write, keep) == 24 &&
                offsetof(kvrm_collapse_write, add) == 28);
  Value page = fields[0], token = fields[1], tokens = fields[3];
  Value mergePage = fields[4], mergeToken = fields[5];
  b.ifThen(b.lessThan(b.i32(-1), mergePage), [&] {
    Value kept = b.fmul(toFloat(fields[6]), load(mergePage, mergeToken));
    store(b.fma(toFloat(fields[7]), load(page, token), kept), mergePage,
          mergeToken);
  });
  Variable sum = b.variable(b.f32(0));
  b.forLoop(b.i32(0), tokens, b.i32(1), [&](Value index) {
    sum.set(b.fadd(sum.get(), load(source, b.add(fields[2], index))));
  });
  Value count = arith::SIToFPOp::create(b, b.getF32Type(), tokens);
  store(arith::DivFOp::create(b, sum.get(), count), page, token);
}

void CollapseKernel::write() {
  auto field = [&](size_t offset) {
    return wordAt(b.i64(static_cast<int64_t>(offset)));
  };
  Value source = field(offsetof(kvrm_collapse, source));
  Value writes = field(offsetof(kvrm_collapse, writes));
  Value cleared = field(offsetof(kvrm_collapse, cleared));
  Value firstWrite = b.i64(sizeof(kvrm_collapse));
  Value firstPage =
      b.add(firstWrite, b.mul(b.widen(writes), sizeof(kvrm_collapse_write)));
  b.forLoop(b.i32(0), cleared, b.i32(1), [&](Value index) {
    clear(wordAt(b.add(firstPage, b.shiftLeft(b.widen(index), 2))));
  });
  b.forLoop(b.i32(0), writes, b.i32(1), [&](Value index) {
    Value at =
        b.at(list, b.add(firstWrite,
                         b.mul(b.widen(index), sizeof(kvrm_collapse_write))));
    SmallVector<Value> fields = b.loadWords(at, 4);
    llvm::append_range(fields, b.loadWords(b.at(at, 16), 4));
    writeEntry(source, fields);
  });
}

void kvrm::writeCollapseKernel(Location loc, PoolType pool,
                               gpu::GPUModuleOp module,
                               const DeviceOptions &options) {
  DeviceKernel kernel(module, loc, deviceKernelName({}, DeviceRole::Collapse),
                      DeviceRole::Collapse, pool.getHeadDim(),
                      CollapseKernel::sharedBytes(pool), options);
  CollapseKernel(kernel, pool).write();
  kernel.finish();
}
