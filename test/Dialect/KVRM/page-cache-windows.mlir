// Where every attention has a window, what is behind the longest is dropped.
//
// RUN: kvrm-opt %s --kvrm-page-cache --split-input-file | FileCheck %s --implicit-check-not=far_history
// RUN: kvrm-opt %s --kvrm-page-cache=padded --split-input-file | FileCheck %s --check-prefix=PADDED --implicit-check-not=far_history
// PADDED-COUNT-3: padded

// A query that comes with 111 = 7 * 16 - 1 tokens there sees 97 at the least,
// its own among them.
// CHECK: !session = !kvrm.session<slots = 2, pages = 8, pool = <{{.*}}>, far_history = <window = 112>>
// CHECK: kvrm.attend {{.*}}window = 40
// CHECK: kvrm.attend {{.*}}window = 97

func.func @all(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<2x2x2x4096x64xf16>, %vc: tensor<2x2x2x4096x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2x2x2x4096x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32, window = 40 : i64}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2xi32>
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %o_k, %o_v at %p {layer = 1 : i64, scale = 0.125 : f32, window = 97 : i64}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2xi32>
  return %r, %r_k, %r_v : tensor<2x1x4x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2x2x2x4096x64xf16>
}

// -----

// One layer sees all.
// CHECK: !session = !kvrm.session<slots = 2, pages = 256, pool = <{{[^>]*}}>>

func.func @some(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<2x2x2x4096x64xf16>, %vc: tensor<2x2x2x4096x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2x2x2x4096x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32, window = 40 : i64}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2xi32>
  %r, %r_k, %r_v = kvrm.cached_attention %o, %k, %k, %o_k, %o_v at %p {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2xi32>
  return %r, %r_k, %r_v : tensor<2x1x4x64xf32>, tensor<2x2x2x4096x64xf16>, tensor<2x2x2x4096x64xf16>
}

// -----

// Nothing would be saved: window, a page and a token are the whole capacity.
// CHECK: !session = !kvrm.session<slots = 2, pages = 4, pool = <{{[^>]*}}>>

func.func @long(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32, window = 40 : i64}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}
