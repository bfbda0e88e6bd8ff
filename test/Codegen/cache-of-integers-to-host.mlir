// A cache of i8 on a CPU: codes of a row and, behind the codes of a page, its
// scale. A page of 16 tokens of head_dim 64 has its scales at byte 1024.
//
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-host | FileCheck %s
// RUN: kvrm-opt %s --kvrm-static-baseline | FileCheck %s --check-prefix=STATIC

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = i8, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

// The largest magnitude over 127, up to the next bf16; 0 where it is below
// 127 * 2^-126, NaN where one is. A code is rounded by an addition.

// CHECK-LABEL: func.func private @append(
// CHECK: arith.constant 1056 : i64
// CHECK: vector.reduction <maxsi>, %{{.*}} : vector<16xi32> into i32
// CHECK: arith.divf %{{.*}}, %{{.*}} : f32
// CHECK-DAG: arith.constant 66977792 : i32
// CHECK-DAG: arith.constant 32704 : i32
// CHECK: arith.trunci %{{.*}} : i32 to i16
// CHECK: arith.constant 1024 : i64
// CHECK: llvm.store %{{.*}} {alignment = 2 : i64} : i16
// CHECK: vector.reduction <maxsi>
// CHECK: llvm.store %{{.*}} {alignment = 2 : i64} : i16
// CHECK: arith.constant dense<0x4B400000> : vector<16xf32>
// CHECK: arith.divf %{{.*}} : vector<16xf32>
// CHECK: arith.addf %{{.*}} : vector<16xf32>
// CHECK: arith.trunci %{{.*}} : vector<16xi32> to vector<16xi8>
kvrm.kernel @append heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// Sums of a vector of tokens are multiplied with their scales; so are weights,
// which have been added up.

// CHECK-LABEL: func.func private @attend(
// CHECK: llvm.load %{{.*}} {alignment = 2 : i64} : !llvm.ptr -> vector<16xi16>
// CHECK: llvm.load %{{.*}} {alignment = 1 : i64} : !llvm.ptr -> vector<16xi8>
// CHECK: arith.sitofp %{{.*}} : vector<16xi8> to vector<16xf32>
// CHECK: math.roundeven
// CHECK: llvm.load %{{.*}} {alignment = 2 : i64} : !llvm.ptr -> vector<16xi16>
// CHECK: arith.mulf
// CHECK: arith.sitofp %{{.*}} : vector<16xi8> to vector<16xf32>
kvrm.kernel @attend heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<2x64>
  %state = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<2x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xi8>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x64xi8> -> !kvrm.fragment<2x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x64xi8>, !kvrm.softmax<2x64>
    scf.yield %s2 : !kvrm.softmax<2x64>
  }
  kvrm.store_softmax %state, %item : !kvrm.softmax<2x64>
  kvrm.return
}

// STATIC-LABEL: func.func private @static_attention(
// STATIC-SAME: memref<2x2x64x66xi8>
// STATIC: vector.reduction <maxsi>
// STATIC: vector.store %{{.*}}[%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}] : memref<2x2x64x66xi8>, vector<64xi8>
// STATIC: vector.bitcast %{{.*}} : vector<1xi16> to vector<2xi8>
// STATIC: vector.store %{{.*}} : memref<2x2x64x66xi8>, vector<2xi8>
// STATIC: vector.load %{{.*}} : memref<2x2x64x66xi8>, vector<2xi8>
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>,
                %kc: tensor<1x2x2x64x66xi8>, %vc: tensor<1x2x2x64x66xi8>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x66xi8>, tensor<1x2x2x64x66xi8>) attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x66xi8>, tensor<2xi32>
  return %o, %kc1, %vc1 : tensor<2x1x4x64xf32>, tensor<1x2x2x64x66xi8>, tensor<1x2x2x64x66xi8>
}
