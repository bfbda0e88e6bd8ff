// RUN: kvrm-opt %s --kvrm-outline-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-outline-dispatches="parallel-work=1" | FileCheck %s --check-prefix=PARALLEL
// RUN: not kvrm-opt %s --kvrm-outline-dispatches=lanes=0 2>&1 | FileCheck %s --check-prefix=LANES

// LANES: error: lanes is 0, outside 1..64

#x = affine_map<(m, p, n, k) -> (m, k)>
#w = affine_map<(m, p, n, k) -> (p, k, n)>
#y = affine_map<(m, p, n, k) -> (m, p * 32 + n)>

// Equal ops become one function. A contraction takes a task a panel; small work
// stays on the caller. Ops outside steps stay as they are.

// CHECK-LABEL: func.func @step
// CHECK: kvrm.dispatch @[[EXP:.*]] tasks 2 serial outs(%[[X:.*]] : memref<2x64xf32>)
// CHECK: kvrm.dispatch @[[EXP]] tasks 2 serial outs(%{{.*}} : memref<2x64xf32>)
// CHECK-NOT: linalg.fill
// CHECK: kvrm.dispatch @[[LINEAR:linear.*]] tasks 3 {{.*}}ins(%[[X]], %{{.*}} : memref<2x64xf32>, memref<3x64x32xf16>) outs(%{{.*}} : memref<2x96xf32>)
// PARALLEL-LABEL: func.func @step
// PARALLEL: kvrm.dispatch @{{[a-z_0-9]+}} tasks 2 outs(
func.func @step(%x: memref<2x64xf32>, %z: memref<2x64xf32>, %w: memref<3x64x32xf16>, %y: memref<2x96xf32>)
    attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  linalg.exp ins(%x : memref<2x64xf32>) outs(%x : memref<2x64xf32>)
  linalg.exp ins(%z : memref<2x64xf32>) outs(%z : memref<2x64xf32>)
  linalg.fill ins(%zero : f32) outs(%y : memref<2x96xf32>)
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<2x64xf32>, memref<3x64x32xf16>) outs(%y : memref<2x96xf32>) attrs = {kvrm.panel = 32 : i64} {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.addf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}

// CHECK-LABEL: func.func @no_step
// CHECK: linalg.exp
func.func @no_step(%x: memref<2x64xf32>) {
  linalg.exp ins(%x : memref<2x64xf32>) outs(%x : memref<2x64xf32>)
  return
}
