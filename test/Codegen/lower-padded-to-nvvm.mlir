// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --canonicalize | FileCheck %s
// RUN: sed 's/, padded//' %s | kvrm-opt --kvrm-lower-kernels-to-nvvm --canonicalize | FileCheck %s --check-prefix=PAGED

// In a padded session a row with tokens is read to the end of its table, 13
// pages of 16 tokens; else a history ends at its length.

!session = !kvrm.session<slots = 2, pages = 13, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>, padded>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 13>

// CHECK-LABEL: llvm.func @attend_workqueue(
// CHECK: %[[table:.*]] = arith.constant 208 : i32
// CHECK: arith.select %{{.*}}, %[[table]], %{{.*}} : i32
// PAGED-LABEL: llvm.func @attend_workqueue(
// PAGED-NOT: arith.constant 208 : i32
// PAGED-LABEL: llvm.func @attend_cluster(
// PAGED-NOT: arith.constant 208 : i32
kvrm.kernel @attend heads 4 io f16 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x128xf16>
  %s0 = kvrm.softmax_init : !kvrm.softmax<2x128>
  %s1 = scf.for %t = %begin to %full step %one iter_args(%s = %s0) -> (!kvrm.softmax<2x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32} : !kvrm.fragment<2x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<2x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<2x128>
    scf.yield %acc : !kvrm.softmax<2x128>
  }
  %s2 = scf.for %t = %full to %end step %one iter_args(%s = %s1) -> (!kvrm.softmax<2x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32} : !kvrm.fragment<2x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<2x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] {masked} : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<2x128>
    scf.yield %acc : !kvrm.softmax<2x128>
  }
  kvrm.store_softmax %s2, %item : !kvrm.softmax<2x128>
  kvrm.return
}
