// RUN: kvrm-opt %s --kvrm-lower-kernels-to-host -split-input-file -verify-diagnostics

// expected-error@+1 {{'kvrm.kernel' op for the host needs a pool of layout transposed_keys, got token_major}}
kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = token_major>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op for the host needs a pool of layout transposed_keys, got swizzled}}
kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op for the host needs pages of whole vectors: 8 tokens are not a multiple of 16 lanes}}
kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 8, element = f16, layout = transposed_keys>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op for the host needs heads of whole vectors: 40 elements are not a multiple of 16 lanes}}
kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 40, page = 16, element = f16, layout = transposed_keys>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'func.func' op has the schedule cluster; the host has no thread blocks}}
func.func @step() attributes {kvrm.step, kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <cluster, blocks = 4>, transport = <native>>]} {
  return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op for the host needs io f32, got 'f16'}}
kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op for the host needs io f32, got 'bf16'}}
kvrm.kernel @append heads 2 io bf16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}

// -----

// expected-error@+1 {{'kvrm.kernel' op is of a padded session; the host's static baseline is kvrm-static-baseline}}
kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, padded>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}
