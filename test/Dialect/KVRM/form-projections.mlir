// RUN: kvrm-opt %s --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --canonicalize --cse --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-form-dispatches --kvrm-decompose-forms --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-form-dispatches --kvrm-decompose-forms | FileCheck %s --check-prefix=APART
// RUN: kvrm-opt %s --kvrm-form-dispatches --kvrm-split-products=rows=1 | FileCheck %s --check-prefix=SPLIT

// Query, key and value of one product. Sums and factors come in either order.

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
#whole = affine_map<(m, n) -> (m, n)>
#pairs = affine_map<(m, h, s, i) -> (m, h, s, i)>
#angles = affine_map<(m, h, s, i) -> (m, i)>

ml_program.global private @w(#ml_program.extern : tensor<128x64xf16>) : tensor<128x64xf16>
ml_program.global private @g(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>

// CHECK-LABEL: func.func @projection
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<2x64xf16>, %[[COS:[a-z0-9]+]]: tensor<2x16xf32>, %[[SIN:[a-z0-9]+]]: tensor<2x16xf32>
// CHECK-NOT: linalg
// CHECK: %[[R:.*]]:3 = kvrm.qkv_projection ins(%[[X]], %{{.*}} : tensor<2x64xf16>, tensor<128x64xf16>) rotation(%[[COS]], %[[SIN]] : tensor<2x16xf32>, tensor<2x16xf32>) outs({{.*}} : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>)
// CHECK-NOT: linalg
// CHECK: return %[[R]]#0, %[[R]]#1, %[[R]]#2
// APART-LABEL: func.func @projection
// APART-NOT: = kvrm.
// APART: %[[FILL:.*]] = linalg.fill
// APART: %[[P:.*]] = linalg.matmul {{.*}} outs(%[[FILL]] : tensor<2x128xf32>)
// APART: tensor.extract_slice %[[P]][0, 0] [2, 64] [1, 1]
// APART: linalg.generic {{.*}} outs(%{{.*}} : tensor<2x2x2x16xf16>)
// APART: tensor.extract_slice %[[P]][0, 64] [2, 32] [1, 1]
// APART: linalg.generic {{.*}} outs(%{{.*}} : tensor<2x1x2x16xf16>)
// APART: tensor.extract_slice %[[P]][0, 96] [2, 32] [1, 1]
// APART: linalg.generic {{.*}} outs(%{{.*}} : tensor<2x32xf16>)
// SPLIT-LABEL: func.func @projection
// SPLIT: %[[P:.*]] = kvrm.linear {{.*}} outs(%{{.*}} : tensor<2x128xf32>) {
// SPLIT: tensor.extract_slice %[[P]][0, 0] [2, 64] [1, 1]
// SPLIT-NOT: = kvrm.
// SPLIT: return
func.func @projection(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<128x64xf16>
  %empty = tensor.empty() : tensor<2x128xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x128xf32>) -> tensor<2x128xf32>
  %p = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<2x64xf16>, tensor<128x64xf16>) outs(%fill : tensor<2x128xf32>) -> tensor<2x128xf32>
  %q_columns = tensor.extract_slice %p[0, 0] [2, 64] [1, 1] : tensor<2x128xf32> to tensor<2x64xf32>
  %q_pairs = tensor.expand_shape %q_columns [[0], [1, 2, 3]] output_shape [2, 2, 2, 16] : tensor<2x64xf32> into tensor<2x2x2x16xf32>
  %q_init = tensor.empty() : tensor<2x2x2x16xf16>
  %q_turned = linalg.generic {indexing_maps = [#pairs, #angles, #angles, #pairs], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%q_pairs, %cos, %sin : tensor<2x2x2x16xf32>, tensor<2x16xf32>, tensor<2x16xf32>) outs(%q_init : tensor<2x2x2x16xf16>) {
  ^bb0(%a: f32, %c: f32, %s: f32, %out: f16):
    %m = linalg.index 0 : index
    %h = linalg.index 1 : index
    %half = linalg.index 2 : index
    %i = linalg.index 3 : index
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %first = arith.cmpi eq, %half, %c0 : index
    %there = arith.subi %c1, %half : index
    %b = tensor.extract %q_pairs[%m, %h, %there, %i] : tensor<2x2x2x16xf32>
    %neg = arith.negf %s : f32
    %sine = arith.select %first, %neg, %s : f32
    %own = arith.mulf %a, %c : f32
    %other = arith.mulf %b, %sine : f32
    %sum = arith.addf %other, %own : f32
    %v = arith.truncf %sum : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x2x2x16xf16>
  %q = tensor.collapse_shape %q_turned [[0], [1, 2, 3]] : tensor<2x2x2x16xf16> into tensor<2x64xf16>
  %k_columns = tensor.extract_slice %p[0, 64] [2, 32] [1, 1] : tensor<2x128xf32> to tensor<2x32xf32>
  %k_pairs = tensor.expand_shape %k_columns [[0], [1, 2, 3]] output_shape [2, 1, 2, 16] : tensor<2x32xf32> into tensor<2x1x2x16xf32>
  %k_init = tensor.empty() : tensor<2x1x2x16xf16>
  %k_turned = linalg.generic {indexing_maps = [#pairs, #angles, #angles, #pairs], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%k_pairs, %cos, %sin : tensor<2x1x2x16xf32>, tensor<2x16xf32>, tensor<2x16xf32>) outs(%k_init : tensor<2x1x2x16xf16>) {
  ^bb0(%a: f32, %c: f32, %s: f32, %out: f16):
    %m = linalg.index 0 : index
    %h = linalg.index 1 : index
    %half = linalg.index 2 : index
    %i = linalg.index 3 : index
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %first = arith.cmpi ult, %half, %c1 : index
    %there = arith.subi %c1, %half : index
    %b = tensor.extract %k_pairs[%m, %h, %there, %i] : tensor<2x1x2x16xf32>
    %neg = arith.negf %s : f32
    %sine = arith.select %first, %neg, %s : f32
    %own = arith.mulf %a, %c : f32
    %other = arith.mulf %b, %sine : f32
    %sum = arith.addf %own, %other : f32
    %v = arith.truncf %sum : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x1x2x16xf16>
  %k = tensor.collapse_shape %k_turned [[0], [1, 2, 3]] : tensor<2x1x2x16xf16> into tensor<2x32xf16>
  %v_columns = tensor.extract_slice %p[0, 96] [2, 32] [1, 1] : tensor<2x128xf32> to tensor<2x32xf32>
  %v_init = tensor.empty() : tensor<2x32xf16>
  %v = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%v_columns : tensor<2x32xf32>) outs(%v_init : tensor<2x32xf16>) {
  ^bb0(%a: f32, %out: f16):
    %v = arith.truncf %a : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x32xf16>
  return %q, %k, %v : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
}

// The norm in front goes along, if it rounds to the weight's element.
// CHECK-LABEL: func.func @normalized
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<2x64xf32>
// CHECK-NOT: kvrm.rms_norm
// CHECK: kvrm.qkv_projection ins(%[[X]], %{{.*}} : tensor<2x64xf32>, tensor<128x64xf16>) norm(%{{.*}} : tensor<64xf32>) epsilon 9.99999974E-6 rotation(
// APART-LABEL: func.func @normalized
// APART-NOT: = kvrm.
// APART: math.sqrt
// APART: linalg.matmul
// SPLIT-LABEL: func.func @normalized
// SPLIT: %[[N:.*]] = kvrm.rms_norm {{.*}} outs(%{{.*}} : tensor<2x64xf16>)
// SPLIT: kvrm.linear ins(%[[N]],
func.func @normalized(%in: tensor<2x64xf32>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
  %g = ml_program.global_load_const @g : tensor<64xf32>
  %x_init = tensor.empty() : tensor<2x64xf16>
  %x = kvrm.rms_norm ins(%in, %g : tensor<2x64xf32>, tensor<64xf32>) outs(%x_init : tensor<2x64xf16>) epsilon 1.0e-5 -> tensor<2x64xf16>
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<128x64xf16>
  %empty = tensor.empty() : tensor<2x128xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x128xf32>) -> tensor<2x128xf32>
  %p = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<2x64xf16>, tensor<128x64xf16>) outs(%fill : tensor<2x128xf32>) -> tensor<2x128xf32>
  %q_columns = tensor.extract_slice %p[0, 0] [2, 64] [1, 1] : tensor<2x128xf32> to tensor<2x64xf32>
  %q_pairs = tensor.expand_shape %q_columns [[0], [1, 2, 3]] output_shape [2, 2, 2, 16] : tensor<2x64xf32> into tensor<2x2x2x16xf32>
  %q_init = tensor.empty() : tensor<2x2x2x16xf16>
  %q_turned = linalg.generic {indexing_maps = [#pairs, #angles, #angles, #pairs], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%q_pairs, %cos, %sin : tensor<2x2x2x16xf32>, tensor<2x16xf32>, tensor<2x16xf32>) outs(%q_init : tensor<2x2x2x16xf16>) {
  ^bb0(%a: f32, %c: f32, %s: f32, %out: f16):
    %m = linalg.index 0 : index
    %h = linalg.index 1 : index
    %half = linalg.index 2 : index
    %i = linalg.index 3 : index
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %first = arith.cmpi ult, %half, %c1 : index
    %there = arith.subi %c1, %half : index
    %b = tensor.extract %q_pairs[%m, %h, %there, %i] : tensor<2x2x2x16xf32>
    %neg = arith.negf %s : f32
    %sine = arith.select %first, %neg, %s : f32
    %own = arith.mulf %a, %c : f32
    %other = arith.mulf %b, %sine : f32
    %sum = arith.addf %own, %other : f32
    %v = arith.truncf %sum : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x2x2x16xf16>
  %q = tensor.collapse_shape %q_turned [[0], [1, 2, 3]] : tensor<2x2x2x16xf16> into tensor<2x64xf16>
  %k_columns = tensor.extract_slice %p[0, 64] [2, 32] [1, 1] : tensor<2x128xf32> to tensor<2x32xf32>
  %k_pairs = tensor.expand_shape %k_columns [[0], [1, 2, 3]] output_shape [2, 1, 2, 16] : tensor<2x32xf32> into tensor<2x1x2x16xf32>
  %k_init = tensor.empty() : tensor<2x1x2x16xf16>
  %k_turned = linalg.generic {indexing_maps = [#pairs, #angles, #angles, #pairs], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%k_pairs, %cos, %sin : tensor<2x1x2x16xf32>, tensor<2x16xf32>, tensor<2x16xf32>) outs(%k_init : tensor<2x1x2x16xf16>) {
  ^bb0(%a: f32, %c: f32, %s: f32, %out: f16):
    %m = linalg.index 0 : index
    %h = linalg.index 1 : index
    %half = linalg.index 2 : index
    %i = linalg.index 3 : index
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %first = arith.cmpi ult, %half, %c1 : index
    %there = arith.subi %c1, %half : index
    %b = tensor.extract %k_pairs[%m, %h, %there, %i] : tensor<2x1x2x16xf32>
    %neg = arith.negf %s : f32
    %sine = arith.select %first, %neg, %s : f32
    %own = arith.mulf %a, %c : f32
    %other = arith.mulf %b, %sine : f32
    %sum = arith.addf %own, %other : f32
    %v = arith.truncf %sum : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x1x2x16xf16>
  %k = tensor.collapse_shape %k_turned [[0], [1, 2, 3]] : tensor<2x1x2x16xf16> into tensor<2x32xf16>
  %v_columns = tensor.extract_slice %p[0, 96] [2, 32] [1, 1] : tensor<2x128xf32> to tensor<2x32xf32>
  %v_init = tensor.empty() : tensor<2x32xf16>
  %v = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%v_columns : tensor<2x32xf32>) outs(%v_init : tensor<2x32xf16>) {
  ^bb0(%a: f32, %out: f16):
    %v = arith.truncf %a : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x32xf16>
  return %q, %k, %v : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
}
