// RUN: kvrm-opt %s --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --canonicalize --cse --kvrm-form-dispatches | FileCheck %s --check-prefix=CANON
// RUN: kvrm-opt %s --kvrm-form-dispatches --kvrm-decompose-forms=panel=1000003 --kvrm-form-dispatches | FileCheck %s

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
#whole = affine_map<(m, n) -> (m, n)>
#columns = affine_map<(m, n) -> (n)>

ml_program.global private @w(#ml_program.extern : tensor<96x64xf16>) : tensor<96x64xf16>
ml_program.global private @b(#ml_program.extern : tensor<96xf32>) : tensor<96xf32>

// A product alone. The fill goes.

// CHECK-LABEL: func.func @product
// CHECK: %[[W:.*]] = ml_program.global_load_const @w
// CHECK-NOT: linalg
// CHECK: %[[Y:.*]] = kvrm.linear ins(%arg0, %[[W]] : tensor<8x64xf32>, tensor<96x64xf16>) outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32):
// CHECK-NEXT:   kvrm.yield %[[S]] : f32
// CHECK-NEXT: } -> tensor<8x96xf32>
// CHECK-NEXT: return %[[Y]]
func.func @product(%x: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// Bias, activation with constants from within and from outside, cast, and a
// residual that is defined after the product: three ops go along, and the
// product to where all that it reads is known.

// CHECK-LABEL: func.func @chain
// CHECK-NOT: linalg.matmul
// CHECK-NOT: linalg.generic
// CHECK: %[[R:.*]] = linalg.exp
// CHECK-NEXT: %[[INIT:.*]] = tensor.empty() : tensor<8x96xbf16>
// CHECK-NEXT: %[[Y:.*]] = kvrm.linear ins(%arg0, %{{.*}} : tensor<8x64xbf16>, tensor<96x64xf16>) extras(%[[B:.*]], %[[R]] : tensor<96xf32>, tensor<8x96xf32>) outs(%[[INIT]] : tensor<8x96xbf16>) {
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32, %[[BIAS:.*]]: f32, %[[RES:.*]]: f32):
// CHECK-DAG: %[[ZERO:.*]] = arith.constant 0.0
// CHECK-DAG: %[[BIASED:.*]] = arith.addf %[[S]], %[[BIAS]]
// CHECK: %[[POSITIVE:.*]] = arith.maximumf %[[BIASED]], %[[ZERO]]
// CHECK-DAG: %[[TWO:.*]] = arith.constant 2.0
// CHECK-DAG: %[[ADDED:.*]] = arith.addf %[[RES]], %[[POSITIVE]]
// CHECK: %[[TWICE:.*]] = arith.mulf %[[ADDED]], %[[TWO]]
// CHECK: %[[V:.*]] = arith.truncf %[[TWICE]]
// CHECK: kvrm.yield %[[V]] : bf16
// CHECK: return %[[Y]]
// CANON-LABEL: func.func @chain
// CANON-NOT: linalg.generic
// CANON: kvrm.linear {{.*}} outs(%{{.*}} : tensor<8x96xbf16>) {
// CANON: return
func.func @chain(%x: tensor<8x64xbf16>, %early: tensor<8x96xf32>) -> tensor<8x96xbf16> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %two = arith.constant 2.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %b = ml_program.global_load_const @b : tensor<96xf32>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xbf16>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %biased = linalg.generic {indexing_maps = [#whole, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y, %b : tensor<8x96xf32>, tensor<96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%s: f32, %bias: f32, %unused: f32):
    %inside = arith.constant 0.0 : f32
    %sum = arith.addf %s, %bias : f32
    %positive = arith.maximumf %sum, %inside : f32
    linalg.yield %positive : f32
  } -> tensor<8x96xf32>
  %e1 = tensor.empty() : tensor<8x96xf32>
  %late = linalg.exp ins(%early : tensor<8x96xf32>) outs(%e1 : tensor<8x96xf32>) -> tensor<8x96xf32>
  %added = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%late, %biased : tensor<8x96xf32>, tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%r: f32, %s: f32, %unused: f32):
    %sum = arith.addf %r, %s : f32
    %twice = arith.mulf %sum, %two : f32
    linalg.yield %twice : f32
  } -> tensor<8x96xf32>
  %e2 = tensor.empty() : tensor<8x96xbf16>
  %cast = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%added : tensor<8x96xf32>) outs(%e2 : tensor<8x96xbf16>) {
  ^bb0(%s: f32, %unused: bf16):
    %narrow = arith.truncf %s : f32 to bf16
    linalg.yield %narrow : bf16
  } -> tensor<8x96xbf16>
  return %cast : tensor<8x96xbf16>
}

// Gate and up: two parts, in the order of their columns and not of their uses.
// The op that follows goes along, too, with two parts as they are.

// CHECK-LABEL: func.func @gate
// CHECK-NOT: linalg
// CHECK-NOT: tensor.extract_slice
// CHECK: kvrm.linear ins(%{{.*}}) extras(%arg1 : tensor<8x48xf32>) outs(%{{.*}} : tensor<8x48xf16>) parts 2 {
// CHECK-NEXT: ^bb0(%[[G:.*]]: f32, %[[U:.*]]: f32, %[[E:.*]]: f32):
// CHECK: arith.negf %[[G]]
// CHECK: %[[P:.*]] = arith.mulf %{{.*}}, %[[U]]
// CHECK: %[[S:.*]] = arith.subf %[[P]], %[[E]]
// CHECK: %[[V:.*]] = arith.truncf %[[S]]
// CHECK: kvrm.yield %[[V]] : f16
func.func @gate(%x: tensor<8x64xf32>, %extra: tensor<8x48xf32>) -> tensor<8x48xf16> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %up = tensor.extract_slice %y[0, 48] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %gate = tensor.extract_slice %y[0, 0] [8, 48] [1, 1] : tensor<8x96xf32> to tensor<8x48xf32>
  %e0 = tensor.empty() : tensor<8x48xf32>
  %gated = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%up, %gate : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e0 : tensor<8x48xf32>) {
  ^bb0(%u: f32, %g: f32, %unused: f32):
    %one = arith.constant 1.0 : f32
    %n = arith.negf %g : f32
    %p = math.exp %n : f32
    %a = arith.addf %p, %one : f32
    %silu = arith.divf %g, %a : f32
    %v = arith.mulf %silu, %u : f32
    linalg.yield %v : f32
  } -> tensor<8x48xf32>
  %e1 = tensor.empty() : tensor<8x48xf16>
  %cast = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%gated, %extra : tensor<8x48xf32>, tensor<8x48xf32>) outs(%e1 : tensor<8x48xf16>) {
  ^bb0(%s: f32, %e: f32, %unused: f16):
    %d = arith.subf %s, %e : f32
    %narrow = arith.truncf %d : f32 to f16
    linalg.yield %narrow : f16
  } -> tensor<8x48xf16>
  return %cast : tensor<8x48xf16>
}

// Three parts, one of which the op reads twice and one not at all in its body.

// CHECK-LABEL: func.func @three_parts
// CHECK: kvrm.linear ins(%{{.*}}) outs(%{{.*}} : tensor<8x32xf32>) parts 3 {
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32, %{{.*}}: f32, %[[C:.*]]: f32):
// CHECK-NEXT: %[[P:.*]] = arith.mulf %[[A]], %[[A]]
// CHECK-NEXT: %[[V:.*]] = arith.addf %[[P]], %[[C]]
// CHECK-NEXT: kvrm.yield %[[V]] : f32
func.func @three_parts(%x: tensor<8x64xf32>) -> tensor<8x32xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %a = tensor.extract_slice %y[0, 0] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  %b = tensor.extract_slice %y[0, 32] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  %c = tensor.extract_slice %y[0, 64] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  %e0 = tensor.empty() : tensor<8x32xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%a, %a, %b, %c : tensor<8x32xf32>, tensor<8x32xf32>, tensor<8x32xf32>, tensor<8x32xf32>) outs(%e0 : tensor<8x32xf32>) {
  ^bb0(%p: f32, %q: f32, %s: f32, %t: f32, %unused: f32):
    %square = arith.mulf %p, %q : f32
    %sum = arith.addf %square, %t : f32
    linalg.yield %sum : f32
  } -> tensor<8x32xf32>
  return %r : tensor<8x32xf32>
}

// One product is the extra of another: each takes in what follows it alone.

// CHECK-LABEL: func.func @two_products
// CHECK: %[[FIRST:.*]] = kvrm.linear
// CHECK: kvrm.linear {{.*}} extras(%[[FIRST]] : tensor<8x96xf32>)
// CHECK-NOT: linalg
// CHECK: return
func.func @two_products(%x: tensor<8x64xf32>, %z: tensor<8x64xf32>) -> tensor<8x96xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %p = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %q = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%z, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  %e0 = tensor.empty() : tensor<8x96xf32>
  %r = linalg.generic {indexing_maps = [#whole, #whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%p, %q : tensor<8x96xf32>, tensor<8x96xf32>) outs(%e0 : tensor<8x96xf32>) {
  ^bb0(%s: f32, %t: f32, %unused: f32):
    %sum = arith.addf %s, %t : f32
    linalg.yield %sum : f32
  } -> tensor<8x96xf32>
  return %r : tensor<8x96xf32>
}

// Not a step: untouched.

// CHECK-LABEL: func.func @no_step
// CHECK: linalg.matmul
// CHECK-NOT: kvrm.linear
func.func @no_step(%x: tensor<8x64xf32>) -> tensor<8x96xf32> {
  %zero = arith.constant 0.0 : f32
  %w = ml_program.global_load_const @w : tensor<96x64xf16>
  %empty = tensor.empty() : tensor<8x96xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x96xf32>) -> tensor<8x96xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}
