// RUN: kvrm-opt %s --kvrm-outline-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-outline-dispatches="parallel-work=1" | FileCheck %s --check-prefix=PARALLEL

#x = affine_map<(p, m, n, k) -> (m, k)>
#w = affine_map<(p, m, n, k) -> (p, k, n)>
#y = affine_map<(p, m, n, k) -> (m, p * 32 + n)>

// Equal ops become one function. A task is an iteration of the outermost loop;
// small work stays on the caller. A fill goes with the op whose output it
// starts. Ops outside steps stay as they are.

// CHECK-LABEL: func.func @step
// CHECK: kvrm.dispatch @[[$EXP:.*]] tasks 2 serial outs(%[[X:.*]] : memref<2x64xf32>)
// CHECK: kvrm.dispatch @[[$EXP]] tasks 2 serial outs(%{{.*}} : memref<2x64xf32>)
// CHECK-NOT: linalg.fill
// CHECK: kvrm.dispatch @[[$CONTRACTION:contraction.*]] tasks 3 {{.*}}ins(%[[X]], %{{.*}} : memref<2x64xf32>, memref<3x64x32xf16>) outs(%{{.*}} : memref<2x96xf32>)
// PARALLEL-LABEL: func.func @step
// PARALLEL: kvrm.dispatch @{{[a-z_0-9]+}} tasks 2 outs(
func.func @step(%x: memref<2x64xf32>, %z: memref<2x64xf32>, %w: memref<3x64x32xf16>, %y: memref<2x96xf32>)
    attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  linalg.exp ins(%x : memref<2x64xf32>) outs(%x : memref<2x64xf32>)
  linalg.exp ins(%z : memref<2x64xf32>) outs(%z : memref<2x64xf32>)
  linalg.fill ins(%zero : f32) outs(%y : memref<2x96xf32>)
  linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%x, %w : memref<2x64xf32>, memref<3x64x32xf16>) outs(%y : memref<2x96xf32>) {
  ^bb0(%a: f32, %b: f16, %c: f32):
    %d = arith.extf %b : f16 to f32
    %e = arith.mulf %a, %d : f32
    %f = arith.addf %c, %e : f32
    linalg.yield %f : f32
  }
  return
}

// A fill stays on its own if something else reads what it wrote, or if tasks
// would read parts that others fill.
// CHECK-LABEL: func.func @apart
// CHECK: kvrm.dispatch @[[FILL:elementwise.*]] tasks 4 serial outs(%[[A:.*]] : memref<4xf32>)
// CHECK: memref.load %[[A]]
// CHECK: kvrm.dispatch @{{.*}} tasks 4 serial ins(%{{.*}} : memref<4xf32>) outs(%[[A]] : memref<4xf32>)
// CHECK: kvrm.dispatch @[[FILL]] tasks 4 serial outs(%[[A]] : memref<4xf32>)
// CHECK: kvrm.dispatch @{{.*}} tasks 4 serial outs(%[[A]] : memref<4xf32>)
func.func @apart(%a: memref<4xf32>, %b: memref<4xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %i = arith.constant 1 : index
  linalg.fill ins(%zero : f32) outs(%a : memref<4xf32>)
  %first = memref.load %a[%i] : memref<4xf32>
  linalg.exp ins(%b : memref<4xf32>) outs(%a : memref<4xf32>)
  linalg.fill ins(%zero : f32) outs(%a : memref<4xf32>)
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]} outs(%a : memref<4xf32>) {
  ^bb0(%e: f32):
    %j = linalg.index 0 : index
    %other = memref.load %a[%j] : memref<4xf32>
    linalg.yield %other : f32
  }
  return
}

// CHECK-LABEL: func.func @no_step
// CHECK: linalg.exp
func.func @no_step(%x: memref<2x64xf32>) {
  linalg.exp ins(%x : memref<2x64xf32>) outs(%x : memref<2x64xf32>)
  return
}

// A function holds the op on the parts of its buffers that its tasks touch, and
// no buffer that another argument may reach is said to be its alone.
// CHECK: func.func private @[[$EXP]](%[[BEGIN:.*]]: index, %[[END:.*]]: index, %[[BUFFER:.*]]: memref<2x64xf32> {llvm.noalias})
// CHECK: %[[SIZE:.*]] = arith.subi %[[END]], %[[BEGIN]]
// CHECK: %[[PART:.*]] = memref.subview %[[BUFFER]][%[[BEGIN]], 0] [%[[SIZE]], 64] [1, 1]
// CHECK: linalg.exp ins(%[[PART]] : {{.*}})
// CHECK: func.func private @[[$CONTRACTION]](
// CHECK: %[[OUT:.*]] = memref.subview %{{.*}}[0, %{{.*}}] [2, %{{.*}}] [1, 1] : memref<2x96xf32>
// CHECK: linalg.fill {{.*}} outs(%[[OUT]] :
// CHECK: linalg.generic {{.*}} outs(%[[OUT]] :
// CHECK: linalg.index 0
// CHECK-NEXT: affine.apply
