// RUN: kvrm-opt %s --kvrm-page-cache="window=32 summaries=16 sinks=4" | FileCheck %s
// RUN: kvrm-opt %s --kvrm-page-cache=window=32 | FileCheck %s --check-prefix=WINDOW
// RUN: kvrm-opt %s --kvrm-page-cache | FileCheck %s --check-prefix=OFF --implicit-check-not=far_history

// The table holds 16 entries, 32 exact tokens and the 20 of a prefill, whatever
// the capacity; both steps have the same session.

// CHECK: !session = !kvrm.session<slots = 2, pages = 5, pool = <{{.*}}>, far_history = <window = 32, entries = 16, sinks = 4>>
// CHECK: func.func @decode({{.*}} !session)
// CHECK: kvrm.commit {{.*}} -> !descriptor
// CHECK: func.func @prefill({{.*}} !session)
// WINDOW: !session = !kvrm.session<slots = 2, pages = 4, pool = <{{.*}}>, far_history = <window = 32>>
// OFF: !session = !kvrm.session<slots = 2, pages = 256, pool = <{{[^>]*}}>>

func.func @decode(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x4096x64xf16>, %vc: tensor<1x2x2x4096x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x4096x64xf16>, tensor<1x2x2x4096x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x4096x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x4096x64xf16>, tensor<1x2x2x4096x64xf16>
}

func.func @prefill(%q: tensor<1x20x4x64xf32>, %k: tensor<1x20x2x64xf32>, %p: tensor<1xi32>, %s: tensor<1xi32>, %kc: tensor<1x2x2x4096x64xf16>, %vc: tensor<1x2x2x4096x64xf16>)
    -> (tensor<1x20x4x64xf32>, tensor<1x2x2x4096x64xf16>, tensor<1x2x2x4096x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p slot %s : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x20x4x64xf32>, tensor<1x20x2x64xf32>, tensor<1x2x2x4096x64xf16>, tensor<1xi32>
  return %o, %o_k, %o_v : tensor<1x20x4x64xf32>, tensor<1x2x2x4096x64xf16>, tensor<1x2x2x4096x64xf16>
}
