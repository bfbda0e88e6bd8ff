// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @f(%s: !session) {
  // expected-error@+1 {{'kvrm.commit' op descriptor has 64 pages a row, session 128 a slot}}
  %d = kvrm.commit %s : !session -> !kvrm.descriptor<rows = 8, queries = 1, pages = 64>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @f(%s: !session) {
  // expected-error@+1 {{'kvrm.commit' op descriptor has 16 rows for 8 slots}}
  %d = kvrm.commit %s : !session -> !kvrm.descriptor<rows = 16, queries = 1, pages = 128>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @f(%s: !session, %d: !kvrm.descriptor<rows = 8, queries = 1, pages = 64>) {
  // expected-error@+1 {{'kvrm.stage' op descriptor has 64 pages a row, session 128 a slot}}
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>}
      : !session, !kvrm.descriptor<rows = 8, queries = 1, pages = 64>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.stage' op requires attribute 'transport'}}
  %g = kvrm.stage %s, %d : !session, !desc
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%d: !desc) {
  // expected-error@+1 {{'kvrm.positions' op result is 'tensor<4xi32>', expected 8 elements}}
  %x = kvrm.positions %d : !desc -> tensor<4xi32>
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%d: !desc) {
  // expected-error@+1 {{'kvrm.counts' op result is 'tensor<4xi32>', expected 8 elements}}
  %x = kvrm.counts %d : !desc -> tensor<4xi32>
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%d: !desc) {
  // expected-error@+1 {{'kvrm.positions' op result is 'memref<8xi32>', expected a view of the descriptor, 'memref<8xi32, strided<[8]>>'}}
  %y = kvrm.positions %d : !desc -> memref<8xi32>
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%d: !desc) {
  // expected-error@+1 {{'kvrm.positions' op result is 'memref<?xi32>', expected 8 elements}}
  %x = kvrm.positions %d : !desc -> memref<?xi32>
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%d: !desc) {
  // expected-error@+1 {{'kvrm.positions' op result #0 must be 1D tensor of 32-bit signless integer values or 1D memref of 32-bit signless integer values, but got 'tensor<8xi64>'}}
  %x = kvrm.positions %d : !desc -> tensor<8xi64>
  return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%d: !desc) {
  // expected-error@+1 {{'kvrm.counts' op result #0 must be 1D tensor of 32-bit signless integer values or 1D memref of 32-bit signless integer values, but got 'tensor<8x1xi32>'}}
  %x = kvrm.counts %d : !desc -> tensor<8x1xi32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !kvrm.descriptor<rows = 8, queries = 1, pages = 64>) {
  // expected-error@+1 {{'kvrm.append' op descriptor has 64 pages a row, session 128 a slot}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !kvrm.descriptor<rows = 8, queries = 1, pages = 64>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x1x192xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op key must have a static shape [rows, queries, heads, head_dim], got 'tensor<8x1x192xf32>'}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x192xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x4x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op key is 'tensor<8x4x3x64xf32>', expected 8 rows, 1 queries and head_dim 64}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x4x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op key has 9 heads, the pool has 3}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x9x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op layer 30 is outside 0..29}}
  kvrm.append %k, %k to %s at %d {layer = 30 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op attribute 'layer' failed to satisfy constraint: 64-bit signless integer attribute whose value is non-negative}}
  kvrm.append %k, %k to %s at %d {layer = -1 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x1x3x64xf64>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op operand #0 must be ranked tensor of 32-bit float or 16-bit float or bfloat16 type values, but got 'tensor<8x1x3x64xf64>'}}
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<8x1x3x64xf64>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%k: tensor<8x1x3x64xf32>, %v: tensor<8x1x1x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.append' op failed to verify that all of {key, value} have same type}}
  "kvrm.append"(%k, %v, %s, %d) <{layer = 0 : i64}>
      : (tensor<8x1x3x64xf32>, tensor<8x1x1x64xf32>, !session, !desc) -> ()
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
func.func @f(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !kvrm.descriptor<rows = 16, queries = 1, pages = 128>) {
  // expected-error@+1 {{'kvrm.attend' op descriptor has 16 rows for 8 slots}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, !session, !kvrm.descriptor<rows = 16, queries = 1, pages = 128>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x?x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op query must have a static shape [rows, queries, heads, head_dim], got 'tensor<8x?x9x64xf32>'}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x?x9x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x9x128xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op query is 'tensor<8x1x9x128xf32>', expected 8 rows, 1 queries and head_dim 64}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x128xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc4 = !kvrm.descriptor<rows = 8, queries = 4, pages = 128>
func.func @f(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc4) {
  // expected-error@+1 {{'kvrm.attend' op query is 'tensor<8x1x9x64xf32>', expected 8 rows, 4 queries and head_dim 64}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, !session, !desc4
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x10x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op 10 query heads are not a multiple of 3 KV heads}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x10x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x0x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op 0 query heads are not a multiple of 3 KV heads}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x0x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op layer 30 is outside 0..29}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 30 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op scale must be positive and finite}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = -0.125 : f32}
      : tensor<8x1x9x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.attend' op tile of 8 tokens is not whole pages of 16}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 8>}
      : tensor<8x1x9x64xf32>, !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc4 = !kvrm.descriptor<rows = 8, queries = 4, pages = 128>
func.func @f(%q: tensor<8x4x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc4) {
  // expected-error@+1 {{'kvrm.attend' op tile of 3 queries does not divide the step's 4}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 3, kv = 64>}
      : tensor<8x4x9x64xf32>, !session, !desc4
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc4 = !kvrm.descriptor<rows = 8, queries = 4, pages = 128>
func.func @f(%q: tensor<8x4x9x64xf32>, %g: !kvrm.groups, %s: !session, %d: !desc4) {
  // expected-error@+1 {{'kvrm.attend' op tile of 8 queries does not divide the step's 4}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 8, kv = 64>}
      : tensor<8x4x9x64xf32>, !session, !desc4
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024, entries = 64>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
func.func @f(%s: !session, %d: !desc, %q: tensor<8x1x9x64xf32>) {
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  // expected-error@+1 {{'kvrm.attend' op has a window of 100 tokens in a session that keeps summaries}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, window = 100 : i64}
      : tensor<8x1x9x64xf32>, !session, !desc
  return
}

// -----

// Pages of 16: of 1024 exact tokens, 1009 are left when a query comes.
!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
func.func @f(%s: !session, %d: !desc, %q: tensor<8x1x9x64xf32>) {
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  // expected-error@+1 {{'kvrm.attend' op has a window of 1010 tokens in a session that may keep no more than 1009}}
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, window = 1010 : i64}
      : tensor<8x1x9x64xf32>, !session, !desc
  return
}
