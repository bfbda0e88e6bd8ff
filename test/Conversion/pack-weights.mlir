// RUN: kvrm-opt %s --kvrm-pack-weights | FileCheck %s
// RUN: kvrm-opt %s --kvrm-pack-weights=panel=16 | FileCheck %s --check-prefix=PANEL
// RUN: not kvrm-opt %s --kvrm-pack-weights=panel=0 2>&1 | FileCheck %s --check-prefix=ZERO
// RUN: not kvrm-opt %s --kvrm-pack-weights=panel=-1 2>&1 | FileCheck %s --check-prefix=NEGATIVE

// ZERO: error: panel is 0, not positive
// NEGATIVE: error: panel is -1, not positive

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>

// CHECK-DAG: #[[$X:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d3)>
// CHECK-DAG: #[[$W:.*]] = affine_map<(d0, d1, d2, d3) -> (d1, d3, d2)>
// CHECK-DAG: #[[$Y:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d1 * 32 + d2)>

// Offsets are in the order of the globals and multiples of 64. 72 rows are
// three panels of 32, the last with zeros.

// CHECK: module attributes {kvrm.weight_bytes = 24832 : i64}
// CHECK: @scale({{.*}}) : tensor<64xf32> {kvrm.offset = 0 : i64}
// CHECK: @w({{.*}}) : tensor<3x64x32xf16> {kvrm.offset = 256 : i64, kvrm.panel = 32 : i64, kvrm.rows = 72 : i64}
// PANEL: @w({{.*}}) : tensor<5x64x16xf16> {kvrm.offset = 256 : i64, kvrm.panel = 16 : i64, kvrm.rows = 72 : i64}
ml_program.global private @scale(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>
ml_program.global private @w(#ml_program.extern : tensor<72x64xf16>) : tensor<72x64xf16>

// What is used in any other way, too, keeps its layout.
// CHECK: @both({{.*}}) : tensor<96x64xf16> {kvrm.offset = 12544 : i64}
ml_program.global private @both(#ml_program.extern : tensor<96x64xf16>) : tensor<96x64xf16>

// CHECK-LABEL: func.func @f
// CHECK: %[[WEIGHT:.*]] = ml_program.global_load_const @w : tensor<3x64x32xf16>
// CHECK: %[[R:.*]] = linalg.generic {indexing_maps = [#[[$X]], #[[$W]], #[[$Y]]]
// CHECK-SAME: iterator_types = ["parallel", "parallel", "parallel", "reduction"]
// CHECK-SAME: ins(%{{.*}}, %[[WEIGHT]] : tensor<2x64xf32>, tensor<3x64x32xf16>)
// CHECK-SAME: kvrm.panel = 32 : i64
// CHECK: tensor.extract_slice %[[R]][0, 0] [2, 72] [1, 1]
// CHECK: linalg.matmul {{.*}} tensor<96x64xf16>
func.func @f(%x: tensor<2x64xf32>, %y: tensor<2x72xf32>, %z: tensor<2x96xf32>)
    -> (tensor<2x72xf32>, tensor<2x96xf32>, tensor<96x64xf16>) attributes {kvrm.step} {
  %s0 = ml_program.global_load_const @scale : tensor<64xf32>
  %w = ml_program.global_load_const @w : tensor<72x64xf16>
  %r = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<2x64xf32>, tensor<72x64xf16>) outs(%y : tensor<2x72xf32>) -> tensor<2x72xf32>
  %b = ml_program.global_load_const @both : tensor<96x64xf16>
  %s = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %b : tensor<2x64xf32>, tensor<96x64xf16>) outs(%z : tensor<2x96xf32>) -> tensor<2x96xf32>
  return %r, %s, %b : tensor<2x72xf32>, tensor<2x96xf32>, tensor<96x64xf16>
}
