// RUN: kvrm-opt %s --kvrm-split-products | FileCheck %s
// RUN: kvrm-opt %s --kvrm-split-products=rows=7 | FileCheck %s --check-prefix=ROWS
// RUN: kvrm-opt %s --kvrm-split-products=rows=1000 | FileCheck %s --check-prefix=NONE
// RUN: not kvrm-opt %s --kvrm-split-products=rows=-1 2>&1 | FileCheck %s --check-prefix=BAD

// BAD: error: rows is -1, which is negative
// NONE-NOT: linalg.generic

// CHECK-DAG: #[[$WHOLE:.*]] = affine_map<(d0, d1) -> (d0, d1)>
// CHECK-DAG: #[[$COLUMNS:.*]] = affine_map<(d0, d1) -> (d1)>

// Gate and up are one product of all columns, and what follows takes slices.

// CHECK-LABEL: func.func @gate
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<33x64xf16>, %[[W:[a-z0-9]+]]: tensor<48x64xf16>, %[[INIT:[a-z0-9]+]]: tensor<33x24xf16>
// CHECK-NEXT: %[[EMPTY:.*]] = tensor.empty() : tensor<33x48xf16>
// CHECK-NEXT: %[[P:.*]] = kvrm.linear ins(%[[X]], %[[W]] : tensor<33x64xf16>, tensor<48x64xf16>) outs(%[[EMPTY]] : tensor<33x48xf16>)
// CHECK-NEXT: ^bb0(%[[SUM:.*]]: f32):
// CHECK-NEXT: %[[ROUNDED:.*]] = arith.truncf %[[SUM]] : f32 to f16
// CHECK-NEXT: kvrm.yield %[[ROUNDED]] : f16
// CHECK: %[[GATE:.*]] = tensor.extract_slice %[[P]][0, 0] [33, 24] [1, 1]
// CHECK-NEXT: %[[UP:.*]] = tensor.extract_slice %[[P]][0, 24] [33, 24] [1, 1]
// CHECK-NEXT: %[[Y:.*]] = linalg.generic {indexing_maps = [#[[$WHOLE]], #[[$WHOLE]], #[[$WHOLE]]], iterator_types = ["parallel", "parallel"]} ins(%[[GATE]], %[[UP]] : {{.*}}) outs(%[[INIT]] : tensor<33x24xf16>)
// CHECK-NEXT: ^bb0(%[[A:.*]]: f16, %[[B:.*]]: f16, %{{.*}}: f16):
// CHECK-NEXT: %[[A32:.*]] = arith.extf %[[A]] : f16 to f32
// CHECK-NEXT: %[[B32:.*]] = arith.extf %[[B]] : f16 to f32
// CHECK-NEXT: arith.mulf %[[A32]], %[[B32]]
// CHECK: return %[[Y]]
func.func @gate(%x: tensor<33x64xf16>, %w: tensor<48x64xf16>, %init: tensor<33x24xf16>) -> tensor<33x24xf16> attributes {kvrm.step} {
  %y = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<48x64xf16>) outs(%init : tensor<33x24xf16>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %product = arith.mulf %gate, %up : f32
    %v = arith.truncf %product : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<33x24xf16>
  return %y : tensor<33x24xf16>
}

// A bias is an extra of the op that follows.

// CHECK-LABEL: func.func @bias
// CHECK-SAME: %[[BIAS:[a-z0-9]+]]: tensor<24xf32>
// CHECK: %[[P:.*]] = kvrm.linear {{.*}} outs(%{{.*}} : tensor<33x24xbf16>)
// CHECK: linalg.generic {indexing_maps = [#[[$WHOLE]], #[[$COLUMNS]], #[[$WHOLE]]]{{.*}} ins(%[[P]], %[[BIAS]] : tensor<33x24xbf16>, tensor<24xf32>)
// CHECK: arith.extf
// CHECK-NEXT: arith.addf
func.func @bias(%x: tensor<33x64xbf16>, %w: tensor<24x64xbf16>, %bias: tensor<24xf32>, %init: tensor<33x24xf32>) -> tensor<33x24xf32> attributes {kvrm.step} {
  %y = kvrm.linear ins(%x, %w : tensor<33x64xbf16>, tensor<24x64xbf16>) extras(%bias : tensor<24xf32>) outs(%init : tensor<33x24xf32>) {
  ^bb0(%sum: f32, %b: f32):
    %v = arith.addf %sum, %b : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  return %y : tensor<33x24xf32>
}

// What is a product already stays: a sum, a rounded one, one that is added to.

// CHECK-LABEL: func.func @products
// CHECK-NOT: linalg.generic
// CHECK: return
func.func @products(%x: tensor<33x64xf16>, %w: tensor<24x64xf16>, %r: tensor<33x24xf32>, %init: tensor<33x24xf32>, %half: tensor<33x24xf16>) -> (tensor<33x24xf32>, tensor<33x24xf16>, tensor<33x24xf32>, tensor<33x24xf32>) attributes {kvrm.step} {
  %a = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) outs(%init : tensor<33x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<33x24xf32>
  %b = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) outs(%half : tensor<33x24xf16>) {
  ^bb0(%sum: f32):
    %v = arith.truncf %sum : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<33x24xf16>
  %c = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) extras(%r : tensor<33x24xf32>) outs(%init : tensor<33x24xf32>) {
  ^bb0(%sum: f32, %residual: f32):
    %v = arith.addf %sum, %residual : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  %d = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) extras(%r : tensor<33x24xf32>) outs(%init : tensor<33x24xf32>) {
  ^bb0(%sum: f32, %residual: f32):
    %v = arith.addf %residual, %sum : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  return %a, %b, %c, %d : tensor<33x24xf32>, tensor<33x24xf16>, tensor<33x24xf32>, tensor<33x24xf32>
}

// A residual that is rounded, a sum that is taken twice, and the rounding to
// the other element are no products.

// CHECK-LABEL: func.func @others
// CHECK-COUNT-3: linalg.generic
// CHECK: return
func.func @others(%x: tensor<33x64xf16>, %w: tensor<24x64xf16>, %r: tensor<33x24xf32>, %init: tensor<33x24xf32>, %half: tensor<33x24xf16>, %other: tensor<33x24xbf16>) -> (tensor<33x24xf16>, tensor<33x24xf32>, tensor<33x24xbf16>) attributes {kvrm.step} {
  %a = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) extras(%r : tensor<33x24xf32>) outs(%half : tensor<33x24xf16>) {
  ^bb0(%sum: f32, %residual: f32):
    %both = arith.addf %sum, %residual : f32
    %v = arith.truncf %both : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<33x24xf16>
  %b = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) extras(%r : tensor<33x24xf32>) outs(%init : tensor<33x24xf32>) {
  ^bb0(%sum: f32, %residual: f32):
    %v = arith.addf %sum, %sum : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  %c = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<24x64xf16>) outs(%other : tensor<33x24xbf16>) {
  ^bb0(%sum: f32):
    %v = arith.truncf %sum : f32 to bf16
    kvrm.yield %v : bf16
  } -> tensor<33x24xbf16>
  return %a, %b, %c : tensor<33x24xf16>, tensor<33x24xf32>, tensor<33x24xbf16>
}

// Few rows, f32, a depth or columns that matrix units do not take: all whole.

// CHECK-LABEL: func.func @whole
// CHECK-NOT: linalg.generic
// CHECK: return
// ROWS-LABEL: func.func @whole
// ROWS-COUNT-1: linalg.generic
// ROWS-NOT: linalg.generic
// ROWS: return
func.func @whole(%few: tensor<8x64xf16>, %x: tensor<33x64xf32>, %odd: tensor<33x40xf16>, %all: tensor<33x64xf16>, %w: tensor<48x64xf16>, %w40: tensor<48x40xf16>, %w12: tensor<12x64xf16>, %init: tensor<33x24xf32>, %init8: tensor<8x24xf32>, %init6: tensor<33x6xf32>) -> (tensor<8x24xf32>, tensor<33x24xf32>, tensor<33x24xf32>, tensor<33x6xf32>) attributes {kvrm.step} {
  %a = kvrm.linear ins(%few, %w : tensor<8x64xf16>, tensor<48x64xf16>) outs(%init8 : tensor<8x24xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  } -> tensor<8x24xf32>
  %b = kvrm.linear ins(%x, %w : tensor<33x64xf32>, tensor<48x64xf16>) outs(%init : tensor<33x24xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  %c = kvrm.linear ins(%odd, %w40 : tensor<33x40xf16>, tensor<48x40xf16>) outs(%init : tensor<33x24xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  %d = kvrm.linear ins(%all, %w12 : tensor<33x64xf16>, tensor<12x64xf16>) outs(%init6 : tensor<33x6xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  } -> tensor<33x6xf32>
  return %a, %b, %c, %d : tensor<8x24xf32>, tensor<33x24xf32>, tensor<33x24xf32>, tensor<33x6xf32>
}

// No step, no change.

// CHECK-LABEL: func.func @no_step
// CHECK-NOT: linalg.generic
// CHECK: return
func.func @no_step(%x: tensor<33x64xf16>, %w: tensor<48x64xf16>, %init: tensor<33x24xf32>) -> tensor<33x24xf32> {
  %y = kvrm.linear ins(%x, %w : tensor<33x64xf16>, tensor<48x64xf16>) outs(%init : tensor<33x24xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  } -> tensor<33x24xf32>
  return %y : tensor<33x24xf32>
}

// A norm stays where a kernel takes it: up to 8 rows for matrix units, of one or
// two parts.

// CHECK-LABEL: func.func @norms
// CHECK-NOT: kvrm.rms_norm
// CHECK: kvrm.linear {{.*}} norm(
// CHECK: %[[N:.*]] = kvrm.rms_norm ins(%{{.*}} : tensor<4x64xf32>, tensor<64xf32>) outs(%{{.*}} : tensor<4x64xf16>)
// CHECK: kvrm.linear ins(%[[N]], {{.*}} parts 3
// CHECK: %[[N:.*]] = kvrm.rms_norm ins(%{{.*}} : tensor<9x4096xf32>, tensor<4096xf32>) outs(%{{.*}} : tensor<9x4096xf16>)
// CHECK: kvrm.linear ins(%[[N]],
// CHECK-NOT: kvrm.rms_norm
// CHECK: return
func.func @norms(%x: tensor<4x64xf32>, %w: tensor<24x64xf16>, %g: tensor<64xf32>, %wide: tensor<9x4096xf32>,
    %w4096: tensor<24x4096xf16>, %g4096: tensor<4096xf32>, %y: tensor<4x24xf32>, %y3: tensor<4x8xf32>,
    %y9: tensor<9x24xf32>) -> (tensor<4x24xf32>, tensor<4x8xf32>, tensor<9x24xf32>) attributes {kvrm.step} {
  %a = kvrm.linear ins(%x, %w : tensor<4x64xf32>, tensor<24x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5
      outs(%y : tensor<4x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<4x24xf32>
  %b = kvrm.linear ins(%x, %w : tensor<4x64xf32>, tensor<24x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5
      outs(%y3 : tensor<4x8xf32>) parts 3 {
  ^bb0(%s0: f32, %s1: f32, %s2: f32):
    %s = arith.addf %s0, %s1 : f32
    %v = arith.mulf %s, %s2 : f32
    kvrm.yield %v : f32
  } -> tensor<4x8xf32>
  %c = kvrm.linear ins(%wide, %w4096 : tensor<9x4096xf32>, tensor<24x4096xf16>) norm(%g4096 : tensor<4096xf32>)
      epsilon 1.0e-5 outs(%y9 : tensor<9x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<9x24xf32>
  return %a, %b, %c : tensor<4x24xf32>, tensor<4x8xf32>, tensor<9x24xf32>
}
