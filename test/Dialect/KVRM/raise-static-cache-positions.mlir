// Arguments that are declared one position are read as one.

// RUN: kvrm-opt %s --kvrm-import-graph --kvrm-raise-static-cache=narrow=f16 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// RUN: kvrm-opt %s --kvrm-import-graph '--kvrm-raise-static-cache=narrow=f16 positions=0,3,4' --canonicalize | FileCheck %s
// RUN: kvrm-opt %s '--kvrm-raise-static-cache=positions=0,3,4' 2>/dev/null | FileCheck %s --check-prefix=KEPT
// RUN: not kvrm-opt %s '--kvrm-raise-static-cache=narrow=f16 positions=0,1' 2>&1 | FileCheck %s --check-prefix=NO-INTEGERS
// RUN: not kvrm-opt %s '--kvrm-raise-static-cache=narrow=f16 positions=0,99' 2>&1 | FileCheck %s --check-prefix=NONE
// RUN: not kvrm-opt %s '--kvrm-raise-static-cache=narrow=f16 positions=0,9' 2>&1 | FileCheck %s --check-prefix=UNLIKE

// UNKNOWN: remark: not raised: keys are written at arg0[b], values at arg3[b, 0]
// UNKNOWN-NOT: kvrm.
// NO-INTEGERS: error: argument 1 is declared a position, and is no integers
// NONE: error: argument 99 is declared a position, and there is none
// UNLIKE: error: arguments 0 and 9 are declared one position, and have 3 and 4 elements

// What is not raised stays as it was.
// KEPT: func.func @step(%{{.*}}: tensor<3xi64>, {{.*}}%[[OF_VALUES:.*]]: tensor<3x1xi32>, %[[OF_ANGLE:.*]]: tensor<3xi64>
// KEPT-NOT: tensor.empty() : tensor<3x1xi32>
// KEPT: arith.extsi %[[OF_VALUES]]

// CHECK: func.func @step(%[[POSITION:[^:]*]]: tensor<3xi32>
// CHECK-SAME: %[[OF_VALUES:[^:]*]]: tensor<3x1xi32>, %[[OF_ANGLE:[^:]*]]: tensor<3xi64>
// CHECK-NOT: %[[OF_VALUES]]
// CHECK-NOT: %[[OF_ANGLE]]
// CHECK: kvrm.cached_attention

func.func @step(%position: tensor<3xi64>, %q: tensor<3x1x4xf32>, %k: tensor<3x1x4xf32>, %of_values: tensor<3x1xi32>, %of_angle: tensor<3xi64>, %v: tensor<3x1x4xf32>, %keys: tensor<3x16x4xf32>, %values: tensor<3x16x4xf32>, %gain: tensor<4xf32>, %other: tensor<4xi64>)
    -> (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>) {
  %indices = tensor.expand_shape %position [[0, 1]] output_shape [3, 1] : tensor<3xi64> into tensor<3x1xi64>
  %value_indices = arith.extsi %of_values : tensor<3x1xi32> to tensor<3x1xi64>
  %turned = tensor.empty() : tensor<3x1x4xf32>
  %turned_q = linalg.generic {indexing_maps = [affine_map<(b, h, d) -> (b, h, d)>, affine_map<(b, h, d) -> (b)>, affine_map<(b, h, d) -> (b, h, d)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%q, %of_angle : tensor<3x1x4xf32>, tensor<3xi64>) outs(%turned : tensor<3x1x4xf32>) {
  ^bb0(%a: f32, %p: i64, %out: f32):
    %f = arith.sitofp %p : i64 to f32
    %c = math.cos %f : f32
    %m = arith.mulf %a, %c : f32
    linalg.yield %m : f32
  } -> tensor<3x1x4xf32>
  %new_keys = "stablehlo.scatter"(%keys, %indices, %k) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %new_values = "stablehlo.scatter"(%values, %value_indices, %v) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%old: tensor<f32>, %update: tensor<f32>):
    "stablehlo.return"(%update) : (tensor<f32>) -> ()
  }) : (tensor<3x16x4xf32>, tensor<3x1xi64>, tensor<3x1x4xf32>) -> tensor<3x16x4xf32>
  %tokens = tensor.empty() : tensor<3x1x16xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(b, h, s) -> (b)>, affine_map<(b, h, s) -> (b, h, s)>], iterator_types = ["parallel", "parallel", "parallel"]} ins(%position : tensor<3xi64>) outs(%tokens : tensor<3x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 2 : index
    %t = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %t, %p : i64
    linalg.yield %seen : i1
  } -> tensor<3x1x16xi1>
  %init = tensor.empty() : tensor<3x1x4xf32>
  %output = "tm_tensor.attention"(%turned_q, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>, tensor<3x1x16xi1>, tensor<3x1x4xf32>) -> tensor<3x1x4xf32>
  return %output, %new_keys, %new_values : tensor<3x1x4xf32>, tensor<3x16x4xf32>, tensor<3x16x4xf32>
}
