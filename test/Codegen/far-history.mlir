// RUN: kvrm-opt %s --kvrm-generate-kernels -split-input-file | FileCheck %s --implicit-check-not=summar
// RUN: kvrm-opt %s --kvrm-generate-kernels --kvrm-lower-kernels-to-host -split-input-file | FileCheck %s --check-prefix=HOST

// Without far history a kernel has two loops, and neither knows of summaries.
// On the host its only branch is that of the item's end, and rows are read by
// their position (offset 4 of kvrm_row) and length (12).

// CHECK-LABEL: kvrm.kernel @attend_{{.*}} on !session at
// CHECK: %[[ITEM:.*]] = get_work_item
// CHECK-NEXT: %[[BEGIN:.*]], %[[FULL:.*]], %[[END:.*]] = tile_range %[[ITEM]]
// CHECK: scf.for {{.*}} = %[[BEGIN]] to %[[FULL]]
// CHECK: scf.for {{.*}} = %[[FULL]] to %[[END]]
// CHECK-NOT: scf.for
// CHECK: store_softmax
// CHECK-LABEL: func.func @off
// HOST-LABEL: func.func private @append_
// HOST: scf.for
// HOST: %[[ROW:.*]] = llvm.getelementptr
// HOST-NEXT: %[[FOUR:.*]] = arith.constant 4 : i64
// HOST-NEXT: %[[AT:.*]] = llvm.getelementptr %[[ROW]][%[[FOUR]]]
// HOST-NEXT: llvm.load %[[AT]]
// HOST-COUNT-1: arith.subi
// HOST-NOT: arith.subi
// HOST-LABEL: func.func private @attend_
// HOST-COUNT-1: scf.if
// HOST-NOT: scf.if
// HOST-LABEL: func.func @off

!session = !kvrm.session<slots = 2, pages = 6, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 6>
func.func @off(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %s: !session) -> tensor<2x1x4x64xf32>
    attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<2x1x2x64xf32>, !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return %o : tensor<2x1x4x64xf32>
}

// -----

// A window alone: places are counted from the end, and nothing is added.

// CHECK-LABEL: kvrm.kernel @attend_
// CHECK-COUNT-2: scf.for
// CHECK-NOT: scf.for
// CHECK-LABEL: func.func @window
// HOST-LABEL: func.func private @append_
// HOST-COUNT-2: arith.subi
// HOST-NOT: arith.subi
// HOST-LABEL: func.func private @attend_
// HOST-COUNT-1: scf.if
// HOST-NOT: scf.if
// HOST-LABEL: func.func @window

!session = !kvrm.session<slots = 2, pages = 6, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 64>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 6>
func.func @window(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %s: !session) -> tensor<2x1x4x64xf32>
    attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<2x1x2x64xf32>, !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return %o : tensor<2x1x4x64xf32>
}

// -----

// With summaries: first the tiles that hold some, then those that need no mask,
// then the masked, which may hold some too. Only of the first and last kind are
// biases read.

// CHECK-LABEL: kvrm.kernel @attend_
// CHECK: %[[ITEM:.*]] = get_work_item
// CHECK-NEXT: %[[BEGIN:.*]], %[[FULL:.*]], %[[END:.*]] = tile_range %[[ITEM]]
// CHECK: %[[SPLIT:.*]] = summary_end %[[ITEM]]
// CHECK: scf.for {{.*}} = %[[BEGIN]] to %[[SPLIT]]
// CHECK: score {{.*}} {scale = 1.250000e-01 : f32, summaries}
// CHECK: scf.for {{.*}} = %[[SPLIT]] to %[[FULL]]
// CHECK: score {{.*}} {scale = 1.250000e-01 : f32}
// CHECK: scf.for {{.*}} = %[[FULL]] to %[[END]]
// CHECK: score {{.*}} {masked, scale = 1.250000e-01 : f32, summaries}
// CHECK-LABEL: func.func @summaries
// HOST-LABEL: func.func private @attend_
// Four vectors of a tile, and the one of the masked loop.
// HOST-COUNT-5: scf.if {{.*}} -> (vector<16xf32>)
// HOST-NOT: scf.if {{.*}} -> (vector<16xf32>)
// HOST-LABEL: func.func @summaries

!session = !kvrm.session<slots = 2, pages = 6, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 64, entries = 16>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 6>
func.func @summaries(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %s: !session) -> tensor<2x1x4x64xf32>
    attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  kvrm.append %k, %k to %s at %d {layer = 0 : i64} : tensor<2x1x2x64xf32>, !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
      schedule = #kvrm.schedule<workqueue>} : tensor<2x1x4x64xf32>, !session, !desc
  return %o : tensor<2x1x4x64xf32>
}
