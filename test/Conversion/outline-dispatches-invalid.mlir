// RUN: kvrm-opt %s --kvrm-outline-dispatches -split-input-file -verify-diagnostics

func.func @step(%x: tensor<2x4xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.exp' op is not on buffers; run kvrm-bufferize-step first}}
  %y = linalg.exp ins(%x : tensor<2x4xf32>) outs(%x : tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @step(%x: memref<?x4xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.exp' op in a step must have static loops}}
  linalg.exp ins(%x : memref<?x4xf32>) outs(%x : memref<?x4xf32>)
  return
}

// -----

func.func @step(%x: memref<4xf32>, %y: memref<f32>) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.dot' op in a step must have a parallel outermost loop}}
  linalg.dot ins(%x, %x : memref<4xf32>, memref<4xf32>) outs(%y : memref<f32>)
  return
}

// -----

func.func @step(%x: f32, %y: memref<4xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.fill' op uses a value that is neither a buffer nor a constant}}
  linalg.fill ins(%x : f32) outs(%y : memref<4xf32>)
  return
}

// -----

#x = affine_map<(m, p, n, k) -> (m, k)>
#w = affine_map<(m, p, n, k) -> (p, k, n)>
#y = affine_map<(m, p, n, k) -> (m, p * 24 + n)>
func.func @step(%x: memref<2x64xf32>, %w: memref<4x64x24xf16>, %y: memref<2x96xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.generic' op has panels of 24 rows, not a multiple of 16 lanes}}
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<2x64xf32>, memref<4x64x24xf16>) outs(%y : memref<2x96xf32>) attrs = {kvrm.panel = 24 : i64} {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.addf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}
