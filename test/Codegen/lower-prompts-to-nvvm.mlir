// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm | FileCheck %s
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 2>&1 | FileCheck %s --check-prefix=SM80

// 32 tokens of 2 heads: four warps have 16 query rows each and share tiles, and
// a fifth copies those. Each has a barrier for its bytes, and one for its
// readers. The block has a whole output tile, so that nothing is merged.

// SM80: error: 'kvrm.kernel' op has 64 query rows a tile; this target takes at most 16 at head_dim 128

!session = !kvrm.session<slots = 2, pages = 13, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 1, queries = 64, pages = 13>

// CHECK-LABEL: llvm.func @attend_prompt(
// CHECK-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = attend_prompt, threads = 160, shared_bytes = 196704>
// CHECK: nvvm.mbarrier.init
// CHECK: nvvm.griddepcontrol launch_dependents
// CHECK: nvvm.griddepcontrol wait
// CHECK: mbarrier.try_wait.parity
// CHECK: nvvm.mbarrier.arrive.expect_tx
// CHECK-COUNT-2: nvvm.inline_ptx "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
// CHECK: mbarrier.try_wait.parity
// CHECK: nvvm.mma.sync
// CHECK: movmatrix
// CHECK: nvvm.mma.sync
// CHECK: mbarrier.arrive.shared.b64
// CHECK-NOT: volatile
// CHECK: llvm.return
// CHECK-NOT: @attend_workqueue
// CHECK-NOT: @attend_cluster
kvrm.kernel @attend heads 4 io f16 tile <q = 32, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<64x128xf16>
  %s0 = kvrm.softmax_init : !kvrm.softmax<64x128>
  %s1 = scf.for %t = %begin to %full step %one iter_args(%s = %s0) -> (!kvrm.softmax<64x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32} : !kvrm.fragment<64x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<64x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<64x64xf32>, !kvrm.softmax<64x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] : !kvrm.fragment<64x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<64x128>
    scf.yield %acc : !kvrm.softmax<64x128>
  }
  %s2 = scf.for %t = %full to %end step %one iter_args(%s = %s1) -> (!kvrm.softmax<64x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32} : !kvrm.fragment<64x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<64x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<64x64xf32>, !kvrm.softmax<64x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] {masked} : !kvrm.fragment<64x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<64x128>
    scf.yield %acc : !kvrm.softmax<64x128>
  }
  kvrm.store_softmax %s2, %item : !kvrm.softmax<64x128>
  kvrm.return
}
