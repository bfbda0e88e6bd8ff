// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
// expected-error@+1 {{'kvrm.kernel' op descriptor has 64 pages a row, session 128 a slot}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !kvrm.descriptor<rows = 8, queries = 1, pages = 64> {
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op 8 query heads are not a multiple of 3 KV heads}}
kvrm.kernel @k heads 8 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op 0 query heads are not a multiple of 3 KV heads}}
kvrm.kernel @k heads 0 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op -3 query heads are not a multiple of 3 KV heads}}
kvrm.kernel @k heads -3 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op tile of 8 tokens is not whole pages of 16}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 8> transport <native> on !session at !desc {
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op tile of 4 queries does not divide the step's 1}}
kvrm.kernel @k heads 9 io f32 tile <q = 4, kv = 64> transport <native> on !session at !desc {
  kvrm.return
}

// -----

!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op attribute 'session' failed to satisfy constraint}}
"kvrm.kernel"() <{sym_name = "k", heads = 9 : i64, io = f32, tile = #kvrm.tile<q = 1, kv = 64>,
    transport = #kvrm.transport<native>, session = i32, descriptor = !desc}> ({
  "kvrm.return"() : () -> ()
}) : () -> ()

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op expects region #0 to have 0 or 1 blocks}}
"kvrm.kernel"() <{sym_name = "k", heads = 9 : i64, io = f32, tile = #kvrm.tile<q = 1, kv = 64>,
    transport = #kvrm.transport<native>, session = !session, descriptor = !desc}> ({
  cf.br ^bb1
^bb1:
  "kvrm.return"() : () -> ()
}) : () -> ()

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op region should have no arguments}}
"kvrm.kernel"() <{sym_name = "k", heads = 9 : i64, io = f32, tile = #kvrm.tile<q = 1, kv = 64>,
    transport = #kvrm.transport<native>, session = !session, descriptor = !desc}> ({
^bb0(%x: index):
  "kvrm.return"() : () -> ()
}) : () -> ()

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op expects a non-empty block}}
"kvrm.kernel"() <{sym_name = "k", heads = 9 : i64, io = f32, tile = #kvrm.tile<q = 1, kv = 64>,
    transport = #kvrm.transport<native>, session = !session, descriptor = !desc}> ({
^bb0:
}) : () -> ()

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  // expected-error@+1 {{block with no terminator}}
  kvrm.append_rows
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  // expected-error@+1 {{'llvm.unreachable' op ends a kvrm.kernel in place of a kvrm.return}}
  llvm.unreachable
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+3 {{'kvrm.kernel' op symbol's parent must have the SymbolTable trait}}
func.func @f() {
  // A kernel is no part of a function.
  kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
    kvrm.append_rows
    kvrm.return
  }
  return
}

// -----

func.func @f() {
  // expected-error@+1 {{'kvrm.return' op expects parent op 'kvrm.kernel'}}
  kvrm.return
}

// -----

func.func @f() {
  // expected-error@+1 {{'kvrm.get_work_item' op stands outside a kvrm.kernel}}
  %i = kvrm.get_work_item
  return
}

// -----

func.func @f(%i: !kvrm.work_item) {
  // expected-error@+1 {{'kvrm.tile_range' op stands outside a kvrm.kernel}}
  %b, %m, %e = kvrm.tile_range %i
  return
}

// -----

func.func @f(%i: !kvrm.work_item) {
  // expected-error@+1 {{'kvrm.load_query' op stands outside a kvrm.kernel}}
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  return
}

// -----

func.func @f(%i: !kvrm.work_item, %t: index) {
  // expected-error@+1 {{'kvrm.load_tile' op stands outside a kvrm.kernel}}
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  return
}

// -----

func.func @f(%q: !kvrm.fragment<3x64xf32>, %i: !kvrm.work_item, %t: index) {
  // expected-error@+1 {{'kvrm.score' op stands outside a kvrm.kernel}}
  %x = kvrm.score %q, %q, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<3x64xf32> -> !kvrm.fragment<3x3xf32>
  return
}

// -----

func.func @f() {
  // expected-error@+1 {{'kvrm.softmax_init' op stands outside a kvrm.kernel}}
  %s = kvrm.softmax_init : !kvrm.softmax<3x64>
  return
}

// -----

func.func @f(%x: !kvrm.fragment<3x64xf32>, %s: !kvrm.softmax<3x64>) {
  // expected-error@+1 {{'kvrm.online_softmax' op stands outside a kvrm.kernel}}
  %w, %n = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
  return
}

// -----

func.func @f(%x: !kvrm.fragment<64x64xf32>, %s: !kvrm.softmax<64x64>, %i: !kvrm.work_item, %t: index) {
  // expected-error@+1 {{'kvrm.accumulate' op stands outside a kvrm.kernel}}
  %n = kvrm.accumulate %x, %x, %s, %i[%t]
      : !kvrm.fragment<64x64xf32>, !kvrm.fragment<64x64xf32>, !kvrm.softmax<64x64>
  return
}

// -----

func.func @f(%s: !kvrm.softmax<3x64>, %i: !kvrm.work_item) {
  // expected-error@+1 {{'kvrm.store_softmax' op stands outside a kvrm.kernel}}
  kvrm.store_softmax %s, %i : !kvrm.softmax<3x64>
  return
}

// -----

func.func @f() {
  // expected-error@+1 {{'kvrm.append_rows' op stands outside a kvrm.kernel}}
  kvrm.append_rows
  return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  // expected-error@+1 {{'kvrm.load_query' op query is 9x64, expected 3x64}}
  %q = kvrm.load_query %i : !kvrm.fragment<9x64xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  // expected-error@+1 {{'kvrm.load_query' op query is 3x128, expected 3x64}}
  %q = kvrm.load_query %i : !kvrm.fragment<3x128xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  // expected-error@+1 {{'kvrm.load_tile' op tile is 32x64, expected 64x64}}
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<32x64xf16>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  // expected-error@+1 {{'kvrm.load_tile' op tile of 'bf16' from a pool of 'f16'}}
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xbf16>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  %w = kvrm.score %q, %q, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<3x64xf32> -> !kvrm.fragment<3x3xf32>
  // expected-error@+1 {{'kvrm.score' op query has 64 columns, key 3}}
  %x = kvrm.score %q, %w, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<3x3xf32> -> !kvrm.fragment<3x3xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  // expected-error@+1 {{'kvrm.score' op scores is 3x32, expected 3x64}}
  %x = kvrm.score %q, %k, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x32xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  // expected-error@+1 {{'kvrm.score' op scores are 'f16', expected f32}}
  %x = kvrm.score %q, %k, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf16>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  // expected-error@+1 {{'kvrm.score' op scale must be positive and finite}}
  %x = kvrm.score %q, %k, %i[%t] {scale = 0.0 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  // expected-error@+1 {{'kvrm.softmax_init' op state is 9x64, expected 3x64}}
  %s = kvrm.softmax_init : !kvrm.softmax<9x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  // expected-error@+1 {{'kvrm.softmax_init' op state is 3x32, expected 3x64}}
  %s = kvrm.softmax_init : !kvrm.softmax<3x32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  %s = kvrm.softmax_init : !kvrm.softmax<3x64>
  %x = kvrm.score %k, %k, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<64x64xf16>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<64x64xf32>
  // expected-error@+1 {{'kvrm.online_softmax' op scores have 64 rows, state 3}}
  %w, %n = kvrm.online_softmax %x, %s : !kvrm.fragment<64x64xf32>, !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  %s = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'kvrm.accumulate' op weights have 64 columns, value 3 rows}}
  %n = kvrm.accumulate %q, %q, %s, %i[%t]
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  %s = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'kvrm.accumulate' op state is 3x64, expected 64x64}}
  %n = kvrm.accumulate %k, %v, %s, %i[%t]
      : !kvrm.fragment<64x64xf16>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  %t = arith.constant 0 : index
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  %k, %v = kvrm.load_tile %i[%t] : !kvrm.fragment<64x64xf16>
  %s = kvrm.softmax_init : !kvrm.softmax<3x64>
  %x = kvrm.score %q, %k, %i[%t] {scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
  %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
  %u = builtin.unrealized_conversion_cast %s1 : !kvrm.softmax<3x64> to !kvrm.softmax<9x64>
  // expected-error@+1 {{'kvrm.store_softmax' op state is 9x64, expected 3x64}}
  kvrm.store_softmax %u, %i : !kvrm.softmax<9x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
%c = arith.constant 0 : index
// expected-note@+1 {{required by region isolation constraints}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  // expected-error@+1 {{using value defined outside the region}}
  %k, %v = kvrm.load_tile %i[%c] : !kvrm.fragment<64x64xf16>
  kvrm.return
}

// -----

// A window alone keeps no summaries.
!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %item = kvrm.get_work_item
  // expected-error@+1 {{'kvrm.summary_end' op wants summaries in a kernel of a session that keeps none}}
  %split = kvrm.summary_end %item
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %k, %v = kvrm.load_tile %item[%begin] : !kvrm.fragment<64x64xf16>
  // expected-error@+1 {{'kvrm.score' op wants summaries in a kernel of a session that keeps none}}
  %x = kvrm.score %q, %k, %item[%begin] {summaries, scale = 0.125 : f32}
      : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io bf16 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %i = kvrm.get_work_item
  // expected-error@+1 {{'kvrm.load_query' op query of 'f32' in a kernel of io 'bf16'}}
  %q = kvrm.load_query %i : !kvrm.fragment<3x64xf32>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op attribute 'io' failed to satisfy constraint: type attribute of 32-bit float or 16-bit float or bfloat16 type}}
kvrm.kernel @k heads 9 io f64 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
