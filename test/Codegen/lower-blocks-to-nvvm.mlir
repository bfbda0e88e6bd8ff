// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s --check-prefixes=CHECK,HOPPER
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 --kvrm-lower-dense-to-nvvm=arch=sm_80 | FileCheck %s --check-prefixes=CHECK,AMPERE

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// A weight in blocks is for no library, whatever the rows. Equal products have
// one kernel; another format is another kernel.

// CHECK-LABEL: func.func @step(
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[Q8:linear_[0-9]+]] grid [1, 1, 1] per_processor
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[Q8]] grid
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[Q4:linear_[0-9]+]] grid
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[GATE:linear_[0-9]+]] grid
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[WIDE:linear_[0-9]+]] grid
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[MANY:linear_[0-9]+]] grid [1, 2, 1] per_processor
// Four stretches a warp, of 3 panels: 3 items.
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[UNPACK:unpack_[0-9]+]] grid [1, 1, 1] ins
// CHECK-NEXT: return

// One copy a panel, of two records of 272 bytes.
// CHECK: llvm.func @[[Q8]](
// HOPPER: cp.async.bulk
// HOPPER-NOT: cp.async.bulk
// AMPERE-NOT: cp.async
// CHECK: nvvm.prmt
// CHECK: nvvm.mma.sync
// The scale multiplies a sum in f32.
// CHECK: arith.extf %{{.*}} : f16 to f32
// CHECK: llvm.intr.fma

// Minima are multiplied with sums of activations, a product with ones.
// CHECK: llvm.func @[[Q4]](
// CHECK: arith.constant 1006648320 : i32
// CHECK: nvvm.mma.sync
// CHECK: llvm.func @[[GATE]](
// CHECK: arith.sitofp {{.*}} : i8 to f32
// bf16 has no room for 128 and a code of eight bits.
// CHECK: llvm.func @[[WIDE]](
// CHECK: llvm.fptrunc {{.*}} : vector<2xf32> to vector<2xbf16>
// CHECK: llvm.func @[[MANY]](
// CHECK: llvm.func @[[UNPACK]](
// CHECK-NOT: nvvm.mma.sync
// CHECK: nvvm.prmt
// CHECK: llvm.return
func.func @step(%session: !session, %x: memref<2x64xf16>, %w8: memref<3x2x272xi8>, %y: memref<2x24xf32>, %z: memref<2x24xf32>, %w4: memref<3x2x160xi8>, %xk: memref<2x256xf16>, %wk: memref<4x1x1680xi8>, %gate: memref<2x16xf16>, %xb: memref<2x64xbf16>, %many: memref<65x64xf16>, %ym: memref<65x24xf32>, %values: memref<24x64xf16>) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  kvrm.linear ins(%x, %w8 : memref<2x64xf16>, memref<3x2x272xi8>) block <q8_0> outs(%y : memref<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%x, %w8 : memref<2x64xf16>, memref<3x2x272xi8>) block <q8_0> outs(%z : memref<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%x, %w4 : memref<2x64xf16>, memref<3x2x160xi8>) block <q4_1> outs(%y : memref<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%xk, %wk : memref<2x256xf16>, memref<4x1x1680xi8>) block <q6_k> outs(%gate : memref<2x16xf16>) parts 2 {
  ^bb0(%a: f32, %b: f32):
    %product = arith.mulf %a, %b : f32
    %v = arith.truncf %product : f32 to f16
    kvrm.yield %v : f16
  }
  kvrm.linear ins(%xb, %w8 : memref<2x64xbf16>, memref<3x2x272xi8>) block <q8_0> outs(%y : memref<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%many, %w8 : memref<65x64xf16>, memref<3x2x272xi8>) block <q8_0> outs(%ym : memref<65x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.unpack_blocks <q8_0> ins(%w8 : memref<3x2x272xi8>) outs(%values : memref<24x64xf16>)
  return
}
