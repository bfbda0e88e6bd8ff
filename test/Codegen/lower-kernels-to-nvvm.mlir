// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 | FileCheck %s --check-prefix=SM80
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm="warps=4 stages=2 blocks-per-sm=2" | FileCheck %s --check-prefix=SMALL

// Every kernel takes the 19 fields of kvrm_device_args.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

// The tile programs stay: steps launch by their names.

// CHECK: kvrm.kernel @append
// CHECK: kvrm.kernel @attend

// CHECK: gpu.module @kvrm_kernels
// CHECK: llvm.mlir.global external @dynamic_shared() {addr_space = 3 : i32, alignment = 1024 : i64}

// CHECK-LABEL: llvm.func @commit(
// CHECK-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = commit, threads = {{[0-9]+}}
// CHECK-SAME: nvvm.kernel
// CHECK: scf.for
// CHECK: llvm.return

// The row's new tokens go to their pages, 16 bytes a thread.

// CHECK-LABEL: llvm.func @append(
// CHECK-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = append, threads = {{[0-9]+}}
// CHECK: nvvm.griddepcontrol launch_dependents
// CHECK: nvvm.griddepcontrol wait
// CHECK: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xi32>
// CHECK: llvm.store %{{.*}} {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<1>
// SM80-LABEL: llvm.func @append(
// SM80-NOT: nvvm.griddepcontrol
kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// History is fetched before the wait for the kernels that make the queries, and
// then products run out of the ring; weights turn with one movmatrix.

// CHECK-LABEL: llvm.func @attend_workqueue(
// CHECK-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = attend_workqueue, threads = 256, shared_bytes =
// CHECK-SAME: nvvm.maxntid = array<i32: 256, 1, 1>, nvvm.minctasm = 1
// CHECK: nvvm.mbarrier.init
// CHECK: nvvm.fence.mbarrier.init
// CHECK: nvvm.mbarrier.arrive.expect_tx
// CHECK: nvvm.inline_ptx "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
// CHECK: nvvm.griddepcontrol launch_dependents
// CHECK: nvvm.griddepcontrol wait
// CHECK: mbarrier.try_wait.parity
// CHECK: nvvm.ldmatrix %{{.*}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<row>, num = 4 : i32
// CHECK: nvvm.mma.sync
// CHECK-SAME: shape = #nvvm.shape<m = 16, n = 8, k = 16>
// CHECK: ex2.approx
// CHECK: movmatrix
// CHECK: nvvm.ldmatrix %{{.*}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<col>, num = 4 : i32
// CHECK: nvvm.mma.sync
// Partials are mailboxes, that whoever ends a segment waits for.
// CHECK: llvm.store volatile %{{.*}} {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<1>
// CHECK: llvm.load volatile %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xi32>
// CHECK-NOT: {{kvrm\.|load_tile}}
// CHECK: llvm.return

// CHECK-LABEL: llvm.func @attend_cluster(
// CHECK: nvvm.cluster.arrive
// CHECK: nvvm.cluster.wait
// CHECK: nvvm.mapa
// CHECK: nvvm.cluster.arrive
// CHECK-NEXT: nvvm.cluster.wait

// SM80-LABEL: llvm.func @attend_workqueue(
// SM80-NOT: {{mbarrier|griddepcontrol|cp.async.bulk|nvvm.cluster|nvvm.mapa}}
// SM80: nvvm.cp.async.shared.global
// SM80: nvvm.cp.async.commit.group
// SM80: nvvm.cp.async.wait.group
// SM80-LABEL: llvm.func @attend_cluster(
// SM80-NOT: {{mbarrier|griddepcontrol|cp.async.bulk|nvvm.cluster|nvvm.mapa}}
// SM80: llvm.return

// SMALL-LABEL: llvm.func @attend_workqueue(
// SMALL-SAME: kvrm.device_kernel = #kvrm.device_kernel<role = attend_workqueue, threads = 128, shared_bytes = 69888>
// SMALL-SAME: nvvm.maxntid = array<i32: 128, 1, 1>, nvvm.minctasm = 2
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
