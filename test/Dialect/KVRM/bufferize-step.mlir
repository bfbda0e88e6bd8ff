// RUN: kvrm-opt %s --kvrm-pack-weights --kvrm-bufferize-step -split-input-file | FileCheck %s

// The boundary is fixed: tokens, session, weights, logits. A weight is a view
// at its offset, the logits are written where they are wanted, and the fields
// of a descriptor are views of it.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

// CHECK: #[[MAP:.*]] = affine_map<(d0, d1) -> (d0)>
ml_program.global private @first(#ml_program.extern : tensor<16xf32>) : tensor<16xf32>
ml_program.global private @table(#ml_program.extern : tensor<64x8xf32>) : tensor<64x8xf32>

// CHECK-LABEL: func.func @step(
// CHECK-SAME: %[[T:[a-z0-9]+]]: memref<2x1xi32> {kvrm.argument = #kvrm.argument<tokens>}
// CHECK-SAME: %[[S:[a-z0-9]+]]: !session {kvrm.argument = #kvrm.argument<session>}
// CHECK-SAME: %[[W:[a-z0-9]+]]: memref<2112xi8> {kvrm.argument = #kvrm.argument<weights>}
// CHECK-SAME: %[[L:[a-z0-9]+]]: memref<2x8xf32> {kvrm.argument = #kvrm.argument<logits>})
// CHECK: %[[C:.*]] = arith.constant 64 : index
// CHECK: %[[TABLE:.*]] = memref.view %[[W]][%[[C]]][] : memref<2112xi8> to memref<64x8xf32>
// CHECK: %[[D:.*]] = kvrm.commit %[[S]]
// CHECK: %[[P:.*]] = kvrm.positions %[[D]] : !descriptor -> memref<2xi32, strided<[8]>>
// CHECK-NOT: memref.alloc
// CHECK: linalg.generic {{.*}} ins(%[[P]] : memref<2xi32, strided<[8]>>) outs(%[[L]] : memref<2x8xf32>)
// CHECK: memref.load %[[TABLE]]
// CHECK-NOT: tensor
func.func @step(%tokens: tensor<2x1xi32>, %session: !session) -> tensor<2x8xf32> attributes {kvrm.step} {
  %desc = kvrm.commit %session : !session -> !desc
  %positions = kvrm.positions %desc : !desc -> tensor<2xi32>
  %other = ml_program.global_load_const @first : tensor<16xf32>
  %table = ml_program.global_load_const @table : tensor<64x8xf32>
  %init = tensor.empty() : tensor<2x8xf32>
  %rows = linalg.generic {indexing_maps = [affine_map<(r, c) -> (r)>, affine_map<(r, c) -> (r, c)>],
                          iterator_types = ["parallel", "parallel"]}
      ins(%positions : tensor<2xi32>) outs(%init : tensor<2x8xf32>) {
  ^bb0(%position: i32, %unused: f32):
    %r = arith.index_cast %position : i32 to index
    %c = linalg.index 1 : index
    %e = tensor.extract %table[%r, %c] : tensor<64x8xf32>
    linalg.yield %e : f32
  } -> tensor<2x8xf32>
  return %rows : tensor<2x8xf32>
}

// -----

// Launches are bufferized in place.

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @attend heads 2 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  %one = arith.constant 1 : index
  %item = kvrm.get_work_item
  %begin, %full, %end = kvrm.tile_range %item
  %q = kvrm.load_query %item : !kvrm.fragment<1x64xf32>
  %init = kvrm.softmax_init : !kvrm.softmax<1x64>
  %last = scf.for %t = %begin to %end step %one iter_args(%s = %init) -> (!kvrm.softmax<1x64>) {
    %k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>
    %x = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<1x64xf32>, !kvrm.fragment<64x64xf16> -> !kvrm.fragment<1x64xf32>
    %w, %s1 = kvrm.online_softmax %x, %s : !kvrm.fragment<1x64xf32>, !kvrm.softmax<1x64>
    %s2 = kvrm.accumulate %w, %v, %s1, %item[%t] {masked}
        : !kvrm.fragment<1x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<1x64>
    scf.yield %s2 : !kvrm.softmax<1x64>
  }
  kvrm.store_softmax %last, %item : !kvrm.softmax<1x64>
  kvrm.return
}

// CHECK-LABEL: func.func @launches
// CHECK-SAME: %[[L:[a-z0-9]+]]: memref<2x128xf32> {kvrm.argument = #kvrm.argument<logits>})
// CHECK: linalg.fill
// CHECK: %[[A:.*]] = memref.alloc() {{.*}} : memref<2x1x2x64xf32>
// CHECK: kvrm.launch @attend({{.*}}) ins(%{{.*}} : memref<2x1x2x64xf32>) outs(%[[A]] : memref<2x1x2x64xf32>) {layer = 0 : i64} : !session, !descriptor{{$}}
// CHECK: linalg.exp {{.*}} outs(%[[L]] : memref<2x128xf32>)
// CHECK-NEXT: return
func.func @launches(%tokens: tensor<2x1xi32>, %session: !session) -> tensor<2x128xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %desc = kvrm.commit %session : !session -> !desc
  %empty = tensor.empty() : tensor<2x1x2x64xf32>
  %q = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x1x2x64xf32>) -> tensor<2x1x2x64xf32>
  %init = tensor.empty() : tensor<2x1x2x64xf32>
  %o = kvrm.launch @attend(%session, %desc) ins(%q : tensor<2x1x2x64xf32>) outs(%init : tensor<2x1x2x64xf32>)
      {layer = 0 : i64} : !session, !desc -> tensor<2x1x2x64xf32>
  %flat = tensor.collapse_shape %o [[0, 1], [2, 3]] : tensor<2x1x2x64xf32> into tensor<2x128xf32>
  %out = tensor.empty() : tensor<2x128xf32>
  %r = linalg.exp ins(%flat : tensor<2x128xf32>) outs(%out : tensor<2x128xf32>) -> tensor<2x128xf32>
  return %r : tensor<2x128xf32>
}

// -----

// Caches pair with results by what they are versions of, not by their order:
// values first, then keys. Both are written where they are.

// CHECK-LABEL: func.func @values_first(
// CHECK-SAME: %[[K:[a-z0-9]+]]: memref<4xf16> {kvrm.argument = #kvrm.argument<key_cache>}
// CHECK-SAME: %[[V:[a-z0-9]+]]: memref<4xf16> {kvrm.argument = #kvrm.argument<value_cache>}
// CHECK: linalg.exp {{.*}} outs(%[[K]] : memref<4xf16>)
// CHECK-NEXT: linalg.log {{.*}} outs(%[[V]] : memref<4xf16>)
// CHECK-NEXT: linalg.fill {{.*}} outs(%{{.*}} : memref<2xf32>)
// CHECK-NEXT: return
func.func @values_first(%k: tensor<4xf16> {kvrm.argument = #kvrm.argument<key_cache>}, %v: tensor<4xf16> {kvrm.argument = #kvrm.argument<value_cache>})
    -> (tensor<4xf16>, tensor<2xf32>, tensor<4xf16>) attributes {kvrm.step} {
  %one = arith.constant 1.0 : f32
  %k1 = linalg.exp ins(%k : tensor<4xf16>) outs(%k : tensor<4xf16>) -> tensor<4xf16>
  %v1 = linalg.log ins(%v : tensor<4xf16>) outs(%v : tensor<4xf16>) -> tensor<4xf16>
  %empty = tensor.empty() : tensor<2xf32>
  %logits = linalg.fill ins(%one : f32) outs(%empty : tensor<2xf32>) -> tensor<2xf32>
  return %v1, %logits, %k1 : tensor<4xf16>, tensor<2xf32>, tensor<4xf16>
}

// -----

// A cache that does not come back is not written.

// CHECK-LABEL: func.func @kept(
// CHECK-SAME: %[[K:[a-z0-9]+]]: memref<4xf32> {kvrm.argument = #kvrm.argument<key_cache>}
// CHECK-SAME: %[[L:[a-z0-9]+]]: memref<4xf32> {kvrm.argument = #kvrm.argument<logits>}
// CHECK: %[[COPY:.*]] = memref.alloc
// CHECK: linalg.exp {{.*}} outs(%[[COPY]] :
// CHECK-NOT: outs(%[[K]]
func.func @kept(%k: tensor<4xf32> {kvrm.argument = #kvrm.argument<key_cache>}) -> tensor<4xf32> attributes {kvrm.step} {
  %k1 = linalg.exp ins(%k : tensor<4xf32>) outs(%k : tensor<4xf32>) -> tensor<4xf32>
  %empty = tensor.empty() : tensor<4xf32>
  %sum = linalg.add ins(%k, %k1 : tensor<4xf32>, tensor<4xf32>) outs(%empty : tensor<4xf32>) -> tensor<4xf32>
  return %sum : tensor<4xf32>
}

// -----

// Forms write their output whatever it holds: one buffer serves two of them,
// with no copy. Inputs may have rows that are apart, but no gaps in a row.

// CHECK-LABEL: func.func @forms
// CHECK-SAME: %[[L:[a-z0-9]+]]: memref<2x16xf32> {kvrm.argument = #kvrm.argument<logits>})
// CHECK-DAG: %[[W:.*]] = memref.view {{.*}} to memref<32x16xf16>
// CHECK-DAG: %[[G:.*]] = memref.view {{.*}} to memref<16xf32>
// CHECK: linalg.fill {{.*}} outs(%[[ALL:.*]] : memref<2x64xf32>)
// CHECK-NOT: linalg.copy
// CHECK: %[[X:.*]] = memref.subview %[[ALL]][0, 8] [2, 16] [1, 1]
// CHECK: kvrm.rms_norm ins(%[[X]], %[[G]] : memref<2x16xf32, strided<[64, 1], offset: 8>>, memref<16xf32>) outs(%[[N:.*]] : memref<2x16xf16>) epsilon
// CHECK: kvrm.linear ins(%[[N]], %[[W]] : memref<2x16xf16>, memref<32x16xf16>) extras(%[[X]] : memref<2x16xf32, strided<[64, 1], offset: 8>>) outs(%[[Y:.*]] : memref<2x16xf32>) parts 2 {
// CHECK-NEXT: ^bb0
// CHECK: }{{$}}
// CHECK: %[[GAPS:.*]] = memref.subview %[[ALL]][0, 0] [2, 16] [1, 2]
// CHECK: %[[COPY:.*]] = memref.alloc() {{.*}} : memref<2x16xf32>
// CHECK: linalg.copy ins(%[[GAPS]] : {{.*}}) outs(%[[COPY]] : memref<2x16xf32>)
// CHECK: kvrm.linear ins(%[[COPY]], %{{.*}} : memref<2x16xf32>, memref<16x16xf16{{.*}}>) extras(%[[Y]] : {{.*}}) outs(%[[L]] : memref<2x16xf32>) {
// CHECK: return
ml_program.global private @w(#ml_program.extern : tensor<32x16xf16>) : tensor<32x16xf16>
ml_program.global private @g(#ml_program.extern : tensor<16xf32>) : tensor<16xf32>
func.func @forms(%tokens: tensor<2x1xi32>) -> tensor<2x16xf32> attributes {kvrm.step} {
  %one = arith.constant 1.0 : f32
  %w = ml_program.global_load_const @w : tensor<32x16xf16>
  %g = ml_program.global_load_const @g : tensor<16xf32>
  %empty = tensor.empty() : tensor<2x64xf32>
  %all = linalg.fill ins(%one : f32) outs(%empty : tensor<2x64xf32>) -> tensor<2x64xf32>
  %x = tensor.extract_slice %all[0, 8] [2, 16] [1, 1] : tensor<2x64xf32> to tensor<2x16xf32>
  %a = tensor.empty() : tensor<2x16xf16>
  %n = kvrm.rms_norm ins(%x, %g : tensor<2x16xf32>, tensor<16xf32>) outs(%a : tensor<2x16xf16>)
      epsilon 1.0e-5 -> tensor<2x16xf16>
  %b = tensor.empty() : tensor<2x16xf32>
  %y = kvrm.linear ins(%n, %w : tensor<2x16xf16>, tensor<32x16xf16>) extras(%x : tensor<2x16xf32>)
      outs(%b : tensor<2x16xf32>) parts 2 {
  ^bb0(%p: f32, %q: f32, %r: f32):
    %s = arith.mulf %p, %q : f32
    %t = arith.addf %s, %r : f32
    kvrm.yield %t : f32
  } -> tensor<2x16xf32>
  %gaps = tensor.extract_slice %all[0, 0] [2, 16] [1, 2] : tensor<2x64xf32> to tensor<2x16xf32>
  %half = tensor.extract_slice %w[0, 0] [16, 16] [1, 1] : tensor<32x16xf16> to tensor<16x16xf16>
  %c = tensor.empty() : tensor<2x16xf32>
  %z = kvrm.linear ins(%gaps, %half : tensor<2x16xf32>, tensor<16x16xf16>) extras(%y : tensor<2x16xf32>)
      outs(%c : tensor<2x16xf32>) {
  ^bb0(%p: f32, %q: f32):
    %s = arith.addf %p, %q : f32
    kvrm.yield %s : f32
  } -> tensor<2x16xf32>
  return %z : tensor<2x16xf32>
}

// -----

// An extra is not written over while it is read, even where it is given as the
// output.

// CHECK-LABEL: func.func @output_is_an_extra
// CHECK: linalg.fill {{.*}} outs(%[[X:.*]] : memref<2x16xf32>)
// CHECK: kvrm.linear ins(%[[X]], %{{.*}}) extras(%[[X]] : memref<2x16xf32>) outs(%[[Y:.*]] : memref<2x16xf32>)
// CHECK: linalg.exp ins(%[[Y]]
ml_program.global private @w(#ml_program.extern : tensor<16x16xf16>) : tensor<16x16xf16>
func.func @output_is_an_extra(%tokens: tensor<2x1xi32>) -> tensor<2x16xf32> attributes {kvrm.step} {
  %one = arith.constant 1.0 : f32
  %w = ml_program.global_load_const @w : tensor<16x16xf16>
  %empty = tensor.empty() : tensor<2x16xf32>
  %x = linalg.fill ins(%one : f32) outs(%empty : tensor<2x16xf32>) -> tensor<2x16xf32>
  %y = kvrm.linear ins(%x, %w : tensor<2x16xf32>, tensor<16x16xf16>) extras(%x : tensor<2x16xf32>)
      outs(%x : tensor<2x16xf32>) {
  ^bb0(%p: f32, %q: f32):
    %s = arith.addf %p, %q : f32
    kvrm.yield %s : f32
  } -> tensor<2x16xf32>
  %out = tensor.empty() : tensor<2x16xf32>
  %r = linalg.exp ins(%y : tensor<2x16xf32>) outs(%out : tensor<2x16xf32>) -> tensor<2x16xf32>
  return %r : tensor<2x16xf32>
}
