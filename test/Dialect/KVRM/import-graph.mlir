// RUN: kvrm-opt %s --kvrm-import-graph -verify-diagnostics | FileCheck %s

// A loop over layers.
// CHECK-LABEL: func.func @scan(
// CHECK-SAME: %[[X:.*]]: tensor<4xf32>, %[[WEIGHTS:.*]]: tensor<3x4xf32>
// CHECK-NOT: scf.for
// CHECK: tensor.extract_slice %[[WEIGHTS]]
// CHECK: tensor.extract_slice %[[WEIGHTS]]
// CHECK: tensor.extract_slice %[[WEIGHTS]]
// CHECK-NOT: tensor.extract_slice
// CHECK: return
func.func @scan(%x: tensor<4xf32>, %weights: tensor<3x4xf32>) -> tensor<4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %result = scf.for %layer = %c0 to %c3 step %c1 iter_args(%y = %x) -> (tensor<4xf32>) {
    %weight = tensor.extract_slice %weights[%layer, 0] [1, 4] [1, 1] : tensor<3x4xf32> to tensor<4xf32>
    %next = arith.mulf %y, %weight : tensor<4xf32>
    scf.yield %next : tensor<4xf32>
  }
  return %result : tensor<4xf32>
}

// CHECK-LABEL: func.func @while(
// CHECK-NOT: stablehlo
// CHECK-COUNT-2: arith.addf
// CHECK-NOT: arith.addf
// CHECK: return
func.func @while(%x: tensor<4xf32>) -> tensor<4xf32> {
  %zero = arith.constant dense<0> : tensor<i32>
  %result:2 = "stablehlo.while"(%zero, %x) ({
  ^bb0(%i: tensor<i32>, %y: tensor<4xf32>):
    %at = tensor.extract %i[] : tensor<i32>
    %two = arith.constant 2 : i32
    %less = arith.cmpi slt, %at, %two : i32
    %goes_on = tensor.from_elements %less : tensor<i1>
    "stablehlo.return"(%goes_on) : (tensor<i1>) -> ()
  }, {
  ^bb0(%i: tensor<i32>, %y: tensor<4xf32>):
    %at = tensor.extract %i[] : tensor<i32>
    %one = arith.constant 1 : i32
    %after = arith.addi %at, %one : i32
    %next = tensor.from_elements %after : tensor<i32>
    %sum = arith.addf %y, %y : tensor<4xf32>
    "stablehlo.return"(%next, %sum) : (tensor<i32>, tensor<4xf32>) -> ()
  }) : (tensor<i32>, tensor<4xf32>) -> (tensor<i32>, tensor<4xf32>)
  return %result#1 : tensor<4xf32>
}

// How often it runs is an argument.
// CHECK-LABEL: func.func @unknown(
// CHECK: scf.for
func.func @unknown(%x: tensor<4xf32>, %count: index) -> tensor<4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-remark@+1 {{not unrolled: how often it runs is not known, or is more than 1024 times}}
  %result = scf.for %i = %c0 to %count step %c1 iter_args(%y = %x) -> (tensor<4xf32>) {
    %next = arith.addf %y, %y : tensor<4xf32>
    scf.yield %next : tensor<4xf32>
  }
  return %result : tensor<4xf32>
}

// CHECK-LABEL: func.func @concat(
// CHECK-NOT: cf.assert
// CHECK-COUNT-2: tensor.insert_slice
// CHECK-NOT: tensor.concat
// CHECK: return
func.func @concat(%x: tensor<4xf32>, %condition: i1) -> tensor<8xf32> {
  cf.assert %condition, "within bounds"
  %both = tensor.concat dim(0) %x, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
  return %both : tensor<8xf32>
}

// Ops on tensors are loops over their elements.
// CHECK-LABEL: func.func @elementwise(
// CHECK: linalg.generic
// CHECK: math.exp %{{.*}} : f32
// CHECK: linalg.generic
// CHECK: arith.extsi %{{.*}} : i32 to i64
// CHECK-NOT: arith.extsi
func.func @elementwise(%x: tensor<4x2xf32>, %i: tensor<4xi32>) -> (tensor<4x2xf32>, tensor<4xi64>) {
  %exp = math.exp %x : tensor<4x2xf32>
  %wide = arith.extsi %i : tensor<4xi32> to tensor<4xi64>
  return %exp, %wide : tensor<4x2xf32>, tensor<4xi64>
}
