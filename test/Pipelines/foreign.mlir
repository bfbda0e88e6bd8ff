// RUN: kvrm-opt %s --kvrm-static-baseline --kvrm-pack-weights --kvrm-bufferize-step --kvrm-outline-dispatches --convert-kvrm-to-runtime | FileCheck %s
// RUN: kvrm-opt %s --kvrm-static-baseline --kvrm-pack-weights --kvrm-bufferize-step --kvrm-outline-dispatches --convert-kvrm-to-runtime | FileCheck %s --check-prefix=STEP

// Beside the step stand globals and functions of somebody else, in forms that
// the step's own would not keep: they come out as they went in.

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// CHECK: ml_program.global private mutable @counter(dense<7> : tensor<4xi32>) : tensor<4xi32>
// CHECK-NEXT: ml_program.global private @dynamic(#{{extern.*}}) : tensor<?x64xf16>
// CHECK-NEXT: ml_program.global private @matrix(#{{extern.*}}) : tensor<96x64xf16>
// CHECK-NOT: ml_program.global
// STEP-NOT: @weight
ml_program.global private mutable @counter(dense<7> : tensor<4xi32>) : tensor<4xi32>
ml_program.global private @dynamic(#ml_program.extern : tensor<?x64xf16>) : tensor<?x64xf16>
ml_program.global private @matrix(#ml_program.extern : tensor<96x64xf16>) : tensor<96x64xf16>
ml_program.global private @weight(#ml_program.extern : tensor<32x64xf16>) : tensor<32x64xf16>

// STEP: func.func @kvrm_step(%{{.*}}: !llvm.ptr)
func.func @step(%tokens: tensor<2x1xi32>) -> tensor<2x32xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %x = tensor.empty() : tensor<2x64xf32>
  %ones = linalg.fill ins(%one : f32) outs(%x : tensor<2x64xf32>) -> tensor<2x64xf32>
  %w = ml_program.global_load_const @weight : tensor<32x64xf16>
  %empty = tensor.empty() : tensor<2x32xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x32xf32>) -> tensor<2x32xf32>
  %r = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%ones, %w : tensor<2x64xf32>, tensor<32x64xf16>) outs(%init : tensor<2x32xf32>) -> tensor<2x32xf32>
  return %r : tensor<2x32xf32>
}

// CHECK-LABEL: func.func @matmul(
// CHECK-SAME: %[[X:.*]]: tensor<2x64xf32>, %[[Y:.*]]: tensor<2x96xf32>) -> tensor<2x96xf32> {
// CHECK-NEXT: %[[W:.*]] = ml_program.global_load_const @matrix : tensor<96x64xf16>
// CHECK-NEXT: %[[R:.*]] = linalg.matmul
// CHECK-SAME: ins(%[[X]], %[[W]] : tensor<2x64xf32>, tensor<96x64xf16>) outs(%[[Y]] : tensor<2x96xf32>)
// CHECK-NEXT: return %[[R]] : tensor<2x96xf32>
func.func @matmul(%x: tensor<2x64xf32>, %y: tensor<2x96xf32>) -> tensor<2x96xf32> {
  %w = ml_program.global_load_const @matrix : tensor<96x64xf16>
  %r = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<2x64xf32>, tensor<96x64xf16>) outs(%y : tensor<2x96xf32>) -> tensor<2x96xf32>
  return %r : tensor<2x96xf32>
}

// CHECK-LABEL: func.func @buffers(
// CHECK-SAME: %[[A:.*]]: memref<?x4xf32>, %[[B:.*]]: memref<4xf32>) {
// CHECK-NEXT: linalg.exp ins(%[[B]] : memref<4xf32>) outs(%[[B]] : memref<4xf32>)
// CHECK-NEXT: return
func.func @buffers(%a: memref<?x4xf32>, %b: memref<4xf32>) {
  linalg.exp ins(%b : memref<4xf32>) outs(%b : memref<4xf32>)
  return
}

// CHECK-LABEL: func.func @caller(
// CHECK-SAME: %[[A:.*]]: memref<?x4xf32>, %[[B:.*]]: memref<4xf32>) {
// CHECK-NEXT: call @buffers(%[[A]], %[[B]]) : (memref<?x4xf32>, memref<4xf32>) -> ()
// CHECK-NEXT: return
func.func @caller(%a: memref<?x4xf32>, %b: memref<4xf32>) {
  call @buffers(%a, %b) : (memref<?x4xf32>, memref<4xf32>) -> ()
  return
}

// An attention that is in no step is nobody's to lower.
// CHECK-LABEL: func.func @attention(
// CHECK-NEXT: kvrm.cached_attention
// CHECK-NEXT: return
func.func @attention(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>,
                     %kc: tensor<2x2x2x64x64xf16>, %vc: tensor<2x2x2x64x64xf16>) {
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
  return
}
