// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

func.func @one(%x: tensor<8xf32>, %y: tensor<8xf32>) -> tensor<8xf32> {
  // expected-error@+1 {{'kvrm.all_reduce' op stands in a module without 'kvrm.ranks', and so of one rank}}
  %z = kvrm.all_reduce ins(%x : tensor<8xf32>) outs(%y : tensor<8xf32>) -> tensor<8xf32>
  return %z : tensor<8xf32>
}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  func.func @shapes(%x: tensor<8xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{'kvrm.all_reduce' op input is 'tensor<8xf32>' and output 'tensor<4xf32>', which differ in shape}}
    %z = kvrm.all_reduce ins(%x : tensor<8xf32>) outs(%y : tensor<4xf32>) -> tensor<4xf32>
    return %z : tensor<4xf32>
  }
}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  func.func @elements(%x: tensor<8xf32>, %y: tensor<8xf16>) -> tensor<8xf16> {
    // expected-error@+1 {{'kvrm.all_reduce' op input is of 'f32' and output of 'f16'}}
    %z = kvrm.all_reduce ins(%x : tensor<8xf32>) outs(%y : tensor<8xf16>) -> tensor<8xf16>
    return %z : tensor<8xf16>
  }
}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  func.func @gaps(%x: memref<8x4xf32, strided<[8, 1]>>, %y: memref<8x4xf32>) {
    // expected-error@+1 {{'kvrm.all_reduce' op input is 'memref<8x4xf32, strided<[8, 1]>>', not contiguous}}
    kvrm.all_reduce ins(%x : memref<8x4xf32, strided<[8, 1]>>) outs(%y : memref<8x4xf32>)
    return
  }
}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  func.func @front(%x: tensor<8xf32>, %y: tensor<8x2xf32>) -> tensor<8x2xf32> {
    // expected-error@+1 {{'kvrm.all_gather' op output is 'tensor<8x2xf32>', expected the input's shape with the number of ranks in front}}
    %z = kvrm.all_gather ins(%x : tensor<8xf32>) outs(%y : tensor<8x2xf32>) -> tensor<8x2xf32>
    return %z : tensor<8x2xf32>
  }
}

// -----

module attributes {kvrm.ranks = 4 : i64} {
  func.func @ranks(%x: tensor<8xf32>, %y: tensor<2x8xf32>) -> tensor<2x8xf32> {
    // expected-error@+1 {{'kvrm.all_gather' op output is of 2 ranks, and the module of 4}}
    %z = kvrm.all_gather ins(%x : tensor<8xf32>) outs(%y : tensor<2x8xf32>) -> tensor<2x8xf32>
    return %z : tensor<2x8xf32>
  }
}

// -----

// expected-error@+1 {{op has 'kvrm.ranks', which is an i64 of 2..64 on a module}}
module attributes {kvrm.ranks = 1 : i64} {
}

// -----

// expected-error@+1 {{'ml_program.global' op has 'kvrm.shard', which is a #kvrm.shard on an ml_program.global of a module with 'kvrm.ranks'}}
ml_program.global private @w(#ml_program.extern : tensor<4x8xf16>) : tensor<4x8xf16> {kvrm.shard = #kvrm.shard<dim = 0, parts = [8]>}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  // expected-error@+1 {{'ml_program.global' op has a part of 7, which 2 ranks do not divide}}
  ml_program.global private @w(#ml_program.extern : tensor<4x8xf16>) : tensor<4x8xf16> {kvrm.shard = #kvrm.shard<dim = 0, parts = [7]>}
}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  // expected-error@+1 {{'ml_program.global' op has 8 in dimension 1, and its shard says 4}}
  ml_program.global private @w(#ml_program.extern : tensor<4x8xf16>) : tensor<4x8xf16> {kvrm.shard = #kvrm.shard<dim = 1, parts = [4, 4]>}
}

// -----

module attributes {kvrm.ranks = 2 : i64} {
  // expected-error@+1 {{'ml_program.global' op has a shard of dimension 2 of 2}}
  ml_program.global private @w(#ml_program.extern : tensor<4x8xf16>) : tensor<4x8xf16> {kvrm.shard = #kvrm.shard<dim = 2, parts = [4, 4]>}
}
