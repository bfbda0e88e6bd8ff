// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-host=lanes=5 2>&1 | FileCheck %s --check-prefix=FIVE
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-host=lanes=0 2>&1 | FileCheck %s --check-prefix=ZERO

// FIVE: error: lanes is 5, none of 4, 8 and 16
// ZERO: error: lanes is 0, none of 4, 8 and 16

kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  kvrm.append_rows
  kvrm.return
}
