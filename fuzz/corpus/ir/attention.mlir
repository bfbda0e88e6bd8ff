// PASSES: kvrm-to-nvvm
module {
  func.func @decode_step(%arg0: tensor<8x1x32x128xf32>, %arg1: tensor<8x1x8x128xf32>, %arg2: tensor<8x1x8x128xf32>, %arg3: tensor<8xi32>, %arg4: tensor<1x8x8x131072x128xf16>, %arg5: tensor<1x8x8x131072x128xf16>) -> (tensor<8x1x32x128xf32>, tensor<1x8x8x131072x128xf16>, tensor<1x8x8x131072x128xf16>) attributes {kvrm.step} {
    %output, %newKeyCache, %newValueCache = kvrm.cached_attention %arg0, %arg1, %arg2, %arg4, %arg5 at %arg3 {layer = 0 : i64, scale = 0.0883883461 : f32} : tensor<8x1x32x128xf32>, tensor<8x1x8x128xf32>, tensor<1x8x8x131072x128xf16>, tensor<8xi32>
    return %output, %newKeyCache, %newValueCache : tensor<8x1x32x128xf32>, tensor<1x8x8x131072x128xf16>, tensor<1x8x8x131072x128xf16>
  }
}
