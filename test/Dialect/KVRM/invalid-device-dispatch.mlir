// RUN: kvrm-opt %s --split-input-file --verify-diagnostics

func.func @no_kernel(%x: memref<4xf32>) {
  // expected-error @+1 {{names no function '@kvrm_kernels::@missing'}}
  kvrm.device_dispatch @kvrm_kernels::@missing grid [1, 1, 1] outs(%x : memref<4xf32>)
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @plain(%x: !llvm.ptr<1>) {
    llvm.return
  }
}

func.func @not_dense(%x: memref<4xf32>) {
  // expected-error @+1 {{names '@kvrm_kernels::@plain', no dense kernel}}
  kvrm.device_dispatch @kvrm_kernels::@plain grid [1, 1, 1] outs(%x : memref<4xf32>)
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @two(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 128, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @wrong_count(%x: memref<4xf32>) {
  // expected-error @+1 {{passes 1 buffers to '@kvrm_kernels::@two', which takes 2}}
  kvrm.device_dispatch @kvrm_kernels::@two grid [1, 1, 1] outs(%x : memref<4xf32>)
  return
}

// -----

gpu.module @kvrm_kernels {
  llvm.func @one(%x: !llvm.ptr<1>) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 128, shared_bytes = 0>} {
    llvm.return
  }
}

func.func @no_grid(%x: memref<4xf32>) {
  // expected-error @+1 {{grid must be three positive numbers}}
  kvrm.device_dispatch @kvrm_kernels::@one grid [1, 0, 1] outs(%x : memref<4xf32>)
  return
}
