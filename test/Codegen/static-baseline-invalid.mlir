// RUN: kvrm-opt %s --kvrm-static-baseline -split-input-file -verify-diagnostics

func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<2x2x2x64x64xf16>)
    -> tensor<2x1x4x64xf32> attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.cached_attention' op takes argument 3 of its step as value_cache; it is key_cache already}}
  %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %k, %kc, %kc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
  return %o : tensor<2x1x4x64xf32>
}
