// RUN: kvrm-opt %s --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm | FileCheck %s

// Of a large elementwise op a thread runs eight neighbours, 16 bytes and more a
// load. What is not elementwise, has elements apart, or is small stays a thread
// an element.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
#both = affine_map<(d0, d1) -> (d0, d1)>
#turned = affine_map<(d0, d1) -> (d1, d0)>
#row = affine_map<(d0, d1) -> (d0)>
#column = affine_map<(d0, d1) -> (d1)>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// 512 x 1024 elements: 512 blocks of 128 threads for eight, 4096 for one.
// CHECK-LABEL: func.func @step(
// CHECK: @[[RUNS:loops_[0-9]+]] grid [512, 1, 1]
// CHECK: @[[PARTNER:loops_[0-9]+]] grid [512, 1, 1]
// CHECK: @[[TURNED:loops_[0-9]+]] grid [4096, 1, 1]
// CHECK: @{{loops_[0-9]+}} grid [4096, 1, 1]
// CHECK: @{{loops_[0-9]+}} grid [512, 1, 1]
// A sum of rows and a fill of rows of 999 share a launch: 4 blocks and 3996.
// CHECK: @{{loops_[0-9]+}} grid [4000, 1, 1]
func.func @step(%session: !session, %x: memref<512x1024xf16>, %r: memref<512xf32>, %g: memref<1024xf32>, %y: memref<512x1024xf32>, %t: memref<1024x512xf16>, %apart: memref<512x1024xf16, strided<[1025, 1]>>, %sums: memref<512xf32>, %odd: memref<512x999xf32>) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  linalg.generic {indexing_maps = [#both, #row, #column, #both], iterator_types = ["parallel", "parallel"]} ins(%x, %r, %g : memref<512x1024xf16>, memref<512xf32>, memref<1024xf32>) outs(%y : memref<512x1024xf32>) {
  ^bb0(%a: f16, %b: f32, %c: f32, %o: f32):
    %w = arith.extf %a : f16 to f32
    %m = arith.mulf %w, %b : f32
    %v = arith.mulf %m, %c : f32
    linalg.yield %v : f32
  }
  // A load whose last index is the loop is of a run; one at a constant is not.
  linalg.generic {indexing_maps = [#both], iterator_types = ["parallel", "parallel"]} outs(%y : memref<512x1024xf32>) {
  ^bb0(%o: f32):
    %c0 = arith.constant 0 : index
    %i = linalg.index 0 : index
    %j = linalg.index 1 : index
    %a = memref.load %x[%i, %j] : memref<512x1024xf16>
    %b = memref.load %x[%i, %c0] : memref<512x1024xf16>
    %s = arith.addf %a, %b : f16
    %v = arith.extf %s : f16 to f32
    linalg.yield %v : f32
  }
  linalg.generic {indexing_maps = [#turned, #both], iterator_types = ["parallel", "parallel"]} ins(%t : memref<1024x512xf16>) outs(%y : memref<512x1024xf32>) {
  ^bb0(%a: f16, %o: f32):
    %v = arith.extf %a : f16 to f32
    linalg.yield %v : f32
  }
  // Rows that do not start at multiples of eight.
  linalg.generic {indexing_maps = [#both, #both], iterator_types = ["parallel", "parallel"]} ins(%apart : memref<512x1024xf16, strided<[1025, 1]>>) outs(%y : memref<512x1024xf32>) {
  ^bb0(%a: f16, %o: f32):
    %v = arith.extf %a : f16 to f32
    linalg.yield %v : f32
  }
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<512x1024xf32>)
  linalg.generic {indexing_maps = [#both, #row], iterator_types = ["parallel", "reduction"]} ins(%y : memref<512x1024xf32>) outs(%sums : memref<512xf32>) {
  ^bb0(%a: f32, %acc: f32):
    %v = arith.addf %acc, %a : f32
    linalg.yield %v : f32
  }
  linalg.fill ins(%zero : f32) outs(%odd : memref<512x999xf32>)
  return
}

// CHECK: llvm.func @[[RUNS]](
// CHECK-DAG: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<8xf16>
// CHECK-DAG: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<8xf32>
// CHECK: llvm.store %{{.*}} {alignment = 16 : i64} : vector<8xf32>
// CHECK-NOT: llvm.load {{.*}} vector<8xf16>
// CHECK: llvm.func @[[PARTNER]](
// CHECK: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<8xf16>
// CHECK-NOT: llvm.load {{.*}} vector<8xf16>
// CHECK-COUNT-8: llvm.load {{.*}} -> f16
// CHECK: llvm.store %{{.*}} : vector<8xf32>
// CHECK: llvm.func @[[TURNED]](
// CHECK-NOT: vector<8
// CHECK: llvm.return
