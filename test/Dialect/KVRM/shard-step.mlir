// RUN: kvrm-opt %s --kvrm-shard-step=ranks=2 | FileCheck %s
// RUN: kvrm-opt %s --kvrm-shard-step=ranks=1 | FileCheck %s --check-prefix=ONE
// RUN: kvrm-opt %kvrm_src/examples/decoder.mlir --kvrm-shard-step=ranks=2 | FileCheck %s --check-prefix=DECODER

// One rank changes nothing.
// ONE-NOT: kvrm.ranks
// ONE-NOT: kvrm.all

// A whole decoder: in each layer query, key and value by heads, gate and up by
// columns, and a sum behind the products that bring them together.
// DECODER: module attributes {kvrm.ranks = 2 : i64}
// DECODER: ml_program.global private @token_embd(#extern{{[0-9]*}}) : tensor<256x128xf16>{{$}}
// DECODER: kvrm.all_reduce
// DECODER: kvrm.all_gather

// CHECK: module attributes {kvrm.ranks = 2 : i64}

// Gate and up are slices of one product: each rank has the first half of both.
// CHECK: ml_program.global private @gate_up(#extern{{[0-9]*}}) : tensor<64x32xf16> {kvrm.shard = #kvrm.shard<dim = 0, parts = [64, 64]>}
ml_program.global private @gate_up(#ml_program.extern : tensor<128x32xf16>) : tensor<128x32xf16>
// CHECK: ml_program.global private @bias(#extern{{[0-9]*}}) : tensor<64xf32> {kvrm.shard = #kvrm.shard<dim = 0, parts = [64, 64]>}
ml_program.global private @bias(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>
// CHECK: ml_program.global private @down(#extern{{[0-9]*}}) : tensor<32x32xf16> {kvrm.shard = #kvrm.shard<dim = 1, parts = [64]>}
ml_program.global private @down(#ml_program.extern : tensor<32x64xf16>) : tensor<32x64xf16>
// Two ranks do not divide 33 columns.
// CHECK: ml_program.global private @odd(#extern{{[0-9]*}}) : tensor<33x32xf16>{{$}}
ml_program.global private @odd(#ml_program.extern : tensor<33x32xf16>) : tensor<33x32xf16>
// CHECK: ml_program.global private @gain(#extern{{[0-9]*}}) : tensor<16xf32> {kvrm.shard = #kvrm.shard<dim = 0, parts = [32]>}
ml_program.global private @gain(#ml_program.extern : tensor<32xf32>) : tensor<32xf32>
ml_program.global private @square(#ml_program.extern : tensor<32x32xf16>) : tensor<32x32xf16>

#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
#all = affine_map<(m, n) -> (m, n)>
#column = affine_map<(m, n) -> (n)>
#row = affine_map<(m, n) -> (m)>

// CHECK-LABEL: func.func @feed_forward
// CHECK-SAME: (%[[X:.*]]: tensor<2x32xf32>) -> tensor<2x32xf32>
func.func @feed_forward(%x: tensor<2x32xf32>) -> tensor<2x32xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %gate_up = ml_program.global_load_const @gate_up : tensor<128x32xf16>
  %bias = ml_program.global_load_const @bias : tensor<128xf32>
  %down = ml_program.global_load_const @down : tensor<32x64xf16>
  %e = tensor.empty() : tensor<2x128xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<2x128xf32>) -> tensor<2x128xf32>
  // CHECK: linalg.matmul
  // CHECK-SAME: outs(%{{.*}} : tensor<2x64xf32>) -> tensor<2x64xf32>
  %both = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %gate_up : tensor<2x32xf32>, tensor<128x32xf16>) outs(%f : tensor<2x128xf32>) -> tensor<2x128xf32>
  %e1 = tensor.empty() : tensor<2x128xf32>
  // CHECK: linalg.generic
  // CHECK-SAME: ins(%{{.*}}, %{{.*}} : tensor<2x64xf32>, tensor<64xf32>)
  %biased = linalg.generic {indexing_maps = [#all, #column, #all], iterator_types = ["parallel", "parallel"]}
      ins(%both, %bias : tensor<2x128xf32>, tensor<128xf32>) outs(%e1 : tensor<2x128xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x128xf32>
  // CHECK: tensor.extract_slice %{{.*}}[0, 0] [2, 32] [1, 1]
  // CHECK: tensor.extract_slice %{{.*}}[0, 32] [2, 32] [1, 1]
  %gate = tensor.extract_slice %biased[0, 0] [2, 64] [1, 1] : tensor<2x128xf32> to tensor<2x64xf32>
  %up = tensor.extract_slice %biased[0, 64] [2, 64] [1, 1] : tensor<2x128xf32> to tensor<2x64xf32>
  %e2 = tensor.empty() : tensor<2x64xf32>
  %act = linalg.generic {indexing_maps = [#all, #all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%gate, %up : tensor<2x64xf32>, tensor<2x64xf32>) outs(%e2 : tensor<2x64xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %s = arith.mulf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x64xf32>
  %e3 = tensor.empty() : tensor<2x32xf32>
  %f3 = linalg.fill ins(%zero : f32) outs(%e3 : tensor<2x32xf32>) -> tensor<2x32xf32>
  // CHECK: %[[PART:.*]] = linalg.matmul
  // CHECK-SAME: ins(%{{.*}}, %{{.*}} : tensor<2x32xf32>, tensor<32x32xf16>)
  // CHECK: %[[SUM:.*]] = kvrm.all_reduce ins(%[[PART]] : tensor<2x32xf32>)
  %z = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%act, %down : tensor<2x64xf32>, tensor<32x64xf16>) outs(%f3 : tensor<2x32xf32>) -> tensor<2x32xf32>
  // What is added to the sum is added once.
  // CHECK: linalg.generic
  // CHECK-SAME: ins(%[[X]], %[[SUM]]
  %e4 = tensor.empty() : tensor<2x32xf32>
  %r = linalg.generic {indexing_maps = [#all, #all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %z : tensor<2x32xf32>, tensor<2x32xf32>) outs(%e4 : tensor<2x32xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x32xf32>
  return %r : tensor<2x32xf32>
}

// CHECK-LABEL: func.func @stays_whole
func.func @stays_whole(%x: tensor<2x32xf32>) -> tensor<2x33xf32> attributes {kvrm.step} {
  // CHECK-NOT: kvrm.all
  %zero = arith.constant 0.0 : f32
  %odd = ml_program.global_load_const @odd : tensor<33x32xf16>
  %e = tensor.empty() : tensor<2x33xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<2x33xf32>) -> tensor<2x33xf32>
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %odd : tensor<2x32xf32>, tensor<33x32xf16>) outs(%f : tensor<2x33xf32>) -> tensor<2x33xf32>
  // CHECK: return
  return %y : tensor<2x33xf32>
}

// A norm over what is split: its squares are added up, its gain is split. What
// is returned, and the maximum, have to be whole.
// CHECK-LABEL: func.func @norm
func.func @norm(%x: tensor<2x32xf32>) -> tensor<2x32xf32> attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  %square = ml_program.global_load_const @square : tensor<32x32xf16>
  %gain = ml_program.global_load_const @gain : tensor<32xf32>
  %e = tensor.empty() : tensor<2x32xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<2x32xf32>) -> tensor<2x32xf32>
  // CHECK: %[[Y:.*]] = linalg.matmul
  %y = linalg.matmul indexing_maps = [#x, #w, #y]
      ins(%x, %square : tensor<2x32xf32>, tensor<32x32xf16>) outs(%f : tensor<2x32xf32>) -> tensor<2x32xf32>
  %er = tensor.empty() : tensor<2xf32>
  %fr = linalg.fill ins(%zero : f32) outs(%er : tensor<2xf32>) -> tensor<2xf32>
  // CHECK: %[[SQUARES:.*]] = linalg.generic
  // CHECK-SAME: ins(%[[Y]] : tensor<2x16xf32>)
  // CHECK: kvrm.all_reduce ins(%[[SQUARES]] : tensor<2xf32>)
  %squares = linalg.generic {indexing_maps = [#all, #row], iterator_types = ["parallel", "reduction"]}
      ins(%y : tensor<2x32xf32>) outs(%fr : tensor<2xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.mulf %a, %a : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<2xf32>
  %e1 = tensor.empty() : tensor<2x32xf32>
  // CHECK: %[[N:.*]] = linalg.generic
  // CHECK-SAME: tensor<2x16xf32>, tensor<2xf32>, tensor<16xf32>
  %n = linalg.generic {indexing_maps = [#all, #row, #column, #all], iterator_types = ["parallel", "parallel"]}
      ins(%y, %squares, %gain : tensor<2x32xf32>, tensor<2xf32>, tensor<32xf32>) outs(%e1 : tensor<2x32xf32>) {
  ^bb0(%a: f32, %b: f32, %g: f32, %o: f32):
    %p = arith.divf %a, %b : f32
    %s = arith.mulf %p, %g : f32
    linalg.yield %s : f32
  } -> tensor<2x32xf32>
  // CHECK: %[[ALL:.*]] = kvrm.all_gather ins(%[[N]] : tensor<2x16xf32>) outs(%{{.*}} : tensor<2x2x16xf32>)
  // CHECK: %[[WHOLE:.*]] = linalg.generic
  // CHECK: arith.divui
  // CHECK: arith.remui
  // CHECK: tensor.extract %[[ALL]]
  %fm = linalg.fill ins(%zero : f32) outs(%er : tensor<2xf32>) -> tensor<2xf32>
  // CHECK: linalg.generic
  // CHECK-SAME: ins(%[[WHOLE]] : tensor<2x32xf32>)
  %most = linalg.generic {indexing_maps = [#all, #row], iterator_types = ["parallel", "reduction"]}
      ins(%n : tensor<2x32xf32>) outs(%fm : tensor<2xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.maximumf %o, %a : f32
    linalg.yield %s : f32
  } -> tensor<2xf32>
  %e2 = tensor.empty() : tensor<2x32xf32>
  %r = linalg.generic {indexing_maps = [#all, #row, #all], iterator_types = ["parallel", "parallel"]}
      ins(%n, %most : tensor<2x32xf32>, tensor<2xf32>) outs(%e2 : tensor<2x32xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %s = arith.divf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x32xf32>
  return %r : tensor<2x32xf32>
}
