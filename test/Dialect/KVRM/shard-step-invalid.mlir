// RUN: kvrm-opt %s --kvrm-shard-step=ranks=2 -split-input-file -verify-diagnostics

func.func @step(%q: tensor<2x1x6x64xf32>, %k: tensor<2x1x3x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x3x64x64xf16>, %vc: tensor<1x2x3x64x64xf16>)
    -> (tensor<2x1x6x64xf32>, tensor<1x2x3x64x64xf16>, tensor<1x2x3x64x64xf16>) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.cached_attention' op has 3 KV heads, which 2 ranks do not divide}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x6x64xf32>, tensor<2x1x3x64xf32>, tensor<1x2x3x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x6x64xf32>, tensor<1x2x3x64x64xf16>, tensor<1x2x3x64x64xf16>
}

// -----

// Every rank has all heads of the query: which are its?
func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.cached_attention' op is of ranks that each have all of 'tensor<2x1x4x64xf32>', which must be split by heads}}
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}

// -----

// One step splits a weight by columns, another by depth.
ml_program.global private @w(#ml_program.extern : tensor<64x64xf16>) : tensor<64x64xf16>
func.func @columns(%x: tensor<2x64xf32>) -> tensor<2x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<64x64xf16>
  // expected-error@+1 {{'ml_program.global_load_const' op loads '@w' in other parts than another load of it}}
  %v = ml_program.global_load_const @w : tensor<64x64xf16>
  %e = tensor.empty() : tensor<2x64xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<2x64xf32>) -> tensor<2x64xf32>
  %y = linalg.matmul indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (n, k)>, affine_map<(m, n, k) -> (m, n)>]
      ins(%x, %w : tensor<2x64xf32>, tensor<64x64xf16>) outs(%f : tensor<2x64xf32>) -> tensor<2x64xf32>
  %z = linalg.matmul indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (n, k)>, affine_map<(m, n, k) -> (m, n)>]
      ins(%y, %v : tensor<2x64xf32>, tensor<64x64xf16>) outs(%f : tensor<2x64xf32>) -> tensor<2x64xf32>
  return %z : tensor<2x64xf32>
}

// -----

// expected-error@+1 {{is sharded already, for 4 ranks}}
module attributes {kvrm.ranks = 4 : i64} {
  func.func @step(%x: tensor<2x64xf32>) -> tensor<2x64xf32> attributes {kvrm.step} {
    return %x : tensor<2x64xf32>
  }
}
