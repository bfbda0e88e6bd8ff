// Ops of other frontends come and go as they are; others of their dialects are
// not taken.

// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: sed -e 's/stablehlo.while/stablehlo.add/' %s | not kvrm-opt 2>&1 | FileCheck %s --check-prefix=OTHER

// OTHER: error: {{.*}}stablehlo.add

// CHECK-LABEL: func.func @scatter(
// CHECK: "stablehlo.scatter"(%{{.*}}, %{{.*}}, %{{.*}})
// CHECK-SAME: scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>
// CHECK: "stablehlo.return"
func.func @scatter(%old: tensor<8x4xf32>, %indices: tensor<2x1xi32>, %updates: tensor<2x4xf32>) -> tensor<8x4xf32> {
  %new = "stablehlo.scatter"(%old, %indices, %updates) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%before: tensor<f32>, %after: tensor<f32>):
    "stablehlo.return"(%after) : (tensor<f32>) -> ()
  }) : (tensor<8x4xf32>, tensor<2x1xi32>, tensor<2x4xf32>) -> tensor<8x4xf32>
  return %new : tensor<8x4xf32>
}

// CHECK-LABEL: func.func @while(
// CHECK: "stablehlo.while"
func.func @while(%x: tensor<f32>, %goes_on: tensor<i1>) -> tensor<f32> {
  %y = "stablehlo.while"(%x) ({
  ^bb0(%a: tensor<f32>):
    "stablehlo.return"(%goes_on) : (tensor<i1>) -> ()
  }, {
  ^bb0(%a: tensor<f32>):
    "stablehlo.return"(%a) : (tensor<f32>) -> ()
  }) : (tensor<f32>) -> tensor<f32>
  return %y : tensor<f32>
}

// CHECK-LABEL: func.func @torch(
// CHECK: "tm_tensor.scatter"{{.*}}dimension_map = array<i64: 0>
// CHECK: "tm_tensor.attention"
func.func @torch(%updates: tensor<2x1x4xf32>, %indices: tensor<2x1xi64>, %old: tensor<8x4xf32>, %q: tensor<1x1x4xf32>) -> (tensor<8x4xf32>, tensor<1x1x4xf32>) {
  %new = "tm_tensor.scatter"(%updates, %indices, %old) <{dimension_map = array<i64: 0>, operandSegmentSizes = array<i32: 2, 1>, unique_indices = true}> ({
  ^bb0(%update: f32, %before: f32):
    "tm_tensor.yield"(%update) : (f32) -> ()
  }) : (tensor<2x1x4xf32>, tensor<2x1xi64>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %o = "tm_tensor.attention"(%q, %q, %q, %q) <{operandSegmentSizes = array<i32: 3, 1>}> : (tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  return %new, %o : tensor<8x4xf32>, tensor<1x1x4xf32>
}

// CHECK-LABEL: func.func @iree(
// CHECK: "iree_linalg_ext.scatter"
// CHECK: "iree_linalg_ext.attention"{{.*}}indexing_maps = [
func.func @iree(%updates: tensor<2x4xf32>, %indices: tensor<2x1xi32>, %old: tensor<8x4xf32>, %q: tensor<1x1x4xf32>, %scale: f32) -> (tensor<8x4xf32>, tensor<1x1x4xf32>) {
  %new = "iree_linalg_ext.scatter"(%updates, %indices, %old) <{dimension_map = array<i64: 0>, unique_indices = true}> ({
  ^bb0(%update: f32, %before: f32):
    "iree_linalg_ext.yield"(%update) : (f32) -> ()
  }) : (tensor<2x4xf32>, tensor<2x1xi32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %o = "iree_linalg_ext.attention"(%q, %q, %q, %scale, %q) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, n)>], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 1>}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>, f32, tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  return %new, %o : tensor<8x4xf32>, tensor<1x1x4xf32>
}
