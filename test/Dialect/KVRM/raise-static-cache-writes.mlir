// A token written to caches of one head, in each spelling that frontends have.

// RUN: kvrm-opt %s --kvrm-raise-static-cache=analyse-only -verify-diagnostics -o /dev/null
// RUN: kvrm-opt %s --kvrm-raise-static-cache=narrow=f16 | FileCheck %s

#id2 = affine_map<(b, i) -> (b, i)>
#row = affine_map<(b, t, s) -> (b)>
#id3 = affine_map<(b, t, s) -> (b, t, s)>
#new = affine_map<(b, s, d) -> (b, 0, d)>

// CHECK-LABEL: func.func @torch_scatter(
// CHECK: kvrm.cached_attention
// index_put of torch-mlir.
func.func @torch_scatter(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %index_init = tensor.empty() : tensor<3x2xi64>
  %indices = linalg.generic {indexing_maps = [affine_map<(b, i) -> (b)>, #id2], iterator_types = ["parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%index_init : tensor<3x2xi64>) {
  ^bb0(%p: i64, %out: i64):
    %b = linalg.index 0 : index
    %row = arith.index_cast %b : index to i64
    %i = linalg.index 1 : index
    %zero = arith.constant 0 : index
    %first = arith.cmpi eq, %i, %zero : index
    %index = arith.select %first, %row, %p : i64
    linalg.yield %index : i64
  } -> tensor<3x2xi64>
  %k_flat = tensor.collapse_shape %k [[0, 1], [2]] : tensor<3x1x4xf32> into tensor<3x4xf32>
  %k_updates = tensor.expand_shape %k_flat [[0], [1, 2, 3]] output_shape [3, 1, 1, 4] : tensor<3x4xf32> into tensor<3x1x1x4xf32>
  %v_flat = tensor.collapse_shape %v [[0, 1], [2]] : tensor<3x1x4xf32> into tensor<3x4xf32>
  %v_updates = tensor.expand_shape %v_flat [[0], [1, 2, 3]] output_shape [3, 1, 1, 4] : tensor<3x4xf32> into tensor<3x1x1x4xf32>
  %new_keys = "tm_tensor.scatter"(%k_updates, %indices, %keys) <{dimension_map = array<i64: 0, 1>, operandSegmentSizes = array<i32: 2, 1>, unique_indices = true}> ({
  ^bb0(%update: f32, %old: f32):
    "tm_tensor.yield"(%update) : (f32) -> ()
  }) : (tensor<3x1x1x4xf32>, tensor<3x2xi64>, tensor<3x16x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "tm_tensor.scatter"(%v_updates, %indices, %values) <{dimension_map = array<i64: 0, 1>, operandSegmentSizes = array<i32: 2, 1>, unique_indices = true}> ({
  ^bb0(%update: f32, %old: f32):
    "tm_tensor.yield"(%update) : (f32) -> ()
  }) : (tensor<3x1x1x4xf32>, tensor<3x2xi64>, tensor<3x16x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{layer 0: caches 4 and 5, position arg3[b], scale 0.5, 1 heads on 1 of 4, capacity 16}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// CHECK-LABEL: func.func @iree_scatter(
// CHECK: kvrm.cached_attention
// .at[rows, position].set of JAX, by IREE.
func.func @iree_scatter(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %index_init = tensor.empty() : tensor<3x2xi64>
  %indices = linalg.generic {indexing_maps = [affine_map<(b, i) -> (b)>, #id2], iterator_types = ["parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%index_init : tensor<3x2xi64>) {
  ^bb0(%p: i64, %out: i64):
    %b = linalg.index 0 : index
    %row = arith.index_cast %b : index to i64
    %i = linalg.index 1 : index
    %zero = arith.constant 0 : index
    %first = arith.cmpi eq, %i, %zero : index
    %index = arith.select %first, %row, %p : i64
    linalg.yield %index : i64
  } -> tensor<3x2xi64>
  %k_updates = tensor.collapse_shape %k [[0, 1], [2]] : tensor<3x1x4xf32> into tensor<3x4xf32>
  %v_updates = tensor.collapse_shape %v [[0, 1], [2]] : tensor<3x1x4xf32> into tensor<3x4xf32>
  %new_keys = "iree_linalg_ext.scatter"(%k_updates, %indices, %keys) <{dimension_map = array<i64: 0, 1>, unique_indices = false}> ({
  ^bb0(%update: f32, %old: f32):
    "iree_linalg_ext.yield"(%update) : (f32) -> ()
  }) : (tensor<3x4xf32>, tensor<3x2xi64>, tensor<3x16x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "iree_linalg_ext.scatter"(%v_updates, %indices, %values) <{dimension_map = array<i64: 0, 1>, unique_indices = false}> ({
  ^bb0(%update: f32, %old: f32):
    "iree_linalg_ext.yield"(%update) : (f32) -> ()
  }) : (tensor<3x4xf32>, tensor<3x2xi64>, tensor<3x16x4xf32>) -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{layer 0: caches 4 and 5, position arg3[b], scale 0.5, 1 heads on 1 of 4, capacity 16}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// CHECK-LABEL: func.func @batched_scatter(
// CHECK: kvrm.cached_attention
// vmap of dynamic_update_slice of JAX.
func.func @batched_scatter(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
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
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{layer 0: caches 4 and 5, position arg3[b], scale 0.5, 1 heads on 1 of 4, capacity 16}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// CHECK-LABEL: func.func @inserted_slice(
// CHECK: kvrm.cached_attention
// dynamic_update_slice of JAX, which clamps.
func.func @inserted_slice(%q: tensor<1x1x4xf32>, %k: tensor<1x1x4xf32>, %v: tensor<1x1x4xf32>, %position: tensor<1xi64>, %keys: tensor<1x16x4xf32>, %values: tensor<1x16x4xf32>)
    -> (tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>) {
  %zero = arith.constant 0 : index
  %last = arith.constant 15 : index
  %first = tensor.extract %position[%zero] : tensor<1xi64>
  %at = arith.index_cast %first : i64 to index
  %above = arith.maxsi %at, %zero : index
  %clamped = arith.minsi %above, %last : index
  %new_keys = tensor.insert_slice %k into %keys[0, %clamped, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %new_values = tensor.insert_slice %v into %values[0, %clamped, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %mask_init = tensor.empty() : tensor<1x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<1xi64>) outs(%mask_init : tensor<1x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<1x1x16xi1>
  %init = tensor.empty() : tensor<1x1x4xf32>
  // expected-remark@+1 {{layer 0: caches 4 and 5, position arg3[0], scale 0.5, 1 heads on 1 of 4, capacity 16}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x1x16xi1>, tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  return %output, %new_keys, %new_values : tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>
}

// CHECK-LABEL: func.func @one_hot(
// CHECK: kvrm.cached_attention
// A product with a one-hot vector.
func.func @one_hot(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #id3, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%keys : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %one = arith.constant 1.0 : f32
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %hot = arith.uitofp %here : i1 to f32
    %cold = arith.subf %one, %hot : f32
    %kept = arith.mulf %old, %cold : f32
    %added = arith.mulf %hot, %new : f32
    %sum = arith.addf %kept, %added : f32
    linalg.yield %sum : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #id3, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%values : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %one = arith.constant 1.0 : f32
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %hot = arith.uitofp %here : i1 to f32
    %cold = arith.subf %one, %hot : f32
    %kept = arith.mulf %old, %cold : f32
    %added = arith.mulf %hot, %new : f32
    %sum = arith.addf %kept, %added : f32
    linalg.yield %sum : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #id3], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  // expected-remark@+1 {{layer 0: caches 4 and 5, position arg3[b], scale 0.5, 1 heads on 1 of 4, capacity 16, one-hot write}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}
