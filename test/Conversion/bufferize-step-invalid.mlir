// RUN: kvrm-opt %s --kvrm-bufferize-step -split-input-file -verify-diagnostics

// No pass has placed the weights.
// expected-error@+1 {{weights have no place yet; run kvrm-pack-weights first}}
module {
  func.func @step(%x: tensor<2x1xi32>) attributes {kvrm.step} {
    return
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{argument 1 is 'tensor<?x3xi32>', neither a static tensor nor a session}}
  func.func @step(%x: tensor<2x1xi32>, %y: tensor<?x3xi32>)
      attributes {kvrm.step} {
    return
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{argument 0 is 'f32', neither a static tensor nor a session}}
  func.func @step(%x: f32)
      attributes {kvrm.step} {
    return
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{argument 0 is 'tensor<4xf32>'; only tokens (i32, [rows, queries]) are understood}}
  func.func @step(%x: tensor<4xf32>)
      attributes {kvrm.step} {
    return
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{returns no logits (an f32 tensor)}}
  func.func @step(%x: tensor<2x1xi32>)
      attributes {kvrm.step} {
    return
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{returns more than logits and caches}}
  func.func @step(%x: tensor<2x1xi32>) -> (tensor<2x4xf32>, tensor<2x4xf32>)
      attributes {kvrm.step} {
    %a = arith.constant dense<0.0> : tensor<2x4xf32>
    return %a, %a : tensor<2x4xf32>, tensor<2x4xf32>
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{returns more caches than it takes}}
  func.func @step(%x: tensor<2x1xi32>, %c: tensor<2x4xf16> {kvrm.argument = #kvrm.argument<key_cache>})
      -> (tensor<2x4xf32>, tensor<2x4xf16>, tensor<2x4xf16>)
      attributes {kvrm.step} {
    %a = arith.constant dense<0.0> : tensor<2x4xf32>
    return %a, %c, %c : tensor<2x4xf32>, tensor<2x4xf16>, tensor<2x4xf16>
  }
}

// -----

module attributes {kvrm.weight_bytes = 0 : i64} {
  // expected-error@+1 {{'func.func' op has control flow; a step has one block}}
  func.func @step(%x: tensor<2x1xi32>) -> tensor<2x4xf32>
      attributes {kvrm.step} {
    %a = arith.constant dense<0.0> : tensor<2x4xf32>
    cf.br ^bb1
  ^bb1:
    return %a : tensor<2x4xf32>
  }
}
