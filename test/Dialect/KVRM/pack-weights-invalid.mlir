// RUN: kvrm-opt %s --kvrm-pack-weights -split-input-file -verify-diagnostics

// expected-error@+1 {{'ml_program.global' op is no weight: its shape is not static}}
ml_program.global private @w(#ml_program.extern : tensor<?x64xf16>) : tensor<?x64xf16>
func.func @step() attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<?x64xf16>
  return
}

// -----

// expected-error@+1 {{'ml_program.global' op is no weight: it has a value, and those of weights are in the package}}
ml_program.global private @w(dense<1.0> : tensor<64xf32>) : tensor<64xf32>
func.func @step() attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<64xf32>
  return
}
