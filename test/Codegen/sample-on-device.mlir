// RUN: kvrm-opt %s --kvrm-sample-on-device | FileCheck %s

// A step that returns logits ends with the choice of tokens from them.

// CHECK-LABEL: func.func @step(
// CHECK-SAME: %[[LOGITS:[^:]+]]: memref<3x203xf32>
// CHECK: linalg.fill
// CHECK-NEXT: kvrm.sample %[[LOGITS]] : memref<3x203xf32>
// CHECK-NEXT: return
func.func @step(%tokens: memref<3x1xi32> {kvrm.argument = #kvrm.argument<tokens>}, %logits: memref<3x203xf32> {kvrm.argument = #kvrm.argument<logits>}) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%logits : memref<3x203xf32>)
  return
}

// What is no step, or has no logits, stays as it was.

// CHECK-LABEL: func.func @other(
// CHECK-NEXT: return
func.func @other(%logits: memref<3x203xf32>) {
  return
}

// CHECK-LABEL: func.func @silent(
// CHECK-NEXT: return
func.func @silent(%x: memref<3x203xf32>) attributes {kvrm.step} {
  return
}
