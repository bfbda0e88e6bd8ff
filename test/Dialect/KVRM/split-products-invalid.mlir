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

// -----

func.func @projection(%x: memref<33x64xf16>, %w: memref<128x64xf16>, %c: memref<33x16xf32>, %q: memref<33x64xf16>, %k: memref<33x32xf16>, %v: memref<33x32xf16>) attributes {kvrm.step} {
  // expected-error @+1 {{is on buffers; products are split on tensors}}
  kvrm.qkv_projection ins(%x, %w : memref<33x64xf16>, memref<128x64xf16>) rotation(%c, %c : memref<33x16xf32>, memref<33x16xf32>) outs(%q, %k, %v : memref<33x64xf16>, memref<33x32xf16>, memref<33x32xf16>)
  return
}

// -----

func.func @norm(%x: memref<33x64xf32>, %w: memref<24x64xf16>, %g: memref<64xf32>, %y: memref<33x24xf32>) attributes {kvrm.step} {
  // expected-error @+1 {{is on buffers; products are split on tensors}}
  kvrm.linear ins(%x, %w : memref<33x64xf32>, memref<24x64xf16>) norm(%g : memref<64xf32>) epsilon 1.0e-5 outs(%y : memref<33x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}
