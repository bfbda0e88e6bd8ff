// RUN: kvrm-opt %s | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --mlir-print-op-generic | kvrm-opt | FileCheck %s
// RUN: kvrm-opt %s --emit-bytecode | kvrm-opt | FileCheck %s

// CHECK: module attributes {
// CHECK-SAME: test.far = [#kvrm.far_history<window = 1024, entries = 64, sinks = 4>, #kvrm.far_history<window = 32, entries = 16>, #kvrm.far_history<window = 16>]
// CHECK-SAME: test.layouts = [#kvrm.layout<token_major>, #kvrm.layout<transposed_keys>, #kvrm.layout<swizzled>]
// CHECK-SAME: test.schedules = [#kvrm.schedule<rows>, #kvrm.schedule<split, splits = 64>, #kvrm.schedule<workqueue>]
// CHECK-SAME: test.tiles = [#kvrm.tile<q = 1, kv = 1>, #kvrm.tile<q = 512, kv = 64>]
// CHECK-SAME: test.transports = [#kvrm.transport<native>, #kvrm.transport<staged>]
module attributes {
  // No entries and no sinks are the defaults and not printed.
  test.far = [#kvrm.far_history<window = 1024, entries = 64, sinks = 4>, #kvrm.far_history<window = 32, entries = 16, sinks = 0>, #kvrm.far_history<window = 16, entries = 0>],
  test.layouts = [#kvrm.layout<token_major>, #kvrm.layout<transposed_keys>, #kvrm.layout<swizzled>],
  // One split is the default and is not printed.
  test.one_split = #kvrm.schedule<split, splits = 1>,
  test.schedules = [#kvrm.schedule<rows>, #kvrm.schedule<split, splits = 64>, #kvrm.schedule<workqueue>],
  test.tiles = [#kvrm.tile<q = 1, kv = 1>, #kvrm.tile<q = 512, kv = 64>],
  test.transports = [#kvrm.transport<native>, #kvrm.transport<staged>]
} {
  // CHECK: ml_program.global private @w
  // CHECK-SAME: kvrm.panel = 32 : i64
  ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel = 32 : i64}

  // CHECK: func.func @step() attributes {kvrm.step}
  func.func @step() attributes {kvrm.step} {
    return
  }
  // A declaration has no step to check.
  // CHECK: func.func private @extern_step() attributes {kvrm.step}
  func.func private @extern_step() attributes {kvrm.step}
}
