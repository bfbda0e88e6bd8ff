// RUN: kvrm-opt %s --kvrm-pack-weights --convert-kvrm-to-runtime -split-input-file -verify-diagnostics

// What a step and somebody else both use cannot change for the step alone.

// expected-note@+1 {{defined here}}
ml_program.global private @w(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>
func.func @step() attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<64xf32>
  return
}
func.func @other() -> tensor<64xf32> {
  // expected-error@+1 {{'ml_program.global_load_const' op outside a step uses '@w', which belongs to a step}}
  %w = ml_program.global_load_const @w : tensor<64xf32>
  return %w : tensor<64xf32>
}

// -----

ml_program.global private @w(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>
func.func @step() attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<64xf32>
  // expected-error@+1 {{'ml_program.global_load' op uses the weight '@w'; a step may only load it}}
  %v = ml_program.global_load @w : tensor<64xf32>
  return
}

// -----

// expected-note@+1 {{defined here}}
func.func private @work(%begin: index, %end: index, %x: memref<4xf32>) {
  return
}
func.func @step(%x: memref<4xf32> {kvrm.argument = #kvrm.argument<logits>}) attributes {kvrm.step} {
  kvrm.dispatch @work tasks 4 outs(%x : memref<4xf32>)
  return
}
func.func @other(%begin: index, %x: memref<4xf32>) {
  // expected-error@+1 {{'func.call' op outside a step uses '@work', which belongs to a step}}
  call @work(%begin, %begin, %x) : (index, index, memref<4xf32>) -> ()
  return
}

// -----

// expected-error@+1 {{is dispatched by a step and has no body}}
func.func private @work(index, index, memref<4xf32>)
func.func @step(%x: memref<4xf32> {kvrm.argument = #kvrm.argument<logits>}) attributes {kvrm.step} {
  kvrm.dispatch @work tasks 4 outs(%x : memref<4xf32>)
  return
}

// -----

// A pass between has loaded the weight anew.
// expected-note@+1 {{defined here}}
ml_program.global private @w(#ml_program.extern : tensor<64xf32>) : tensor<64xf32> {kvrm.weight = #kvrm.weight<row_major, offset = 0>}
func.func @other() -> tensor<64xf32> {
  // expected-error@+1 {{'ml_program.global_load_const' op uses the weight '@w', which a converted module no longer has}}
  %w = ml_program.global_load_const @w : tensor<64xf32>
  return %w : tensor<64xf32>
}
