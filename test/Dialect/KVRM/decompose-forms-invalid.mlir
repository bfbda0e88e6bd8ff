// RUN: kvrm-opt %s --kvrm-decompose-forms -split-input-file -verify-diagnostics

func.func @f(%x: memref<8x64xf32>, %g: memref<64xf32>, %y: memref<8x64xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.rms_norm' op is on buffers; forms are taken apart on tensors}}
  kvrm.rms_norm ins(%x, %g : memref<8x64xf32>, memref<64xf32>) outs(%y : memref<8x64xf32>) epsilon 1.0e-5
  return
}

// -----

func.func @f(%x: memref<8x64xf32>, %w: tensor<96x64xf16>, %y: tensor<8x96xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  // expected-error@+1 {{'kvrm.linear' op is on buffers; forms are taken apart on tensors}}
  %r = kvrm.linear ins(%x, %w : memref<8x64xf32>, tensor<96x64xf16>) outs(%y : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}
