// What cannot be told of a raised step's arguments and results.

// RUN: kvrm-opt %s --split-input-file --verify-diagnostics --kvrm-adopt-step

// expected-error @below {{has 0 raised steps; one is adopted}}
module {
  func.func @main() {
    return
  }
}

// -----

// expected-error @below {{is a step without attention}}
func.func @main(%x: tensor<2x5xf32>) -> tensor<2x5xf32> attributes {kvrm.step} {
  return %x : tensor<2x5xf32>
}

// -----

// expected-error @below {{no result is logits, [2, vocabulary] of floating point}}
func.func @main(%x: tensor<2x1x1x8xf32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  return %k, %v : tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}

// -----

// expected-error @below {{result 0 is 'tensor<2x1x3x8xf32>', and neither logits, nor a cache, nor integers that no cache is in}}
func.func @main(%x: tensor<2x1x3x8xf32>, %positions: tensor<2xi32>, %keys: tensor<1x2x3x16x8xf16>, %values: tensor<1x2x3x16x8xf16>)
    -> (tensor<2x1x3x8xf32>, tensor<1x2x3x16x8xf16>, tensor<1x2x3x16x8xf16>) attributes {kvrm.step} {
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x3x8xf32>, tensor<2x1x3x8xf32>, tensor<1x2x3x16x8xf16>, tensor<2xi32>
  return %o, %k, %v : tensor<2x1x3x8xf32>, tensor<1x2x3x16x8xf16>, tensor<1x2x3x16x8xf16>
}

// -----

// expected-error @below {{result 1 is 'tensor<2x1x1x8xf32>': there are logits already, of which a step has one}}
func.func @main(%x: tensor<2x1x1x8xf32>, %ids: tensor<2xi32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  return %o, %x, %k, %v : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}

// -----

// expected-error @below {{no argument is tokens, 2 integers}}
func.func @main(%x: tensor<2x1x1x8xf32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  return %o, %k, %v : tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}

// -----

#scalar = affine_map<(b, t, h, d) -> (b)>
#all = affine_map<(b, t, h, d) -> (b, t, h, d)>

// expected-error @below {{arguments 0 and 1 may both be tokens; say which with kvrm.argument}}
func.func @main(%ids: tensor<2xi32>, %others: tensor<2xi32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %init = tensor.empty() : tensor<2x1x1x8xf32>
  %x = linalg.generic {indexing_maps = [#scalar, #scalar, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%ids, %others : tensor<2xi32>, tensor<2xi32>) outs(%init : tensor<2x1x1x8xf32>) {
  ^bb0(%id: i32, %other: i32, %out: f32):
    %sum = arith.addi %id, %other : i32
    %e = arith.sitofp %sum : i32 to f32
    linalg.yield %e : f32
  } -> tensor<2x1x1x8xf32>
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  return %o, %k, %v : tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}

// -----

#scalar = affine_map<(b, t, h, d) -> (b)>
#all = affine_map<(b, t, h, d) -> (b, t, h, d)>

// expected-error @below {{argument 1 is 'tensor<3xi32>': neither tokens, a position, a cache nor a weight}}
func.func @main(%ids: tensor<2xi32>, %others: tensor<3xi32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %init = tensor.empty() : tensor<2x1x1x8xf32>
  %x = linalg.generic {indexing_maps = [#scalar, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%ids : tensor<2xi32>) outs(%init : tensor<2x1x1x8xf32>) {
  ^bb0(%id: i32, %out: f32):
    %row = linalg.index 0 : index
    %other = tensor.extract %others[%row] : tensor<3xi32>
    %sum = arith.addi %id, %other : i32
    %e = arith.sitofp %sum : i32 to f32
    linalg.yield %e : f32
  } -> tensor<2x1x1x8xf32>
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  return %o, %k, %v : tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}

// -----

// Of positions up to the capacity, 16, a table of 12 has not all.
func.func @main(%table: tensor<12x8xf32>, %ids: tensor<2xi32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x8xf16>, %values: tensor<1x2x1x16x8xf16>)
    -> (tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>) attributes {kvrm.step} {
  %init = tensor.empty() : tensor<2x1x1x8xf32>
  %x = linalg.generic {indexing_maps = [affine_map<(b, q, h, d) -> (b)>, affine_map<(b, q, h, d) -> (b)>, affine_map<(b, q, h, d) -> (b, q, h, d)>], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%ids, %positions : tensor<2xi32>, tensor<2xi32>) outs(%init : tensor<2x1x1x8xf32>) {
  ^bb0(%id: i32, %p: i32, %out: f32):
    %row = arith.index_cast %p : i32 to index
    %column = linalg.index 3 : index
    // expected-error @below {{reads row}}
    %element = tensor.extract %table[%row, %column] : tensor<12x8xf32>
    %token = arith.sitofp %id : i32 to f32
    %sum = arith.addf %element, %token : f32
    linalg.yield %sum : f32
  } -> tensor<2x1x1x8xf32>
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<2xi32>
  return %o, %k, %v : tensor<2x1x1x8xf32>, tensor<1x2x1x16x8xf16>, tensor<1x2x1x16x8xf16>
}

// -----

// The same by a slice of a row.
func.func @main(%table: tensor<12x8xf32>, %ids: tensor<1xi32>, %positions: tensor<1xi32>, %keys: tensor<1x1x1x16x8xf16>, %values: tensor<1x1x1x16x8xf16>)
    -> (tensor<1x1x1x8xf32>, tensor<1x1x1x16x8xf16>, tensor<1x1x1x16x8xf16>) attributes {kvrm.step} {
  %zero = arith.constant 0 : index
  %p = tensor.extract %positions[%zero] : tensor<1xi32>
  %row = arith.index_cast %p : i32 to index
  // expected-error @below {{reads row}}
  %slice = tensor.extract_slice %table[%row, 0] [1, 8] [1, 1] : tensor<12x8xf32> to tensor<1x8xf32>
  %id = tensor.extract %ids[%zero] : tensor<1xi32>
  %token = arith.sitofp %id : i32 to f32
  %more = tensor.splat %token : tensor<1x8xf32>
  %sum = arith.addf %slice, %more : tensor<1x8xf32>
  %x = tensor.expand_shape %sum [[0, 1, 2], [3]] output_shape [1, 1, 1, 8] : tensor<1x8xf32> into tensor<1x1x1x8xf32>
  %o, %k, %v = kvrm.cached_attention %x, %x, %x, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<1x1x1x8xf32>, tensor<1x1x1x8xf32>, tensor<1x1x1x16x8xf16>, tensor<1xi32>
  return %o, %k, %v : tensor<1x1x1x8xf32>, tensor<1x1x1x16x8xf16>, tensor<1x1x1x16x8xf16>
}
