// A dense part in f16 is computed in f32: what was rounded is not, and weights
// are widened where they are read.

// RUN: kvrm-opt %s --kvrm-widen-dense --split-input-file --verify-diagnostics | FileCheck %s

#all = affine_map<(b, e) -> (b, e)>
#column = affine_map<(b, e) -> (e)>
ml_program.global private @gain(#ml_program.extern : tensor<4xf16>) : tensor<4xf16>
ml_program.global private @table(#ml_program.extern : tensor<5x4xf16>) : tensor<5x4xf16>

// CHECK-LABEL: func.func @decode_step
// CHECK-DAG: %[[GAIN:.*]] = ml_program.global_load_const @gain : tensor<4xf16>
// CHECK-DAG: %[[TABLE:.*]] = ml_program.global_load_const @table : tensor<5x4xf16>
// CHECK: %[[X:.*]] = linalg.generic {{.*}} outs(%{{.*}} : tensor<2x4xf32>)
// CHECK: %[[E:.*]] = tensor.extract %[[TABLE]]
// CHECK-NEXT: %[[F:.*]] = arith.extf %[[E]] : f16 to f32
// CHECK-NEXT: linalg.yield %[[F]] : f32
// CHECK: linalg.generic {{.*}} ins(%[[X]], %[[GAIN]] : tensor<2x4xf32>, tensor<4xf16>) outs(%{{.*}} : tensor<2x4xf32>)
// CHECK-NEXT: ^bb0(%[[E:.*]]: f32, %[[G:.*]]: f16, %{{.*}}: f32):
// CHECK-NOT: arith.truncf
// CHECK-DAG: %[[TWO:.*]] = arith.constant 2.000000e+00 : f32
// CHECK-DAG: %[[WIDE:.*]] = arith.extf %[[G]] : f16 to f32
// CHECK: %[[P:.*]] = arith.mulf %[[E]], %[[WIDE]] : f32
// CHECK: %[[LESS:.*]] = arith.cmpf olt, %[[P]], %[[TWO]] : f32
// CHECK: %[[EITHER:.*]] = scf.if %[[LESS]] -> (f32)
// CHECK: scf.yield %{{.*}} : f32
// CHECK: linalg.yield %[[EITHER]] : f32
// CHECK: %[[PART:.*]] = tensor.extract_slice {{.*}} : tensor<2x4xf32> to tensor<2x2xf32>
// CHECK: tensor.insert_slice %[[PART]] into %{{.*}} : tensor<2x2xf32> into tensor<2x4xf32>
func.func @decode_step(%ids: tensor<2xi32>) -> tensor<2x4xf32> attributes {kvrm.step} {
  %gain = ml_program.global_load_const @gain : tensor<4xf16>
  %table = ml_program.global_load_const @table : tensor<5x4xf16>
  %init = tensor.empty() : tensor<2x4xf16>
  %x = linalg.generic {indexing_maps = [affine_map<(b, e) -> (b)>, #all], iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<2xi32>) outs(%init : tensor<2x4xf16>) {
  ^bb0(%id: i32, %out: f16):
    %r = arith.index_cast %id : i32 to index
    %c = linalg.index 1 : index
    %e = tensor.extract %table[%r, %c] : tensor<5x4xf16>
    linalg.yield %e : f16
  } -> tensor<2x4xf16>
  %y = linalg.generic {indexing_maps = [#all, #column, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %gain : tensor<2x4xf16>, tensor<4xf16>) outs(%init : tensor<2x4xf16>) {
  ^bb0(%e: f16, %g: f16, %out: f16):
    %two = arith.constant 2.0 : f16
    %wide = arith.extf %e : f16 to f32
    %wide_gain = arith.extf %g : f16 to f32
    %product = arith.mulf %wide, %wide_gain : f32
    %narrow = arith.truncf %product : f32 to f16
    %less = arith.cmpf olt, %narrow, %two : f16
    %either = scf.if %less -> (f16) {
      scf.yield %narrow : f16
    } else {
      scf.yield %two : f16
    }
    linalg.yield %either : f16
  } -> tensor<2x4xf16>
  %part = tensor.extract_slice %y[0, 2] [2, 2] [1, 1] : tensor<2x4xf16> to tensor<2x2xf16>
  %swapped = tensor.insert_slice %part into %y[0, 0] [2, 2] [1, 1] : tensor<2x2xf16> into tensor<2x4xf16>
  %wide_init = tensor.empty() : tensor<2x4xf32>
  %logits = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%swapped : tensor<2x4xf16>) outs(%wide_init : tensor<2x4xf32>) {
  ^bb0(%e: f16, %out: f32):
    %wide = arith.extf %e : f16 to f32
    linalg.yield %wide : f32
  } -> tensor<2x4xf32>
  return %logits : tensor<2x4xf32>
}

// -----

#all = affine_map<(b, e) -> (b, e)>

func.func @decode_step(%x: tensor<2x4xf32>) -> tensor<2x4xf32> attributes {kvrm.step} {
  %init = tensor.empty() : tensor<2x4xf32>
  %y = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<2x4xf32>) outs(%init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %out: f32):
    %narrow = arith.truncf %e : f32 to f16
    // expected-error @below {{cannot be made f32}}
    %bits = arith.bitcast %narrow : f16 to i16
    %wide = arith.extsi %bits : i16 to i32
    %number = arith.sitofp %wide : i32 to f32
    linalg.yield %number : f32
  } -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// -----

func.func @step(%x: memref<4xf16>, %y: memref<4xf16>) attributes {kvrm.step} {
  // expected-error@+1 {{cannot be made f32}}
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      ins(%x : memref<4xf16>) outs(%y : memref<4xf16>) {
  ^bb0(%a: f16, %b: f16):
    linalg.yield %a : f16
  }
  return
}

// -----

func.func @step(%x: tensor<?xf16>, %y: tensor<8xf16>, %c: index) -> tensor<8xf16> attributes {kvrm.step} {
  // expected-error@+1 {{cannot be made f32}}
  %z = tensor.insert_slice %x into %y[0] [%c] [1] : tensor<?xf16> into tensor<8xf16>
  return %z : tensor<8xf16>
}

// -----

func.func @step(%x: tensor<4xf16>) -> tensor<4xf16> attributes {kvrm.step} {
  // expected-error@+1 {{cannot be made f32}}
  %y = arith.negf %x : tensor<4xf16>
  return %y : tensor<4xf16>
}
