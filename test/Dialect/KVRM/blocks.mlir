// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s

// CHECK: @wq({{.*}}) : tensor<40x8x!kvrm.block<q4_1>>
ml_program.global private @wq(#ml_program.extern : tensor<40x8x!kvrm.block<q4_1>>) : tensor<40x8x!kvrm.block<q4_1>>

// Forty rows are three panels of 16.
// CHECK: kvrm.weight = #kvrm.weight<blocks, offset = 64, panel = 16, rows = 40, block = <q4_1>>
ml_program.global private @packed(#ml_program.extern : tensor<3x8x320xi8>) : tensor<3x8x320xi8>
    {kvrm.weight = #kvrm.weight<blocks, offset = 64, panel = 16, rows = 40, block = <q4_1>>}

// CHECK-LABEL: func.func @values
// CHECK: kvrm.dequantize %{{.*}} : tensor<40x8x!kvrm.block<q4_1>> to tensor<40x256xf32>
// CHECK: kvrm.dequantize %{{.*}} : tensor<40x1x!kvrm.block<q6_k>> to tensor<40x256xf32>
func.func @values(%k: tensor<40x1x!kvrm.block<q6_k>>) -> (tensor<40x256xf32>, tensor<40x256xf32>) {
  %w = ml_program.global_load_const @wq : tensor<40x8x!kvrm.block<q4_1>>
  %a = kvrm.dequantize %w : tensor<40x8x!kvrm.block<q4_1>> to tensor<40x256xf32>
  %b = kvrm.dequantize %k : tensor<40x1x!kvrm.block<q6_k>> to tensor<40x256xf32>
  return %a, %b : tensor<40x256xf32>, tensor<40x256xf32>
}

// CHECK-LABEL: func.func @tensors
// CHECK: kvrm.quantize_rows ins(%{{.*}} : tensor<2x256xf32>) outs(%{{.*}} : tensor<2x8x48xi8>) -> tensor<2x8x48xi8>
// CHECK: kvrm.block_product <q4_1> ins(%{{.*}}, %{{.*}} : tensor<2x8x48xi8>, tensor<3x8x320xi8>)
// CHECK-SAME: outs(%{{.*}} : tensor<2x48xf32>) panel 16 -> tensor<2x48xf32>
func.func @tensors(%x: tensor<2x256xf32>, %codes: tensor<2x8x48xi8>, %w: tensor<3x8x320xi8>, %y: tensor<2x48xf32>) -> tensor<2x48xf32> {
  %q = kvrm.quantize_rows ins(%x : tensor<2x256xf32>) outs(%codes : tensor<2x8x48xi8>) -> tensor<2x8x48xi8>
  %r = kvrm.block_product <q4_1> ins(%q, %w : tensor<2x8x48xi8>, tensor<3x8x320xi8>) outs(%y : tensor<2x48xf32>) panel 16 -> tensor<2x48xf32>
  return %r : tensor<2x48xf32>
}

// Rows and panels may be a share.
// CHECK-LABEL: func.func @shares
// CHECK: kvrm.quantize_rows ins(%{{.*}} : memref<?x256xf32>) outs(%{{.*}} : memref<?x8x48xi8>)
// CHECK: kvrm.block_product <q6_k> ins(%{{.*}}, %{{.*}} : memref<2x256xf32>, memref<?x1x1680xi8>)
// CHECK-SAME: outs(%{{.*}} : memref<2x?xf32, strided<[24, 1], offset: ?>>) panel 8
func.func @shares(%x: memref<?x256xf32>, %codes: memref<?x8x48xi8>, %rows: memref<2x256xf32>, %w: memref<?x1x1680xi8>, %y: memref<2x?xf32, strided<[24, 1], offset: ?>>) {
  kvrm.quantize_rows ins(%x : memref<?x256xf32>) outs(%codes : memref<?x8x48xi8>)
  kvrm.block_product <q6_k> ins(%rows, %w : memref<2x256xf32>, memref<?x1x1680xi8>) outs(%y : memref<2x?xf32, strided<[24, 1], offset: ?>>) panel 8
  return
}
