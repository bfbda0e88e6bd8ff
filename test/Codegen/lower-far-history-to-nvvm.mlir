// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --canonicalize | FileCheck %s

// A session with summaries has a kernel that makes them. Attention adds a bias
// to the scores of tokens that may be entries, in masked strips and others, and
// takes a token's place in the table from the row's length, not its position.

!session = !kvrm.session<slots = 2, pages = 9, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>, far_history = <window = 64, entries = 16>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 9>

// A thread a column: the mean of a page's tokens, after a merge of two entries.
// CHECK-LABEL: llvm.func @collapse(
// CHECK-SAME: role = collapse, threads = 128, shared_bytes = 0
// CHECK: arith.divf
// CHECK: arith.truncf %{{.*}} : f32 to f16

// Rows are at 64, tokens at 128 and tables at 192 of a descriptor; the biases of
// row r are 64 bytes at 320 + 64 r.
// CHECK-LABEL: llvm.func @attend_workqueue(
// CHECK-DAG: %[[biases:.*]] = arith.constant 320 : i64
// CHECK-DAG: %[[entries:.*]] = arith.constant 16 : i32
// CHECK: arith.addi %{{.*}}, %[[biases]] : i64
// CHECK: scf.while
// CHECK: llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<1> -> f32
// CHECK: scf.while
// CHECK-NOT: llvm.load %{{.*}} : !llvm.ptr<1> -> f32
// CHECK: scf.while
// CHECK: llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<1> -> f32
// CHECK-LABEL: llvm.func @attend_cluster(
kvrm.kernel @attend heads 4 io f16 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %split = kvrm.summary_end %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x128xf16>
  %s0 = kvrm.softmax_init : !kvrm.softmax<2x128>
  %s1 = scf.for %t = %begin to %split step %one iter_args(%s = %s0) -> (!kvrm.softmax<2x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {summaries, scale = 0.125 : f32} : !kvrm.fragment<2x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<2x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<2x128>
    scf.yield %acc : !kvrm.softmax<2x128>
  }
  %s2 = scf.for %t = %split to %full step %one iter_args(%s = %s1) -> (!kvrm.softmax<2x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32} : !kvrm.fragment<2x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<2x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<2x128>
    scf.yield %acc : !kvrm.softmax<2x128>
  }
  %s3 = scf.for %t = %full to %end step %one iter_args(%s = %s2) -> (!kvrm.softmax<2x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {masked, summaries, scale = 0.125 : f32} : !kvrm.fragment<2x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<2x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] {masked} : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<2x128>
    scf.yield %acc : !kvrm.softmax<2x128>
  }
  kvrm.store_softmax %s3, %item : !kvrm.softmax<2x128>
  kvrm.return
}
