// Steps that look like attention over a static cache but for a detail: none may
// be raised.

// RUN: kvrm-opt %s --kvrm-raise-static-cache=narrow=f16 -verify-diagnostics | FileCheck %s
// CHECK-NOT: kvrm.

#row = affine_map<(b, s, d) -> (b)>
#new = affine_map<(b, s, d) -> (b, 0, d)>
#cache = affine_map<(b, s, d) -> (b, s, d)>
#shared = affine_map<(b, s, d) -> (0, s, d)>

// A row's query is one that an argument says: no loop follows that.
func.func @gathered(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %order: tensor<3xindex>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %cache_init = tensor.empty() : tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %chosen = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%order : tensor<3xindex>) outs(%init : tensor<3x1x4xf32>) {
  ^bb0(%row: index, %out: f32):
    %t = linalg.index 1 : index
    %d = linalg.index 2 : index
    %element = tensor.extract %q[%row, %t, %d] : tensor<3x1x4xf32>
    linalg.yield %element : f32
  } -> tensor<3x1x4xf32>
  // expected-remark@+1 {{not raised: queries are not indexed by row, head and column alone: arg0[arg4[b], 0, d]}}
  %output = "tm_tensor.attention"(%chosen, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// The cache that is returned holds less than the one that attention reads.
func.func @quantized(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %cache_init = tensor.empty() : tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  // expected-remark@+1 {{not raised: argument 4 is not returned as this attention reads it}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  %less = linalg.generic {indexing_maps = [#cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%new_keys : tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%wide: f32, %out: f32):
    %few = arith.truncf %wide : f32 to f8E5M2
    %again = arith.extf %few : f8E5M2 to f32
    linalg.yield %again : f32
  } -> tensor<3x16x4xf32>
  return %output, %less, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// A number, and no cache, where the token is not.
// expected-remark@+1 {{not raised: no attention over a cache that a token was written to}}
func.func @number(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %number: f32, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %cache_init = tensor.empty() : tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %number : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %number : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// Two query heads share a KV head, and each has keys of its own written.
func.func @of_each_head(%q: tensor<2x1x4xf32>, %k: tensor<2x1x4xf32>, %v: tensor<1x1x4xf32>, %position: tensor<1xi64>, %keys: tensor<1x16x4xf32>, %values: tensor<1x16x4xf32>)
    -> (tensor<2x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>) {
  %zero = arith.constant 0 : index
  %p = tensor.extract %position[%zero] : tensor<1xi64>
  %at = arith.index_cast %p : i64 to index
  %heads = tensor.empty() : tensor<2x16x4xf32>
  %first = tensor.extract_slice %k[0, 0, 0] [1, 1, 4] [1, 1, 1] : tensor<2x1x4xf32> to tensor<1x1x4xf32>
  %new_keys = tensor.insert_slice %first into %keys[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %new_values = tensor.insert_slice %v into %values[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %old_of_heads = linalg.generic {indexing_maps = [#shared, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%keys : tensor<1x16x4xf32>) outs(%heads : tensor<2x16x4xf32>) {
  ^bb0(%element: f32, %out: f32):
    linalg.yield %element : f32
  } -> tensor<2x16x4xf32>
  %keys_of_heads = tensor.insert_slice %k into %old_of_heads[0, %at, 0] [2, 1, 4] [1, 1, 1] : tensor<2x1x4xf32> into tensor<2x16x4xf32>
  %values_of_heads = linalg.generic {indexing_maps = [#shared, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%new_values : tensor<1x16x4xf32>) outs(%heads : tensor<2x16x4xf32>) {
  ^bb0(%element: f32, %out: f32):
    linalg.yield %element : f32
  } -> tensor<2x16x4xf32>
  %mask_init = tensor.empty() : tensor<2x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, t, s) -> ()>, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%p : i64) outs(%mask_init : tensor<2x1x16xi1>) {
  ^bb0(%last: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %last : i64
    linalg.yield %seen : i1
  } -> tensor<2x1x16xi1>
  %init = tensor.empty() : tensor<2x1x4xf32>
  // expected-remark@+1 {{not raised: the key that is written is another for each query head: arg1[h, 0, k]}}
  %output = "tm_tensor.attention"(%q, %keys_of_heads, %values_of_heads, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<2x1x4xf32>, tensor<2x16x4xf32>, tensor<2x16x4xf32>, tensor<2x1x16xi1>, tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  return %output, %new_keys, %new_values : tensor<2x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>
}

// The mask of the first query head alone is written.
func.func @part_of_mask(%q: tensor<2x1x4xf32>, %k: tensor<1x1x4xf32>, %v: tensor<1x1x4xf32>, %position: tensor<1xi64>, %keys: tensor<1x16x4xf32>, %values: tensor<1x16x4xf32>)
    -> (tensor<2x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>) {
  %zero = arith.constant 0 : index
  %p = tensor.extract %position[%zero] : tensor<1xi64>
  %at = arith.index_cast %p : i64 to index
  %heads = tensor.empty() : tensor<2x16x4xf32>
  %new_keys = tensor.insert_slice %k into %keys[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %new_values = tensor.insert_slice %v into %values[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %keys_of_heads = linalg.generic {indexing_maps = [#shared, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%new_keys : tensor<1x16x4xf32>) outs(%heads : tensor<2x16x4xf32>) {
  ^bb0(%element: f32, %out: f32):
    linalg.yield %element : f32
  } -> tensor<2x16x4xf32>
  %values_of_heads = linalg.generic {indexing_maps = [#shared, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%new_values : tensor<1x16x4xf32>) outs(%heads : tensor<2x16x4xf32>) {
  ^bb0(%element: f32, %out: f32):
    linalg.yield %element : f32
  } -> tensor<2x16x4xf32>
  %mask_init = tensor.empty() : tensor<2x1x16xi1>
  %true = arith.constant true
  %all = linalg.fill ins(%true : i1) outs(%mask_init : tensor<2x1x16xi1>) -> tensor<2x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(t, s) -> ()>, affine_map<(t, s) -> (0, t, s)>], iterator_types = ["parallel", "parallel"]}
      ins(%p : i64) outs(%all : tensor<2x1x16xi1>) {
  ^bb0(%last: i64, %out: i1):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %last : i64
    linalg.yield %seen : i1
  } -> tensor<2x1x16xi1>
  %init = tensor.empty() : tensor<2x1x4xf32>
  // expected-remark@+1 {{not raised: the mask is not token <= position ((-arg3[0]+s <= 0)): linalg.generic[h, 0, s]}}
  %output = "tm_tensor.attention"(%q, %keys_of_heads, %values_of_heads, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<2x1x4xf32>, tensor<2x16x4xf32>, tensor<2x16x4xf32>, tensor<2x1x16xi1>, tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  return %output, %new_keys, %new_values : tensor<2x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>
}

// A scatter that inserts a dim which no index is of writes its first place only.
// expected-remark@+1 {{not raised: no attention over a cache that a token was written to}}
func.func @inserted(%q: tensor<2x1x4xf32>, %k: tensor<1x4xf32>, %v: tensor<1x4xf32>, %position: tensor<1xi64>, %keys: tensor<2x16x4xf32>, %values: tensor<2x16x4xf32>)
    -> (tensor<2x1x4xf32>, tensor<2x16x4xf32>, tensor<2x16x4xf32>) {
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [1, 1] : tensor<1xi64> into tensor<1x1xi64>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<2x16x4xf32>, tensor<1x1xi64>, tensor<1x4xf32>) -> tensor<2x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %indices, %v) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<2x16x4xf32>, tensor<1x1xi64>, tensor<1x4xf32>) -> tensor<2x16x4xf32>
  %mask_init = tensor.empty() : tensor<2x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, t, s) -> (0)>, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<1xi64>) outs(%mask_init : tensor<2x1x16xi1>) {
  ^bb0(%last: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %last : i64
    linalg.yield %seen : i1
  } -> tensor<2x1x16xi1>
  %init = tensor.empty() : tensor<2x1x4xf32>
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<2x1x4xf32>, tensor<2x16x4xf32>, tensor<2x16x4xf32>, tensor<2x1x16xi1>, tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  return %output, %new_keys, %new_values : tensor<2x1x4xf32>, tensor<2x16x4xf32>, tensor<2x16x4xf32>
}

// How many positions there are is for the caller to say.
func.func @positions(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %positions: tensor<?xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %zero = arith.constant 0 : index
  %one = tensor.extract %positions[%zero] : tensor<?xi64>
  %position = tensor.splat %one : tensor<3xi64>
  %cache_init = tensor.empty() : tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  // expected-remark@+1 {{not raised: how many positions there are is not known}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// What more than 64 bits hold.
func.func @wide(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %cache_init = tensor.empty() : tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %far = arith.constant 18446744073709551616 : i128
    %wide = arith.extsi %p : i64 to i128
    %place = arith.extsi %token : i64 to i128
    %there = arith.addi %wide, %far : i128
    %here = arith.cmpi eq, %place, %there : i128
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %far = arith.constant 18446744073709551616 : i128
    %wide = arith.extsi %p : i64 to i128
    %place = arith.extsi %token : i64 to i128
    %there = arith.addi %wide, %far : i128
    %here = arith.cmpi eq, %place, %there : i128
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  // expected-remark@+1 {{not raised: keys are written at arith.addi(arg3[b], ?), values at arith.addi(arg3[b], ?)}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// Batches of a mask that are not those of the op.
// expected-remark@+1 {{not raised: no attention over a cache that a token was written to}}
func.func @mask_of_one(%q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %v: tensor<3x1x4xf32>, %position: tensor<3xi64>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %cache_init = tensor.empty() : tensor<3x16x4xf32>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi64>, tensor<3x1x4xf32>, tensor<3x16x4xf32>) outs(%cache_init : tensor<3x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<3x16x4xf32>
  %mask_init = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position : tensor<3xi64>) outs(%mask_init : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %one = tensor.extract_slice %mask[0, 0, 0] [1, 1, 16] [1, 1, 1] : tensor<3x1x16xi1> to tensor<1x1x16xi1>
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %one, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<1x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}

// What is assumed of the position in a cache of few tokens, which is none after
// all, is not of one with many.
func.func @of_few(%q: tensor<1x1x4xf32>, %k: tensor<1x1x4xf32>, %v: tensor<1x1x4xf32>, %position: tensor<1xi64>, %few: tensor<1x8x4xf32>, %keys: tensor<1x16x4xf32>, %values: tensor<1x16x4xf32>)
    -> (tensor<1x1x4xf32>, tensor<1x8x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>) {
  %zero = arith.constant 0 : index
  %three = arith.constant 3 : i64
  %seven = arith.constant 7 : i64
  %p = tensor.extract %position[%zero] : tensor<1xi64>
  %high = arith.maxsi %p, %three : i64
  %low = arith.minsi %p, %seven : i64
  %at = arith.index_cast %low : i64 to index
  %init = tensor.empty() : tensor<1x1x4xf32>
  %few_init = tensor.empty() : tensor<1x8x4xf32>
  %new_few = linalg.generic {indexing_maps = [#new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%k, %few : tensor<1x1x4xf32>, tensor<1x8x4xf32>) outs(%few_init : tensor<1x8x4xf32>) {
  ^bb0(%new: f32, %old: f32, %out: f32):
    %s = linalg.index 1 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %behind = arith.cmpi eq, %high, %p : i64
    %both = arith.andi %here, %behind : i1
    %value = arith.select %both, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<1x8x4xf32>
  %weights = tensor.empty() : tensor<1x1x8xf32>
  %none = arith.constant 0.0 : f32
  %zeros = linalg.fill ins(%none : f32) outs(%init : tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  %unused = linalg.batch_matmul ins(%weights, %new_few : tensor<1x1x8xf32>, tensor<1x8x4xf32>) outs(%zeros : tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  %new_keys = tensor.insert_slice %k into %keys[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %new_values = tensor.insert_slice %v into %values[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %mask_init = tensor.empty() : tensor<1x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, t, s) -> ()>, #cache], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%p : i64) outs(%mask_init : tensor<1x1x16xi1>) {
  ^bb0(%last: i64, %out: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %last : i64
    linalg.yield %seen : i1
  } -> tensor<1x1x16xi1>
  // expected-remark@+1 {{not raised: the cache has 16 tokens, the first that was found has 8}}
  %output = "tm_tensor.attention"(%q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x1x16xi1>, tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  return %output, %few, %new_keys, %new_values : tensor<1x1x4xf32>, tensor<1x8x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>
}
