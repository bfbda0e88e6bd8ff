// RUN: kvrm-opt %s --kvrm-form-dispatches | FileCheck %s

// What has another meaning, or another user, stays as it is.

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
#whole = affine_map<(m, n) -> (m, n)>
#rows = affine_map<(m, n) -> (m)>
#columns = affine_map<(m, n) -> (n)>

ml_program.global private @w(#ml_program.extern : tensor<96x64xf16>) : tensor<96x64xf16>

// The sums do not start from zero.
// CHECK-LABEL: func.func @not_from_zero
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @not_from_zero(%x: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 1.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @onto_a_value
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @onto_a_value(%x: tensor<8x64xf32>, %start: tensor<8x96xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%start : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// The right-hand side is computed, or not transposed.
// CHECK-LABEL: func.func @no_weight
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @no_weight(%x: tensor<8x64xf32>, %v: tensor<96x64xf16>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %v : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @not_transposed
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @not_transposed(%x: tensor<8x96xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x64xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x64xf32>) -> tensor<8x64xf32>
  %y = linalg.matmul ins(%x, %w : tensor<8x96xf32>, tensor<96x64xf16>) outs(%init : tensor<8x64xf32>) -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// Sums are not in f32, or activations in f64.
// CHECK-LABEL: func.func @sums_in_f16
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @sums_in_f16(%x: tensor<8x64xf16>) -> tensor<8x96xf16> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f16
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf16>
  %init = linalg.fill ins(%zero : f16) outs(%empty : tensor<8x96xf16>) -> tensor<8x96xf16>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf16>, tensor<96x64xf16>) outs(%init : tensor<8x96xf16>) -> tensor<8x96xf16>
  return %y : tensor<8x96xf16>
}

// CHECK-LABEL: func.func @f64
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @f64(%x: tensor<8x64xf64>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf64>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @dynamic_rows
// CHECK-NOT: kvrm.linear
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @dynamic_rows(%x: tensor<?x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<?x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// The product has two users.
// CHECK-LABEL: func.func @two_users
// CHECK: %[[Y:.*]] = kvrm.linear
// CHECK: linalg.generic {{.*}} ins(%[[Y]] :
// CHECK: return %{{.*}}, %[[Y]]
func.func @two_users(%x: tensor<8x64xf32>) -> (tensor<8x96xf32>, tensor<8x96xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %o: f32):
    %v = arith.negf %a : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r, %y : tensor<8x96xf32>, tensor<8x96xf32>
}

// What it would be added to depends on the product.
// CHECK-LABEL: func.func @extra_of_the_product
// CHECK: %[[Y:.*]] = kvrm.linear
// CHECK: %[[Z:.*]] = linalg.exp
// CHECK: linalg.generic {{.*}} ins(%[[Y]], %[[Z]] :
func.func @extra_of_the_product(%x: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %z = linalg.exp ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) -> tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y, %z : tensor<8x96xf32>, tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.addf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// Named ops are not generics.
// CHECK-LABEL: func.func @named_op
// CHECK: kvrm.linear
// CHECK: linalg.exp
func.func @named_op(%x: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.exp ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// The user reads what was in its output.
// CHECK-LABEL: func.func @reads_its_output
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @reads_its_output(%x: tensor<8x64xf32>, %start: tensor<8x96xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%start : tensor<8x96xf32>) {
  ^bb0(%a: f32, %o: f32):
    %v = arith.addf %a, %o : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// An extra of rows, a transposed one, one of another element.
// CHECK-LABEL: func.func @row_factor
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @row_factor(%x: tensor<8x64xf32>, %s: tensor<8xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #rows, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y, %s : tensor<8x96xf32>, tensor<8xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @transposed_extra
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @transposed_extra(%x: tensor<8x64xf32>, %s: tensor<96x8xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, affine_map<(m, n) -> (n, m)>, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y, %s : tensor<8x96xf32>, tensor<96x8xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @integer_extra
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @integer_extra(%x: tensor<8x64xf32>, %s: tensor<96xi32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y, %s : tensor<8x96xf32>, tensor<96xi32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %b: i32, %o: f32):
    %c = arith.sitofp %b : i32 to f32
    %v = arith.mulf %a, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// The user transposes, reduces, converts to f64, reads places or a tensor.
// CHECK-LABEL: func.func @transposes
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @transposes(%x: tensor<8x64xf32>) -> tensor<96x8xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<96x8xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(n, m) -> (m, n)>, affine_map<(n, m) -> (n, m)>], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<96x8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %v = arith.negf %a : f32
    linalg.yield %v : f32
  } -> tensor<96x8xf32>
  return %r : tensor<96x8xf32>
}

// CHECK-LABEL: func.func @reduces
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @reduces(%x: tensor<8x64xf32>) -> tensor<8xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8xf32>
  %z = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %r = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%y : tensor<8x96xf32>) outs(%z : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %v = arith.addf %a, %o : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  return %r : tensor<8xf32>
}

// CHECK-LABEL: func.func @to_f64
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @to_f64(%x: tensor<8x64xf32>) -> tensor<8x96xf64> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf64>
  %r = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf64>) {
  ^bb0(%a: f32, %o: f64):
    %v = arith.extf %a : f32 to f64
    linalg.yield %v : f64
  } -> tensor<8x96xf64>
  return %r : tensor<8x96xf64>
}

// CHECK-LABEL: func.func @reads_its_place
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @reads_its_place(%x: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %o: f32):
    %i = linalg.index 0 : index
    %c = arith.index_cast %i : index to i32
    %p = arith.sitofp %c : i32 to f32
    %v = arith.addf %a, %p : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @reads_a_tensor
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @reads_a_tensor(%x: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %c0 = arith.constant 0 : index
  %r = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = tensor.extract %x[%c0, %c0] : tensor<8x64xf32>
    %v = arith.addf %a, %p : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @captures_a_scalar
// CHECK: kvrm.linear
// CHECK: linalg.generic
func.func @captures_a_scalar(%x: tensor<8x64xf32>, %s: f32) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%a: f32, %o: f32):
    %v = arith.addf %a, %s : f32
    linalg.yield %v : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// Slices overlap, leave columns or rows out, or go in steps.
// CHECK-LABEL: func.func @overlap
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @overlap(%x: tensor<8x64xf32>) -> tensor<8x48xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %s1 = tensor.extract_slice %y[0, 32] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  return %r : tensor<8x48xf32>
}

// CHECK-LABEL: func.func @gap
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @gap(%x: tensor<8x64xf32>) -> tensor<8x40xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 40] [1, 1] : tensor<8x96xf32> to tensor<8x40xf32>
  %s1 = tensor.extract_slice %y[0, 48] [8, 40] [1, 1] : tensor<8x96xf32> to tensor<8x40xf32>
  %e0 = tensor.empty() : tensor<8x40xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x40xf32>, tensor<8x40xf32>) outs(%e0 : tensor<8x40xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x40xf32>
  return %r : tensor<8x40xf32>
}

// CHECK-LABEL: func.func @end_missing
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @end_missing(%x: tensor<8x64xf32>) -> tensor<8x32xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  %s1 = tensor.extract_slice %y[0, 32] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  %e0 = tensor.empty() : tensor<8x32xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x32xf32>, tensor<8x32xf32>) outs(%e0 : tensor<8x32xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x32xf32>
  return %r : tensor<8x32xf32>
}

// CHECK-LABEL: func.func @same_twice
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @same_twice(%x: tensor<8x64xf32>) -> tensor<8x48xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %s1 = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  return %r : tensor<8x48xf32>
}

// CHECK-LABEL: func.func @few_rows
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @few_rows(%x: tensor<8x64xf32>) -> tensor<4x48xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [4, 48] [1, 1] : tensor<8x96xf32> to tensor<4x48xf32>
  %s1 = tensor.extract_slice %y[0, 48] [4, 48] [1, 1] : tensor<8x96xf32> to tensor<4x48xf32>
  %e0 = tensor.empty() : tensor<4x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<4x48xf32>, tensor<4x48xf32>) outs(%e0 : tensor<4x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<4x48xf32>
  return %r : tensor<4x48xf32>
}

// CHECK-LABEL: func.func @every_other
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @every_other(%x: tensor<8x64xf32>) -> tensor<8x48xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 48] [1, 2] : tensor<8x96xf32> to tensor<8x48xf32>
  %s1 = tensor.extract_slice %y[0, 1] [8, 48] [1, 2] : tensor<8x96xf32> to tensor<8x48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  return %r : tensor<8x48xf32>
}

// A slice has another user, or the product beside its slices has.
// CHECK-LABEL: func.func @slices_of_two_users
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
// CHECK: linalg.exp
func.func @slices_of_two_users(%x: tensor<8x64xf32>) -> (tensor<8x48xf32>, tensor<8x48xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %s1 = tensor.extract_slice %y[0, 48] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  %z = linalg.exp ins(%s1 : tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) -> tensor<8x48xf32>
  return %r, %z : tensor<8x48xf32>, tensor<8x48xf32>
}

// CHECK-LABEL: func.func @slices_and_the_whole
// CHECK: %[[Y:.*]] = kvrm.linear
// CHECK: linalg.generic
// CHECK: return %{{.*}}, %[[Y]]
func.func @slices_and_the_whole(%x: tensor<8x64xf32>) -> (tensor<8x48xf32>, tensor<8x96xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %s1 = tensor.extract_slice %y[0, 48] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  return %r, %y : tensor<8x48xf32>, tensor<8x96xf32>
}

// CHECK-LABEL: func.func @slice_broadcast_over_rows
// CHECK: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK: tensor.extract_slice
// CHECK: tensor.extract_slice
// CHECK: linalg.generic
func.func @slice_broadcast_over_rows(%x: tensor<8x64xf32>) -> tensor<8x48xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %s0 = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %s1 = tensor.extract_slice %y[0, 48] [1, 48] [1, 1] : tensor<8x96xf32> to tensor<48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %r = linalg.generic {indexing_maps = [#whole, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%s0, %s1 : tensor<8x48xf32>, tensor<48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %v = arith.mulf %a, %b : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  return %r : tensor<8x48xf32>
}
