// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s

gpu.module @kvrm_kernels {
  llvm.func @three(%arg0: i64, %arg1: i64, %arg2: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
  llvm.func @four(%arg0: i64, %arg1: i64, %arg2: i64, %arg3: i64) attributes {kvrm.device_kernel = #kvrm.device_kernel<role = dense, threads = 256, shared_bytes = 0>} {
    llvm.return
  }
}

// CHECK-LABEL: func.func @products(
// CHECK-SAME: %[[X:[a-z0-9]+]]: memref<512x576xf16>, %[[W:[a-z0-9]+]]: memref<960x576xf16>, %[[R:[a-z0-9]+]]: memref<512x960xf32>, %[[Y:[a-z0-9]+]]: memref<512x960xf32>, %[[H:[a-z0-9]+]]: memref<512x960xf16, strided<[960, 1], offset: 64>>
// CHECK-NEXT: kvrm.device_product ins(%[[X]], %[[W]] : memref<512x576xf16>, memref<960x576xf16>) outs(%[[H]] : memref<512x960xf16, strided<[960, 1], offset: 64>>) else @kvrm_kernels::@three grid [30, 8, 1]
// CHECK-NEXT: kvrm.device_product ins(%[[X]], %[[W]] : memref<512x576xf16>, memref<960x576xf16>) addend(%[[R]] : memref<512x960xf32>) outs(%[[Y]] : memref<512x960xf32>) else @kvrm_kernels::@four grid [1, 8, 1] per_processor
// What is written may be what is added to.
// CHECK-NEXT: kvrm.device_product {{.*}} addend(%[[R]] : memref<512x960xf32>) outs(%[[R]] : memref<512x960xf32>) else
func.func @products(%x: memref<512x576xf16>, %w: memref<960x576xf16>, %r: memref<512x960xf32>, %y: memref<512x960xf32>, %h: memref<512x960xf16, strided<[960, 1], offset: 64>>) {
  kvrm.device_product ins(%x, %w : memref<512x576xf16>, memref<960x576xf16>) outs(%h : memref<512x960xf16, strided<[960, 1], offset: 64>>) else @kvrm_kernels::@three grid [30, 8, 1]
  kvrm.device_product ins(%x, %w : memref<512x576xf16>, memref<960x576xf16>) addend(%r : memref<512x960xf32>) outs(%y : memref<512x960xf32>) else @kvrm_kernels::@four grid [1, 8, 1] per_processor
  kvrm.device_product ins(%x, %w : memref<512x576xf16>, memref<960x576xf16>) addend(%r : memref<512x960xf32>) outs(%r : memref<512x960xf32>) else @kvrm_kernels::@four grid [1, 8, 1] per_processor
  return
}
