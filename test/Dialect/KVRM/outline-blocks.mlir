// RUN: kvrm-opt %s --kvrm-outline-dispatches | FileCheck %s

// A row of activations, and a panel of a weight, is a task; the fill of an
// output goes along.
// CHECK-LABEL: func.func @step
// CHECK: kvrm.dispatch @[[Q:.*]] tasks 8
// CHECK-NOT: linalg.fill
// CHECK: kvrm.dispatch @[[P:.*]] tasks 3 serial ins(%{{.*}}, %{{.*}} : memref<8x2x48xi8>, memref<3x2x288xi8>) outs(%{{.*}} : memref<8x48xf32>)
// CHECK: func.func private @[[Q]](%[[B:[a-z0-9]+]]: index, %[[E:[a-z0-9]+]]: index
// CHECK: %[[N:.*]] = arith.subi %[[E]], %[[B]]
// CHECK: memref.subview %{{.*}}[%[[B]], 0] [%[[N]], 64] [1, 1]
// CHECK: memref.subview %{{.*}}[%[[B]], 0, 0] [%[[N]], 2, 48] [1, 1, 1]
// CHECK: kvrm.quantize_rows
// CHECK: func.func private @[[P]](%[[B:[a-z0-9]+]]: index, %[[E:[a-z0-9]+]]: index
// CHECK-DAG: %[[COLUMN:.*]] = arith.muli %[[B]]
// CHECK-DAG: memref.subview %{{.*}}[%[[B]], 0, 0] [%{{.*}}, 2, 288] [1, 1, 1]
// CHECK: %[[Y:.*]] = memref.subview %{{.*}}[0, %[[COLUMN]]] [8, %{{.*}}] [1, 1]
// CHECK: linalg.fill {{.*}} outs(%[[Y]]
// CHECK-NEXT: kvrm.block_product <q4_0> {{.*}} outs(%[[Y]]
func.func @step(%x: memref<8x64xf32>, %q: memref<8x2x48xi8>, %w: memref<3x2x288xi8>, %y: memref<8x48xf32>) attributes {kvrm.step} {
  kvrm.quantize_rows ins(%x : memref<8x64xf32>) outs(%q : memref<8x2x48xi8>)
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<8x48xf32>)
  kvrm.block_product <q4_0> ins(%q, %w : memref<8x2x48xi8>, memref<3x2x288xi8>) outs(%y : memref<8x48xf32>) panel 16
  return
}
