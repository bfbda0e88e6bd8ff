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

func.func @step(%x: memref<4xf32>, %y: memref<4xf32>) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.generic' op in a step must step forwards through its buffers, unlike affine_map<(d0) -> (-d0 + 3)>}}
  linalg.generic {indexing_maps = [affine_map<(i) -> (3 - i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      ins(%x : memref<4xf32>) outs(%y : memref<4xf32>) {
  ^bb0(%a: f32, %b: f32):
    linalg.yield %a : f32
  }
  return
}
