// RUN: kvrm-opt %s --kvrm-lower-kernels-to-host | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-host=lanes=8 | FileCheck %s --check-prefix=LANES8
// RUN: kvrm-opt %s --kvrm-generate-kernels --kvrm-lower-kernels-to-host=lanes=4 -o /dev/null

// The signatures are those of kvrm_append_kernel and kvrm_attention_kernel.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

// CHECK-LABEL: func.func private @append(%{{.*}}: !llvm.ptr) {
// CHECK: arith.truncf
// CHECK-NOT: kvrm.append_rows
kvrm.kernel @append heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// K and V are widened where they are loaded, scores of 16 tokens at a time.

// CHECK-LABEL: func.func private @attend(
// CHECK-SAME: %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr) {
// CHECK: arith.extf %{{.*}} : vector<16xf16> to vector<16xf32>
// CHECK-NOT: {{kvrm\.|load_tile|online_softmax}}
// CHECK: return
// LANES8-LABEL: func.func private @attend(
// LANES8: arith.extf %{{.*}} : vector<8xf16> to vector<8xf32>
// LANES8-NOT: vector<16xf32>
kvrm.kernel @attend heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<2x64>
  %state = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<2x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<2x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<2x64>
    scf.yield %s2 : !kvrm.softmax<2x64>
  }
  kvrm.store_softmax %state, %item : !kvrm.softmax<2x64>
  kvrm.return
}
