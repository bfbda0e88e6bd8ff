// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

// Phase 2.

// CHECK-DAG: !descriptor = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// CHECK-DAG: !descriptor1 = !kvrm.descriptor<rows = 1, queries = 64, pages = 128>
// CHECK-DAG: !session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
!prefill = !kvrm.descriptor<rows = 1, queries = 64, pages = 128>

// CHECK-LABEL: func.func @decode_step
// CHECK-SAME: %[[S:[a-z0-9]+]]: !session
// CHECK: %[[D:.*]] = kvrm.commit %[[S]] : !session -> !descriptor{{$}}
// CHECK: %{{.*}} = kvrm.positions %[[D]] : !descriptor -> tensor<8xi32>
// CHECK: %{{.*}} = kvrm.counts %[[D]] : !descriptor -> tensor<8xi32>
// CHECK: %[[G:.*]] = kvrm.stage %[[S]], %[[D]] {transport = #kvrm.transport<native>} : !session, !descriptor
// CHECK: kvrm.append %{{.*}}, %{{.*}} to %[[S]] at %[[D]] {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !descriptor
// CHECK: %[[O:.*]] = kvrm.attend %{{.*}}, %[[G]] of %[[S]] at %[[D]] {layer = 0 : i64, scale = 1.250000e-01 : f32} : tensor<8x1x9x64xf32>, !session, !descriptor
// CHECK: kvrm.attend %[[O]], %[[G]] of %[[S]] at %[[D]]
// CHECK-SAME: schedule = #kvrm.schedule<workqueue>, tile = #kvrm.tile<q = 1, kv = 64>
// GENERIC: "kvrm.commit"
// GENERIC: "kvrm.stage"(%{{.*}}) <{transport = #kvrm.transport<native>}>
// GENERIC: "kvrm.append"(%{{.*}}) <{layer = 0 : i64}>
// GENERIC: "kvrm.attend"(%{{.*}}) <{layer = 0 : i64, scale = 1.250000e-01 : f32}>
func.func @decode_step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %session: !session)
    -> tensor<8x1x9x64xf32> attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  %positions = kvrm.positions %desc : !desc -> tensor<8xi32>
  %counts = kvrm.counts %desc : !desc -> tensor<8xi32>
  %groups = kvrm.stage %session, %desc {transport = #kvrm.transport<native>} : !session, !desc
  kvrm.append %k, %k to %session at %desc {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  %o = kvrm.attend %q, %groups of %session at %desc {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<8x1x9x64xf32>, !session, !desc
  kvrm.append %k, %k to %session at %desc {layer = 29 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  %o1 = kvrm.attend %o, %groups of %session at %desc
      {layer = 29 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>, schedule = #kvrm.schedule<workqueue>}
      : tensor<8x1x9x64xf32>, !session, !desc
  return %o1 : tensor<8x1x9x64xf32>
}

// Fewer rows than slots, several queries, the staged transport; the row fields
// as buffers.

// CHECK-LABEL: func.func @prefill
// CHECK: kvrm.counts {{.*}} -> memref<1xi32, strided<[8]>>
// CHECK: kvrm.stage {{.*}}transport = #kvrm.transport<staged>
// CHECK: kvrm.attend {{.*}}schedule = #kvrm.schedule<split, splits = 4>, tile = #kvrm.tile<q = 4, kv = 32>
func.func @prefill(%q: tensor<1x64x9x64xf32>, %k: tensor<1x64x3x64xf32>, %session: !session)
    -> tensor<1x64x9x64xf32> attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !prefill
  %positions = kvrm.positions %desc : !prefill -> memref<1xi32, strided<[8]>>
  %counts = kvrm.counts %desc : !prefill -> memref<1xi32, strided<[8]>>
  %groups = kvrm.stage %session, %desc {transport = #kvrm.transport<staged>} : !session, !prefill
  kvrm.append %k, %k to %session at %desc {layer = 0 : i64} : tensor<1x64x3x64xf32>, !session, !prefill
  %o = kvrm.attend %q, %groups of %session at %desc
      {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 4, kv = 32>,
       schedule = #kvrm.schedule<split, splits = 4>} : tensor<1x64x9x64xf32>, !session, !prefill
  return %o : tensor<1x64x9x64xf32>
}

// What is not marked as a step may be a part of one: the descriptor comes in.

// CHECK-LABEL: func.func @part_of_a_step
// CHECK: kvrm.append
func.func @part_of_a_step(%k: tensor<8x1x3x64xf32>, %session: !session, %desc: !desc) {
  kvrm.append %k, %k to %session at %desc {layer = 0 : i64} : tensor<8x1x3x64xf32>, !session, !desc
  return
}
