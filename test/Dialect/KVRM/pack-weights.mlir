// RUN: kvrm-opt %s --kvrm-pack-weights | FileCheck %s
// RUN: kvrm-opt %s --kvrm-pack-weights=panel=16 | FileCheck %s --check-prefix=PANEL
// RUN: kvrm-opt %s --kvrm-pack-weights=panel=0 | FileCheck %s --check-prefix=ZERO
// RUN: not kvrm-opt %s --kvrm-pack-weights=panel=-1 2>&1 | FileCheck %s --check-prefix=NEGATIVE

// Without panels every weight stays as it is, and gets its place.
// ZERO-NOT: #kvrm.weight<panels
// ZERO: #kvrm.weight<row_major, offset = 0>
// ZERO-NOT: #kvrm.weight<panels
// NEGATIVE: error: panel is -1, which is negative

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// CHECK-DAG: #[[$X:.*]] = affine_map<(d0, d1, d2, d3) -> (d1, d3)>
// CHECK-DAG: #[[$W:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d3, d2)>
// CHECK-DAG: #[[$Y:.*]] = affine_map<(d0, d1, d2, d3) -> (d1, d0 * 32 + d2)>

// Offsets are in the order of the globals and multiples of 64. 72 rows are
// three panels of 32, the last with zeros.

// CHECK: @scale({{.*}}) : tensor<64xf32> {kvrm.weight = #kvrm.weight<row_major, offset = 0>}
// CHECK: @w({{.*}}) : tensor<3x64x32xf16> {kvrm.weight = #kvrm.weight<panels, offset = 256, panel = 32, rows = 72>}
// PANEL: @w({{.*}}) : tensor<5x64x16xf16> {kvrm.weight = #kvrm.weight<panels, offset = 256, panel = 16, rows = 72>}
ml_program.global private @scale(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>
ml_program.global private @w(#ml_program.extern : tensor<72x64xf16>) : tensor<72x64xf16>

// What is used in any other way, too, keeps its layout.
// CHECK: @both({{.*}}) : tensor<96x64xf16> {kvrm.weight = #kvrm.weight<row_major, offset = 12544>}
ml_program.global private @both(#ml_program.extern : tensor<96x64xf16>) : tensor<96x64xf16>

// Elements that need not widen do not; integers are not packed.
// CHECK: @wide({{.*}}) : tensor<3x64x32xf32> {kvrm.weight = #kvrm.weight<panels, offset = 24832, panel = 32, rows = 96>}
// CHECK: @narrow({{.*}}) : tensor<96x64xi8> {kvrm.weight = #kvrm.weight<row_major, offset = 49408>}
ml_program.global private @wide(#ml_program.extern : tensor<96x64xf32>) : tensor<96x64xf32>
ml_program.global private @narrow(#ml_program.extern : tensor<96x64xi8>) : tensor<96x64xi8>

// CHECK-LABEL: func.func @f
// CHECK: %[[WEIGHT:.*]] = ml_program.global_load_const @w : tensor<3x64x32xf16>
// CHECK: %[[R:.*]] = linalg.generic {indexing_maps = [#[[$X]], #[[$W]], #[[$Y]]]
// CHECK-SAME: iterator_types = ["parallel", "parallel", "parallel", "reduction"]
// CHECK-SAME: ins(%{{.*}}, %[[WEIGHT]] : tensor<2x64xf32>, tensor<3x64x32xf16>)
// CHECK: arith.extf
// CHECK: tensor.extract_slice %[[R]][0, 0] [2, 72] [1, 1]
// CHECK: linalg.matmul {{.*}} tensor<96x64xf16>
// CHECK: linalg.generic {{.*}} tensor<3x64x32xf32>
// CHECK-NOT: arith.extf
// CHECK: linalg.matmul {{.*}} tensor<96x64xi8>
func.func @f(%x: tensor<2x64xf32>, %y: tensor<2x72xf32>, %z: tensor<2x96xf32>)
    -> (tensor<2x72xf32>, tensor<2x96xf32>, tensor<96x64xf16>) attributes {kvrm.step} {
  %s0 = ml_program.global_load_const @scale : tensor<64xf32>
  %w = ml_program.global_load_const @w : tensor<72x64xf16>
  %r = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<2x64xf32>, tensor<72x64xf16>) outs(%y : tensor<2x72xf32>) -> tensor<2x72xf32>
  %b = ml_program.global_load_const @both : tensor<96x64xf16>
  %s = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %b : tensor<2x64xf32>, tensor<96x64xf16>) outs(%z : tensor<2x96xf32>) -> tensor<2x96xf32>
  %f32 = ml_program.global_load_const @wide : tensor<96x64xf32>
  %t = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %f32 : tensor<2x64xf32>, tensor<96x64xf32>) outs(%s : tensor<2x96xf32>) -> tensor<2x96xf32>
  %i8 = ml_program.global_load_const @narrow : tensor<96x64xi8>
  %u = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %i8 : tensor<2x64xf32>, tensor<96x64xi8>) outs(%t : tensor<2x96xf32>) -> tensor<2x96xf32>
  return %r, %u, %b : tensor<2x72xf32>, tensor<2x96xf32>, tensor<96x64xf16>
}
