// RUN: kvrm-opt %s --kvrm-form-dispatches | FileCheck %s

// What is no rotary embedding of query and key by the same angles, or has
// another user, stays as it is.

// CHECK-NOT: kvrm.qkv_projection

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
#whole = affine_map<(m, n) -> (m, n)>
#pairs = affine_map<(m, h, s, i) -> (m, h, s, i)>
#angles = affine_map<(m, h, s, i) -> (m, i)>

ml_program.global private @w(#ml_program.extern : tensor<128x64xf16>) : tensor<128x64xf16>
ml_program.global private @g(#ml_program.extern : tensor<64xf32>) : tensor<64xf32>

// The sign is that of the second half.
// CHECK-LABEL: func.func @other_sign(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @other_sign(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %sine = arith.select %first, %s, %neg : f32
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

// Turned the other way.
// CHECK-LABEL: func.func @difference(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @difference(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %sum = arith.subf %own, %other : f32
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

// The halves are told apart the wrong way.
// CHECK-LABEL: func.func @other_half(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @other_half(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %first = arith.cmpi eq, %half, %c1 : index
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

// Both halves count as the first.
// CHECK-LABEL: func.func @at_most_one(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @at_most_one(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %first = arith.cmpi ule, %half, %c1 : index
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

// The key has other angles.
// CHECK-LABEL: func.func @other_angles(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @other_angles(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
      ins(%k_pairs, %sin, %cos : tensor<2x1x2x16xf32>, tensor<2x16xf32>, tensor<2x16xf32>) outs(%k_init : tensor<2x1x2x16xf16>) {
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

// The key is turned by values of the query.
// CHECK-LABEL: func.func @other_partner(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @other_partner(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %b = tensor.extract %q_pairs[%m, %h, %there, %i] : tensor<2x2x2x16xf32>
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

// The partner is the element itself.
// CHECK-LABEL: func.func @no_partner(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @no_partner(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %b = tensor.extract %q_pairs[%m, %h, %half, %i] : tensor<2x2x2x16xf32>
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

// The partner is in another head.
// CHECK-LABEL: func.func @partner_of_head_0(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @partner_of_head_0(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %b = tensor.extract %q_pairs[%m, %c0, %there, %i] : tensor<2x2x2x16xf32>
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

// The value is doubled.
// CHECK-LABEL: func.func @scaled_value(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @scaled_value(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %d = arith.addf %a, %a : f32
    %v = arith.truncf %d : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x32xf16>
  return %q, %k, %v : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
}

// The value is rounded towards zero.
// CHECK-LABEL: func.func @truncated_value(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @truncated_value(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
    %v = arith.truncf %a toward_zero : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x32xf16>
  return %q, %k, %v : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
}

// The product has another user.
// CHECK-LABEL: func.func @another_user(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @another_user(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>, tensor<2x128xf32>) attributes {kvrm.step} {
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
  return %q, %k, %v, %p : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>, tensor<2x128xf32>
}

// The value is a slice that overlaps the key.
// CHECK-LABEL: func.func @overlapping(
// CHECK: kvrm.linear
// CHECK-NOT: kvrm.qkv_projection
func.func @overlapping(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
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
  %v_columns = tensor.extract_slice %p[0, 80] [2, 32] [1, 1] : tensor<2x128xf32> to tensor<2x32xf32>
  %v_init = tensor.empty() : tensor<2x32xf16>
  %v = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%v_columns : tensor<2x32xf32>) outs(%v_init : tensor<2x32xf16>) {
  ^bb0(%a: f32, %out: f16):
    %v = arith.truncf %a : f32 to f16
    linalg.yield %v : f16
  } -> tensor<2x32xf16>
  return %q, %k, %v : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
}
