// RUN: kvrm-opt %s --pass-pipeline="builtin.module(func.func(kvrm-fuse-elementwise))" | FileCheck %s

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

// A square goes into the sum of squares, as a product.
// CHECK-LABEL: func.func @into_sum
// CHECK: linalg.generic {{.*}} iterator_types = ["parallel", "reduction"]
// CHECK-NEXT: ^bb0(%[[E:.*]]: f32, %[[SUM:.*]]: f32):
// CHECK-NEXT: %[[SQUARE:.*]] = arith.mulf %[[E]], %[[E]]
// CHECK-NEXT: arith.addf
// CHECK-NOT: linalg.generic
func.func @into_sum(%x: tensor<2x4xf32>, %zeros: tensor<2xf32>) -> tensor<2xf32> {
  %two = arith.constant 2 : i64
  %init = tensor.empty() : tensor<2x4xf32>
  %squares = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]} ins(%x : tensor<2x4xf32>) outs(%init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %out: f32):
    %square = math.fpowi %e, %two : f32, i64
    linalg.yield %square : f32
  } -> tensor<2x4xf32>
  %sums = linalg.generic {indexing_maps = [#all, #row], iterator_types = ["parallel", "reduction"]} ins(%squares : tensor<2x4xf32>) outs(%zeros : tensor<2xf32>) {
  ^bb0(%e: f32, %sum: f32):
    %next = arith.addf %sum, %e : f32
    linalg.yield %next : f32
  } -> tensor<2xf32>
  return %sums : tensor<2xf32>
}

// What a product reads again and again is computed before it.
// CHECK-LABEL: func.func @product
// CHECK: math.exp
// CHECK: linalg.generic {{.*}} iterator_types = ["parallel", "parallel", "reduction"]
func.func @product(%x: tensor<2x4xf32>, %w: tensor<3x4xf32>, %zeros: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %init = tensor.empty() : tensor<2x4xf32>
  %powers = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]} ins(%x : tensor<2x4xf32>) outs(%init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %out: f32):
    %power = math.exp %e : f32
    linalg.yield %power : f32
  } -> tensor<2x4xf32>
  %y = linalg.generic {indexing_maps = [affine_map<(b, n, k) -> (b, k)>, affine_map<(b, n, k) -> (n, k)>, affine_map<(b, n, k) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]} ins(%powers, %w : tensor<2x4xf32>, tensor<3x4xf32>) outs(%zeros : tensor<2x3xf32>) {
  ^bb0(%e: f32, %f: f32, %sum: f32):
    %product = arith.mulf %e, %f : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}

// A number of a tensor that is one number.
// CHECK-LABEL: func.func @number
// CHECK-NEXT: %[[NUMBER:.*]] = arith.constant 3 : i32
// CHECK-NEXT: return %[[NUMBER]]
func.func @number() -> i32 {
  %three = arith.constant 3 : i32
  %init = tensor.empty() : tensor<i32>
  %filled = linalg.generic {indexing_maps = [affine_map<() -> ()>], iterator_types = []} outs(%init : tensor<i32>) {
  ^bb0(%out: i32):
    linalg.yield %three : i32
  } -> tensor<i32>
  %number = tensor.extract %filled[] : tensor<i32>
  return %number : i32
}
