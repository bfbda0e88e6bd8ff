// RUN: kvrm-opt %s --split-input-file --verify-diagnostics --kvrm-split-products

func.func @on_buffers(%x: memref<65x64xf16>, %w: memref<48x64xf16>, %y: memref<65x24xf32>) attributes {kvrm.step} {
  // expected-error @+1 {{is on buffers; products are split on tensors}}
  kvrm.linear ins(%x, %w : memref<65x64xf16>, memref<48x64xf16>) outs(%y : memref<65x24xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  }
  return
}
