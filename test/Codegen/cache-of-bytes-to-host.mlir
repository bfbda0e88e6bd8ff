// A cache of f8E4M3FN on a CPU: stored as bytes, widened by way of f16, rounded
// by integer arithmetic, and no op on the type itself is left.
//
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-host | FileCheck %s
// RUN: kvrm-opt %s --kvrm-static-baseline | FileCheck %s --check-prefix=STATIC

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f8E4M3FN, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

// What is over 448 is cut off there before it is rounded; NaN is 0x7f.

// CHECK-LABEL: func.func private @append(
// CHECK-DAG: arith.constant dense<1138753536> : vector<16xi32>
// CHECK-DAG: arith.constant dense<127> : vector<16xi32>
// CHECK: arith.minsi
// CHECK: arith.trunci %{{.*}} : vector<16xi32> to vector<16xi8>
// CHECK-NOT: arith.{{trunc|ext}}f {{.*}}f8E4M3FN
kvrm.kernel @append heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// A token of head_dim 64 is 64 bytes.

// CHECK-LABEL: func.func private @attend(
// CHECK: llvm.load %{{.*}} {alignment = 1 : i64} : !llvm.ptr -> vector<16xi8>
// CHECK: arith.extsi %{{.*}} : vector<16xi8> to vector<16xi16>
// CHECK: arith.extf %{{.*}} : vector<16xf16> to vector<16xf32>
// CHECK-NOT: arith.{{trunc|ext}}f {{.*}}f8E4M3FN
kvrm.kernel @attend heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<2x64>
  %state = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<2x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf8E4M3FN>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x64xf8E4M3FN> -> !kvrm.fragment<2x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x64xf8E4M3FN>, !kvrm.softmax<2x64>
    scf.yield %s2 : !kvrm.softmax<2x64>
  }
  kvrm.store_softmax %state, %item : !kvrm.softmax<2x64>
  kvrm.return
}

// STATIC-LABEL: func.func private @static_attention(
// STATIC: arith.bitcast %{{.*}} : vector<64xi8> to vector<64xf8E4M3FN>
// STATIC: vector.store {{.*}} vector<64xf8E4M3FN>
// STATIC: arith.bitcast %{{.*}} : vector<64xf8E4M3FN> to vector<64xi8>
// STATIC-NOT: arith.{{trunc|ext}}f {{.*}}f8E4M3FN
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>,
                %kc: tensor<1x2x2x64x64xf8E4M3FN>, %vc: tensor<1x2x2x64x64xf8E4M3FN>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf8E4M3FN>, tensor<1x2x2x64x64xf8E4M3FN>) attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf8E4M3FN>, tensor<2xi32>
  return %o, %kc1, %vc1 : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf8E4M3FN>, tensor<1x2x2x64x64xf8E4M3FN>
}
