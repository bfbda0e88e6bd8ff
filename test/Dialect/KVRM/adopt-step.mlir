// Arguments and results of a raised step in their places: tokens, positions and
// caches in, logits and caches out, weights as globals.

// RUN: kvrm-opt %s --kvrm-adopt-step --verify-diagnostics | FileCheck %s

// CHECK: ml_program.global private @table(#{{.*}}) : tensor<5x8xf32>
// CHECK: ml_program.global private @arg5(#{{.*}}) : tensor<5x8xf16>
// CHECK: ml_program.global private @constant.0(dense<[1.000000e+00, 2.000000e+00]> : tensor<2xf32>) : tensor<2xf32>

// CHECK: func.func @decode_step(%[[TOKENS:.*]]: tensor<2x1xi32>, %[[POSITIONS:.*]]: tensor<2xi32>, %[[KEYS:.*]]: tensor<1x2x1x16x8xf16>, %[[VALUES:.*]]: tensor<1x2x1x16x8xf16>)
// CHECK-SAME: -> (tensor<2x5xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step}
// An idle row may stand at the capacity; only attention sees that.
// CHECK-DAG: %[[LAST:.*]] = arith.constant 15 : i32
// CHECK-DAG: arith.minsi %{{.*}}, %[[LAST]] : i32
// CHECK-DAG: arith.extsi %{{.*}} : i32 to i64
// CHECK-DAG: ml_program.global_load_const @table : tensor<5x8xf32>
// CHECK: kvrm.cached_attention {{.*}}, %[[KEYS]], %[[VALUES]] at %[[POSITIONS]]
// Logits are [rows, vocabulary] of f32.
// CHECK: %[[FLAT:.*]] = tensor.collapse_shape %{{.*}} {{\[\[}}0], [1, 2]] : tensor<2x1x5xf16> into tensor<2x5xf16>
// CHECK: arith.extf
// CHECK: return %{{.*}}, %newKeyCache, %newValueCache

// expected-remark @below {{result 1 is dropped: it is integers that no cache is in}}
func.func @main(%state: tensor<i64>, %table: tensor<5x8xf32> {kvrm.name = "table"}, %ids: tensor<2xi64>, %positions: tensor<2xi32>,
    %unused: tensor<3xf32>, %head: tensor<5x8xf16>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<2x1x5xf16>, tensor<i64>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %scales = arith.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %init = tensor.empty() : tensor<2x1x1x8xf32>
  %x = linalg.generic {indexing_maps = [affine_map<(b, t, h, d) -> (b)>, affine_map<(b, t, h, d) -> (b)>, affine_map<(b, t, h, d) -> (b)>,
      affine_map<(b, t, h, d) -> (b, t, h, d)>], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%ids, %positions, %scales : tensor<2xi64>, tensor<2xi32>, tensor<2xf32>) outs(%init : tensor<2x1x1x8xf32>) {
  ^bb0(%id: i64, %p: i32, %scale: f32, %out: f32):
    %row = arith.index_cast %id : i64 to index
    %column = linalg.index 3 : index
    %e = tensor.extract %table[%row, %column] : tensor<5x8xf32>
    %angle = arith.sitofp %p : i32 to f32
    %turned = arith.mulf %e, %angle : f32
    %scaled = arith.mulf %turned, %scale : f32
    linalg.yield %scaled : f32
  } -> tensor<2x1x1x8xf32>
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  %logits_init = tensor.empty() : tensor<2x1x5xf16>
  %logits = linalg.generic {indexing_maps = [affine_map<(b, t, n) -> (b, t, t, 0)>, affine_map<(b, t, n) -> (n, 0)>, affine_map<(b, t, n) -> (b, t, n)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%o, %head : tensor<2x1x1x8xf32>, tensor<5x8xf16>) outs(%logits_init : tensor<2x1x5xf16>) {
  ^bb0(%e: f32, %w: f16, %out: f16):
    linalg.yield %w : f16
  } -> tensor<2x1x5xf16>
  return %logits, %state, %k, %v : tensor<2x1x5xf16>, tensor<i64>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}
