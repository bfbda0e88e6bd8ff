// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s

// CHECK: module attributes {
// CHECK-SAME: test.far = [#kvrm.far_history<window = 1024, entries = 64, sinks = 4>, #kvrm.far_history<window = 32, entries = 16>, #kvrm.far_history<window = 16>]
// CHECK-SAME: test.layouts = [#kvrm.layout<token_major>, #kvrm.layout<transposed_keys>, #kvrm.layout<swizzled>]
// CHECK-SAME: test.schedules = [#kvrm.schedule<rows>, #kvrm.schedule<split, splits = 64>, #kvrm.schedule<workqueue>, #kvrm.schedule<cluster, blocks = 8>]
// CHECK-SAME: test.tiles = [#kvrm.tile<q = 1, kv = 1>, #kvrm.tile<q = 4096, kv = 64>]
// CHECK-SAME: test.transports = [#kvrm.transport<native>, #kvrm.transport<staged>]
module attributes {
  // No entries and no sinks are the defaults and not printed.
  test.far = [#kvrm.far_history<window = 1024, entries = 64, sinks = 4>, #kvrm.far_history<window = 32, entries = 16, sinks = 0>, #kvrm.far_history<window = 16, entries = 0>],
  test.layouts = [#kvrm.layout<token_major>, #kvrm.layout<transposed_keys>, #kvrm.layout<swizzled>],
  // One split is the default and is not printed.
  test.one_split = #kvrm.schedule<split, splits = 1>,
  test.schedules = [#kvrm.schedule<rows>, #kvrm.schedule<split, splits = 64>, #kvrm.schedule<workqueue>, #kvrm.schedule<cluster, blocks = 8>],
  test.tiles = [#kvrm.tile<q = 1, kv = 1>, #kvrm.tile<q = 4096, kv = 64>],
  test.transports = [#kvrm.transport<native>, #kvrm.transport<staged>]
} {
  // CHECK: ml_program.global private @v
  // CHECK-SAME: kvrm.weight = #kvrm.weight<row_major, offset = 0>
  ml_program.global private @v(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.weight = #kvrm.weight<row_major, offset = 0>}
  // CHECK: ml_program.global private @w
  // CHECK-SAME: kvrm.weight = #kvrm.weight<panels, offset = 4096, panel = 32, rows = 72>
  ml_program.global private @w(#ml_program.extern : tensor<3x64x32xf16>) : tensor<3x64x32xf16> {kvrm.weight = #kvrm.weight<panels, offset = 4096, panel = 32, rows = 72>}

  // CHECK: func.func @step() attributes {kvrm.step}
  func.func @step() attributes {kvrm.step} {
    return
  }
  // What passes leave on a step, its arguments and a device's kernels.
  // CHECK: func.func @planned(%{{.*}}: memref<2x1xi32> {kvrm.argument = #kvrm.argument<tokens>}
  // CHECK-SAME: %{{.*}}: memref<2x8xf32> {kvrm.argument = #kvrm.argument<logits>}
  // CHECK-SAME: kvrm.arena_bytes = 64 : i64
  // CHECK-SAME: kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <cluster, blocks = 4>, transport = <native>>]
  func.func @planned(%t: memref<2x1xi32> {kvrm.argument = #kvrm.argument<tokens>},
                     %l: memref<2x8xf32> {kvrm.argument = #kvrm.argument<logits>})
      attributes {kvrm.step, kvrm.arena_bytes = 64 : i64, kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <cluster, blocks = 4>, transport = <native>>]} {
    return
  }
  // CHECK: llvm.func @attend() attributes {kvrm.device_kernel = #kvrm.device_kernel<role = attend_cluster, threads = 256, shared_bytes = 1024>}
  llvm.func @attend() attributes {kvrm.device_kernel = #kvrm.device_kernel<role = attend_cluster, threads = 256, shared_bytes = 1024>}
  // A declaration has no step to check.
  // CHECK: func.func private @extern_step() attributes {kvrm.step}
  func.func private @extern_step() attributes {kvrm.step}
}
