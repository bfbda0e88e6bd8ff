// A mask that is an argument is what its caller says it is.

// RUN: kvrm-opt %s --kvrm-raise-static-cache=narrow=f16 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// RUN: kvrm-opt %s '--kvrm-raise-static-cache=narrow=f16 causal-masks=6' | FileCheck %s
// RUN: not kvrm-opt %s '--kvrm-raise-static-cache=narrow=f16 causal-masks=3' 2>&1 | FileCheck %s --check-prefix=NO-MASK

// UNKNOWN: remark: not raised: the mask is not token <= position ({{.*}}): arg6[b, 0, s]
// UNKNOWN-NOT: kvrm.
// NO-MASK: error: argument 3 is no tensor of floating point or truth values, as a mask is
// CHECK: func.func @step(%{{.*}}, %{{.*}}: tensor<3x1x16xi1>, %[[KEYS:.*]]: tensor<1x3x1x16x4xf16>, %[[VALUES:.*]]: tensor<1x3x1x16x4xf16>)
// CHECK: kvrm.cached_attention {{.*}}, %[[KEYS]], %[[VALUES]]

func.func @step(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>, %mask: tensor<3x1x16xi1>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}
