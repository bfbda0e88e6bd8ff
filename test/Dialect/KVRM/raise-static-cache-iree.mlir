// iree_linalg_ext.attention: loops as its maps say, a scale of its own, and a body
// that scores go through.

// RUN: kvrm-opt %s --split-input-file --kvrm-raise-static-cache=narrow=f16 -verify-diagnostics | FileCheck %s

// CHECK-LABEL: func.func @step(
// CHECK: kvrm.cached_attention {{.*}}scale = 5.000000e-01
func.func @step(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// Segments that say the same, and a body of more than a yield.
// CHECK-LABEL: func.func @turned(
// CHECK: kvrm.cached_attention {{.*}}scale = 1.000000e+00
func.func @turned(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>], operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1>}> ({
  ^bb0(%score: f32):
    %two = arith.constant 2.0 : f32
    %doubled = arith.mulf %score, %two : f32
    "iree_linalg_ext.yield"(%doubled) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// CHECK-LABEL: func.func @strict(
// CHECK-NOT: kvrm.
func.func @strict(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi slt, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{not raised: the mask is not token <= position}}
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// CHECK-LABEL: func.func @capped(
// CHECK-NOT: kvrm.
func.func @capped(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{not raised: scores are no scaled product of queries and keys: math.tanh}}
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    %capped = math.tanh %score : f32
    "iree_linalg_ext.yield"(%capped) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// CHECK-LABEL: func.func @negative(
// CHECK-NOT: kvrm.
func.func @negative(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant -0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{not raised: scores are scaled by a factor that is not positive}}
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// CHECK-LABEL: func.func @unmasked(
// CHECK-NOT: kvrm.
func.func @unmasked(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{not raised: no mask hides}}
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// Values that are summed over columns of another loop than the scores'.
// CHECK-LABEL: func.func @crossed(
// CHECK-NOT: kvrm.
// expected-remark@+1 {{not raised: no attention over a cache that a token was written to}}
func.func @crossed(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, n, k)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// Segments that say something else than the maps.
// CHECK-LABEL: func.func @unlike(
// CHECK-NOT: kvrm.
// expected-remark@+1 {{not raised: no attention over a cache that a token was written to}}
func.func @unlike(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 2>}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// -----

// An attribute that nobody knows.
// CHECK-LABEL: func.func @said(
// CHECK-NOT: kvrm.
// expected-remark@+1 {{not raised: no attention over a cache that a token was written to}}
func.func @said(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %scale = arith.constant 0.5 : f32
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "iree_linalg_ext.attention"(%q, %new_keys, %new_values, %scale, %mask, %init) <{indexing_maps = [affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>, affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>, affine_map<(b, m, n, k, s) -> (b, m, s)>, affine_map<(b, m, n, k, s) -> (b, m, n)>]}> ({
  ^bb0(%score: f32):
    "iree_linalg_ext.yield"(%score) : (f32) -> ()
  }) {window = 4 : i64} : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, f32, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}
