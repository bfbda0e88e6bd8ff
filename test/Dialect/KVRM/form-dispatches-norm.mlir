// RUN: kvrm-opt %s --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --canonicalize --cse --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-form-dispatches --kvrm-decompose-forms --kvrm-form-dispatches | FileCheck %s

#whole = affine_map<(m, n) -> (m, n)>
#rows = affine_map<(m, n) -> (m)>
#columns = affine_map<(m, n) -> (n)>
#one = affine_map<(m) -> (m)>

// As DecoderBuilder writes it. Nothing of it stays.
// CHECK-LABEL: func.func @norm
// CHECK-NOT: linalg
// CHECK: %[[E:.*]] = tensor.empty() : tensor<8x64xf32>
// CHECK-NEXT: %[[Y:.*]] = kvrm.rms_norm ins(%arg0, %arg1 : tensor<8x64xf32>, tensor<64xf32>) outs(%[[E]] : tensor<8x64xf32>) epsilon 9.99999974E-6 -> tensor<8x64xf32>
// CHECK-NEXT: return %[[Y]]
func.func @norm(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// A cast goes along, in the last op or after it.
// CHECK-LABEL: func.func @cast_within
// CHECK-NOT: linalg
// CHECK: %[[E:.*]] = tensor.empty() : tensor<8x64xf16>
// CHECK-NEXT: %[[Y:.*]] = kvrm.rms_norm ins(%arg0, %arg1 : tensor<8x64xf32>, tensor<64xf32>) outs(%[[E]] : tensor<8x64xf16>) epsilon 9.99999974E-6 -> tensor<8x64xf16>
// CHECK-NEXT: return %[[Y]]
func.func @cast_within(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf16> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf16>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf16>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f16):
    %p = arith.mulf %a, %b : f32
    %q = arith.mulf %p, %c : f32
    %v = arith.truncf %q : f32 to f16
    linalg.yield %v : f16
  } -> tensor<8x64xf16>
  return %y : tensor<8x64xf16>
}

// CHECK-LABEL: func.func @cast_after
// CHECK-NOT: linalg
// CHECK: %[[E:.*]] = tensor.empty() : tensor<8x64xf16>
// CHECK-NEXT: %[[Y:.*]] = kvrm.rms_norm ins(%arg0, %arg1 : tensor<8x64xf32>, tensor<64xf32>) outs(%[[E]] : tensor<8x64xf16>) epsilon 9.99999974E-6 -> tensor<8x64xf16>
// CHECK-NEXT: return %[[Y]]
func.func @cast_after(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf16> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  %e3 = tensor.empty() : tensor<8x64xf16>
  %z = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x64xf32>) outs(%e3 : tensor<8x64xf16>) {
  ^bb0(%a: f32, %o: f16):
    %v = arith.truncf %a : f32 to f16
    linalg.yield %v : f16
  } -> tensor<8x64xf16>
  return %z : tensor<8x64xf16>
}

// Operands commuted, a quotient, rsqrt, and constants from outside.
// CHECK-LABEL: func.func @written_otherwise
// CHECK-NOT: linalg
// CHECK: %[[E:.*]] = tensor.empty() : tensor<8x64xf32>
// CHECK-NEXT: %[[Y:.*]] = kvrm.rms_norm ins(%arg0, %arg1 : tensor<8x64xf32>, tensor<64xf32>) outs(%[[E]] : tensor<8x64xf32>) epsilon 9.99999974E-6 -> tensor<8x64xf32>
// CHECK-NEXT: return %[[Y]]
func.func @written_otherwise(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %count = arith.constant 64.0 : f32
  %eps = arith.constant 1.0e-05 : f32
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x, %x : tensor<8x64xf32>, tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %p = arith.mulf %b, %a : f32
    %s = arith.addf %p, %o : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %mean = arith.divf %a, %count : f32
    %sum = arith.addf %eps, %mean : f32
    %v = math.rsqrt %sum : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#columns, #whole, #rows, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%g, %x, %scale : tensor<64xf32>, tensor<8x64xf32>, tensor<8xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %c : f32
    %v = arith.mulf %b, %p : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// The rows are used as they are, too: the cast stays.
// CHECK-LABEL: func.func @cast_has_a_companion
// CHECK: %[[Y:.*]] = kvrm.rms_norm {{.*}} -> tensor<8x64xf32>
// CHECK: linalg.generic {{.*}} ins(%[[Y]]
// CHECK: return %{{.*}}, %[[Y]]
func.func @cast_has_a_companion(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> (tensor<8x64xf16>, tensor<8x64xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  %e3 = tensor.empty() : tensor<8x64xf16>
  %z = linalg.generic {indexing_maps = [#whole, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<8x64xf32>) outs(%e3 : tensor<8x64xf16>) {
  ^bb0(%a: f32, %o: f16):
    %v = arith.truncf %a : f32 to f16
    linalg.yield %v : f16
  } -> tensor<8x64xf16>
  return %z, %y : tensor<8x64xf16>, tensor<8x64xf32>
}

// The norm of a norm.
// CHECK-LABEL: func.func @norm_of_norm
// CHECK-NOT: linalg
// CHECK: %[[Y:.*]] = kvrm.rms_norm ins(%arg0,
// CHECK-NOT: linalg
// CHECK: %[[Z:.*]] = kvrm.rms_norm ins(%[[Y]],
// CHECK-NEXT: return %[[Z]]
func.func @norm_of_norm(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares0 = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill0 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %r0 = tensor.empty() : tensor<8xf32>
  %scale0 = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares0 : tensor<8xf32>) outs(%r0 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %v = math.rsqrt %sum : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %init0 = tensor.empty() : tensor<8x64xf32>
  %y0 = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale0, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%init0 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %fill1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<8xf32>) -> tensor<8xf32>
  %squares1 = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%y0 : tensor<8x64xf32>) outs(%fill1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %r1 = tensor.empty() : tensor<8xf32>
  %scale1 = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares1 : tensor<8xf32>) outs(%r1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %v = math.rsqrt %sum : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %init1 = tensor.empty() : tensor<8x64xf32>
  %y1 = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%y0, %scale1, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%init1 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y1 : tensor<8x64xf32>
}

// What follows is no such norm.

// A sum of products, of values, of cubes, or a maximum.
// CHECK-LABEL: func.func @product_with_another
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @product_with_another(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %z: tensor<8x64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x, %z : tensor<8x64xf32>, tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @sum_of_values
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @sum_of_values(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.addf %o, %a : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @sum_of_cubes
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @sum_of_cubes(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %q = arith.mulf %p, %a : f32
    %s = arith.addf %o, %q : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @maximum
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @maximum(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.maximumf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// The sum starts from one.
// CHECK-LABEL: func.func @not_from_zero
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @not_from_zero(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 1.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// The sum is over rows.
// CHECK-LABEL: func.func @sum_over_rows
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @sum_over_rows(%x: tensor<8x8xf32>, %g: tensor<8xf32>) -> tensor<8x8xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [affine_map<(m, n) -> (n, m)>, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x8xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.25e-01 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x8xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x8xf32>, tensor<8xf32>, tensor<8xf32>) outs(%e2 : tensor<8x8xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x8xf32>
  return %y : tensor<8x8xf32>
}

// The mean is over another count, epsilon is zero, negative or missing.
// CHECK-LABEL: func.func @other_count
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @other_count(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 3.125e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @no_epsilon
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @no_epsilon(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %root = math.sqrt %mean : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @negative_epsilon
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @negative_epsilon(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant -1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// The scale is the root and not its inverse.
// CHECK-LABEL: func.func @root
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @root(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %root, %one : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// Other rows are scaled, or the gain is missing.
// CHECK-LABEL: func.func @other_rows
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @other_rows(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %z: tensor<8x64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%z, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @gain_twice
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @gain_twice(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %q = arith.mulf %p, %c : f32
    %v = arith.mulf %q, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// CHECK-LABEL: func.func @added_gain
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @added_gain(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> tensor<8x64xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.addf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}

// What is between has another user.
// CHECK-LABEL: func.func @scale_has_a_companion
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @scale_has_a_companion(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> (tensor<8x64xf32>, tensor<8xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y, %scale : tensor<8x64xf32>, tensor<8xf32>
}

// CHECK-LABEL: func.func @squares_have_a_companion
// CHECK-NOT: kvrm.rms_norm
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK: linalg.generic
// CHECK-NOT: kvrm.rms_norm
func.func @squares_have_a_companion(%x: tensor<8x64xf32>, %g: tensor<64xf32>) -> (tensor<8x64xf32>, tensor<8xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<8xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%e0 : tensor<8xf32>) -> tensor<8xf32>
  %squares = linalg.generic {indexing_maps = [#whole, #rows], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<8x64xf32>) outs(%fill : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<8xf32>
  %e1 = tensor.empty() : tensor<8xf32>
  %scale = linalg.generic {indexing_maps = [#one, #one], iterator_types = ["parallel"]}
      ins(%squares : tensor<8xf32>) outs(%e1 : tensor<8xf32>) {
  ^bb0(%a: f32, %o: f32):
    %c = arith.constant 1.5625e-02 : f32
    %e = arith.constant 1.0e-05 : f32
    %one = arith.constant 1.0 : f32
    %mean = arith.mulf %a, %c : f32
    %sum = arith.addf %mean, %e : f32
    %root = math.sqrt %sum : f32
    %v = arith.divf %one, %root : f32
    linalg.yield %v : f32
  } -> tensor<8xf32>
  %e2 = tensor.empty() : tensor<8x64xf32>
  %y = linalg.generic {indexing_maps = [#whole, #rows, #columns, #whole], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale, %g : tensor<8x64xf32>, tensor<8xf32>, tensor<64xf32>) outs(%e2 : tensor<8x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %v = arith.mulf %p, %c : f32
    linalg.yield %v : f32
  } -> tensor<8x64xf32>
  return %y, %squares : tensor<8x64xf32>, tensor<8xf32>
}
