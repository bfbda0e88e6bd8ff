// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

// A kernel appends, or attends in one form; whatever else it might say is an
// error where it says it, so that no target has to guess.

// From the middle: all tiles of an item are attended to.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op does not begin at the tile where the one before it ended, or ends there}}
  %last = scf.for %t = %full to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
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

// -----

// Up to the middle.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op does not attend to all tiles of its item}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// The other way round.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op does not begin at the tile where the one before it ended, or ends there}}
  %mid = scf.for %t = %full to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %begin to %full step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Twice.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  // expected-error@+1 {{'scf.for' op does not begin at the tile where the one before it ended, or ends there}}
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
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

// -----

// Nothing, and then all.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op does not begin at the tile where the one before it ended, or ends there}}
  %mid = scf.for %t = %begin to %begin step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
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

// -----

// With a gap.
!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024, entries = 64>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %split = kvrm.summary_end %item
  %mid = scf.for %t = %begin to %split step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  // expected-error@+1 {{'scf.for' op does not begin at the tile where the one before it ended, or ends there}}
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Bounds that are no tiles of the item.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op must be over tiles from one bound of its item to another}}
  %last = scf.for %t = %one to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op must be over tiles from one bound of its item to another}}
  %last = scf.for %t = %begin to %one step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
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

// -----

// Some of the tiles.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op over tiles must have a step of 1}}
  %last = scf.for %t = %begin to %end step %full iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  // Two is no step.
  // expected-error@+1 {{'arith.constant' op has no place in an attention program}}
  %one = arith.constant 2 : index
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

// -----

// A state that is not threaded.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  // expected-error@+1 {{'scf.for' op over tiles must carry on the softmax state of the one before, and nothing else}}
  %last = scf.for %t = %full to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  // expected-error@+1 {{'kvrm.store_softmax' op does not take the state after the last tile}}
  kvrm.store_softmax %mid, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // expected-error@+1 {{'kvrm.store_softmax' op does not take the state after the last tile}}
  kvrm.store_softmax %init, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Something beside the state.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  // expected-error@+1 {{'scf.for' op over tiles must carry on the softmax state}}
  %last:2 = scf.for %t = %begin to %end step %one iter_args(%s = %init, %n = %one) -> (!kvrm.softmax<3x64>, index) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2, %n : !kvrm.softmax<3x64>, index
  }
  kvrm.store_softmax %last#0, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    // expected-error@+1 {{'kvrm.online_softmax' op does not take the state that its loop carries}}
    %w, %s1 = kvrm.online_softmax %x, %init : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'kvrm.accumulate' op does not take the state that goes with its weights}}
    %s2 = kvrm.accumulate %w, %v, %s, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'scf.yield' op does not take the state with the tile's values}}
    scf.yield %s1 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'scf.yield' op does not take the state with the tile's values}}
    scf.yield %init : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Another tile than the loop's.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    // expected-error@+1 {{'kvrm.load_tile' op does not take the tile of its loop}}
    %k, %v = kvrm.load_tile %item[%begin] : !kvrm.fragment<64x64xf16>
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not take the tile of its loop}}
    %x = kvrm.score %q, %k, %item[%begin] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'kvrm.accumulate' op does not take the tile of its loop}}
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%full] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Values for keys, keys for values.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not take the keys of its tile}}
    %x = kvrm.score %q, %v, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'kvrm.accumulate' op does not take the values of its tile}}
    %s2 = kvrm.accumulate %w, %k, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Scores for weights, a query for scores: head_dim and the tile are alike here.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'kvrm.accumulate' op does not take the weights of its tile}}
    %s2 = kvrm.accumulate %x, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    // expected-error@+1 {{'kvrm.online_softmax' op does not take the scores of its tile}}
    %w, %s1 = kvrm.online_softmax %q, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not take the query of its item}}
    %x = kvrm.score %k, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<64x64xf16>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<64x64xf32>
    %w, %s1 = kvrm.online_softmax %q, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// No mask where one is due.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not mask tiles that hold tokens a query row must not see}}
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Half a mask.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
    // expected-error@+1 {{'kvrm.accumulate' op and the score of its tile are not both masked}}
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    // expected-error@+1 {{'kvrm.accumulate' op and the score of its tile are not both masked}}
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Summaries taken for tokens.
!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024, entries = 64>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %split = kvrm.summary_end %item
  %m1 = scf.for %t = %begin to %split step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not heed summaries, which its tiles may hold}}
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %m2 = scf.for %t = %split to %full step %one iter_args(%s = %m1) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %m2) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024, entries = 64>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %split = kvrm.summary_end %item
  %m1 = scf.for %t = %begin to %split step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %y = kvrm.score %q, %k, %item[%t] {summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %y, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %m2 = scf.for %t = %split to %full step %one iter_args(%s = %m1) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %y = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %y, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %m2) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not heed summaries, which its tiles may hold}}
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

// -----

// A bound of nothing.
!session = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>, far_history = <window = 1024, entries = 64>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 72>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  // expected-error@+1 {{'kvrm.summary_end' op bounds no loop}}
  %split = kvrm.summary_end %item
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Two scales.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %y = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %y, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op and the scores before it differ in scale}}
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.25 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Ops twice.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // Again.
  // expected-error@+1 {{'kvrm.store_softmax' op has no place in an attention program}}
  "kvrm.store_softmax"(%last, %item) : (!kvrm.softmax<3x64>, !kvrm.work_item) -> ()
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  // expected-error@+1 {{'kvrm.get_work_item' op has no place in an attention program}}
  %item2 = kvrm.get_work_item
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  // expected-error@+1 {{'kvrm.tile_range' op has no place in an attention program}}
  %b2, %f2, %e2 = kvrm.tile_range %item
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    // expected-error@+1 {{'kvrm.load_tile' op has no place in a loop over tiles}}
    %k2, %v2 = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Ops that are not there.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op has no 'kvrm.store_softmax', which is part of an attention program}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op does not attend to all tiles of its item}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  kvrm.store_softmax %init, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// expected-error@+1 {{'kvrm.kernel' op has no 'kvrm.append_rows', which is part of an append program}}
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.return
}

// -----

// Code before, between and after, or none of it used.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  // expected-error@+1 {{'arith.constant' op has no place in an attention program}}
  %zero = arith.constant 0 : index
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  // expected-error@+1 {{'arith.constant' op has no place in an attention program}}
  %unused = arith.constant 1 : index
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  // expected-error@+1 {{'arith.addi' op has no place in an attention program}}
  %sum = arith.addi %begin, %begin : index
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

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    // expected-error@+1 {{'arith.addi' op has no place in a loop over tiles}}
    %next = arith.addi %t, %t : index
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // expected-error@+1 {{'llvm.inline_asm' op has no place in an attention program}}
  llvm.inline_asm has_side_effects "trap", "" : () -> ()
  kvrm.return
}

// -----

// A branch round an op.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // expected-error@+1 {{'arith.cmpi' op has no place in an attention program}}
  %empty = arith.cmpi slt, %begin, %end : index
  scf.if %empty {
    kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  }
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // expected-error@+1 {{'arith.constant' op has no place in an attention program}}
  %false = arith.constant false
  scf.if %false {
    kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  }
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // expected-error@+1 {{'scf.execute_region' op has no place in an attention program}}
  scf.execute_region {
    kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
    scf.yield
  }
  kvrm.return
}

// -----

// A loop in a loop.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    // expected-error@+1 {{'scf.for' op has no place in a loop over tiles}}
    %s2 = scf.for %u = %begin to %end step %one iter_args(%z = %s) -> (!kvrm.softmax<3x64>) {
      scf.yield %z : !kvrm.softmax<3x64>
    }
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// Both programs, or one of them twice.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
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
  // expected-error@+1 {{'kvrm.append_rows' op has no place in an attention program}}
  kvrm.append_rows
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  // expected-error@+1 {{'kvrm.append_rows' op has no place in an append program}}
  kvrm.append_rows {second}
  kvrm.return
}

// -----

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  // expected-error@+1 {{'kvrm.softmax_init' op has no place in an append program}}
  %s = kvrm.softmax_init : !kvrm.softmax<3x64>
  kvrm.return
}

// -----

// The first tiles of a window, not masked.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> window 100 on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op does not mask tiles that hold tokens a query row must not see}}
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
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

// -----

// A window of nothing.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  // expected-error@+1 {{'kvrm.window_edge' op stands in a kernel without a window}}
  %edge = kvrm.window_edge %item
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

// -----

// An edge that bounds nothing.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> window 100 on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  // expected-error@+1 {{'kvrm.window_edge' op bounds no loop}}
  %edge = kvrm.window_edge %item
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

// -----

// Two softcaps.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32, softcap = 50.0 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op and the scores before it differ in softcap}}
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

// -----

// No softcap.
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
kvrm.kernel @k heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    // expected-error@+1 {{'kvrm.score' op softcap must be positive and finite}}
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32, softcap = 0.0 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
