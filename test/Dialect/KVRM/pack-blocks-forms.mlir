// RUN: kvrm-opt %s --kvrm-split-products --kvrm-pack-weights="panel=0 block-panel=8" | FileCheck %s

// A form reads the records; a library reads the values, rounded to the element
// of the activations.

ml_program.global private @w(#ml_program.extern : tensor<48x2x!kvrm.block<q4_0>>) : tensor<48x2x!kvrm.block<q4_0>>

// CHECK-LABEL: func.func @few
// CHECK: %[[W:.*]] = ml_program.global_load_const @w : tensor<6x2x144xi8>
// CHECK-NOT: kvrm.unpack_blocks
// CHECK: kvrm.linear ins(%{{.*}}, %[[W]] : tensor<64x64xf16>, tensor<6x2x144xi8>) block <q4_0> outs(%{{.*}} : tensor<64x24xf16>) parts 2
func.func @few(%x: tensor<64x64xf16>, %init: tensor<64x24xf16>) -> tensor<64x24xf16> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<48x2x!kvrm.block<q4_0>>
  %f = kvrm.dequantize %w : tensor<48x2x!kvrm.block<q4_0>> to tensor<48x64xf32>
  %y = kvrm.linear ins(%x, %f : tensor<64x64xf16>, tensor<48x64xf32>) outs(%init : tensor<64x24xf16>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %product = arith.mulf %gate, %up : f32
    %v = arith.truncf %product : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<64x24xf16>
  return %y : tensor<64x24xf16>
}

// CHECK-LABEL: func.func @many
// CHECK: %[[W:.*]] = ml_program.global_load_const @w : tensor<6x2x144xi8>
// CHECK: %[[V:.*]] = kvrm.unpack_blocks <q4_0> ins(%[[W]] : tensor<6x2x144xi8>) outs(%{{.*}} : tensor<48x64xf16>) -> tensor<48x64xf16>
// CHECK: kvrm.linear ins(%{{.*}}, %[[V]] : tensor<65x64xf16>, tensor<48x64xf16>) outs(%{{.*}} : tensor<65x48xf16>)
// CHECK: linalg.generic
func.func @many(%x: tensor<65x64xf16>, %init: tensor<65x24xf16>) -> tensor<65x24xf16> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<48x2x!kvrm.block<q4_0>>
  %f = kvrm.dequantize %w : tensor<48x2x!kvrm.block<q4_0>> to tensor<48x64xf32>
  %y = kvrm.linear ins(%x, %f : tensor<65x64xf16>, tensor<48x64xf32>) outs(%init : tensor<65x24xf16>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %product = arith.mulf %gate, %up : f32
    %v = arith.truncf %product : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<65x24xf16>
  return %y : tensor<65x24xf16>
}

// What is a product already needs no more than the rounded values.
// CHECK-LABEL: func.func @product
// CHECK: %[[V:.*]] = kvrm.unpack_blocks
// CHECK: kvrm.linear ins(%{{.*}}, %[[V]] : tensor<65x64xbf16>, tensor<48x64xbf16>) outs(%{{.*}} : tensor<65x48xf32>)
// CHECK-NOT: linalg.generic
// CHECK: return
func.func @product(%x: tensor<65x64xbf16>, %init: tensor<65x48xf32>) -> tensor<65x48xf32> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<48x2x!kvrm.block<q4_0>>
  %f = kvrm.dequantize %w : tensor<48x2x!kvrm.block<q4_0>> to tensor<48x64xf32>
  %y = kvrm.linear ins(%x, %f : tensor<65x64xbf16>, tensor<48x64xf32>) outs(%init : tensor<65x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<65x48xf32>
  return %y : tensor<65x48xf32>
}

// Parts whose rows are no whole panels are told apart behind the product.
ml_program.global private @odd(#ml_program.extern : tensor<24x2x!kvrm.block<q4_0>>) : tensor<24x2x!kvrm.block<q4_0>>
// CHECK-LABEL: func.func @parts
// CHECK: kvrm.linear ins(%{{.*}}, %{{.*}} : tensor<2x64xf16>, tensor<3x2x144xi8>) block <q4_0> outs(%{{.*}} : tensor<2x24xf16>) {
// CHECK: linalg.generic
func.func @parts(%x: tensor<2x64xf16>, %init: tensor<2x12xf16>) -> tensor<2x12xf16> attributes {kvrm.step} {
  %w = ml_program.global_load_const @odd : tensor<24x2x!kvrm.block<q4_0>>
  %f = kvrm.dequantize %w : tensor<24x2x!kvrm.block<q4_0>> to tensor<24x64xf32>
  %y = kvrm.linear ins(%x, %f : tensor<2x64xf16>, tensor<24x64xf32>) outs(%init : tensor<2x12xf16>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %product = arith.mulf %gate, %up : f32
    %v = arith.truncf %product : f32 to f16
    kvrm.yield %v : f16
  } -> tensor<2x12xf16>
  return %y : tensor<2x12xf16>
}
