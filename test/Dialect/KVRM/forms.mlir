// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC
// RUN: kvrm-opt %s --canonicalize --cse | FileCheck %s --check-prefix=CANON

// CHECK-LABEL: func.func @product
// CHECK: %[[Y:.*]] = kvrm.linear ins(%{{.*}}, %{{.*}} : tensor<8x64xf32>, tensor<96x64xf16>) outs(%{{.*}} : tensor<8x96xf32>) {
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32):
// CHECK-NEXT:   kvrm.yield %[[S]] : f32
// CHECK-NEXT: } -> tensor<8x96xf32>
// CHECK-NEXT: return %[[Y]]
// GENERIC-LABEL: sym_name = "product"
// GENERIC: "kvrm.linear"(%{{.*}}, %{{.*}}, %{{.*}}) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 1>, parts = 1 : i64}> ({
func.func @product(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %init: tensor<8x96xf32>) -> tensor<8x96xf32> {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// A bias, a residual, and a constant that stays in the body.
// CHECK-LABEL: func.func @extras
// CHECK: kvrm.linear ins(%{{.*}}, %{{.*}} : tensor<8x64xbf16>, tensor<96x64xbf16>) extras(%{{.*}}, %{{.*}} : tensor<96xf32>, tensor<8x96xbf16>) outs(%{{.*}} : tensor<8x96xbf16>) attributes {note = 1 : i64} {
// CHECK-NEXT: ^bb0(%{{.*}}: f32, %{{.*}}: f32, %{{.*}}: bf16):
// CHECK: kvrm.yield %{{.*}} : bf16
// CHECK-NEXT: } -> tensor<8x96xbf16>
// CANON-LABEL: func.func @extras
// CANON-NEXT: kvrm.linear
// CANON-NEXT: ^bb0
// CANON-NEXT: arith.constant
func.func @extras(%x: tensor<8x64xbf16>, %w: tensor<96x64xbf16>, %b: tensor<96xf32>, %r: tensor<8x96xbf16>,
    %init: tensor<8x96xbf16>) -> tensor<8x96xbf16> {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xbf16>, tensor<96x64xbf16>)
      extras(%b, %r : tensor<96xf32>, tensor<8x96xbf16>) outs(%init : tensor<8x96xbf16>)
      attributes {note = 1 : i64} {
  ^bb0(%sum: f32, %bias: f32, %residual: bf16):
    %zero = arith.constant 0.0 : f32
    %biased = arith.addf %sum, %bias : f32
    %positive = arith.maximumf %biased, %zero : f32
    %wide = arith.extf %residual : bf16 to f32
    %added = arith.addf %wide, %positive : f32
    %v = arith.truncf %added : f32 to bf16
    kvrm.yield %v : bf16
  } -> tensor<8x96xbf16>
  return %y : tensor<8x96xbf16>
}

// Of two parts, on buffers: rows may be apart.
// CHECK-LABEL: func.func @gate
// CHECK: kvrm.linear ins(%{{.*}}, %{{.*}} : memref<8x64xf16, strided<[192, 1], offset: 64>>, memref<256x64xf16>) outs(%{{.*}} : memref<8x128xf16>) parts 2 {
// CHECK-NEXT: ^bb0(%{{.*}}: f32, %{{.*}}: f32):
// CHECK: kvrm.yield %{{.*}} : f16
// CHECK-NEXT: }{{$}}
// CANON-LABEL: func.func @gate
// CANON: kvrm.linear
// GENERIC: "kvrm.linear"(%{{.*}}, %{{.*}}, %{{.*}}) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 1>, parts = 2 : i64}> ({
func.func @gate(%x: memref<8x64xf16, strided<[192, 1], offset: 64>>, %w: memref<256x64xf16>, %y: memref<8x128xf16>) {
  kvrm.linear ins(%x, %w : memref<8x64xf16, strided<[192, 1], offset: 64>>, memref<256x64xf16>)
      outs(%y : memref<8x128xf16>) parts 2 {
  ^bb0(%gate: f32, %up: f32):
    %one = arith.constant 1.0 : f32
    %negated = arith.negf %gate : f32
    %power = math.exp %negated : f32
    %above = arith.addf %power, %one : f32
    %silu = arith.divf %gate, %above : f32
    %product = arith.mulf %silu, %up : f32
    %v = arith.truncf %product : f32 to f16
    kvrm.yield %v : f16
  }
  return
}

// CHECK-LABEL: func.func @norm
// CHECK: kvrm.rms_norm ins(%{{.*}}, %{{.*}} : tensor<8x64xf32>, tensor<64xf32>) outs(%{{.*}} : tensor<8x64xf16>) epsilon 9.99999974E-6 -> tensor<8x64xf16>
// CHECK: kvrm.rms_norm ins(%{{.*}}, %{{.*}} : memref<8x64xf32>, memref<64xf32>) outs(%{{.*}} : memref<8x64xf32>) epsilon 9.99999974E-6{{$}}
func.func @norm(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %init: tensor<8x64xf16>,
    %xb: memref<8x64xf32>, %gb: memref<64xf32>, %yb: memref<8x64xf32>) -> tensor<8x64xf16> {
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%init : tensor<8x64xf16>)
      epsilon 1.0e-5 -> tensor<8x64xf16>
  kvrm.rms_norm ins(%xb, %gb : memref<8x64xf32>, memref<64xf32>) outs(%yb : memref<8x64xf32>) epsilon 1.0e-5
  return %y : tensor<8x64xf16>
}

// What nobody reads goes, on tensors; what is written to a buffer stays.
// CANON-LABEL: func.func @unread
// CANON-NOT: kvrm.rms_norm {{.*}}tensor
// CANON: kvrm.rms_norm {{.*}}memref
func.func @unread(%x: tensor<8x64xf32>, %g: tensor<64xf32>, %xb: memref<8x64xf32>, %gb: memref<64xf32>,
    %yb: memref<8x64xf32>) {
  %y = kvrm.rms_norm ins(%x, %g : tensor<8x64xf32>, tensor<64xf32>) outs(%x : tensor<8x64xf32>)
      epsilon 1.0e-5 -> tensor<8x64xf32>
  kvrm.rms_norm ins(%xb, %gb : memref<8x64xf32>, memref<64xf32>) outs(%yb : memref<8x64xf32>) epsilon 1.0e-5
  return
}

// A norm in front, and a projection, on tensors and on buffers.
// CHECK-LABEL: func.func @normalized
// CHECK: kvrm.linear ins(%{{.*}}, %{{.*}} : tensor<8x64xf32>, tensor<96x64xf16>) norm(%{{.*}} : tensor<64xf32>) epsilon 9.99999974E-6 outs(%{{.*}} : tensor<8x96xf32>) {
// GENERIC-LABEL: sym_name = "normalized"
// GENERIC: "kvrm.linear"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) <{epsilon = 9.99999974E-6 : f32, operandSegmentSizes = array<i32: 1, 1, 1, 0, 1>, parts = 1 : i64}> ({
func.func @normalized(%x: tensor<8x64xf32>, %w: tensor<96x64xf16>, %g: tensor<64xf32>, %init: tensor<8x96xf32>) -> tensor<8x96xf32> {
  %y = kvrm.linear ins(%x, %w : tensor<8x64xf32>, tensor<96x64xf16>) norm(%g : tensor<64xf32>) epsilon 1.0e-5
      outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<8x96xf32>
  return %y : tensor<8x96xf32>
}

// CHECK-LABEL: func.func @projection
// CHECK: %[[R:.*]]:3 = kvrm.qkv_projection ins(%{{.*}}, %{{.*}} : tensor<8x64xf32>, tensor<128x64xf16>) norm(%{{.*}} : tensor<64xf32>) epsilon 9.99999974E-6 rotation(%{{.*}}, %{{.*}} : tensor<8x16xf32>, tensor<8x16xf32>) outs(%{{.*}}, %{{.*}}, %{{.*}} : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>) -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
// CHECK: kvrm.qkv_projection ins(%{{.*}}, %{{.*}} : memref<8x64xf16>, memref<128x64xf16>) rotation(%{{.*}}, %{{.*}} : memref<8x16xf32>, memref<8x16xf32>) outs(%{{.*}}, %{{.*}}, %{{.*}} : memref<8x64xf16>, memref<8x32xf16>, memref<8x32xf16>){{$}}
// CHECK: return %[[R]]#0, %[[R]]#2
func.func @projection(%x: tensor<8x64xf32>, %w: tensor<128x64xf16>, %g: tensor<64xf32>, %cos: tensor<8x16xf32>,
    %sin: tensor<8x16xf32>, %q0: tensor<8x64xf16>, %k0: tensor<8x32xf16>, %xb: memref<8x64xf16>,
    %wb: memref<128x64xf16>, %cosb: memref<8x16xf32>, %sinb: memref<8x16xf32>, %qb: memref<8x64xf16>,
    %kb: memref<8x32xf16>, %vb: memref<8x32xf16>) -> (tensor<8x64xf16>, tensor<8x32xf16>) {
  %q, %k, %v = kvrm.qkv_projection ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>)
      norm(%g : tensor<64xf32>) epsilon 1.0e-5 rotation(%cos, %sin : tensor<8x16xf32>, tensor<8x16xf32>)
      outs(%q0, %k0, %k0 : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>)
      -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
  kvrm.qkv_projection ins(%xb, %wb : memref<8x64xf16>, memref<128x64xf16>)
      rotation(%cosb, %sinb : memref<8x16xf32>, memref<8x16xf32>)
      outs(%qb, %kb, %vb : memref<8x64xf16>, memref<8x32xf16>, memref<8x32xf16>)
  return %q, %v : tensor<8x64xf16>, tensor<8x32xf16>
}
