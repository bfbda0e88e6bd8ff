// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 --kvrm-lower-dense-to-nvvm=arch=sm_80 | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s --check-prefix=L2

// The input of more than 8 rows goes past the L1 cache.
// L2: ld.global.cg.v4.b32

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 1, queries = 33, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// A product of more than 32 rows is for a library; equal ones have one kernel
// that stands in, and so has what a library does not take.

// CHECK-LABEL: func.func @step(
// CHECK-SAME: %{{[^:]+}}: !session, %[[X:[^:]+]]: memref<33x64xf16>, %[[FEW:[^:]+]]: memref<32x64xf16>, %[[W:[^:]+]]: memref<24x64xf16>, %[[R:[^:]+]]: memref<33x24xf32>, %[[Y:[^:]+]]: memref<33x24xf32>
// CHECK: kvrm.device_product ins(%[[X]], %[[W]] : {{.*}}) outs(%[[Y]] : memref<33x24xf32>) else @kvrm_kernels::@[[SUM:linear_[0-9]+]] grid [1, 1, 1] per_processor
// CHECK-NEXT: kvrm.device_product {{.*}} outs(%{{.*}} : memref<33x24xf16>) else @kvrm_kernels::@[[ROUNDED:linear_[0-9]+]] grid
// CHECK-NEXT: kvrm.device_product ins(%[[X]], %[[W]] : {{.*}}) addend(%[[R]] : memref<33x24xf32>) outs(%[[Y]] : memref<33x24xf32>) else @kvrm_kernels::@[[ADDED:linear_[0-9]+]] grid
// CHECK-NEXT: kvrm.device_product {{.*}} else @kvrm_kernels::@[[SUM]] grid
// Few rows, a gate, a bias, gaps between rows.
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@linear_{{.*}} ins(%[[FEW]], %[[W]]
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@linear_
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@linear_
// CHECK-NEXT: memref.subview
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@linear_
// CHECK-NEXT: return
// CHECK: llvm.func @[[SUM]](
// CHECK: nvvm.mma.sync
// CHECK: llvm.func @[[ROUNDED]](
// CHECK: llvm.func @[[ADDED]](
func.func @step(%session: !session, %x: memref<33x64xf16>, %few: memref<32x64xf16>, %w: memref<24x64xf16>, %r: memref<33x24xf32>, %y: memref<33x24xf32>, %half: memref<33x24xf16>, %y64: memref<32x24xf32>, %y12: memref<33x12xf32>, %bias: memref<24xf32>, %wide: memref<33x48xf32>) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) outs(%y : memref<33x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) outs(%half : memref<33x24xf16>) {
  ^bb0(%sum: f32):
    %v = arith.truncf %sum : f32 to f16
    kvrm.yield %v : f16
  }
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) extras(%r : memref<33x24xf32>) outs(%y : memref<33x24xf32>) {
  ^bb0(%sum: f32, %residual: f32):
    %v = arith.addf %residual, %sum : f32
    kvrm.yield %v : f32
  }
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) outs(%y : memref<33x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%few, %w : memref<32x64xf16>, memref<24x64xf16>) outs(%y64 : memref<32x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) outs(%y12 : memref<33x12xf32>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %v = arith.mulf %gate, %up : f32
    kvrm.yield %v : f32
  }
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) extras(%bias : memref<24xf32>) outs(%y : memref<33x24xf32>) {
  ^bb0(%sum: f32, %b: f32):
    %v = arith.addf %sum, %b : f32
    kvrm.yield %v : f32
  }
  %left = memref.subview %wide[0, 0] [33, 24] [1, 1] : memref<33x48xf32> to memref<33x24xf32, strided<[48, 1]>>
  kvrm.linear ins(%x, %w : memref<33x64xf16>, memref<24x64xf16>) outs(%left : memref<33x24xf32, strided<[48, 1]>>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}
