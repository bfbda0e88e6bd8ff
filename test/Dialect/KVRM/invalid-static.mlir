// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op caches must have a static, positive shape [layers, slots, kv_heads, capacity, head_dim], got 'tensor<8x3x2048x64xf16>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x?x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op caches must have a static, positive shape [layers, slots, kv_heads, capacity, head_dim], got 'tensor<30x8x3x?x64xf16>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x?x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x0x64xf32>, %c: tensor<30x8x0x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op caches must have a static, positive shape [layers, slots, kv_heads, capacity, head_dim], got 'tensor<30x8x0x2048x64xf16>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x0x64xf32>, tensor<30x8x0x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query must have a static, positive shape [rows, queries, heads, head_dim], got 'tensor<8x9x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<?x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query must have a static, positive shape [rows, queries, heads, head_dim], got 'tensor<?x1x9x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<?x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x0x9x64xf32>, %k: tensor<8x0x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query must have a static, positive shape [rows, queries, heads, head_dim], got 'tensor<8x0x9x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x0x9x64xf32>, tensor<8x0x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x0x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query must have a static, positive shape [rows, queries, heads, head_dim], got 'tensor<8x1x0x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x0x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x128xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query is 'tensor<8x1x9x128xf32>', expected 8 rows, 1 queries and head_dim 64}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x128xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op key must have a static shape [rows, queries, heads, head_dim], got 'tensor<8x3x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x?x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op key must have a static shape [rows, queries, heads, head_dim], got 'tensor<8x1x?x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x?x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<4x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op key is 'tensor<4x1x3x64xf32>', expected 8 rows, 1 queries and head_dim 64}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<4x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x2x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op key is 'tensor<8x2x3x64xf32>', expected 8 rows, 1 queries and head_dim 64}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x2x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x1x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op key has 1 heads, caches have 3}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x1x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<4xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op positions is 'tensor<4xi32>', expected 8 elements}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<4xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<?xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op positions is 'tensor<?xi32>', expected 8 elements}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<?xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8x1xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op positions is 'tensor<8x1xi32>', expected 8 elements}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8x1xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>, %n: tensor<1xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op counts is 'tensor<1xi32>', expected 8 elements}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p count %n : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>, %s: tensor<1xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op slots is 'tensor<1xi32>', expected 8 elements}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p slot %s : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<4x1x9x64xf32>, %k: tensor<4x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<4xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op has 4 rows for 8 slots and does not say which slots}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<4x1x9x64xf32>, tensor<4x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<4xi32>
  return
}

// -----

func.func @f(%q: tensor<16x1x9x64xf32>, %k: tensor<16x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<16xi32>, %s: tensor<16xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op has 16 rows for 8 slots}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p slot %s : tensor<16xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<16x1x9x64xf32>, tensor<16x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<16xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x8x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op 8 query heads are not a multiple of 3 KV heads}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x8x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op layer 30 is outside 0..29}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 30 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op attribute 'layer' failed to satisfy constraint: 64-bit signless integer attribute whose value is non-negative}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = -1 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op scale must be positive and finite}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.0 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op scale must be positive and finite}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = -1.0 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

// Infinity.
func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op scale must be positive and finite}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0x7F800000 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

// Not a number.
func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op scale must be positive and finite}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0x7FC00000 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf64>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op operand #0 must be ranked tensor of 32-bit float or 16-bit float or bfloat16 type values, but got 'tensor<8x1x9x64xf64>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf64>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf32>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op operand #3 must be ranked tensor of 16-bit float or bfloat16 type or f8E4M3FN type or 8-bit signless integer values, but got 'tensor<30x8x3x2048x64xf32>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf32>, tensor<8xi32>
  return
}

// -----

// A cache of integers has two bytes more a row, of its scale.
func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xi8>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query is 'tensor<8x1x9x64xf32>', expected 8 rows, 1 queries and head_dim 62}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xi8>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x2xf32>, %k: tensor<8x1x3x2xf32>, %c: tensor<30x8x3x2048x2xi8>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op caches of 'i8' have rows of head_dim elements and a scale, got 'tensor<30x8x3x2048x2xi8>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x2xf32>, tensor<8x1x3x2xf32>, tensor<30x8x3x2048x2xi8>, tensor<8xi32>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi64>) {
  // expected-error@+1 {{'kvrm.cached_attention' op operand #5 must be ranked tensor of 32-bit signless integer values, but got 'tensor<8xi64>'}}
  %o, %kc, %vc = kvrm.cached_attention %q, %k, %k, %c, %c at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<8xi64>
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %v: tensor<8x1x1x64xf32>,
             %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op failed to verify that all of {key, value} have same type}}
  %o, %kc, %vc = "kvrm.cached_attention"(%q, %k, %v, %c, %c, %p)
      <{layer = 0 : i64, scale = 0.125 : f32, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0>}>
      : (tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<8x1x1x64xf32>, tensor<30x8x3x2048x64xf16>,
         tensor<30x8x3x2048x64xf16>, tensor<8xi32>)
      -> (tensor<8x1x9x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<30x8x3x2048x64xf16>)
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %c: tensor<30x8x3x2048x64xf16>,
             %d: tensor<30x8x3x1024x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op failed to verify that all of {keyCache, valueCache, newKeyCache, newValueCache} have same type}}
  %o, %kc, %vc = "kvrm.cached_attention"(%q, %k, %k, %c, %d, %p)
      <{layer = 0 : i64, scale = 0.125 : f32, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0>}>
      : (tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>, tensor<30x8x3x2048x64xf16>,
         tensor<30x8x3x1024x64xf16>, tensor<8xi32>)
      -> (tensor<8x1x9x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<30x8x3x2048x64xf16>)
  return
}

// -----

func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf16>, %c: tensor<30x8x3x2048x64xf16>, %p: tensor<8xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op query of 'f32' and key of 'f16'}}
  %o, %kc, %vc = "kvrm.cached_attention"(%q, %k, %k, %c, %c, %p)
      <{layer = 0 : i64, scale = 0.125 : f32, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0>}>
      : (tensor<8x1x9x64xf32>, tensor<8x1x3x64xf16>, tensor<8x1x3x64xf16>, tensor<30x8x3x2048x64xf16>, tensor<30x8x3x2048x64xf16>, tensor<8xi32>)
      -> (tensor<8x1x9x64xf32>, tensor<30x8x3x2048x64xf16>, tensor<30x8x3x2048x64xf16>)
  return
}

// -----

func.func @f(%q: tensor<2x2x2x64xf32>, %c: tensor<1x2x2x64x64xf16>, %p: tensor<2xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op attribute 'window' failed to satisfy constraint: 64-bit signless integer attribute whose value is positive}}
  %o, %kc, %vc = kvrm.cached_attention %q, %q, %q, %c, %c at %p {layer = 0 : i64, scale = 1.0 : f32, window = 0 : i64}
      : tensor<2x2x2x64xf32>, tensor<2x2x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return
}

// -----

func.func @f(%q: tensor<2x2x2x64xf32>, %c: tensor<1x2x2x64x64xf16>, %p: tensor<2xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op softcap must be positive and finite}}
  %o, %kc, %vc = kvrm.cached_attention %q, %q, %q, %c, %c at %p {layer = 0 : i64, scale = 1.0 : f32, softcap = -5.0 : f32}
      : tensor<2x2x2x64xf32>, tensor<2x2x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return
}

// -----

func.func @f(%q: tensor<2x2x2x64xf32>, %c: tensor<1x2x2x64x64xf16>, %p: tensor<2xi32>) {
  // expected-error@+1 {{'kvrm.cached_attention' op softcap must be positive and finite}}
  %o, %kc, %vc = kvrm.cached_attention %q, %q, %q, %c, %c at %p {layer = 0 : i64, scale = 1.0 : f32, softcap = 0x7F800000 : f32}
      : tensor<2x2x2x64xf32>, tensor<2x2x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return
}
