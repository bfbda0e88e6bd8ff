// RUN: kvrm-opt %s --kvrm-select-schedule --kvrm-generate-kernels | FileCheck %s
// RUN: kvrm-opt %s --kvrm-select-schedule --kvrm-generate-kernels --kvrm-lower-kernels-to-host | FileCheck %s --check-prefix=HOST

// Layers that attend alike share a kernel; a window or a softcap makes another.

// CHECK-DAG: kvrm.kernel @[[FULL:attend_d64_g2_q1_kv64_p16_f16]] {{.*}} transport <native> on
// CHECK-DAG: kvrm.kernel @[[WINDOW:attend_d64_g2_q1_kv64_p16_f16_w100]] {{.*}} transport <native> window 100 on
// CHECK-DAG: kvrm.kernel @[[CAPPED:attend_d64_g2_q1_kv64_p16_f16_[0-9]+]] {{.*}} transport <native> on
// CHECK: func.func @step
// CHECK: kvrm.launch @[[FULL]]({{.*}} {layer = 0
// CHECK: kvrm.launch @[[WINDOW]]({{.*}} {layer = 1
// CHECK: kvrm.launch @[[WINDOW]]({{.*}} {layer = 2
// CHECK: kvrm.launch @[[CAPPED]]({{.*}} {layer = 3

// The host's code with a window compares each token with both of its ends, in
// the tiles that the window cuts and in the last ones.
// HOST-LABEL: func.func private @attend_d64_g2_q1_kv64_p16_f16_w100
// HOST-COUNT-3: scf.for %{{.*}} = %{{.*}} to %{{.*}} step %{{.*}} : i64
// HOST: arith.cmpi sge

!session = !kvrm.session<slots = 2, pages = 32, pool = <layers = 4, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 32>
func.func @step(%session: !session, %q: tensor<2x1x4x64xf32>) -> tensor<2x1x4x64xf32> attributes {kvrm.step} {
  %d = kvrm.commit %session : !session -> !desc
  %g = kvrm.stage %session, %d {transport = #kvrm.transport<native>} : !session, !desc
  %0 = kvrm.attend %q, %g of %session at %d {layer = 0 : i64, scale = 0.125 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  %1 = kvrm.attend %0, %g of %session at %d {layer = 1 : i64, scale = 0.125 : f32, window = 100 : i64} : tensor<2x1x4x64xf32>, !session, !desc
  %2 = kvrm.attend %1, %g of %session at %d {layer = 2 : i64, scale = 0.125 : f32, window = 100 : i64} : tensor<2x1x4x64xf32>, !session, !desc
  %3 = kvrm.attend %2, %g of %session at %d {layer = 3 : i64, scale = 0.125 : f32, softcap = 50.0 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  return %3 : tensor<2x1x4x64xf32>
}
