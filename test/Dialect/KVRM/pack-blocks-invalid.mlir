// RUN: kvrm-opt %s --kvrm-pack-weights -split-input-file -verify-diagnostics

ml_program.global private @w(#ml_program.extern : tensor<40x2x!kvrm.block<q4_0>>) : tensor<40x2x!kvrm.block<q4_0>>
func.func @returned() -> tensor<40x2x!kvrm.block<q4_0>> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<40x2x!kvrm.block<q4_0>>
  // expected-error@+1 {{op uses the weight '@w', which is in blocks and to be dequantized}}
  return %w : tensor<40x2x!kvrm.block<q4_0>>
}

// -----

ml_program.global private @w(#ml_program.extern : tensor<40x2x!kvrm.block<q4_0>>) : tensor<40x2x!kvrm.block<q4_0>>
func.func @whole() -> tensor<40x64xf32> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<40x2x!kvrm.block<q4_0>>
  %f = kvrm.dequantize %w : tensor<40x2x!kvrm.block<q4_0>> to tensor<40x64xf32>
  // expected-error@+1 {{op reads a weight in blocks; only products, as their transposed right-hand side, and tensor.extract can}}
  return %f : tensor<40x64xf32>
}

// -----

ml_program.global private @w(#ml_program.extern : tensor<64x2x!kvrm.block<q4_0>>) : tensor<64x2x!kvrm.block<q4_0>>
func.func @not_transposed(%x: tensor<2x64xf32>, %y: tensor<2x64xf32>) -> tensor<2x64xf32> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<64x2x!kvrm.block<q4_0>>
  %f = kvrm.dequantize %w : tensor<64x2x!kvrm.block<q4_0>> to tensor<64x64xf32>
  // expected-error@+1 {{op reads a weight in blocks}}
  %r = linalg.matmul ins(%x, %f : tensor<2x64xf32>, tensor<64x64xf32>) outs(%y : tensor<2x64xf32>) -> tensor<2x64xf32>
  return %r : tensor<2x64xf32>
}
