// RUN: kvrm-opt %s --kvrm-bufferize-step -split-input-file -verify-diagnostics

ml_program.global private @w(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>
func.func @step(%x: tensor<2x1xi32>) attributes {kvrm.step} {
  // expected-error@+1 {{'ml_program.global_load_const' op loads '@w', which has no place yet; run kvrm-pack-weights first}}
  %w = ml_program.global_load_const @w : tensor<64xf32>
  return
}

// -----

module {
  // expected-error@+1 {{argument 1 is 'tensor<?x3xi32>', neither a static tensor nor a session}}
  func.func @step(%x: tensor<2x1xi32>, %y: tensor<?x3xi32>)
      attributes {kvrm.step} {
    return
  }
}

// -----

module {
  // expected-error@+1 {{argument 0 is 'f32', neither a static tensor nor a session}}
  func.func @step(%x: f32)
      attributes {kvrm.step} {
    return
  }
}

// -----

module {
  // expected-error@+1 {{argument 0 is 'tensor<4xf32>'; only tokens (i32, [rows, queries]) are understood}}
  func.func @step(%x: tensor<4xf32>)
      attributes {kvrm.step} {
    return
  }
}

// -----

module {
  // expected-error@+1 {{returns no logits (an f32 tensor)}}
  func.func @step(%x: tensor<2x1xi32>)
      attributes {kvrm.step} {
    return
  }
}

// -----

module {
  // expected-error@+1 {{returns more than logits and caches}}
  func.func @step(%x: tensor<2x1xi32>) -> (tensor<2x4xf32>, tensor<2x4xf32>)
      attributes {kvrm.step} {
    %a = arith.constant dense<0.0> : tensor<2x4xf32>
    return %a, %a : tensor<2x4xf32>, tensor<2x4xf32>
  }
}

// -----

module {
  // expected-error@+1 {{returns two versions of argument 1, a cache}}
  func.func @step(%x: tensor<2x1xi32>, %c: tensor<2x4xf16> {kvrm.argument = #kvrm.argument<key_cache>})
      -> (tensor<2x4xf32>, tensor<2x4xf16>, tensor<2x4xf16>)
      attributes {kvrm.step} {
    %a = arith.constant dense<0.0> : tensor<2x4xf32>
    return %a, %c, %c : tensor<2x4xf32>, tensor<2x4xf16>, tensor<2x4xf16>
  }
}

// -----

module {
  // expected-error@+1 {{'func.func' op has control flow; a step has one block}}
  func.func @step(%x: tensor<2x1xi32>) -> tensor<2x4xf32>
      attributes {kvrm.step} {
    %a = arith.constant dense<0.0> : tensor<2x4xf32>
    cf.br ^bb1
  ^bb1:
    return %a : tensor<2x4xf32>
  }
}

// -----

// expected-error@+1 {{result 0 is 'f32', not a static tensor}}
func.func @step(%x: tensor<2x1xi32>) -> f32 attributes {kvrm.step} {
  %a = arith.constant 0.0 : f32
  return %a : f32
}

// -----

// expected-error@+1 {{result 0 is 'tensor<?xf32>', not a static tensor}}
func.func @step(%x: tensor<2x1xi32>) -> tensor<?xf32> attributes {kvrm.step} {
  %n = arith.constant 4 : index
  %a = tensor.empty(%n) : tensor<?xf32>
  return %a : tensor<?xf32>
}

// -----

// expected-error@+1 {{result 1 is 'tensor<4xf16>', neither logits (f32) nor a version of a cache argument}}
func.func @step(%x: tensor<2x1xi32>, %c: tensor<4xf16> {kvrm.argument = #kvrm.argument<key_cache>})
    -> (tensor<4xf32>, tensor<4xf16>) attributes {kvrm.step} {
  %a = arith.constant dense<0.0> : tensor<4xf32>
  %empty = tensor.empty() : tensor<4xf16>
  %new = linalg.exp ins(%c : tensor<4xf16>) outs(%empty : tensor<4xf16>) -> tensor<4xf16>
  return %a, %new : tensor<4xf32>, tensor<4xf16>
}
