// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

// Phase 3.

!session = !kvrm.session<slots = 8, pages = 128, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>

// CHECK: !descriptor = !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
// CHECK-LABEL: kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !descriptor {
// CHECK-NEXT: append_rows
// CHECK-NEXT: return
// CHECK-NEXT: }
// GENERIC: "kvrm.kernel"() <{
// GENERIC-SAME: heads = 9 : i64
// GENERIC-SAME: sym_name = "append"
// GENERIC-SAME: tile = #kvrm.tile<q = 1, kv = 64>, transport = #kvrm.transport<native>
kvrm.kernel @append heads 9 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// CHECK-LABEL: kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <staged>
// CHECK-SAME: on !session at !descriptor attributes {sym_visibility = "private"} {
// CHECK: %[[ITEM:.*]] = get_work_item
// CHECK: %[[BEGIN:.*]], %[[FULL:.*]], %[[END:.*]] = tile_range %[[ITEM]]
// CHECK: %[[Q:.*]] = load_query %[[ITEM]] : <3x64xf32>
// CHECK: %[[INIT:.*]] = softmax_init : <3x64>
// CHECK: %[[MID:.*]] = scf.for %[[T:.*]] = %[[BEGIN]] to %[[FULL]] {{.*}} iter_args(%[[S:.*]] = %[[INIT]]) -> (!kvrm.softmax<3x64>)
// CHECK: %[[K:.*]], %[[V:.*]] = kvrm.load_tile %[[ITEM]][%[[T]]] : <64x64xf16>
// CHECK: %[[X:.*]] = kvrm.score %[[Q]], %[[K]], %[[ITEM]][%[[T]]] {scale = 1.250000e-01 : f32} : <3x64xf32>, <64x64xf16> -> <3x64xf32>
// CHECK: %[[W:.*]], %[[S1:.*]] = kvrm.online_softmax %[[X]], %[[S]] : <3x64xf32>, <3x64>
// CHECK: %[[S2:.*]] = kvrm.accumulate %[[W]], %[[V]], %[[S1]], %[[ITEM]][%[[T]]] : <3x64xf32>, <64x64xf16>, <3x64>
// CHECK: scf.yield %[[S2]]
// CHECK: %[[LAST:.*]] = scf.for {{.*}} = %[[FULL]] to %[[END]] {{.*}} = %[[MID]])
// CHECK: kvrm.score {{.*}} {masked, scale = 1.250000e-01 : f32}
// CHECK: kvrm.accumulate {{.*}} {masked}
// CHECK: store_softmax %[[LAST]], %[[ITEM]] : <3x64>
// CHECK-NEXT: return
kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <staged> on !session at !desc
    attributes {sym_visibility = "private"} {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %mid = scf.for %t = %begin to %full step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// CHECK-LABEL: func.func @decode_step
// CHECK: kvrm.launch @append(%{{.*}}, %{{.*}}) ins(%{{.*}}, %{{.*}} : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>) {layer = 0 : i64} : !session, !descriptor{{$}}
// CHECK: %{{.*}} = kvrm.launch @attend(%{{.*}}, %{{.*}}) ins(%{{.*}} : tensor<8x1x9x64xf32>) outs(%{{.*}} : tensor<8x1x9x64xf32>) {layer = 0 : i64} : !session, !descriptor -> tensor<8x1x9x64xf32>
// GENERIC: "kvrm.launch"(%{{.*}}) <{kernel = @append, layer = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 2, 0>}>
// GENERIC: "kvrm.launch"(%{{.*}}) <{kernel = @attend, layer = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 1>}>
func.func @decode_step(%q: tensor<8x1x9x64xf32>, %k: tensor<8x1x3x64xf32>, %session: !session)
    -> tensor<8x1x9x64xf32> attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  kvrm.launch @append(%session, %desc) ins(%k, %k : tensor<8x1x3x64xf32>, tensor<8x1x3x64xf32>) {layer = 0 : i64}
      : !session, !desc
  %init = tensor.empty() : tensor<8x1x9x64xf32>
  %o = kvrm.launch @attend(%session, %desc) ins(%q : tensor<8x1x9x64xf32>) outs(%init : tensor<8x1x9x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<8x1x9x64xf32>
  return %o : tensor<8x1x9x64xf32>
}

// The same on buffers, and the dense part dispatched. A launch may name a
// function: its kernel is lowered already.

// CHECK-LABEL: func.func @bufferized
// CHECK: kvrm.launch @attend(%{{.*}}, %{{.*}}) ins(%{{.*}} : memref<8x1x9x64xf32>) outs(%{{.*}} : memref<8x1x9x64xf32>) {layer = 29 : i64} : !session, !descriptor{{$}}
// CHECK: kvrm.launch @lowered(
// CHECK: kvrm.dispatch @linear_0 tasks 18 ins(%{{.*}}, %{{.*}} : memref<8x576xf32>, memref<18x576x32xf16>) outs(%{{.*}} : memref<8x576xf32>)
// CHECK: kvrm.dispatch @nothing tasks 1{{$}}
func.func @bufferized(%q: memref<8x1x9x64xf32>, %k: memref<8x1x3x64xf32>, %x: memref<8x576xf32>,
                      %w: memref<18x576x32xf16>, %session: !session) attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  kvrm.launch @attend(%session, %desc) ins(%q : memref<8x1x9x64xf32>) outs(%q : memref<8x1x9x64xf32>)
      {layer = 29 : i64} : !session, !desc
  kvrm.launch @lowered(%session, %desc) ins(%k, %k : memref<8x1x3x64xf32>, memref<8x1x3x64xf32>)
      {layer = 0 : i64} : !session, !desc
  kvrm.dispatch @linear_0 tasks 18 ins(%x, %w : memref<8x576xf32>, memref<18x576x32xf16>) outs(%x : memref<8x576xf32>)
  kvrm.dispatch @nothing tasks 1
  return
}

// On tensors a dispatch returns what it writes.

// CHECK-LABEL: func.func @on_tensors
// CHECK: %{{.*}} = kvrm.dispatch @linear_0 tasks 18 ins(%{{.*}}, %{{.*}} : tensor<8x576xf32>, tensor<18x576x32xf16>) outs(%{{.*}} : tensor<8x576xf32>) -> tensor<8x576xf32>
// GENERIC: "kvrm.dispatch"(%{{.*}}) <{callee = @linear_0, operandSegmentSizes = array<i32: 2, 1>, tasks = 18 : i64}>
func.func @on_tensors(%x: tensor<8x576xf32>, %w: tensor<18x576x32xf16>) -> tensor<8x576xf32> attributes {kvrm.step} {
  %y = kvrm.dispatch @linear_0 tasks 18 ins(%x, %w : tensor<8x576xf32>, tensor<18x576x32xf16>)
      outs(%x : tensor<8x576xf32>) -> tensor<8x576xf32>
  return %y : tensor<8x576xf32>
}
func.func private @lowered()
func.func private @linear_0(index, index, memref<8x576xf32>, memref<18x576x32xf16>, memref<8x576xf32>)
func.func private @nothing(index, index)

// Of a session that keeps summaries: they come first, and a tile that the last
// tokens share with them is masked.

// CHECK-LABEL: kvrm.kernel @attend_far
// CHECK: %[[ITEM:.*]] = get_work_item
// CHECK: %[[BEGIN:.*]], %[[FULL:.*]], %[[END:.*]] = tile_range %[[ITEM]]
// CHECK: %[[SPLIT:.*]] = summary_end %[[ITEM]]
// CHECK: scf.for {{.*}} = %[[BEGIN]] to %[[SPLIT]]
// CHECK: score {{.*}} {scale = 1.250000e-01 : f32, summaries}
// CHECK: scf.for {{.*}} = %[[SPLIT]] to %[[END]]
// CHECK: score {{.*}} {masked, scale = 1.250000e-01 : f32, summaries}
kvrm.kernel @attend_far heads 9 io f32 tile <q = 1, kv = 64> transport <native>
    on !kvrm.session<slots = 8, pages = 72, pool = <layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>, far_history = <window = 1024, entries = 64>>
    at !kvrm.descriptor<rows = 8, queries = 1, pages = 72> {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %split = kvrm.summary_end %item
  %mid = scf.for %t = %begin to %split step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %split to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, summaries, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}

// Attention with a window has a loop more, whose tiles are masked; scores are
// capped.

// CHECK-LABEL: kvrm.kernel @window heads 9 io f32 tile <q = 1, kv = 64> transport <native> window 100 on
// CHECK: %[[EDGE:.*]] = window_edge %{{.*}}
// CHECK: scf.for {{.*}} to %[[EDGE]]
// CHECK: score {{.*}} {masked, scale = 1.250000e-01 : f32, softcap = 5.000000e+01 : f32}
// CHECK: scf.for {{.*}} = %[[EDGE]] to
kvrm.kernel @window heads 9 io f32 tile <q = 1, kv = 64> transport <native> window 100 on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %edge = kvrm.window_edge %item
  %q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<3x64>
  %edged = scf.for %t = %begin to %edge step %one iter_args(%s = %init) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32, softcap = 50.0 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %mid = scf.for %t = %edge to %full step %one iter_args(%s = %edged) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {scale = 0.125 : f32, softcap = 50.0 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  %last = scf.for %t = %full to %end step %one iter_args(%s = %mid) -> (!kvrm.softmax<3x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32, softcap = 50.0 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<3x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    scf.yield %s2 : !kvrm.softmax<3x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<3x64>
  kvrm.return
}
