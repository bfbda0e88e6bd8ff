// RUN: kvrm-opt %s --kvrm-decompose-forms | FileCheck %s
// RUN: kvrm-opt %s --kvrm-decompose-forms=panel=64 | FileCheck %s --check-prefix=PANEL
// RUN: not kvrm-opt %s --kvrm-decompose-forms=panel=0 2>&1 | FileCheck %s --check-prefix=BAD

// BAD: error: panel is 0, not positive

// CHECK-DAG: #[[$X:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-DAG: #[[$W:.*]] = affine_map<(d0, d1, d2) -> (d1, d2)>
// CHECK-DAG: #[[$Y:.*]] = affine_map<(d0, d1, d2) -> (d0, d1)>
// CHECK-DAG: #[[$WHOLE:.*]] = affine_map<(d0, d1) -> (d0, d1)>
// CHECK-DAG: #[[$ROWS:.*]] = affine_map<(d0, d1) -> (d0)>
// CHECK-DAG: #[[$COLUMNS:.*]] = affine_map<(d0, d1) -> (d1)>

// A product alone starts from zero where it was to be written.

// CHECK-LABEL: func.func @product
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<8x64xf16>, %[[W:[a-z0-9]+]]: tensor<96x64xf16>, %[[INIT:[a-z0-9]+]]: tensor<8x96xf32>
// CHECK: %[[ZERO:.*]] = arith.constant 0.0
// CHECK-NEXT: %[[FILL:.*]] = linalg.fill ins(%[[ZERO]] : f32) outs(%[[INIT]] : tensor<8x96xf32>)
// CHECK-NEXT: %[[Y:.*]] = linalg.matmul indexing_maps = [#[[$X]], #[[$W]], #[[$Y]]] ins(%[[X]], %[[W]] : tensor<8x64xf16>, tensor<96x64xf16>) outs(%[[FILL]] : tensor<8x96xf32>)
// CHECK-NEXT: return %[[Y]]
func.func @product(%x: tensor<8x64xf16>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf16>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// A residual is accumulated onto, unless its columns are no whole panels.

// CHECK-LABEL: func.func @residual
// CHECK-SAME: %[[R:[a-z0-9]+]]: tensor<8x96xf32>, %{{[a-z0-9]+}}: tensor<8x96xf32>
// CHECK-NEXT: %[[Y:.*]] = linalg.matmul indexing_maps = [#[[$X]], #[[$W]], #[[$Y]]] ins(%{{.*}}) outs(%[[R]] : tensor<8x96xf32>)
// CHECK-NEXT: %[[Z:.*]] = linalg.matmul {{.*}} outs(%[[Y]] : tensor<8x96xf32>)
// CHECK-NEXT: return %[[Z]]
// PANEL-LABEL: func.func @residual
// PANEL: linalg.fill
// PANEL-NEXT: linalg.matmul
// PANEL-NEXT: linalg.generic
// PANEL: linalg.fill
// PANEL-NEXT: linalg.matmul
// PANEL-NEXT: linalg.generic
func.func @residual(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %r: tensor<8x96xf32>, %init: tensor<8x96xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%r : tensor<8x96xf32>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32, %residual: f32):
    %v = arith.addf %residual, %sum : f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  %z = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%y : tensor<8x96xf32>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32, %residual: f32):
    %v = arith.addf %sum, %residual : f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  return %z : tensor<8x96xf32>
}

// A bias, a difference, a cast and a sum taken twice are no accumulation.

// CHECK-LABEL: func.func @no_residual
// CHECK-SAME: %[[B:[a-z0-9]+]]: tensor<96xf32>, %[[R:[a-z0-9]+]]: tensor<8x96xf32>
// CHECK: %[[P:.*]] = linalg.matmul {{.*}} outs(%{{.*}} : tensor<8x96xf32>)
// CHECK-NEXT: %[[A:.*]] = linalg.generic {indexing_maps = [#[[$WHOLE]], #[[$COLUMNS]], #[[$WHOLE]]], iterator_types = ["parallel", "parallel"]} ins(%[[P]], %[[B]] : tensor<8x96xf32>, tensor<96xf32>)
// CHECK: %[[P:.*]] = linalg.matmul
// CHECK-NEXT: linalg.generic {{.*}} ins(%[[P]], %[[R]] :
// CHECK: arith.subf
// CHECK: %[[P:.*]] = linalg.matmul
// CHECK-NEXT: linalg.generic {{.*}} ins(%[[P]], %[[R]] : {{.*}} outs(%{{.*}} : tensor<8x96xf16>)
// CHECK: arith.truncf
// CHECK: %[[P:.*]] = linalg.matmul
// CHECK-NEXT: linalg.generic {{.*}} ins(%[[P]] :
// CHECK: ^bb0(%[[S:.*]]: f32, %{{.*}}: f32):
// CHECK-NEXT: arith.addf %[[S]], %[[S]]
func.func @no_residual(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %b: tensor<96xf32>, %r: tensor<8x96xf32>, %init: tensor<8x96xf32>,
    %half: tensor<8x96xf16>) -> (tensor<8x96xf32>, tensor<8x96xf32>, tensor<8x96xf16>, tensor<8x96xf32>) attributes {kvrm.step} {
  %bias = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%b : tensor<96xf32>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32, %e: f32):
    %v = arith.addf %sum, %e : f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  %difference = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%r : tensor<8x96xf32>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32, %e: f32):
    %v = arith.subf %e, %sum : f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  %cast = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%r : tensor<8x96xf32>) outs(%half : tensor<8x96xf16>) {
  ^bb0(%sum: f32, %e: f32):
    %s = arith.addf %e, %sum : f32
    %v = arith.truncf %s : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<8x96xf16>
  %twice = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    %v = arith.addf %sum, %sum : f32
    kvrm.yield %v : f32
  } -> tensor<8x96xf32>
  return %bias, %difference, %cast, %twice : tensor<8x96xf32>, tensor<8x96xf32>, tensor<8x96xf16>, tensor<8x96xf32>
}

// Parts are slices of one product.

// CHECK-LABEL: func.func @parts
// CHECK: %[[EMPTY:.*]] = tensor.empty() : tensor<8x96xf32>
// CHECK: %[[FILL:.*]] = linalg.fill {{.*}} outs(%[[EMPTY]] : tensor<8x96xf32>)
// CHECK: %[[P:.*]] = linalg.matmul {{.*}} outs(%[[FILL]] : tensor<8x96xf32>)
// CHECK: %[[A:.*]] = tensor.extract_slice %[[P]][0, 0] [8, 32] [1, 1]
// CHECK: %[[B:.*]] = tensor.extract_slice %[[P]][0, 32] [8, 32] [1, 1]
// CHECK: %[[C:.*]] = tensor.extract_slice %[[P]][0, 64] [8, 32] [1, 1]
// CHECK: linalg.generic {{.*}} ins(%[[A]], %[[B]], %[[C]], %{{.*}} : {{.*}} outs(%{{.*}} : tensor<8x32xbf16>)
// CHECK-NEXT: ^bb0(%[[SA:.*]]: f32, %[[SB:.*]]: f32, %[[SC:.*]]: f32, %[[SE:.*]]: f16, %{{.*}}: bf16):
// CHECK-NEXT: %[[M:.*]] = arith.mulf %[[SA]], %[[SB]]
// CHECK-NEXT: %[[D:.*]] = arith.subf %[[M]], %[[SC]]
// CHECK-NEXT: %[[E:.*]] = arith.extf %[[SE]]
// CHECK-NEXT: %[[S:.*]] = arith.addf %[[D]], %[[E]]
// CHECK-NEXT: %[[V:.*]] = arith.truncf %[[S]]
// CHECK-NEXT: linalg.yield %[[V]] : bf16
func.func @parts(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %e: tensor<32xf16>, %init: tensor<8x32xbf16>) -> tensor<8x32xbf16> attributes {kvrm.step} {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) extras(%e : tensor<32xf16>)
      outs(%init : tensor<8x32xbf16>) parts 3 {
  ^bb0(%a: f32, %b: f32, %c: f32, %extra: f16):
    %m = arith.mulf %a, %b : f32
    %d = arith.subf %m, %c : f32
    %wide = arith.extf %extra : f16 to f32
    %s = arith.addf %d, %wide : f32
    %v = arith.truncf %s : f32 to bf16
    kvrm.yield %v : bf16
  } -> tensor<8x32xbf16>
  return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: func.func @norm
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<8x64xf32>, %[[G:[a-z0-9]+]]: tensor<64xf32>, %[[INIT:[a-z0-9]+]]: tensor<8x64xf16>
// CHECK: %[[FILL:.*]] = linalg.fill {{.*}} outs(%{{.*}} : tensor<8xf32>)
// CHECK: %[[SQUARES:.*]] = linalg.generic {indexing_maps = [#[[$WHOLE]], #[[$ROWS]]], iterator_types = ["parallel", "reduction"]} ins(%[[X]] : tensor<8x64xf32>) outs(%[[FILL]] : tensor<8xf32>)
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32, %[[O:.*]]: f32):
// CHECK-NEXT: %[[P:.*]] = arith.mulf %[[A]], %[[A]]
// CHECK-NEXT: %[[S:.*]] = arith.addf %[[O]], %[[P]]
// CHECK-NEXT: linalg.yield %[[S]]
// CHECK: %[[SCALE:.*]] = linalg.generic {{.*}} ins(%[[SQUARES]] : tensor<8xf32>)
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32, %{{.*}}: f32):
// CHECK-DAG: %[[INVERSE:.*]] = arith.constant 1.562500e-02 : f32
// CHECK-DAG: %[[EPSILON:.*]] = arith.constant 9.99999974E-6 : f32
// CHECK-DAG: %[[ONE:.*]] = arith.constant 1.0{{.*}} : f32
// CHECK: %[[MEAN:.*]] = arith.mulf %[[A]], %[[INVERSE]]
// CHECK-NEXT: %[[SUM:.*]] = arith.addf %[[MEAN]], %[[EPSILON]]
// CHECK-NEXT: %[[ROOT:.*]] = math.sqrt %[[SUM]]
// CHECK-NEXT: arith.divf %[[ONE]], %[[ROOT]]
// CHECK: %[[Y:.*]] = linalg.generic {indexing_maps = [#[[$WHOLE]], #[[$ROWS]], #[[$COLUMNS]], #[[$WHOLE]]], {{.*}}} ins(%[[X]], %[[SCALE]], %[[G]] : {{.*}}) outs(%[[INIT]] : tensor<8x64xf16>)
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32, %[[B:.*]]: f32, %[[C:.*]]: f32, %{{.*}}: f16):
// CHECK-NEXT: %[[AB:.*]] = arith.mulf %[[A]], %[[B]]
// CHECK-NEXT: %[[ABC:.*]] = arith.mulf %[[AB]], %[[C]]
// CHECK-NEXT: %[[V:.*]] = arith.truncf %[[ABC]]
// CHECK-NEXT: linalg.yield %[[V]] : f16
// CHECK: return %[[Y]]
func.func @norm(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf16>) -> tensor<8x64xf16> attributes {kvrm.step} {
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf16>) epsilon 1.0e-5 -> tensor<8x64xf16>
  return %y : tensor<8x64xf16>
}

// Not a step: untouched.

// CHECK-LABEL: func.func @no_step
// CHECK: kvrm.rms_norm
func.func @no_step(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf16>) -> tensor<8x64xf16> {
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf16>) epsilon 1.0e-5 -> tensor<8x64xf16>
  return %y : tensor<8x64xf16>
}
