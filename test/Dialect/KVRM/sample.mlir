// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s

// CHECK-LABEL: func.func @sample(
// CHECK-SAME: %[[LOGITS:[^:]+]]: memref<3x203xf32>
// CHECK: kvrm.sample %[[LOGITS]] : memref<3x203xf32>
func.func @sample(%logits: memref<3x203xf32>) {
  kvrm.sample %logits : memref<3x203xf32>
  return
}
