// RUN: kvrm-opt %s --kvrm-pack-weights | FileCheck %s
// RUN: kvrm-opt %s --kvrm-pack-weights="block-panel=8 exact-activations" | FileCheck %s --check-prefix=EXACT
// RUN: not kvrm-opt %s --kvrm-pack-weights=block-panel=-1 2>&1 | FileCheck %s --check-prefix=NEGATIVE
// RUN: not kvrm-opt %s --kvrm-pack-weights=block-panel=0 2>&1 | FileCheck %s --check-prefix=NONE

// NEGATIVE: error: block-panel is -1, which is negative
// NONE: error: {{.*}} is in blocks, which the target has no code for

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// CHECK: @up({{.*}}) : tensor<3x2x288xi8> {kvrm.weight = #kvrm.weight<blocks, offset = 0, panel = 16, rows = 40, block = <q4_0>>}
// CHECK: @gate({{.*}}) : tensor<2x2x544xi8> {kvrm.weight = #kvrm.weight<blocks, offset = 1728, panel = 16, rows = 32, block = <q8_0>>}
// EXACT: @up({{.*}}) : tensor<5x2x144xi8> {kvrm.weight = #kvrm.weight<blocks, offset = 0, panel = 8, rows = 40, block = <q4_0>>}
ml_program.global private @up(#ml_program.extern : tensor<40x2x!kvrm.block<q4_0>>) : tensor<40x2x!kvrm.block<q4_0>>
ml_program.global private @gate(#ml_program.extern : tensor<32x2x!kvrm.block<q8_0>>) : tensor<32x2x!kvrm.block<q8_0>>
ml_program.global private @square(#ml_program.extern : tensor<64x2x!kvrm.block<q8_0>>) : tensor<64x2x!kvrm.block<q8_0>>
ml_program.global private @table(#ml_program.extern : tensor<40x1x!kvrm.block<q4_k>>) : tensor<40x1x!kvrm.block<q4_k>>

// Activations are quantised once for all products; columns that panels have
// beyond those of the weight are cut off.
// CHECK-LABEL: func.func @products
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<2x64xf32>
// CHECK: %[[Q:.*]] = kvrm.quantize_rows ins(%[[X]] : tensor<2x64xf32>)
// CHECK-NOT: kvrm.quantize_rows
// CHECK: %[[UP:.*]] = ml_program.global_load_const @up : tensor<3x2x288xi8>
// CHECK-NOT: kvrm.dequantize
// CHECK: %[[ZERO:.*]] = linalg.fill {{.*}} outs(%{{.*}} : tensor<2x48xf32>)
// CHECK: %[[R:.*]] = kvrm.block_product <q4_0> ins(%[[Q]], %[[UP]] : tensor<2x2x48xi8>, tensor<3x2x288xi8>) outs(%[[ZERO]] : tensor<2x48xf32>) panel 16
// CHECK: tensor.extract_slice %[[R]][0, 0] [2, 40] [1, 1]
// CHECK: kvrm.block_product <q8_0> ins(%[[Q]], %{{.*}}) outs(%{{[a-z0-9]+}} : tensor<2x32xf32>) panel 16
// EXACT-LABEL: func.func @products
// EXACT-NOT: kvrm.quantize_rows
// EXACT: kvrm.block_product <q4_0> ins(%{{.*}}, %{{.*}} : tensor<2x64xf32>, tensor<5x2x144xi8>) outs(%{{.*}} : tensor<2x40xf32>) panel 8
func.func @products(%x: tensor<2x64xf32>, %z: tensor<2x32xf32>) -> (tensor<2x40xf32>, tensor<2x32xf32>) attributes {kvrm.step} {
  %up = ml_program.global_load_const @up : tensor<40x2x!kvrm.block<q4_0>>
  %upf = kvrm.dequantize %up : tensor<40x2x!kvrm.block<q4_0>> to tensor<40x64xf32>
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<2x40xf32>
  %start = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x40xf32>) -> tensor<2x40xf32>
  %r = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %upf : tensor<2x64xf32>, tensor<40x64xf32>) outs(%start : tensor<2x40xf32>) -> tensor<2x40xf32>
  %gate = ml_program.global_load_const @gate : tensor<32x2x!kvrm.block<q8_0>>
  %gatef = kvrm.dequantize %gate : tensor<32x2x!kvrm.block<q8_0>> to tensor<32x64xf32>
  %s = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %gatef : tensor<2x64xf32>, tensor<32x64xf32>) outs(%z : tensor<2x32xf32>) -> tensor<2x32xf32>
  return %r, %s : tensor<2x40xf32>, tensor<2x32xf32>
}

// What a product gives is quantised for the next; both are of one weight.
// CHECK-LABEL: func.func @chain
// CHECK: %[[Q:.*]] = kvrm.quantize_rows ins(%{{.*}} : tensor<2x64xf32>)
// CHECK: %[[R:.*]] = kvrm.block_product <q8_0> ins(%[[Q]]
// CHECK: %[[P:.*]] = kvrm.quantize_rows ins(%[[R]] : tensor<2x64xf32>)
// CHECK: kvrm.block_product <q8_0> ins(%[[P]]
func.func @chain(%x: tensor<2x64xf32>, %z: tensor<2x64xf32>) -> tensor<2x64xf32> attributes {kvrm.step} {
  %w = ml_program.global_load_const @square : tensor<64x2x!kvrm.block<q8_0>>
  %f = kvrm.dequantize %w : tensor<64x2x!kvrm.block<q8_0>> to tensor<64x64xf32>
  %r = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %f : tensor<2x64xf32>, tensor<64x64xf32>) outs(%z : tensor<2x64xf32>) -> tensor<2x64xf32>
  %s = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%r, %f : tensor<2x64xf32>, tensor<64x64xf32>) outs(%z : tensor<2x64xf32>) -> tensor<2x64xf32>
  return %s : tensor<2x64xf32>
}

// An element is read where it is used.
// CHECK-LABEL: func.func @element
// CHECK-NOT: kvrm.dequantize
// CHECK: arith.divui
// CHECK: tensor.extract %{{.*}} : tensor<3x1x2368xi8>
// CHECK: %[[V:.*]] = arith.subf
// CHECK: return %[[V]] : f32
func.func @element(%i: index, %j: index) -> f32 attributes {kvrm.step} {
  %t = ml_program.global_load_const @table : tensor<40x1x!kvrm.block<q4_k>>
  %f = kvrm.dequantize %t : tensor<40x1x!kvrm.block<q4_k>> to tensor<40x256xf32>
  %v = tensor.extract %f[%i, %j] : tensor<40x256xf32>
  return %v : f32
}
