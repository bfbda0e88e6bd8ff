// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
func.func @f(%q: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op names no kernel 'attend'}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x9x64xf32>) outs(%q : tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x9x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
ml_program.global private @w(dense<0.0> : tensor<1xf32>) : tensor<1xf32>
func.func @f(%q: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op names 'w', neither a kernel nor a function}}
  %o = kvrm.launch @w(%s, %d) ins(%q : tensor<8x1x9x64xf32>) outs(%q : tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x9x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op takes a query and an output, or a key and a value}}
  kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x9x64xf32>) {layer = 0 : i64} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op takes a query and an output, or a key and a value}}
  %o = kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>)
      outs(%k : tensor<8x1x3x64xf32>) {layer = 0 : i64} : !session, !desc -> tensor<8x1x3x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op query and output differ in type}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x9x64xf32>) outs(%k : tensor<8x1x3x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x3x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op key and value differ in type}}
  kvrm.launch @append(%s, %d) ins(%k, %q : tensor<8x1x3x64xf32>, tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x576xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op input must have a static shape [rows, queries, heads, head_dim], got 'tensor<8x576xf32>'}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x576xf32>) outs(%q : tensor<8x576xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x576xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<4x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op input is 'tensor<4x1x9x64xf32>', expected 8 rows, 1 queries and head_dim 64}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<4x1x9x64xf32>) outs(%q : tensor<4x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<4x1x9x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%k: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op key has 9 heads, the pool has 3}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x9x64xf32>, tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x1x8x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op 8 query heads are not a multiple of 3 KV heads}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x8x64xf32>) outs(%q : tensor<8x1x8x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x8x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op has 3 query heads, kernel 'attend' 9}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x3x64xf32>) outs(%q : tensor<8x1x3x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x3x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op layer 30 is outside 0..29}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x9x64xf32>) outs(%q : tensor<8x1x9x64xf32>)
      {layer = 30 : i64} : !session, !desc -> tensor<8x1x9x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+2 {{attribute 'layer' failed to satisfy constraint: 64-bit signless integer attribute whose value is non-negative}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>)
      {layer = -1 : i64} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%q: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op attends, kernel 'append' appends}}
  %o = kvrm.launch @append(%s, %d) ins(%q : tensor<8x1x9x64xf32>) outs(%q : tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x9x64xf32>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op appends, kernel 'attend' attends}}
  kvrm.launch @attend(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>)
      {layer = 0 : i64} : !session, !desc
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
!desc4 = !kvrm.descriptor<rows = 8, queries = 4, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%k: tensor<8x4x3x64xf32>, %s: !session, %d: !desc4) {
  // expected-error@+1 {{'kvrm.launch' op and kernel 'append' differ in session or descriptor}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x4x3x64xf32>, tensor<8x4x3x64xf32>)
      {layer = 0 : i64} : !session, !desc4
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !kvrm.descriptor<rows = 8, queries = 1, pages = 64>) {
  // expected-error@+1 {{'kvrm.launch' op descriptor has 64 pages a row, session 128 a slot}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>)
      {layer = 0 : i64} : !session, !kvrm.descriptor<rows = 8, queries = 1, pages = 64>
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
func.func @f(%q: tensor<8x1x9x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op expected type of operand #3 ('tensor<8x1x9x64xf32>') to match type of corresponding result ('tensor<8x1x3x64xf32>')}}
  %o = kvrm.launch @attend(%s, %d) ins(%q : tensor<8x1x9x64xf32>) outs(%q : tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x3x64xf32>
  return
}

// -----

func.func private @dense(index, index, memref<8x64xf32>, memref<2x64x32xf16>)
func.func @f(%x: memref<8x64xf32>, %w: memref<2x64x32xf16>) {
  // expected-error@+1 {{'kvrm.dispatch' op needs at least one task, got 0}}
  kvrm.dispatch @dense tasks 0 ins(%x, %w : memref<8x64xf32>, memref<2x64x32xf16>)
  return
}

// -----

func.func private @dense(index, index, memref<8x64xf32>, memref<2x64x32xf16>)
func.func @f(%x: memref<8x64xf32>, %w: memref<2x64x32xf16>) {
  // expected-error@+1 {{'kvrm.dispatch' op needs at least one task, got -1}}
  kvrm.dispatch @dense tasks -1 ins(%x, %w : memref<8x64xf32>, memref<2x64x32xf16>)
  return
}

// -----

func.func private @dense(index, index, memref<8x64xf32>, memref<2x64x32xf16>)
func.func @f(%x: memref<8x64xf32>, %w: memref<2x64x32xf16>) {
  // expected-error@+1 {{'kvrm.dispatch' op names no function 'sparse'}}
  kvrm.dispatch @sparse tasks 2 ins(%x : memref<8x64xf32>)
  return
}

// -----

ml_program.global private @w(dense<0.0> : tensor<1xf32>) : tensor<1xf32>
func.func @f(%x: memref<8x64xf32>, %w: memref<2x64x32xf16>) {
  // expected-error@+1 {{'kvrm.dispatch' op names no function 'w'}}
  kvrm.dispatch @w tasks 2 ins(%x : memref<8x64xf32>)
  return
}

// -----

func.func private @dense(index, index, memref<8x64xf32>, memref<2x64x32xf16>)
func.func @f(%x: memref<8x64xf32>, %w: memref<2x64x32xf16>) {
  // expected-error@+1 {{'kvrm.dispatch' op passes (begin, end, 'memref<8x64xf32>'), function 'dense' takes '(index, index, memref<8x64xf32>, memref<2x64x32xf16>) -> ()'}}
  kvrm.dispatch @dense tasks 2 ins(%x : memref<8x64xf32>)
  return
}

// -----

func.func private @dense(index, index, memref<8x64xf32>, memref<2x64x32xf16>)
func.func @f(%x: memref<8x64xf32>, %w: memref<2x64x32xf16>) {
  // expected-error@+1 {{'kvrm.dispatch' op passes (begin, end, 'memref<2x64x32xf16>', 'memref<8x64xf32>'), function 'dense' takes}}
  kvrm.dispatch @dense tasks 2 ins(%w : memref<2x64x32xf16>) outs(%x : memref<8x64xf32>)
  return
}

// -----

func.func private @unranked(index, index, memref<8xf32>)
func.func @f(%x: memref<*xf32>) {
  // expected-error@+1 {{'kvrm.dispatch' op passes (begin, end, 'memref<*xf32>'), function 'unranked' takes}}
  kvrm.dispatch @unranked tasks 2 ins(%x : memref<*xf32>)
  return
}

// -----

func.func private @bare()
func.func @f() {
  // expected-error@+1 {{'kvrm.dispatch' op passes (begin, end, ), function 'bare' takes '()}}
  kvrm.dispatch @bare tasks 2
  return
}

// -----

func.func @f(%x: tensor<8x64xf32>) {
  // expected-error@+1 {{'kvrm.dispatch' op has 0 results for 1 output tensors}}
  kvrm.dispatch @dense tasks 1 outs(%x : tensor<8x64xf32>)
  return
}
func.func private @dense(index, index, memref<8x64xf32>)

// -----

func.func @f(%x: memref<8x64xf32>) {
  // expected-error@+1 {{'kvrm.dispatch' op has 1 results for 0 output tensors}}
  %y = kvrm.dispatch @dense tasks 1 outs(%x : memref<8x64xf32>) -> tensor<8x64xf32>
  return
}
func.func private @dense(index, index, memref<8x64xf32>)

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @append heads 9 io f16 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @f(%k: tensor<8x1x3x64xf32>, %s: !session, %d: !desc) {
  // expected-error@+1 {{'kvrm.launch' op passes 'f32', kernel 'append' has io 'f16'}}
  kvrm.launch @append(%s, %d) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>) {layer = 0 : i64} : !session, !desc
  return
}

// -----

// A kernel is told where a buffer starts, and takes it to be contiguous.
!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func private @append(!llvm.ptr)
func.func @step(%k: memref<2x1x2x64xf32, strided<[512, 512, 64, 1]>>, %v: memref<2x1x2x64xf32, strided<[128, 128, 64, 1], offset: 256>>, %s: !session)
    attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.launch' op takes a buffer that is not contiguous: 'memref<2x1x2x64xf32, strided<[512, 512, 64, 1]>>'}}
  kvrm.launch @append(%s, %d) ins(%k, %v : memref<2x1x2x64xf32, strided<[512, 512, 64, 1]>>, memref<2x1x2x64xf32, strided<[128, 128, 64, 1], offset: 256>>) {layer = 0 : i64} : !session, !desc
  return
}
