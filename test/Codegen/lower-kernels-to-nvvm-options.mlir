// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_70 2>&1 | FileCheck %s --check-prefix=ARCH
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=warps=3 2>&1 | FileCheck %s --check-prefix=WARPS
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=warps=-8 2>&1 | FileCheck %s --check-prefix=WARPS
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=warps=32 2>&1 | FileCheck %s --check-prefix=WARPS
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=stages=17 2>&1 | FileCheck %s --check-prefix=STAGES
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=blocks-per-sm=0 2>&1 | FileCheck %s --check-prefix=BLOCKS
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm="warps=16 stages=16" 2>&1 | FileCheck %s --check-prefix=SHARED
// RUN: not kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 2>&1 | FileCheck %s --check-prefix=CLUSTER

// CLUSTER: error: 'func.func' op has clusters of 4 blocks, which sm_80 has not
// ARCH: error: arch: 'sm_70' is not sm_80 or sm_90
// WARPS: error: warps: {{3|-8|32}} is neither 0 nor a power of two up to 16
// STAGES: error: stages: 17 is outside 0..16
// BLOCKS: error: blocks-per-sm: 0 is outside 1..8
// SHARED: error: 'kvrm.kernel' op needs {{[0-9]+}} bytes of shared memory a block; sm_90 has 232448

kvrm.kernel @attend heads 4 io f16 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
    at !kvrm.descriptor<rows = 2, queries = 1, pages = 4> {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<2x128xf16>
  %init = kvrm.softmax_init : !kvrm.softmax<2x128>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<2x128>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x128xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<2x128xf16>, !kvrm.fragment<64x128xf16> -> !kvrm.fragment<2x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<2x64xf32>, !kvrm.softmax<2x128>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<2x64xf32>, !kvrm.fragment<64x128xf16>, !kvrm.softmax<2x128>
    scf.yield %s2 : !kvrm.softmax<2x128>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<2x128>
  kvrm.return
}

func.func @step() attributes {kvrm.step, kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <cluster, blocks = 4>, transport = <native>>]} {
  return
}
