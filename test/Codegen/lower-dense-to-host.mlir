// RUN: kvrm-opt %s --kvrm-lower-dense-to-host | FileCheck %s
// RUN: not kvrm-opt %s --kvrm-lower-dense-to-host=lanes=0 2>&1 | FileCheck %s --check-prefix=LANES

// LANES: error: lanes is 0, outside 1..64

#x = affine_map<(p, m, n, k) -> (m, k)>
#w = affine_map<(p, m, n, k) -> (p, k, n)>
#y = affine_map<(p, m, n, k) -> (m, p * 32 + n)>

func.func @step(%x: memref<1x64xf32>, %w: memref<3x64x32xf16>, %y: memref<1x96xf32>) attributes {kvrm.step} {
  kvrm.dispatch @zero_first tasks 3 ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>)
  kvrm.dispatch @one_first tasks 3 ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>)
  kvrm.dispatch @maximum tasks 3 ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>)
  kvrm.dispatch @other_order tasks 3 ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>)
  return
}

// Panels run over what the weight has; sums start from zero in registers.
// CHECK-LABEL: func.func private @zero_first
// CHECK-SAME: %[[X:[a-z0-9]+]]: memref<1x64xf32>, %[[W:[a-z0-9]+]]: memref<3x64x32xf16>, %[[Y:[a-z0-9]+]]: memref<1x96xf32>
// CHECK-NOT: memref.store
// CHECK: %[[ZERO:.*]] = arith.constant dense<0.000000e+00> : vector<16xf32>
// CHECK: scf.for {{.*}} iter_args(%{{.*}} = %[[ZERO]]
// CHECK: memref.prefetch %[[W]]
// CHECK: vector.load %[[W]]{{.*}} : memref<3x64x32xf16>, vector<16xf16>
// CHECK: arith.extf
// CHECK: memref.load %[[X]]
// CHECK: vector.fma
// CHECK: vector.store %{{.*}}, %[[Y]]
// CHECK-NOT: linalg
func.func private @zero_first(%begin: index, %end: index, %x: memref<1x64xf32>, %w: memref<3x64x32xf16>, %y: memref<1x96xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<1x96xf32>)
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>) {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %d, %a : f32
    %f = arith.addf %e, %c : f32
    linalg.yield %f : f32
  }
  return
}

// Any other start is written and read.
// CHECK-LABEL: func.func private @one_first
// CHECK: memref.store
// CHECK: vector.load %{{.*}} : memref<1x96xf32>, vector<16xf32>
// CHECK: vector.fma
func.func private @one_first(%begin: index, %end: index, %x: memref<1x64xf32>, %w: memref<3x64x32xf16>, %y: memref<1x96xf32>) {
  %one = arith.constant 1.0 : f32
  linalg.fill ins(%one : f32) outs(%y : memref<1x96xf32>)
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>) {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.addf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}

// What has the shape of it and another body is no sum of products.
// CHECK-LABEL: func.func private @maximum
// CHECK-NOT: vector.fma
// CHECK: arith.maximumf {{.*}} fastmath<reassoc,nsz,contract>
// CHECK-NOT: vector.fma
func.func private @maximum(%begin: index, %end: index, %x: memref<1x64xf32>, %w: memref<3x64x32xf16>, %y: memref<1x96xf32>) {
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>) {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.maximumf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}

// Nor is a weight in another order of panels.
// CHECK-LABEL: func.func private @other_order
// CHECK-NOT: vector.fma
// CHECK: memref.store
func.func private @other_order(%begin: index, %end: index, %x: memref<1x64xf32>, %w: memref<3x64x32xf16>, %y: memref<1x96xf32>) {
  linalg.generic {indexing_maps = [#x, #w, affine_map<(p, m, n, k) -> (m, n * 3 + p)>], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<1x64xf32>, memref<3x64x32xf16>) outs(%y : memref<1x96xf32>) {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.addf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}
