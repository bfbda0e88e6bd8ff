// RUN: kvrm-opt %s --kvrm-static-baseline | FileCheck %s
// RUN: not kvrm-opt %s --kvrm-static-baseline=lanes=0 2>&1 | FileCheck %s --check-prefix=ZERO
// RUN: not kvrm-opt %s --kvrm-static-baseline=lanes=48 2>&1 | FileCheck %s --check-prefix=LANES

// ZERO: error: lanes is 0, outside 1..64
// LANES: error: 'kvrm.cached_attention' op needs a capacity of whole vectors: 64 tokens are not a multiple of 48 lanes

// A task a row and KV head. Two layers of one shape share one function, and the
// caches are updated in place: each layer takes its slice.

// CHECK-LABEL: func.func @step
// CHECK-SAME: tensor<2xi32> {kvrm.argument = #kvrm.argument<positions>}
// CHECK-SAME: tensor<2x2x2x64x64xf16> {kvrm.argument = #kvrm.argument<key_cache>}
// CHECK-SAME: tensor<2x2x2x64x64xf16> {kvrm.argument = #kvrm.argument<value_cache>}
// CHECK: tensor.extract_slice %{{.*}}[0, 0, 0, 0, 0] [1, 2, 2, 64, 64]
// CHECK: kvrm.dispatch @[[F:static_attention]] tasks 4
// CHECK: tensor.insert_slice %{{.*}}[0, 0, 0, 0, 0] [1, 2, 2, 64, 64]
// CHECK: tensor.extract_slice %{{.*}}[1, 0, 0, 0, 0] [1, 2, 2, 64, 64]
// CHECK: kvrm.dispatch @[[F]] tasks 4
// CHECK-NOT: kvrm.cached_attention
// CHECK: func.func private @[[F]](%{{.*}}: index, %{{.*}}: index,
// CHECK-NOT: func.func
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>,
                %kc: tensor<2x2x2x64x64xf16>, %vc: tensor<2x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
  %r, %kc2, %vc2 = kvrm.cached_attention %o, %k, %k, %kc1, %vc1 at %p {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
  return %r, %kc2, %vc2 : tensor<2x1x4x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>
}
