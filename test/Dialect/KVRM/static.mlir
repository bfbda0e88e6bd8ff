// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

// Phase 1. One row a slot, one query token, and grouped heads.

// CHECK-LABEL: func.func @decode_step
// CHECK-SAME: attributes {kvrm.step}
// CHECK: %[[O:.*]], %[[KC:.*]], %[[VC:.*]] = kvrm.cached_attention %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} at %{{[a-z0-9]+}}
// CHECK-SAME: {layer = 0 : i64, scale = 1.250000e-01 : f32}
// CHECK-SAME: : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
// CHECK: kvrm.cached_attention %{{.*}}, %{{.*}}, %{{.*}}, %[[KC]], %[[VC]] at
// CHECK-SAME: layer = 29 : i64
// GENERIC: "kvrm.cached_attention"(%{{.*}}) <{layer = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0>, scale = 1.250000e-01 : f32}>
func.func @decode_step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %v: tensor<8x1x3x64xf32>,
                       %kc: tensor<30x8x3x2048x64xf16>, %vc: tensor<30x8x3x2048x64xf16>, %positions: tensor<8xi32>)
    -> (tensor<8x1x9x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<30x8x3x2048x64xf16>) attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %v, %kc, %vc at %positions {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  %o2, %kc2, %vc2 = kvrm.cached_attention %o, %k, %v, %kc1, %vc1 at %positions {layer = 29 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return %o2, %kc2, %vc2 : tensor<8x1x9x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<30x8x3x2048x64xf16>
}

// One row, in the slot that it names, with up to 16 query tokens; bf16 caches.

// CHECK-LABEL: func.func @prefill
// CHECK: kvrm.cached_attention {{.*}} at %{{.*}} count %{{.*}} : tensor<1xi32> slot %{{.*}} : tensor<1xi32> {layer = 1 : i64, scale = 1.000000e+00 : f32}
// GENERIC: operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 1, 1>
func.func @prefill(%q: tensor<1x16x4x64xf32>, %k: tensor<1x16x4x64xf32>, %v: tensor<1x16x4x64xf32>,
                   %kc: tensor<2x8x4x64x64xbf16>, %vc: tensor<2x8x4x64x64xbf16>, %positions: tensor<1xi32>,
                   %counts: tensor<1xi32>, %slots: tensor<1xi32>) -> tensor<1x16x4x64xf32> attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %v, %kc, %vc at %positions count %counts : tensor<1xi32>
      slot %slots : tensor<1xi32> {layer = 1 : i64, scale = 1.0 : f32}
      : tensor<1x16x4x64xf32>, tensor<1x16x4x64xf32>, tensor<2x8x4x64x64xbf16>, tensor<1xi32>
  return %o : tensor<1x16x4x64xf32>
}

// Caches of bytes, whatever the activations are of.

// CHECK-LABEL: func.func @bytes
// CHECK: kvrm.cached_attention {{.*}} : tensor<2x1x2x64xbf16>, tensor<2x1x2x64xbf16>, tensor<1x2x2x64x64xf8E4M3FN>, tensor<2xi32>
func.func @bytes(%q: tensor<2x1x2x64xbf16>, %kc: tensor<1x2x2x64x64xf8E4M3FN>, %positions: tensor<2xi32>)
    -> tensor<2x1x2x64xbf16> attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %q, %q, %kc, %kc at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x2x64xbf16>, tensor<2x1x2x64xbf16>, tensor<1x2x2x64x64xf8E4M3FN>, tensor<2xi32>
  return %o : tensor<2x1x2x64xbf16>
}

// Rows of integers have their scale behind them.

// CHECK-LABEL: func.func @integers
// CHECK: kvrm.cached_attention {{.*}} : tensor<2x1x2x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x66xi8>, tensor<2xi32>
func.func @integers(%q: tensor<2x1x2x64xf32>, %kc: tensor<1x2x2x64x66xi8>, %positions: tensor<2xi32>)
    -> tensor<2x1x2x64xf32> attributes {kvrm.step} {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %q, %q, %kc, %kc at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x2x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x66xi8>, tensor<2xi32>
  return %o : tensor<2x1x2x64xf32>
}

// Counts without slots.

// CHECK-LABEL: func.func @counts_alone
// CHECK: kvrm.cached_attention {{.*}} at %{{.*}} count %{{.*}} : tensor<2xi32> {layer
// GENERIC: operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 1, 0>
func.func @counts_alone(%q: tensor<2x2x2x64xf32>, %k: tensor<2x2x2x64xf32>, %kc: tensor<1x2x2x64x64xf16>,
                        %positions: tensor<2xi32>, %counts: tensor<2xi32>) {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %kc at %positions count %counts : tensor<2xi32>
      {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x2x2x64xf32>, tensor<2x2x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return
}

// Of the last 100 tokens alone, and capped scores.

// CHECK-LABEL: func.func @window
// CHECK: kvrm.cached_attention {{.*}} {layer = 0 : i64, scale = 1.000000e+00 : f32, softcap = 5.000000e+01 : f32, window = 100 : i64}
func.func @window(%q: tensor<2x2x2x64xf32>, %k: tensor<2x2x2x64xf32>, %kc: tensor<1x2x2x256x64xf16>,
                  %positions: tensor<2xi32>) {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %kc at %positions
      {layer = 0 : i64, scale = 1.0 : f32, window = 100 : i64, softcap = 50.0 : f32}
      : tensor<2x2x2x64xf32>, tensor<2x2x2x64xf32>, tensor<1x2x2x256x64xf16>, tensor<2xi32>
  return
}
