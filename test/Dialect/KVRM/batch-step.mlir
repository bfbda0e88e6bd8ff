// A step of two rows becomes one of three, and a prefill of four tokens, whose
// logits are those of the last valid one.

// RUN: kvrm-opt %s --kvrm-batch-step="slots=3 chunk=4" --canonicalize | FileCheck %s

// As it was, but for the way that it is written.
// RUN: kvrm-opt %s --kvrm-batch-step --canonicalize | FileCheck %s --check-prefix=SAME
// SAME: func.func @decode_step(%{{.*}}: tensor<2x1xi32>
// SAME: kvrm.cached_attention
// SAME-NOT: @prefill

// A step of both: the rows of slots, then the tokens of the prompt, of which
// the last alone goes on behind attention.
// RUN: kvrm-opt %s --kvrm-batch-step="slots=3 chunk=4 mixed" | FileCheck %s --check-prefix=MIXED
// MIXED: func.func @decode_step
// MIXED: func.func @prefill
// MIXED: func.func @mixed_step(%{{.*}}: tensor<3x1xi32>, %[[ROWS:.*]]: tensor<3xi32>, %{{.*}}: tensor<1x4xi32>, %[[START:.*]]: tensor<1xi32>, %[[COUNT:.*]]: tensor<1xi32>, %[[SLOT:.*]]: tensor<1xi32>,
// MIXED-SAME: -> (tensor<4x5xf32>,
// MIXED: linalg.generic {{.*}} outs(%{{.*}} : tensor<7x4xf32>)
// MIXED: %{{.*}}, %[[KEYS:.*]], %[[VALUES:.*]] = kvrm.cached_attention {{.*}} at %[[ROWS]] {{.*}} : tensor<3x1x1x4xf32>
// MIXED: kvrm.cached_attention {{.*}}, %[[KEYS]], %[[VALUES]] at %[[START]] count %[[COUNT]] : tensor<1xi32> slot %[[SLOT]] {{.*}} : tensor<1x4x1x4xf32>
// MIXED: arith.cmpi slt
// MIXED: tensor.extract %{{.*}} : tensor<7x1x1x4xf32>
// MIXED: linalg.generic {{.*}} outs(%{{.*}} : tensor<4x5xf32>)

// RUN: not kvrm-opt %s --kvrm-batch-step=mixed -o /dev/null 2>&1 | FileCheck %s --check-prefix=NO-CHUNK
// NO-CHUNK: error: a mixed step needs a chunk of a prompt

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

// CHECK: func.func @decode_step(%{{.*}}: tensor<3x1xi32>, %[[POSITIONS:.*]]: tensor<3xi32>, %{{.*}}: tensor<1x3x1x16x4xf16>, %{{.*}}: tensor<1x3x1x16x4xf16>)
// CHECK-SAME: -> (tensor<3x5xf32>,
// CHECK: linalg.generic {{.*}} ins(%{{.*}}, %[[POSITIONS]] : tensor<3xi32>, tensor<3xi32>) outs(%{{.*}} : tensor<3x4xf32>)
// CHECK: kvrm.cached_attention {{.*}} : tensor<3x1x1x4xf32>
// CHECK: linalg.generic {{.*}} outs(%{{.*}} : tensor<3x5xf32>)

// CHECK: func.func @prefill(%{{.*}}: tensor<1x4xi32>, %[[POSITION:.*]]: tensor<1xi32>, %[[COUNT:.*]]: tensor<1xi32>, %[[SLOT:.*]]: tensor<1xi32>,
// CHECK-SAME: %{{.*}}: tensor<1x3x1x16x4xf16>, %{{.*}}: tensor<1x3x1x16x4xf16>) -> (tensor<1x5xf32>,
// A position for each token of the prompt.
// CHECK: %[[EACH:.*]] = linalg.generic {{.*}} ins(%[[POSITION]] : tensor<1xi32>) outs(%{{.*}} : tensor<4xi32>)
// CHECK: arith.addi
// CHECK: linalg.generic {{.*}} ins(%{{.*}}, %[[EACH]] : tensor<4xi32>, tensor<4xi32>) outs(%{{.*}} : tensor<4x4xf32>)
// CHECK: kvrm.cached_attention {{.*}} at %[[POSITION]] count %[[COUNT]] : tensor<1xi32> slot %[[SLOT]] : tensor<1xi32> {{.*}} : tensor<1x4x1x4xf32>
// CHECK: linalg.generic {{.*}} ins(%[[COUNT]] : tensor<1xi32>)
// CHECK-NEXT: ^bb0
// CHECK-NEXT: arith.addi %{{.*}}, %c-1_i32
// Behind attention there is one token.
// CHECK: linalg.generic {{.*}} outs(%{{.*}} : tensor<1x1x1x4xf32>)
// CHECK: tensor.extract %{{.*}} : tensor<4x1x1x4xf32>
// CHECK: linalg.generic {{.*}} outs(%{{.*}} : tensor<1x5xf32>)

ml_program.global private @table(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>
ml_program.global private @weight(#ml_program.extern : tensor<5x4xf32>) : tensor<5x4xf32>

func.func @decode_step(%tokens: tensor<2x1xi32>, %positions: tensor<2xi32>, %keys: tensor<1x2x1x16x4xf16>, %values: tensor<1x2x1x16x4xf16>)
    -> (tensor<2x5xf32>, tensor<1x2x1x16x4xf16>, tensor<1x2x1x16x4xf16>) attributes {kvrm.step} {
  %table = ml_program.global_load_const @table : tensor<5x4xf32>
  %ids = tensor.collapse_shape %tokens [[0, 1]] : tensor<2x1xi32> into tensor<2xi32>
  %x_init = tensor.empty() : tensor<2x4xf32>
  %x = linalg.generic {indexing_maps = [#row, #row, #all], iterator_types = ["parallel", "parallel"]}
      ins(%ids, %positions : tensor<2xi32>, tensor<2xi32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%id: i32, %p: i32, %out: f32):
    %r = arith.index_cast %id : i32 to index
    %c = linalg.index 1 : index
    %e = tensor.extract %table[%r, %c] : tensor<5x4xf32>
    %angle = arith.sitofp %p : i32 to f32
    %turned = arith.mulf %e, %angle : f32
    linalg.yield %turned : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %x [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
  %o, %k, %v = kvrm.cached_attention %q, %q, %q, %keys, %values at %positions {layer = 0 : i64, scale = 1.0 : f32}
      : tensor<2x1x1x4xf32>, tensor<2x1x1x4xf32>, tensor<1x2x1x16x4xf16>, tensor<2xi32>
  %flat = tensor.collapse_shape %o [[0], [1, 2, 3]] : tensor<2x1x1x4xf32> into tensor<2x4xf32>
  %weight = ml_program.global_load_const @weight : tensor<5x4xf32>
  %zero = arith.constant 0.0 : f32
  %init = tensor.empty() : tensor<2x5xf32>
  %zeros = linalg.generic {indexing_maps = [#all], iterator_types = ["parallel", "parallel"]} outs(%init : tensor<2x5xf32>) {
  ^bb0(%out: f32):
    linalg.yield %zero : f32
  } -> tensor<2x5xf32>
  %logits = linalg.generic {indexing_maps = [affine_map<(b, n, k) -> (b, k)>, affine_map<(b, n, k) -> (n, k)>, affine_map<(b, n, k) -> (b, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%flat, %weight : tensor<2x4xf32>, tensor<5x4xf32>) outs(%zeros : tensor<2x5xf32>) {
  ^bb0(%e: f32, %w: f32, %sum: f32):
    %product = arith.mulf %e, %w : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<2x5xf32>
  return %logits, %k, %v : tensor<2x5xf32>, tensor<1x2x1x16x4xf16>, tensor<1x2x1x16x4xf16>
}
