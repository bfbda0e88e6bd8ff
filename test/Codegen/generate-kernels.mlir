// RUN: kvrm-opt %s --kvrm-generate-kernels | FileCheck %s

// Layers of one shape share a kernel; the session and descriptor are its types.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
!chunk = !kvrm.descriptor<rows = 1, queries = 8, pages = 4>

// CHECK-DAG: kvrm.kernel @[[$APPEND:append_d64_r2_q1_p16_f16]] heads 2 {{.*}} transport <native> on !session at !descriptor1 {
// CHECK-DAG: kvrm.kernel @[[$ATTEND:attend_d64_g2_q1_kv64_p16_f16]] heads 4 io f32 tile <q = 1, kv = 64> transport <native> on !session at !descriptor1 {
// CHECK-DAG: kvrm.kernel @[[$APPEND8:append_d64_r1_q8_p16_f16]] heads 2 {{.*}} on !session at !descriptor {
// CHECK-DAG: kvrm.kernel @[[$ATTEND8:attend_d64_g2_q4_kv32_p16_f16_staged]] heads 4 io f32 tile <q = 4, kv = 32> transport <staged> on !session at !descriptor {
// CHECK-DAG: softmax_init : <2x64>
// CHECK-DAG: softmax_init : <8x64>

// CHECK-LABEL: func.func @decode
// CHECK-SAME: attributes {kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <workqueue>, transport = <native>>], kvrm.step}
// CHECK: %[[D:.*]] = kvrm.commit %[[S:.*]] :
// CHECK: kvrm.launch @[[$APPEND]](%[[S]], %[[D]]) ins(%[[K:.*]], %[[K]] : {{.*}}) {layer = 0 : i64}
// CHECK: %[[O:.*]] = kvrm.launch @[[$ATTEND]](%[[S]], %[[D]]) ins(%{{.*}} : {{.*}}) outs({{.*}}) {layer = 0 : i64}
// CHECK: kvrm.launch @[[$APPEND]]({{.*}} {layer = 1 : i64}
// CHECK: %[[R:.*]] = kvrm.launch @[[$ATTEND]](%[[S]], %[[D]]) ins(%[[O]] : {{.*}} {layer = 1 : i64}
// CHECK: return %[[R]]
func.func @decode(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %s: !session) -> tensor<2x1x4x64xf32>
    attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<2x1x2x64xf32>, !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  kvrm.append %k, %k to %s at %d {layer = 1 : i64} : tensor<2x1x2x64xf32>, !session, !desc
  %r = kvrm.attend %o, %g of %s at %d {layer = 1 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return %r : tensor<2x1x4x64xf32>
}

// CHECK-LABEL: func.func @prefill
// CHECK: kvrm.launch @[[$APPEND8]](
// CHECK: kvrm.launch @[[$ATTEND8]](
func.func @prefill(%q: tensor<1x8x4x64xf32>, %k: tensor<1x8x2x64xf32>, %s: !session) -> tensor<1x8x4x64xf32>
    attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !chunk
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<staged>} : !session, !chunk
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<1x8x2x64xf32>, !session, !chunk
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 4, kv = 32>,
      schedule = #kvrm.schedule<rows>} : tensor<1x8x4x64xf32>, !session, !chunk
  return %o : tensor<1x8x4x64xf32>
}
