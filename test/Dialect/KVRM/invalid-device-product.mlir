// RUN: kvrm-opt %s --split-input-file --verify-diagnostics

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @grid(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{grid must be three positive numbers}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @rank(%x: memref<8x4x8xf16>, %w: memref<16x32xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{input and output must have static, positive shapes of rank 2, got}}
  kvrm.device_product ins(%x, %w : memref<8x4x8xf16>, memref<16x32xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @not_static(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %y: memref<?x16xf32>) {
  // expected-error @+1 {{input and output must have static, positive shapes of rank 2, got}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) outs(%y : memref<?x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @element(%x: memref<8x32xf32>, %w: memref<16x32xf32>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{input is of 'f32', not of f16 or bf16}}
  kvrm.device_product ins(%x, %w : memref<8x32xf32>, memref<16x32xf32>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @sum(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %y: memref<8x16xbf16>) {
  // expected-error @+1 {{output is of 'bf16', neither of the input's element nor of f32}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) outs(%y : memref<8x16xbf16>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @input_rows(%x: memref<4x32xf16>, %w: memref<16x32xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{input is 'memref<4x32xf16>', expected 8 x 32 of 'f16'}}
  kvrm.device_product ins(%x, %w : memref<4x32xf16>, memref<16x32xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @weight(%x: memref<8x32xf16>, %w: memref<16x64xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{weight is 'memref<16x64xf16>', expected 16 x 32 of 'f16'}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x64xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @gaps(%x: memref<8x32xf16, strided<[64, 1]>>, %w: memref<16x32xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{input is 'memref<8x32xf16, strided<[64, 1]>>', with gaps in it}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16, strided<[64, 1]>>, memref<16x32xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @no_strides(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %y: memref<8x16xf32, affine_map<(d0, d1) -> (d1, d0)>>) {
  // expected-error @+1 {{output is 'memref<8x16xf32, affine_map<(d0, d1) -> (d1, d0)>>', with gaps in it}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) outs(%y : memref<8x16xf32, affine_map<(d0, d1) -> (d1, d0)>>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @addend(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %r: memref<8x16xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{addend is 'memref<8x16xf16>', expected 8 x 16 of 'f32'}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) addend(%r : memref<8x16xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @addend_of_halves(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %r: memref<8x16xf16>, %y: memref<8x16xf16>) {
  // expected-error @+1 {{has an addend, and output is not of f32}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) addend(%r : memref<8x16xf16>) outs(%y : memref<8x16xf16>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @missing(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{names no function '@kvrm_kernels::@missing'}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@missing grid [1, 1, 1]
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @arguments(%x: memref<8x32xf16>, %w: memref<16x32xf16>, %y: memref<8x16xf32>) {
  // expected-error @+1 {{passes 4 buffers to '@kvrm_kernels::@three', which takes 3}}
  kvrm.device_product ins(%x, %w : memref<8x32xf16>, memref<16x32xf16>) addend(%y : memref<8x16xf32>) outs(%y : memref<8x16xf32>) else @kvrm_kernels::@three grid [1, 1, 1]
  return
}
