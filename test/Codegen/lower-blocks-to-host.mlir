// RUN: kvrm-opt %s --kvrm-lower-dense-to-host | FileCheck %s --check-prefixes=CHECK,VNNI
// RUN: kvrm-opt %s --kvrm-lower-dense-to-host=dot=maddubs | FileCheck %s --check-prefixes=CHECK,MADDUBS
// RUN: not kvrm-opt %s --kvrm-lower-dense-to-host=dot=none 2>&1 | FileCheck %s --check-prefix=NONE
// RUN: not kvrm-opt %s --kvrm-lower-dense-to-host=dot=mmx 2>&1 | FileCheck %s --check-prefix=NAME
// RUN: not kvrm-opt %s --kvrm-lower-dense-to-host=lanes=8 2>&1 | FileCheck %s --check-prefix=LANES

// NONE: error: 'kvrm.block_product' op has quantized activations, which the target cannot multiply
// NAME: error: dot is 'mmx', none of vnni, maddubs and none
// LANES: error: 'kvrm.block_product' op has panels of 16 rows, and vectors 8 lanes

func.func @step(%x: memref<1x64xf32>, %q: memref<1x2x48xi8>, %w4: memref<3x2x288xi8>, %w8: memref<3x2x544xi8>, %y: memref<1x48xf32>) attributes {kvrm.step} {
  kvrm.dispatch @quantize tasks 1 ins(%x : memref<1x64xf32>) outs(%q : memref<1x2x48xi8>)
  kvrm.dispatch @exact tasks 3 ins(%x, %w4 : memref<1x64xf32>, memref<3x2x288xi8>) outs(%y : memref<1x48xf32>)
  kvrm.dispatch @nibbles tasks 3 ins(%q, %w4 : memref<1x2x48xi8>, memref<3x2x288xi8>) outs(%y : memref<1x48xf32>)
  kvrm.dispatch @bytes tasks 3 ins(%q, %w8 : memref<1x2x48xi8>, memref<3x2x544xi8>) outs(%y : memref<1x48xf32>)
  return
}

// Magnitudes are compared as integers, so that NaNs are the largest.
// CHECK-LABEL: func.func private @quantize
// CHECK: vector.load %{{.*}} : memref<1x64xf32>, vector<16xf32>
// CHECK: arith.maxsi
// CHECK: vector.reduction <maxsi>
// CHECK: math.roundeven
// CHECK: vector.store %{{.*}} : memref<1x2x48xi8>, vector<16xi8>
// CHECK: vector.store %{{.*}} : memref<1x2x48xi8>, vector<16xi8>
func.func private @quantize(%begin: index, %end: index, %x: memref<1x64xf32>, %q: memref<1x2x48xi8>) {
  kvrm.quantize_rows ins(%x : memref<1x64xf32>) outs(%q : memref<1x2x48xi8>)
  return
}

// A zero-fill before it is taken over; each of four chains starts from zero.
// CHECK-LABEL: func.func private @exact
// CHECK-NOT: memref.store
// CHECK: %[[ZERO:.*]] = arith.constant dense<0.000000e+00> : vector<16xf32>
// CHECK: scf.for {{.*}} iter_args(%{{.*}} = %[[ZERO]], %{{.*}} = %[[ZERO]], %{{.*}} = %[[ZERO]], %{{.*}} = %[[ZERO]])
// CHECK: vector.load %{{.*}} : memref<3x2x288xi8>, vector<32xi8>
// CHECK: vector.bitcast %{{.*}} : vector<32xi8> to vector<16xf16>
// CHECK: memref.prefetch
// CHECK: vector.load %{{.*}} : memref<3x2x288xi8>, vector<64xi8>
// CHECK: vector.bitcast %{{.*}} : vector<64xi8> to vector<16xi32>
// CHECK: vector.fma
// CHECK-NOT: llvm.call_intrinsic
func.func private @exact(%begin: index, %end: index, %x: memref<1x64xf32>, %w: memref<3x2x288xi8>, %y: memref<1x48xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<1x48xf32>)
  kvrm.block_product <q4_0> ins(%x, %w : memref<1x64xf32>, memref<3x2x288xi8>) outs(%y : memref<1x48xf32>) panel 16
  return
}

// Eight pairs of products of four bits by eight fit in 16 bits.
// CHECK-LABEL: func.func private @nibbles
// CHECK: vector.load %{{.*}} : memref<1x48xf32>, vector<16xf32>
// VNNI-COUNT-8: llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// VNNI-NOT: llvm.call_intrinsic
// MADDUBS-COUNT-8: llvm.call_intrinsic "llvm.x86.avx512.pmaddubs.w.512"
// MADDUBS: llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"
// MADDUBS-NOT: llvm.call_intrinsic
// CHECK: arith.sitofp
// CHECK: vector.store
func.func private @nibbles(%begin: index, %end: index, %q: memref<1x2x48xi8>, %w: memref<3x2x288xi8>, %y: memref<1x48xf32>) {
  kvrm.block_product <q4_0> ins(%q, %w : memref<1x2x48xi8>, memref<3x2x288xi8>) outs(%y : memref<1x48xf32>) panel 16
  return
}

// Those of eight by eight do not: codes are multiplied by halves.
// CHECK-LABEL: func.func private @bytes
// VNNI-COUNT-8: llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// MADDUBS-COUNT-8: llvm.call_intrinsic "llvm.x86.avx512.pmaddubs.w.512"
// MADDUBS: llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"
// MADDUBS-COUNT-8: llvm.call_intrinsic "llvm.x86.avx512.pmaddubs.w.512"
// MADDUBS: llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"
func.func private @bytes(%begin: index, %end: index, %q: memref<1x2x48xi8>, %w: memref<3x2x544xi8>, %y: memref<1x48xf32>) {
  kvrm.block_product <q8_0> ins(%q, %w : memref<1x2x48xi8>, memref<3x2x544xi8>) outs(%y : memref<1x48xf32>) panel 16
  return
}
