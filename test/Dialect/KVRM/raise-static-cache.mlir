// One layer with a position for each row.

// RUN: kvrm-opt %S/Inputs/decode-layer.mlir --kvrm-raise-static-cache | FileCheck %s
// RUN: kvrm-opt %S/Inputs/decode-layer.mlir --kvrm-raise-static-cache --kvrm-page-cache \
// RUN:   | FileCheck %s --check-prefix=PAGED
// RUN: kvrm-opt %S/Inputs/decode-layer.mlir --kvrm-raise-static-cache=analyse-only 2>&1 \
// RUN:   | FileCheck %s --check-prefix=FOUND

// FOUND: remark: layer 0: caches 4 and 5, position arg3[b], scale 0.125,
// FOUND-SAME: 4 heads on 2 of 4, capacity 16{{$}}
// FOUND: func.func @step(
// FOUND-NOT: kvrm.

// CHECK: func.func @step(
// CHECK-SAME: tensor<3xi32>, %[[KEYS:[a-z0-9]+]]: tensor<1x3x2x16x4xf16>, %[[VALUES:[a-z0-9]+]]: tensor<1x3x2x16x4xf16>)
// CHECK-SAME: -> (tensor<3x2x2x4xf32>, tensor<1x3x2x16x4xf16>, tensor<1x3x2x16x4xf16>)
// CHECK-SAME: attributes {kvrm.step}
// CHECK-NOT: math.exp
// CHECK: kvrm.cached_attention
// CHECK-SAME: %[[KEYS]], %[[VALUES]] at %arg3 {layer = 0 : i64, scale = 1.250000e-01 : f32}
// CHECK-SAME: tensor<3x1x4x4xf32>, tensor<3x1x2x4xf32>
// CHECK-NOT: math.exp
// CHECK: return %{{.*}}, %newKeyCache, %newValueCache

// PAGED: func.func @step({{.*}}, %[[SESSION:.*]]: !session) -> tensor<3x2x2x4xf32>
// PAGED: kvrm.append {{.*}}%[[SESSION]]
// PAGED: kvrm.attend

// A mask of a large negative number is one, too.
// RUN: sed -e 's/0xFF800000/-1.0e9/' %S/Inputs/decode-layer.mlir \
// RUN:   | kvrm-opt --kvrm-raise-static-cache=analyse-only 2>&1 \
// RUN:   | FileCheck %s --check-prefix=FINITE
// FINITE: remark: layer 0: {{.*}} capacity 16, finite mask{{$}}

// A softmax that somebody recognised before.
// RUN: sed -e '/  \/\/ Softmax\./,/  \/\/ Weighted values\./c\  %%probabilities = linalg.softmax dimension(3) ins(%%scores : tensor<3x2x2x16xf32>) outs(%%empty_scores : tensor<3x2x2x16xf32>) -> tensor<3x2x2x16xf32>' %S/Inputs/decode-layer.mlir \
// RUN:   | kvrm-opt --kvrm-raise-static-cache=analyse-only 2>&1 \
// RUN:   | FileCheck %s --check-prefix=SOFTMAX
// SOFTMAX: remark: layer 0: caches 4 and 5,

// Queries and keys are the front of a larger tensor.
// RUN: sed -e 's/%%q: tensor<3x2x2x4xf32>, %%k: tensor<3x2x4xf32>/%%heads: tensor<3x2x5x4xf32>, %%k_and_more: tensor<3x5x4xf32>/' \
// RUN:   -e 's/^  %%zero = /  %%q = tensor.extract_slice %%heads[0, 0, 0, 0] [3, 2, 2, 4] [1, 1, 1, 1] : tensor<3x2x5x4xf32> to tensor<3x2x2x4xf32>\n  %%k = tensor.extract_slice %%k_and_more[0, 0, 0] [3, 2, 4] [1, 1, 1] : tensor<3x5x4xf32> to tensor<3x2x4xf32>\n&/' %S/Inputs/decode-layer.mlir \
// RUN:   | kvrm-opt --kvrm-raise-static-cache | FileCheck %s --check-prefix=FRONT
// FRONT: tensor.extract %arg0[{{.*}}] : tensor<3x2x5x4xf32>
// FRONT: tensor.extract %arg1[{{.*}}] : tensor<3x5x4xf32>
// FRONT: kvrm.cached_attention {{.*}} tensor<3x1x4x4xf32>, tensor<3x1x2x4xf32>

// Caches of f32 are narrowed only where that is asked for.
// RUN: sed -e '/arith.truncf/d; /arith.extf/d; s/%%rounded, %%old : f16/%%new, %%old : f32/' \
// RUN:   -e 's/%%wide : f32/%%right : f32/; s/f16/f32/g' %S/Inputs/decode-layer.mlir > %t.f32.mlir
// RUN: kvrm-opt %t.f32.mlir --kvrm-raise-static-cache 2>&1 | FileCheck %s --check-prefix=WIDE
// RUN: kvrm-opt %t.f32.mlir --kvrm-raise-static-cache=narrow=bf16 | FileCheck %s --check-prefix=NARROW
// RUN: kvrm-opt %t.f32.mlir --kvrm-raise-static-cache=narrow=f8e4m3 | FileCheck %s --check-prefix=BYTES
// RUN: kvrm-opt %t.f32.mlir --kvrm-raise-static-cache=narrow=int8 | FileCheck %s --check-prefix=SCALED
// RUN: not kvrm-opt %t.f32.mlir --kvrm-raise-static-cache=narrow=f64 2>&1 | FileCheck %s --check-prefix=NO-SUCH
// WIDE: remark: not raised: its caches are f32, which a pool is not; narrow=f16, bf16, f8e4m3 or int8 makes them that
// WIDE-NOT: kvrm.cached_attention
// NARROW: kvrm.cached_attention {{.*}} tensor<1x3x2x16x4xbf16>
// BYTES: kvrm.cached_attention {{.*}} tensor<1x3x2x16x4xf8E4M3FN>
// SCALED: kvrm.cached_attention {{.*}} tensor<1x3x2x16x6xi8>
// NO-SUCH: error: narrow is 'f64', none of f16, bf16, f8e4m3 and int8
