// What was computed of each row's position and stacked is computed at once.

// RUN: kvrm-opt %s --kvrm-batch-step=slots=3 --canonicalize | FileCheck %s

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

// CHECK: func.func @decode_step(%{{.*}}: tensor<3x1xi32>, %[[POSITIONS:.*]]: tensor<3xi32>,
// CHECK-NOT: tensor.insert_slice
// CHECK: %[[STACK:.*]] = linalg.generic {{.*}} ins(%[[POSITIONS]] : tensor<3xi32>) outs(%{{.*}} : tensor<3x4xf32>)
// CHECK: linalg.generic {{.*}} ins(%{{.*}}, %[[STACK]] : tensor<3x4xf32>, tensor<3x4xf32>)

ml_program.global private @table(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>
ml_program.global private @weight(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>

func.func @decode_step(%tokens: tensor<2x1xi32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x4xf16>, %values: tensor<1x2x1x16x4xf16>)
    -> (tensor<2x5xf32>, tensor<1x2x1x16x4xf16>, tensor<1x2x1x16x4xf16>) attributes {kvrm.step} {
  %table = ml_program.global_load_const @table : tensor<5x4xf32>
  %ids = tensor.collapse_shape %tokens [[0, 1]] : tensor<2x1xi32> into tensor<2xi32>
  %x_init = tensor.empty() : tensor<2x4xf32>
  %x = linalg.generic {indexing_maps = [#row, #row, #all], iterator_types = ["parallel", "parallel"]}
      ins(%ids, %positions : tensor<2xi32>, tensor<2xi32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%id: i32, %p: i32, %out: f32):
    %r = arith.index_cast %id : i32 to index
    %c = linalg.index 1 : index
    %e = tensor.extract %table[%r, %c] : tensor<5x4xf32>
    %angle = arith.sitofp %p : i32 to f32
    %turned = arith.mulf %e, %angle : f32
    linalg.yield %turned : f32
  } -> tensor<2x4xf32>
  %p0 = tensor.extract_slice %positions[0] [1] [1] : tensor<2xi32> to tensor<i32>
  %p1 = tensor.extract_slice %positions[1] [1] [1] : tensor<2xi32> to tensor<i32>
  %h_init = tensor.empty() : tensor<4xf32>
  %h0 = linalg.generic {indexing_maps = [affine_map<(e) -> ()>, affine_map<(e) -> (e)>], iterator_types = ["parallel"]}
      ins(%p0 : tensor<i32>) outs(%h_init : tensor<4xf32>) {
  ^bb0(%p: i32, %out: f32):
    %f = arith.sitofp %p : i32 to f32
    linalg.yield %f : f32
  } -> tensor<4xf32>
  %h1 = linalg.generic {indexing_maps = [affine_map<(e) -> ()>, affine_map<(e) -> (e)>], iterator_types = ["parallel"]}
      ins(%p1 : tensor<i32>) outs(%h_init : tensor<4xf32>) {
  ^bb0(%p: i32, %out: f32):
    %f = arith.sitofp %p : i32 to f32
    linalg.yield %f : f32
  } -> tensor<4xf32>
  %s0 = tensor.insert_slice %h0 into %x_init[0, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
  %s1 = tensor.insert_slice %h1 into %s0[1, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
  %y = linalg.generic {indexing_maps = [#all, #all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %s1 : tensor<2x4xf32>, tensor<2x4xf32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %f: f32, %out: f32):
    %g = arith.addf %e, %f : f32
    linalg.yield %g : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
  %o, %k, %v = kvrm.cached_attention %q, %q, %q, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x4xf32>, tensor<2x1x1x4xf32>, tensor<1x2x1x16x4xf16>, tensor<2xi32>
  %flat = tensor.collapse_shape %o [[0], [1, 2, 3]] : tensor<2x1x1x4xf32> into tensor<2x4xf32>
  %weight = ml_program.global_load_const @weight : tensor<5x4xf32>
  %zero = arith.constant 0.0 : f32
  %init = tensor.empty() : tensor<2x5xf32>
  %zeros = linalg.generic {indexing_maps = [#all], iterator_types = ["parallel", "parallel"]} outs(%init : tensor<2x5xf32>) {
  ^bb0(%out: f32):
    linalg.yield %zero : f32
  } -> tensor<2x5xf32>
  %logits = linalg.generic {indexing_maps = [affine_map<(b, n, k) -> (b, k)>, affine_map<(b, n, k) -> (n, k)>, affine_map<(b, n, k) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%flat, %weight : tensor<2x4xf32>, tensor<5x4xf32>) outs(%zeros : tensor<2x5xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %e, %w : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<2x5xf32>
  return %logits, %k, %v : tensor<2x5xf32>, tensor<1x2x1x16x4xf16>, tensor<1x2x1x16x4xf16>
}
