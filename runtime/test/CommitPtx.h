//===- CommitPtx.h - A commit kernel written by hand ------------*- C++ -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TEST_COMMITPTX_H
#define KVRM_TEST_COMMITPTX_H

namespace toy {

/// The body of a kernel of kvrm_device_args: words of the delta, a thread each,
/// to the descriptor, and then those that are fed. It takes predicates 1 and 2,
/// and registers up to %r11 and %d6.
inline constexpr const char *commitPtx = R"X(
  ld.param.u64 %d1, [p0];
  ld.param.u64 %d2, [p1];
  cvta.to.global.u64 %d1, %d1;
  cvta.to.global.u64 %d2, %d2;
  ld.global.v2.u32 {%r1, %r9}, [%d1];
  add.u32 %r10, %r1, %r9;
  ld.global.u64 %d5, [%d1+8];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.u32 %r5, %r2, %r3, %r4;
  mov.u32 %r6, %nctaid.x;
  mul.lo.u32 %r6, %r6, %r3;
next:
  setp.ge.u32 %p1, %r5, %r10;
  @%p1 ret;
  mad.wide.u32 %d3, %r5, 8, %d1;
  ld.global.v2.u32 {%r7, %r8}, [%d3+16];
  mad.wide.u32 %d4, %r7, 4, %d2;
  setp.lt.u32 %p2, %r5, %r1;
  @%p2 bra store;
  mad.wide.u32 %d6, %r8, 4, %d5;
  ld.global.s32 %r8, [%d6];
  max.s32 %r8, %r8, 0;
store:
  st.global.u32 [%d4], %r8;
  add.u32 %r5, %r5, %r6;
  bra next;
)X";

} // namespace toy

#endif // KVRM_TEST_COMMITPTX_H
