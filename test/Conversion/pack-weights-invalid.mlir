// RUN: kvrm-opt %s --kvrm-pack-weights -split-input-file -verify-diagnostics

// expected-error@+1 {{'ml_program.global' op is no weight: its shape is not static}}
ml_program.global private @w(#ml_program.extern : tensor<?x64xf16>) : tensor<?x64xf16>
