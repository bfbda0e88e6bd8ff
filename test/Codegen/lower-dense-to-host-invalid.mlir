// RUN: kvrm-opt %s --kvrm-lower-dense-to-host -split-input-file -verify-diagnostics

#x = affine_map<(p, m, n, k) -> (m, k)>
#w = affine_map<(p, m, n, k) -> (p, k, n)>
#y = affine_map<(p, m, n, k) -> (m, p * 24 + n)>
func.func private @f(%begin: index, %end: index, %x: memref<2x64xf32>, %w: memref<4x64x24xf16>, %y: memref<2x96xf32>) {
  // expected-error@+1 {{'linalg.generic' op has panels of 24 rows, not a multiple of 16 lanes}}
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<2x64xf32>, memref<4x64x24xf16>) outs(%y : memref<2x96xf32>) {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.addf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}
func.func @step(%x: memref<2x64xf32>, %w: memref<4x64x24xf16>, %y: memref<2x96xf32>) attributes {kvrm.step} {
  kvrm.dispatch @f tasks 4 ins(%x, %w : memref<2x64xf32>, memref<4x64x24xf16>) outs(%y : memref<2x96xf32>)
  return
}

// -----

func.func private @f(%begin: index, %end: index, %x: memref<4xf32>) {
  %a = tensor.empty() : tensor<4xf32>
  // expected-error@+1 {{'linalg.exp' op is not on buffers}}
  %b = linalg.exp ins(%a : tensor<4xf32>) outs(%a : tensor<4xf32>) -> tensor<4xf32>
  return
}
func.func @step(%x: memref<4xf32>) attributes {kvrm.step} {
  kvrm.dispatch @f tasks 4 outs(%x : memref<4xf32>)
  return
}
