// RUN: kvrm-opt %s --kvrm-page-cache --kvrm-merge-transport | FileCheck %s
// RUN: kvrm-opt %s --kvrm-page-cache --kvrm-merge-transport --kvrm-select-schedule --kvrm-generate-kernels \
// RUN:   | FileCheck %s --check-prefix=KERNELS

// A step of two batches, rows that decode and a chunk of a prompt: one commit
// for both, and for each a descriptor, a staging, and a plan.

// CHECK-DAG: ![[$ROWS:.*]] = !kvrm.descriptor<rows = 4, queries = 1, pages = 4>
// CHECK-DAG: ![[$CHUNK:.*]] = !kvrm.descriptor<rows = 1, queries = 8, pages = 4>
// CHECK-LABEL: func.func @mixed_step(
// CHECK-SAME: %[[S:[a-z0-9]+]]: !session)
// CHECK-NEXT: %[[D:.*]]:2 = kvrm.commit %[[S]] : !session -> ![[$ROWS]], ![[$CHUNK]]
// CHECK-NEXT: %[[G0:.*]] = kvrm.stage %[[S]], %[[D]]#0
// CHECK-NEXT: %[[G1:.*]] = kvrm.stage %[[S]], %[[D]]#1
// CHECK-NEXT: kvrm.positions %[[D]]#0 : ![[$ROWS]] -> tensor<4xi32>
// CHECK-NEXT: kvrm.positions %[[D]]#1 : ![[$CHUNK]] -> tensor<1xi32>
// CHECK-NEXT: kvrm.counts %[[D]]#1 : ![[$CHUNK]] -> tensor<1xi32>
// CHECK-NEXT: kvrm.append {{.*}} at %[[D]]#0 {layer = 0 : i64}
// CHECK-NEXT: kvrm.attend {{.*}}, %[[G0]] of %[[S]] at %[[D]]#0 {layer = 0 : i64
// CHECK-NEXT: kvrm.append {{.*}} at %[[D]]#1 {layer = 0 : i64}
// CHECK-NEXT: kvrm.attend {{.*}}, %[[G1]] of %[[S]] at %[[D]]#1 {layer = 0 : i64
// CHECK-NEXT: kvrm.append {{.*}} at %[[D]]#1 {layer = 1 : i64}
// CHECK-NEXT: kvrm.attend {{.*}}, %[[G1]] of %[[S]] at %[[D]]#1 {layer = 1 : i64
// CHECK-NEXT: kvrm.append {{.*}} at %[[D]]#0 {layer = 1 : i64}
// CHECK-NEXT: kvrm.attend {{.*}}, %[[G0]] of %[[S]] at %[[D]]#0 {layer = 1 : i64
// CHECK-NOT: kvrm.stage

// KERNELS: func.func @mixed_step(
// KERNELS-SAME: kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <workqueue>, transport = <native>>,
// KERNELS-SAME: #kvrm.step_plan<tile = <q = 4, kv = 64>, schedule = <rows>, transport = <native>>]
// KERNELS: %[[D:.*]]:2 = kvrm.commit
// KERNELS-DAG: kvrm.launch @[[APPEND:append_d64_r4_q1[a-z0-9_]*]](%{{.*}}, %[[D]]#0)
// KERNELS-DAG: kvrm.launch @[[ATTEND:attend_d64_g2_q1[a-z0-9_]*]](%{{.*}}, %[[D]]#0)
// KERNELS-DAG: kvrm.launch @append_d64_r1_q8{{[a-z0-9_]*}}(%{{.*}}, %[[D]]#1)
// KERNELS-DAG: kvrm.launch @attend_d64_g2_q4{{[a-z0-9_]*}}(%{{.*}}, %[[D]]#1)
func.func @mixed_step(%q: tensor<4x1x4x64xf32>, %k: tensor<4x1x2x64xf32>, %positions: tensor<4xi32>,
                      %chunk: tensor<1x8x4x64xf32>, %chunk_k: tensor<1x8x2x64xf32>, %first: tensor<1xi32>,
                      %counts: tensor<1xi32>, %slots: tensor<1xi32>,
                      %keys: tensor<2x4x2x60x64xf16>, %values: tensor<2x4x2x60x64xf16>)
    -> (tensor<4x1x4x64xf32>, tensor<1x8x4x64xf32>, tensor<2x4x2x60x64xf16>, tensor<2x4x2x60x64xf16>)
    attributes {kvrm.step} {
  %o, %k0, %v0 = kvrm.cached_attention %q, %k, %k, %keys, %values at %positions {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<4x1x4x64xf32>, tensor<4x1x2x64xf32>, tensor<2x4x2x60x64xf16>, tensor<4xi32>
  %c, %k1, %v1 = kvrm.cached_attention %chunk, %chunk_k, %chunk_k, %k0, %v0 at %first
      count %counts : tensor<1xi32> slot %slots : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x8x4x64xf32>, tensor<1x8x2x64xf32>, tensor<2x4x2x60x64xf16>, tensor<1xi32>
  // In which order a layer attends to its batches does not matter.
  %c1, %k2, %v2 = kvrm.cached_attention %c, %chunk_k, %chunk_k, %k1, %v1 at %first
      count %counts : tensor<1xi32> slot %slots : tensor<1xi32> {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<1x8x4x64xf32>, tensor<1x8x2x64xf32>, tensor<2x4x2x60x64xf16>, tensor<1xi32>
  %o1, %k3, %v3 = kvrm.cached_attention %o, %k, %k, %k2, %v2 at %positions {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<4x1x4x64xf32>, tensor<4x1x2x64xf32>, tensor<2x4x2x60x64xf16>, tensor<4xi32>
  return %o1, %c1, %k3, %v3
      : tensor<4x1x4x64xf32>, tensor<1x8x4x64xf32>, tensor<2x4x2x60x64xf16>, tensor<2x4x2x60x64xf16>
}
