// RUN: kvrm-opt %s --kvrm-print-step-summary -o %t.same 2>&1 | FileCheck %s --check-prefix=STATIC
// RUN: kvrm-opt %s -o %t.plain && diff %t.plain %t.same
// RUN: kvrm-opt %s --kvrm-page-cache --kvrm-print-step-summary -o %t 2>&1 | FileCheck %s --check-prefix=PAGED
// RUN: kvrm-opt %s --kvrm-page-cache --kvrm-merge-transport --kvrm-select-schedule --kvrm-print-step-summary -o %t 2>&1 | FileCheck %s --check-prefix=PLANNED
// RUN: kvrm-opt %s --kvrm-page-cache --kvrm-merge-transport --kvrm-select-schedule --kvrm-generate-kernels --kvrm-print-step-summary -o %t 2>&1 | FileCheck %s --check-prefix=KERNELS

// STATIC:      step @decode_step: phase static
// STATIC-NEXT:   rows 2, queries 1, layers 2, heads 6, KV heads 3, head_dim 64, cache f16
// STATIC-NEXT:   ops func 1, kvrm.cached_attention 2
// STATIC-NEXT: step @empty: no phase
// STATIC-NEXT:   ops func 1
// STATIC-NOT:  step

// Nothing is planned before kvrm-select-schedule.
// PAGED:       step @decode_step: phase paged
// PAGED-NEXT:    rows 2, queries 1, layers 2, heads 6, KV heads 3, head_dim 64, cache f16
// PAGED-NEXT:    ops func 1, kvrm.append 2, kvrm.attend 2, kvrm.commit 1, kvrm.positions 1, kvrm.stage 2
// PAGED-NEXT:  step @empty: no phase

// PLANNED:      step @decode_step: phase paged
// PLANNED:        plan #kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <workqueue>, transport = <native>>
// PLANNED-NEXT:   ops {{.*}}kvrm.stage 1

// KERNELS:      step @decode_step: phase kernels
// KERNELS-NEXT:   rows 2, queries 1, layers 2, heads 6, KV heads 3, head_dim 64, cache f16
// KERNELS-NEXT:   plan #kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <workqueue>, transport = <native>>
// KERNELS-NEXT:   ops func 1, kvrm.commit 1, kvrm.launch 4, kvrm.positions 1, kvrm.stage 1, tensor 2
// KERNELS-NEXT:   launches {{append_[a-z0-9_]+}} 2, {{attend_[a-z0-9_]+}} 2

!cache = tensor<2x2x3x64x64xf16>

func.func @decode_step(%q: tensor<2x1x6x64xf32>, %k: tensor<2x1x3x64xf32>, %kc: !cache, %vc: !cache, %p: tensor<2xi32>)
    -> (tensor<2x1x6x64xf32>, !cache, !cache) attributes {kvrm.step} {
  %o0, %kc0, %vc0 = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x6x64xf32>, tensor<2x1x3x64xf32>, !cache, tensor<2xi32>
  %o1, %kc1, %vc1 = kvrm.cached_attention %o0, %k, %k, %kc0, %vc0 at %p {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<2x1x6x64xf32>, tensor<2x1x3x64xf32>, !cache, tensor<2xi32>
  return %o1, %kc1, %vc1 : tensor<2x1x6x64xf32>, !cache, !cache
}

func.func @empty() attributes {kvrm.step} {
  return
}

// Not a step, and a step that is only declared.
func.func @helper() {
  return
}
func.func private @elsewhere() attributes {kvrm.step}
