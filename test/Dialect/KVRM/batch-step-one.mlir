// A step of one row is the function of a row: what depends on it gets a dim.

// RUN: kvrm-opt %s --kvrm-batch-step=slots=3 --canonicalize | FileCheck %s

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

// CHECK: func.func @decode_step(%{{.*}}: tensor<3x1xi32>
// CHECK: %[[ROWS:.*]] = linalg.generic {{.*}} ins(%{{.*}} : tensor<3xi32>) outs(%{{.*}} : tensor<3x4xf32>)
// CHECK: linalg.index 1 : index
// CHECK: linalg.generic {{.*}} outs(%{{.*}} : tensor<3x4xf32>)
// CHECK: %[[ROW:.*]] = linalg.index 0 : index
// CHECK: tensor.extract %[[ROWS]][%[[ROW]], %{{.*}}] : tensor<3x4xf32>
// CHECK: kvrm.cached_attention {{.*}} : tensor<3x1x1x4xf32>

ml_program.global private @table(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>
ml_program.global private @weight(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>

func.func @decode_step(%tokens: tensor<1x1xi32>, %positions: tensor<1xi32>, %keys: tensor<1x1x1x16x4xf16>, %values: tensor<1x1x1x16x4xf16>)
    -> (tensor<1x5xf32>, tensor<1x1x1x16x4xf16>, tensor<1x1x1x16x4xf16>) attributes {kvrm.step} {
  %table = ml_program.global_load_const @table : tensor<5x4xf32>
  %id = tensor.collapse_shape %tokens [] : tensor<1x1xi32> into tensor<i32>
  %row_init = tensor.empty() : tensor<4xf32>
  %row = linalg.generic {indexing_maps = [affine_map<(e) -> ()>, affine_map<(e) -> (e)>], iterator_types = ["parallel"]}
      ins(%id : tensor<i32>) outs(%row_init : tensor<4xf32>) {
  ^bb0(%token: i32, %out: f32):
    %r = arith.index_cast %token : i32 to index
    %c = linalg.index 0 : index
    %e = tensor.extract %table[%r, %c] : tensor<5x4xf32>
    linalg.yield %e : f32
  } -> tensor<4xf32>
  %swapped = linalg.generic {indexing_maps = [affine_map<(e) -> (e)>], iterator_types = ["parallel"]} outs(%row_init : tensor<4xf32>) {
  ^bb0(%out: f32):
    %three = arith.constant 3 : index
    %c = linalg.index 0 : index
    %d = arith.subi %three, %c : index
    %e = tensor.extract %row[%d] : tensor<4xf32>
    linalg.yield %e : f32
  } -> tensor<4xf32>
  %x = tensor.expand_shape %swapped [[0, 1]] output_shape [1, 4] : tensor<4xf32> into tensor<1x4xf32>
  %q = tensor.expand_shape %x [[0], [1, 2, 3]] output_shape [1, 1, 1, 4] : tensor<1x4xf32> into tensor<1x1x1x4xf32>
  %o, %k, %v = kvrm.cached_attention %q, %q, %q, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<1x1x1x4xf32>, tensor<1x1x1x4xf32>, tensor<1x1x1x16x4xf16>, tensor<1xi32>
  %flat = tensor.collapse_shape %o [[0], [1, 2, 3]] : tensor<1x1x1x4xf32> into tensor<1x4xf32>
  %weight = ml_program.global_load_const @weight : tensor<5x4xf32>
  %zero = arith.constant 0.0 : f32
  %init = tensor.empty() : tensor<1x5xf32>
  %zeros = linalg.generic {indexing_maps = [#all], iterator_types = ["parallel", "parallel"]} outs(%init : tensor<1x5xf32>) {
  ^bb0(%out: f32):
    linalg.yield %zero : f32
  } -> tensor<1x5xf32>
  %logits = linalg.generic {indexing_maps = [affine_map<(b, n, k) -> (b, k)>, affine_map<(b, n, k) -> (n, k)>, affine_map<(b, n, k) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%flat, %weight : tensor<1x4xf32>, tensor<5x4xf32>) outs(%zeros : tensor<1x5xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %e, %w : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<1x5xf32>
  return %logits, %k, %v : tensor<1x5xf32>, tensor<1x1x1x16x4xf16>, tensor<1x1x1x16x4xf16>
}
