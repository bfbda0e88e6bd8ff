// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s
// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm=arch=sm_80 --kvrm-lower-dense-to-nvvm=arch=sm_80 | FileCheck %s

// A product whose rows are normalized in front of others adds up their squares,
// a number a row and tile of 16 columns; those take the squares of their input.
// Up to 8 rows.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// CHECK-LABEL: func.func @shared(
// CHECK-SAME: %[[X:[^:]+]]: memref<8x64xf16>
// CHECK: %[[H:.*]] = memref.alloc() : memref<8x96xf32>
// CHECK: %[[S:.*]] = memref.alloc() : memref<8x6xf32>
// CHECK: kvrm.device_dispatch @kvrm_kernels::@[[$MAKER:linear_[0-9]+]] {{.*}} ins(%[[X]], {{.*}}) outs(%[[H]], %[[S]] : memref<8x96xf32>, memref<8x6xf32>)
// Nothing stands in front of either, and both take the same squares.
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[$TAKER:linear_[0-9]+]] {{.*}} ins(%[[H]], %{{[^ ]+}}, %{{[^ ]+}}, %[[S]] : memref<8x96xf32>, memref<48x96xf16>, memref<96xf32>, memref<8x6xf32>) outs(%{{[^ ]+}} : memref<8x48xf32>)
// CHECK-NEXT: kvrm.device_dispatch @kvrm_kernels::@[[$TAKER]] {{.*}} ins(%[[H]], %{{[^ ]+}}, %{{[^ ]+}}, %[[S]] :
// CHECK-NOT: norm_
// CHECK: return
func.func @shared(%x: memref<8x64xf16>, %w: memref<96x64xf16>, %v: memref<48x96xf16>, %g: memref<96xf32>, %y: memref<8x48xf32>, %z: memref<8x48xf32>) attributes {kvrm.step} {
  %h = memref.alloc() : memref<8x96xf32>
  kvrm.linear ins(%x, %w : memref<8x64xf16>, memref<96x64xf16>) outs(%h : memref<8x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%h, %v : memref<8x96xf32>, memref<48x96xf16>) norm(%g : memref<96xf32>) epsilon 1.0e-5 outs(%y : memref<8x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%h, %v : memref<8x96xf32>, memref<48x96xf16>) norm(%g : memref<96xf32>) epsilon 1.0e-5 outs(%z : memref<8x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}

// Something else writes the rows, all of them or some, after the product has.
// CHECK-LABEL: func.func @written_again(
// CHECK: linear_{{.*}} outs(%[[H:[^ ]+]] : memref<2x96xf32>)
// CHECK: loops_{{.*}} outs(
// CHECK: norm_{{.*}} ins(%[[H]], {{.*}} outs(%[[N:[^ ]+]] : memref<2x96xf16>)
// CHECK: linear_{{.*}} ins(%[[N]],
func.func @written_again(%x: memref<2x64xf16>, %w: memref<96x64xf16>, %v: memref<48x96xf16>, %g: memref<96xf32>, %y: memref<2x48xf32>) attributes {kvrm.step} {
  %h = memref.alloc() : memref<2x96xf32>
  %zero = arith.constant 0.0 : f32
  kvrm.linear ins(%x, %w : memref<2x64xf16>, memref<96x64xf16>) outs(%h : memref<2x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  %row = memref.subview %h[1, 0] [1, 96] [1, 1] : memref<2x96xf32> to memref<1x96xf32, strided<[96, 1], offset: 96>>
  linalg.fill ins(%zero : f32) outs(%row : memref<1x96xf32, strided<[96, 1], offset: 96>>)
  kvrm.linear ins(%h, %v : memref<2x96xf32>, memref<48x96xf16>) norm(%g : memref<96xf32>) epsilon 1.0e-5 outs(%y : memref<2x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}

// The product stores a part of what is normalized; of that, and of rows that the
// step is given, nobody has the squares.
// CHECK-LABEL: func.func @other_rows(
// CHECK: linear_{{.*}} outs(%{{[^ ]+}} : memref<2x96xf32
// CHECK: norm_
// CHECK: linear_
// CHECK: norm_
// CHECK: linear_
func.func @other_rows(%x: memref<2x64xf16>, %w: memref<96x64xf16>, %v: memref<48x96xf16>, %g: memref<96xf32>, %r: memref<4x96xf32>, %y: memref<4x48xf32>, %z: memref<4x48xf32>) attributes {kvrm.step} {
  %h = memref.alloc() : memref<4x96xf32>
  %front = memref.subview %h[0, 0] [2, 96] [1, 1] : memref<4x96xf32> to memref<2x96xf32, strided<[96, 1]>>
  kvrm.linear ins(%x, %w : memref<2x64xf16>, memref<96x64xf16>) outs(%front : memref<2x96xf32, strided<[96, 1]>>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%h, %v : memref<4x96xf32>, memref<48x96xf16>) norm(%g : memref<96xf32>) epsilon 1.0e-5 outs(%y : memref<4x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%r, %v : memref<4x96xf32>, memref<48x96xf16>) norm(%g : memref<96xf32>) epsilon 1.0e-5 outs(%z : memref<4x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}

// More than 8 rows: a kernel for the norm is faster.
// CHECK-LABEL: func.func @many_rows(
// CHECK: linear_{{.*}} outs(%[[H:[^ ]+]] : memref<9x96xf32>)
// CHECK: norm_{{.*}} ins(%[[H]],
// CHECK: linear_
func.func @many_rows(%x: memref<9x64xf16>, %w: memref<96x64xf16>, %v: memref<48x96xf16>, %g: memref<96xf32>, %y: memref<9x48xf32>) attributes {kvrm.step} {
  %h = memref.alloc() : memref<9x96xf32>
  kvrm.linear ins(%x, %w : memref<9x64xf16>, memref<96x64xf16>) outs(%h : memref<9x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  kvrm.linear ins(%h, %v : memref<9x96xf32>, memref<48x96xf16>) norm(%g : memref<96xf32>) epsilon 1.0e-5 outs(%y : memref<9x48xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}

// CHECK: llvm.func @[[$MAKER]](
// CHECK: nvvm.mma.sync
// CHECK: nvvm.shfl.sync bfly
// CHECK: llvm.func @[[$TAKER]](
// CHECK: math.sqrt
// CHECK: nvvm.mma.sync
