// Products with weights in any order of their dims become one form, and those of
// the same activations one product. No weight is transposed in a step.

// RUN: kvrm-opt %s --kvrm-arrange-weights=element=f16 | FileCheck %s
// RUN: not kvrm-opt %s --kvrm-arrange-weights=element=f64 2>&1 | FileCheck %s --check-prefix=ELEMENT
// ELEMENT: error: element is 'f64', none of f32, f16 and bf16

// A table that tokens are looked up in; one that positions are stays f32.
// CHECK-DAG: ml_program.global private @table(#{{.*}}) : tensor<5x4xf16>
// CHECK-DAG: ml_program.global private @angles(#{{.*}}) : tensor<16x4xf32>
// [out][in], of which the step made [in][out]; [in][heads][columns]; a layer of a stack.
// CHECK-DAG: ml_program.global private @q.matrix(#{{.*}}) : tensor<14x4xf16> {kvrm.parts = [#kvrm.weight_part<"q", offset = 0, rows = [6] by[4], columns = [4] by[1]>, #kvrm.weight_part<"k", offset = 0, rows = [2] by[1], columns = [4] by[2]>, #kvrm.weight_part<"v", offset = 24, rows = [6] by[1], columns = [4] by[6]>]}
// Heads and columns are the depth.
// CHECK-DAG: ml_program.global private @o.matrix(#{{.*}}) : tensor<4x6xf16> {kvrm.parts = [#kvrm.weight_part<"o", offset = 0, rows = [4] by[1], columns = [6] by[4]>]}
// CHECK-NOT: ml_program.global

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>
ml_program.global private @table(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>
ml_program.global private @angles(#ml_program.extern : tensor<16x4xf32>) : tensor<16x4xf32>
ml_program.global private @q(#ml_program.extern : tensor<6x4xf32>) : tensor<6x4xf32>
ml_program.global private @k(#ml_program.extern : tensor<4x1x2xf32>) : tensor<4x1x2xf32>
ml_program.global private @v(#ml_program.extern : tensor<3x4x6xf32>) : tensor<3x4x6xf32>
ml_program.global private @o(#ml_program.extern : tensor<3x2x4xf32>) : tensor<3x2x4xf32>
ml_program.global private @nobody(#ml_program.extern : tensor<3xf32>) : tensor<3xf32>

// CHECK: func.func @decode_step
// CHECK-DAG: arith.extf %{{.*}} : f16 to f32
// CHECK-DAG: tensor.extract %{{.*}} : tensor<16x4xf32>
// CHECK: %[[MATRIX:.*]] = ml_program.global_load_const @q.matrix
// CHECK: %[[ALL:.*]] = linalg.matmul indexing_maps = [{{.*}}] ins(%[[X:.*]], %[[MATRIX]] : tensor<2x4xf32>, tensor<14x4xf16>) outs({{.*}} : tensor<2x14xf32>)
// CHECK: tensor.extract_slice %[[ALL]][0, 0] [2, 6] [1, 1]
// CHECK: tensor.extract_slice %[[ALL]][0, 6] [2, 2] [1, 1]
// CHECK: tensor.extract_slice %[[ALL]][0, 8] [2, 6] [1, 1]
// What is not started from zero is added.
// CHECK: %[[O:.*]] = linalg.matmul {{.*}} : tensor<2x6xf32>, tensor<4x6xf16>) outs({{.*}} : tensor<2x4xf32>)
// CHECK: linalg.generic {{.*}} ins(%[[X]], %[[O]] : tensor<2x4xf32>, tensor<2x4xf32>)
// CHECK-NEXT: ^bb0
// CHECK-NEXT: arith.addf
func.func @decode_step(%tokens: tensor<2x1xi32>, %positions: tensor<2xi32>)
    -> (tensor<2x4xf32>, tensor<2x2xf32>, tensor<2x6xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %table = ml_program.global_load_const @table : tensor<5x4xf32>
  %angles = ml_program.global_load_const @angles : tensor<16x4xf32>
  %ids = tensor.collapse_shape %tokens [[0, 1]] : tensor<2x1xi32> into tensor<2xi32>
  %init = tensor.empty() : tensor<2x4xf32>
  %x = linalg.generic {indexing_maps = [#row, #row, #all], iterator_types = ["parallel", "parallel"]}
      ins(%ids, %positions : tensor<2xi32>, tensor<2xi32>) outs(%init : tensor<2x4xf32>) {
  ^bb0(%id: i32, %p: i32, %out: f32):
    %r = arith.index_cast %id : i32 to index
    %c = linalg.index 1 : index
    %e = tensor.extract %table[%r, %c] : tensor<5x4xf32>
    linalg.yield %e : f32
  } -> tensor<2x4xf32>
  %turned = linalg.generic {indexing_maps = [#all, #row, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %positions : tensor<2x4xf32>, tensor<2xi32>) outs(%init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %p: i32, %out: f32):
    %r = arith.index_cast %p : i32 to index
    %c = linalg.index 1 : index
    %angle = tensor.extract %angles[%r, %c] : tensor<16x4xf32>
    %product = arith.mulf %e, %angle : f32
    linalg.yield %product : f32
  } -> tensor<2x4xf32>

  %q = ml_program.global_load_const @q : tensor<6x4xf32>
  %q_init = tensor.empty() : tensor<4x6xf32>
  %q_t = linalg.generic {indexing_maps = [affine_map<(a, b) -> (b, a)>, #all], iterator_types = ["parallel", "parallel"]}
      ins(%q : tensor<6x4xf32>) outs(%q_init : tensor<4x6xf32>) {
  ^bb0(%e: f32, %out: f32):
    linalg.yield %e : f32
  } -> tensor<4x6xf32>
  %wide_init = tensor.empty() : tensor<2x6xf32>
  %wide = linalg.generic {indexing_maps = [#all], iterator_types = ["parallel", "parallel"]} outs(%wide_init : tensor<2x6xf32>) {
  ^bb0(%out: f32):
    linalg.yield %zero : f32
  } -> tensor<2x6xf32>
  %queries = linalg.generic {indexing_maps = [affine_map<(b, n, k) -> (b, k)>, affine_map<(b, n, k) -> (k, n)>, affine_map<(b, n, k) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%turned, %q_t : tensor<2x4xf32>, tensor<4x6xf32>) outs(%wide : tensor<2x6xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %e, %w : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<2x6xf32>

  %k = ml_program.global_load_const @k : tensor<4x1x2xf32>
  %narrow_init = tensor.empty() : tensor<2x1x2xf32>
  %narrow = linalg.fill ins(%zero : f32) outs(%narrow_init : tensor<2x1x2xf32>) -> tensor<2x1x2xf32>
  %zeros = linalg.generic {indexing_maps = [affine_map<(a, b, c) -> (a, b, c)>], iterator_types = ["parallel", "parallel", "parallel"]} outs(%narrow_init : tensor<2x1x2xf32>) {
  ^bb0(%out: f32):
    linalg.yield %zero : f32
  } -> tensor<2x1x2xf32>
  %keys = linalg.generic {indexing_maps = [affine_map<(b, h, n, k) -> (b, k)>, affine_map<(b, h, n, k) -> (k, h, n)>, affine_map<(b, h, n, k) -> (b, h, n)>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%turned, %k : tensor<2x4xf32>, tensor<4x1x2xf32>) outs(%zeros : tensor<2x1x2xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %w, %e : f32
    %next = arith.addf %product, %sum : f32
    linalg.yield %next : f32
  } -> tensor<2x1x2xf32>
  %flat_keys = tensor.collapse_shape %keys [[0], [1, 2]] : tensor<2x1x2xf32> into tensor<2x2xf32>

  %v = ml_program.global_load_const @v : tensor<3x4x6xf32>
  %layer = tensor.extract_slice %v[1, 0, 0] [1, 4, 6] [1, 1, 1] : tensor<3x4x6xf32> to tensor<4x6xf32>
  %values = linalg.generic {indexing_maps = [affine_map<(b, n, k) -> (b, k)>, affine_map<(b, n, k) -> (k, n)>, affine_map<(b, n, k) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%turned, %layer : tensor<2x4xf32>, tensor<4x6xf32>) outs(%wide : tensor<2x6xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %e, %w : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<2x6xf32>

  %o = ml_program.global_load_const @o : tensor<3x2x4xf32>
  %heads = tensor.expand_shape %queries [[0], [1, 2]] output_shape [2, 3, 2] : tensor<2x6xf32> into tensor<2x3x2xf32>
  %projected = linalg.generic {indexing_maps = [affine_map<(b, n, h, d) -> (b, h, d)>, affine_map<(b, n, h, d) -> (h, d, n)>, affine_map<(b, n, h, d) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction", "reduction"]}
      ins(%heads, %o : tensor<2x3x2xf32>, tensor<3x2x4xf32>) outs(%turned : tensor<2x4xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %e, %w : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<2x4xf32>
  return %projected, %flat_keys, %values : tensor<2x4xf32>, tensor<2x2xf32>, tensor<2x6xf32>
}
