// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm -split-input-file -verify-diagnostics

// expected-error@+1 {{'kvrm.kernel' op needs a pool of layout swizzled for this target, got transposed_keys}}
kvrm.kernel @append heads 4 io f16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = transposed_keys>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has pages of 8 tokens; this target takes 16, 32 and 64}}
kvrm.kernel @append heads 4 io f16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 8, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has pages of 128 tokens; this target takes 16, 32 and 64}}
kvrm.kernel @append heads 4 io f16 tile <q = 1, kv = 128> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 128, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has 17 query rows a tile; this target takes at most 16 at head_dim 128}}
kvrm.kernel @attend heads 34 io f16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<17x128xf16>
  %init = kvrm.softmax_init : !kvrm.softmax<17x128>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<17x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<17x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<17x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<17x64xf32>, !kvrm.softmax<17x128>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<17x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<17x128>
    scf.yield %s2 : !kvrm.softmax<17x128>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<17x128>
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has a KV tile of 16 tokens; this target takes multiples of 32}}
kvrm.kernel @attend heads 4 io f16 tile <q = 1, kv = 16> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x64xf16>
  %init = kvrm.softmax_init : !kvrm.softmax<2x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<2x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<16x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<2x64xf16>, !kvrm.fragment<16x64xf16> -> !kvrm.fragment<2x16xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<2x16xf32>, !kvrm.softmax<2x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<2x16xf32>, !kvrm.fragment<16x64xf16>, !kvrm.softmax<2x64>
    scf.yield %s2 : !kvrm.softmax<2x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<2x64>
  kvrm.return
}

// -----

// expected-error@+1 {{'func.func' op has the schedule rows; this target takes workqueue and cluster}}
func.func @step() attributes {kvrm.step, kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <rows>, transport = <native>>]} {
  return
}

// -----

// expected-error@+1 {{'func.func' op has the schedule split; this target takes workqueue and cluster}}
func.func @step() attributes {kvrm.step, kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <split, splits = 2>, transport = <native>>]} {
  return
}

// -----

// expected-error@+1 {{'func.func' op stages pages for clusters; this target does for a workqueue alone}}
func.func @step() attributes {kvrm.step, kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <cluster, blocks = 2>, transport = <staged>>]} {
  return
}

// -----

// What launches pass is what the kernels read: elements of the pool.
// expected-error@+1 {{'kvrm.kernel' op has io 'f32' over a pool of 'f16'; this target takes activations of the pool's element}}
kvrm.kernel @append heads 4 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has io 'f16' over a pool of 'bf16'; this target takes activations of the pool's element}}
kvrm.kernel @append heads 4 io f16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = bf16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has io 'f32' over a pool of 'f8E4M3FN'; this target takes activations of f16 or bf16}}
kvrm.kernel @append heads 4 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f8E4M3FN, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has io 'f32' over a pool of 'i8'; this target takes activations of f16 or bf16}}
kvrm.kernel @append heads 4 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = i8, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has 24 query rows a tile; this target takes up to 16 at head_dim 128, or a multiple of that up to 128}}
kvrm.kernel @attend heads 4 io f16 tile <q = 12, kv = 64> transport <native> 
    on !kvrm.session<slots = 2, pages = 13, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 1, queries = 24, pages = 13> {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<24x128xf16>
  %s0 = kvrm.softmax_init : !kvrm.softmax<24x128>
  %s1 = scf.for %t = %begin to %full step %one iter_args(%s = %s0) -> (!kvrm.softmax<24x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32} : !kvrm.fragment<24x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<24x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<24x64xf32>, !kvrm.softmax<24x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] : !kvrm.fragment<24x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<24x128>
    scf.yield %acc : !kvrm.softmax<24x128>
  }
  %s2 = scf.for %t = %full to %end step %one iter_args(%s = %s1) -> (!kvrm.softmax<24x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32} : !kvrm.fragment<24x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<24x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<24x64xf32>, !kvrm.softmax<24x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] {masked} : !kvrm.fragment<24x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<24x128>
    scf.yield %acc : !kvrm.softmax<24x128>
  }
  kvrm.store_softmax %s2, %item : !kvrm.softmax<24x128>
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op has 64 query rows a tile over staged pages; this target takes at most 16}}
kvrm.kernel @attend heads 4 io f16 tile <q = 32, kv = 64> transport <staged> 
    on !kvrm.session<slots = 2, pages = 13, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 1, queries = 64, pages = 13> {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<64x128xf16>
  %s0 = kvrm.softmax_init : !kvrm.softmax<64x128>
  %s1 = scf.for %t = %begin to %full step %one iter_args(%s = %s0) -> (!kvrm.softmax<64x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32} : !kvrm.fragment<64x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<64x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<64x64xf32>, !kvrm.softmax<64x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] : !kvrm.fragment<64x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<64x128>
    scf.yield %acc : !kvrm.softmax<64x128>
  }
  %s2 = scf.for %t = %full to %end step %one iter_args(%s = %s1) -> (!kvrm.softmax<64x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %scores = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32} : !kvrm.fragment<64x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<64x64xf32>
    %p, %next = kvrm.online_softmax %scores, %s : !kvrm.fragment<64x64xf32>, !kvrm.softmax<64x128>
    %acc = kvrm.accumulate %p, %v, %next, %item[%t] {masked} : !kvrm.fragment<64x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<64x128>
    scf.yield %acc : !kvrm.softmax<64x128>
  }
  kvrm.store_softmax %s2, %item : !kvrm.softmax<64x128>
  kvrm.return
}
