// RUN: kvrm-opt %s --kvrm-decompose-forms | FileCheck %s --check-prefix=APART
// RUN: kvrm-opt %s --kvrm-decompose-forms --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-decompose-forms --canonicalize --cse --kvrm-form-dispatches | FileCheck %s
// RUN: kvrm-opt %s --kvrm-split-products=rows=1 | FileCheck %s --check-prefix=SPLIT

// A bias of query, key and value is part of the projection.

ml_program.global private @w(#ml_program.extern : tensor<128x64xf16>) : tensor<128x64xf16>
ml_program.global private @b(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>

// CHECK-LABEL: func.func @projection
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<2x64xf16>
// CHECK-NOT: linalg
// CHECK: %[[B:.*]] = ml_program.global_load_const @b
// CHECK: %[[R:.*]]:3 = kvrm.qkv_projection ins(%[[X]], %{{.*}} : tensor<2x64xf16>, tensor<128x64xf16>) bias(%[[B]] : tensor<128xf32>) rotation(
// CHECK-NOT: linalg
// CHECK: return %[[R]]#0, %[[R]]#1, %[[R]]#2
// APART-LABEL: func.func @projection
// APART: %[[P:.*]] = linalg.matmul
// APART: %[[SUM:.*]] = linalg.generic {{.*}} ins(%[[P]], %{{.*}} : tensor<2x128xf32>, tensor<128xf32>)
// APART: arith.addf
// APART: tensor.extract_slice %[[SUM]][0, 0] [2, 64] [1, 1]
// APART: tensor.extract_slice %[[SUM]][0, 96] [2, 32] [1, 1]
// SPLIT-LABEL: func.func @projection
// SPLIT: %[[P:.*]] = kvrm.linear
// SPLIT: linalg.generic {{.*}} ins(%[[P]], %{{.*}} : tensor<2x128xf32>, tensor<128xf32>)
// SPLIT: arith.addf
func.func @projection(%x: tensor<2x64xf16>, %cos: tensor<2x16xf32>, %sin: tensor<2x16xf32>) -> (tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>) attributes {kvrm.step} {
  %w = ml_program.global_load_const @w : tensor<128x64xf16>
  %b = ml_program.global_load_const @b : tensor<128xf32>
  %q0 = tensor.empty() : tensor<2x64xf16>
  %k0 = tensor.empty() : tensor<2x32xf16>
  %v0 = tensor.empty() : tensor<2x32xf16>
  %q, %k, %v = kvrm.qkv_projection
      ins(%x, %w : tensor<2x64xf16>, tensor<128x64xf16>)
      bias(%b : tensor<128xf32>)
      rotation(%cos, %sin : tensor<2x16xf32>, tensor<2x16xf32>)
      outs(%q0, %k0, %v0 : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>)
      -> tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
  return %q, %k, %v : tensor<2x64xf16>, tensor<2x32xf16>, tensor<2x32xf16>
}
