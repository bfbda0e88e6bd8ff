// RUN: kvrm-opt %s --kvrm-page-cache | FileCheck %s

// A row of a static cache of integers has its scale behind head_dim elements; a
// page of a pool has scales of its own.

// CHECK: pool = <layers = 1, kv_heads = 2, head_dim = 64, page = 16, element = i8, layout = transposed_keys>
// CHECK-LABEL: func.func @decode_step(
// CHECK: kvrm.append
// CHECK: kvrm.attend
// CHECK-NOT: xi8
func.func @decode_step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %positions: tensor<2xi32>,
                       %keys: tensor<1x2x2x64x66xi8>, %values: tensor<1x2x2x64x66xi8>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x66xi8>, tensor<1x2x2x64x66xi8>) attributes {kvrm.step} {
  %o, %keys1, %values1 = kvrm.cached_attention %q, %k, %k, %keys, %values at %positions
      {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x66xi8>, tensor<2xi32>
  return %o, %keys1, %values1 : tensor<2x1x4x64xf32>, tensor<1x2x2x64x66xi8>, tensor<1x2x2x64x66xi8>
}
