// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s

// CHECK-DAG: !descriptor = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// CHECK-DAG: !descriptor1 = !kvrm.descriptor<rows = 1024, queries = 4096, pages = 65536>
// CHECK-DAG: !session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>
// CHECK-DAG: !session2 = !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 1024, entries = 64>>
// CHECK-DAG: !session3 = !kvrm.session<slots = 8, pages = 3, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 32>>
// CHECK-DAG: !session4 = !kvrm.session<slots = 8, pages = 2, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 64, element = f16, layout = swizzled>, padded>
// CHECK-DAG: !session5 = !kvrm.session<slots = 8, pages = 2, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 64, element = f16, layout = swizzled>>
// CHECK-DAG: !session1 = !kvrm.session<slots = 1024, pages = 65536, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>>

// CHECK-LABEL: func.func private @pools(
// CHECK-SAME: !kvrm.pool<layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>
// CHECK-SAME: !kvrm.pool<layers = 1, kv_heads = 1, head_dim = 1, page = 1, element = bf16, layout = token_major>
// CHECK-SAME: !kvrm.pool<layers = 1024, kv_heads = 256, head_dim = 256, page = 256, element = f16, layout = swizzled>
// CHECK-SAME: !kvrm.pool<layers = 2, kv_heads = 1, head_dim = 96, page = 16, element = f8E4M3FN, layout = swizzled>
// CHECK-SAME: !kvrm.pool<layers = 2, kv_heads = 1, head_dim = 96, page = 16, element = i8, layout = swizzled>
func.func private @pools(
  !kvrm.pool<layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>,
  !kvrm.pool<layers = 1, kv_heads = 1, head_dim = 1, page = 1, element = bf16, layout = token_major>,
  !kvrm.pool<layers = 1024, kv_heads = 256, head_dim = 256, page = 256, element = f16, layout = swizzled>,
  !kvrm.pool<layers = 2, kv_heads = 1, head_dim = 96, page = 16, element = f8E4M3FN, layout = swizzled>,
  !kvrm.pool<layers = 2, kv_heads = 1, head_dim = 96, page = 16, element = i8, layout = swizzled>)

// CHECK-LABEL: func.func private @sessions(!session, !session1)
func.func private @sessions(
  !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = token_major>>,
  !kvrm.session<slots = 1024, pages = 65536, pool = <layers = 1, kv_heads = 1, head_dim = 64, page = 16, element = f16, layout = token_major>>)

// CHECK-LABEL: func.func private @far_sessions(!session2, !session3)
func.func private @far_sessions(
  !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 1024, entries = 64>>,
  !kvrm.session<slots = 8, pages = 3, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 32>>)

// CHECK-LABEL: func.func private @padded_session(!session4, !session5)
func.func private @padded_session(
  !kvrm.session<slots = 8, pages = 2, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 64, element = f16, layout = swizzled>, padded>,
  !kvrm.session<slots = 8, pages = 2, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 64, element = f16, layout = swizzled>>)

// CHECK-LABEL: func.func private @of_a_step(!descriptor, !descriptor1, !kvrm.groups)
func.func private @of_a_step(
  !kvrm.descriptor<rows = 8, queries = 1, pages = 128>,
  !kvrm.descriptor<rows = 1024, queries = 4096, pages = 65536>,
  !kvrm.groups)

// CHECK-LABEL: func.func private @of_a_kernel(
// CHECK-SAME: !kvrm.work_item
// CHECK-SAME: !kvrm.fragment<64x128xf16>
// CHECK-SAME: !kvrm.fragment<64x128xf8E4M3FN>
// CHECK-SAME: !kvrm.fragment<64x128xi8>
// CHECK-SAME: !kvrm.fragment<1x1xbf16>
// CHECK-SAME: !kvrm.fragment<3x64xf32>
// CHECK-SAME: !kvrm.softmax<3x64>
func.func private @of_a_kernel(
  !kvrm.work_item, !kvrm.fragment<64x128xf16>, !kvrm.fragment<64x128xf8E4M3FN>, !kvrm.fragment<64x128xi8>,
  !kvrm.fragment<1x1xbf16>,
  !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>)
