// Two layers, all or none. One row and one head keep them short.

// RUN: kvrm-opt %s --kvrm-raise-static-cache=narrow=f16 | FileCheck %s

// CHECK: func.func @step(
// CHECK-SAME: %[[KEYS:[a-z0-9]+]]: tensor<2x1x1x16x4xf16>, %[[VALUES:[a-z0-9]+]]: tensor<2x1x1x16x4xf16>)
// CHECK: %[[OUTPUT:.*]], %[[KEYS_0:.*]], %[[VALUES_0:.*]] = kvrm.cached_attention {{.*}}, %[[KEYS]], %[[VALUES]] at {{.*}} {layer = 0 : i64
// CHECK: kvrm.cached_attention {{.*}}, %[[KEYS_0]], %[[VALUES_0]] at {{.*}} {layer = 1 : i64

// A layer that is at another position, that reads the caches of the one before,
// that leaves its caches in another order, that writes a cache of the one before,
// or that has an attribute nobody knows.
// DEFINE: %{raise} = kvrm-opt --kvrm-raise-static-cache=narrow=f16 2>&1 | FileCheck %s --implicit-check-not='= kvrm.' --check-prefix
// RUN: sed -e '/keys_1 = /s/%%at/%%other/' -e '/values_1 = /s/%%at/%%other/; /"tm_tensor.attention"(%%output_0/s/%%mask/%%other_mask/' %s | %{raise}=POSITION
// RUN: sed -e 's/(%%output_0, %%new_keys_1, %%new_values_1/(%%output_0, %%new_keys_0, %%new_values_0/' %s | %{raise}=SHARED
// RUN: sed -e 's/return %%output_1, %%new_keys_0, %%new_values_0, %%new_keys_1, %%new_values_1/return %%output_1, %%new_keys_1, %%new_values_1, %%new_keys_0, %%new_values_0/' %s | %{raise}=ORDER
// RUN: sed -e '/new_values_1 = /s/into %%values_1/into %%new_values_0/' %s | %{raise}=TWICE
// RUN: sed -e 's/array<i32: 4, 1>}>/& {scale = 3.0 : f32}/' %s | %{raise}=ATTRIBUTE
// POSITION: remark: not raised: is at arg4[0], the first layer at arg3[0]
// SHARED: remark: not raised: shares argument 5 with another layer
// ORDER: remark: not raised: caches are returned in another order than they are taken in
// TWICE: remark: not raised: {{.*}} is argument 7 with a token written, which no attention that was recognised reads
// ATTRIBUTE: remark: not raised: no attention over a cache that a token was written to

#row = affine_map<(b, t, s) -> (b)>
#all = affine_map<(b, t, s) -> (b, t, s)>

func.func @step(%q: tensor<1x1x4xf32>, %k: tensor<1x1x4xf32>, %v: tensor<1x1x4xf32>, %position: tensor<1xi64>, %second: tensor<1xi64>, %keys_0: tensor<1x16x4xf32>, %values_0: tensor<1x16x4xf32>, %keys_1: tensor<1x16x4xf32>, %values_1: tensor<1x16x4xf32>)
    -> (tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>) {
  %zero = arith.constant 0 : index
  %first = tensor.extract %position[%zero] : tensor<1xi64>
  %at = arith.index_cast %first : i64 to index
  %last = tensor.extract %second[%zero] : tensor<1xi64>
  %other = arith.index_cast %last : i64 to index
  %mask_init = tensor.empty() : tensor<1x1x16xi1>
  %mask, %other_mask = linalg.generic {indexing_maps = [#row, #row, #all, #all], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%position, %second : tensor<1xi64>, tensor<1xi64>) outs(%mask_init, %mask_init : tensor<1x1x16xi1>, tensor<1x1x16xi1>) {
  ^bb0(%p: i64, %p2: i64, %out: i1, %out2: i1):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    %seen2 = arith.cmpi sle, %token, %p2 : i64
    linalg.yield %seen, %seen2 : i1, i1
  } -> (tensor<1x1x16xi1>, tensor<1x1x16xi1>)
  %init = tensor.empty() : tensor<1x1x4xf32>
  %new_keys_0 = tensor.insert_slice %k into %keys_0[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %new_values_0 = tensor.insert_slice %v into %values_0[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %output_0 = "tm_tensor.attention"(%q, %new_keys_0, %new_values_0, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x1x16xi1>, tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  %new_keys_1 = tensor.insert_slice %k into %keys_1[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %new_values_1 = tensor.insert_slice %v into %values_1[0, %at, 0] [1, 1, 4] [1, 1, 1] : tensor<1x1x4xf32> into tensor<1x16x4xf32>
  %output_1 = "tm_tensor.attention"(%output_0, %new_keys_1, %new_values_1, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x1x16xi1>, tensor<1x1x4xf32>) -> tensor<1x1x4xf32>
  return %output_1, %new_keys_0, %new_values_0, %new_keys_1, %new_values_1 : tensor<1x1x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>, tensor<1x16x4xf32>
}
