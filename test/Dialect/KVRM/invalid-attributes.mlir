// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

// expected-error@+1 {{splits is 0, outside 1..64}}
module attributes {test.a = #kvrm.schedule<split, splits = 0>} {}

// -----

// expected-error@+1 {{splits is 65, outside 1..64}}
module attributes {test.a = #kvrm.schedule<split, splits = 65>} {}

// -----

// expected-error@+1 {{only a split schedule has splits}}
module attributes {test.a = #kvrm.schedule<workqueue, splits = 2>} {}

// -----

// expected-error@+1 {{only a split schedule has splits}}
module attributes {test.a = #kvrm.schedule<rows, splits = 2>} {}

// -----

// expected-error@+2 {{expected ::mlir::kvrm::ScheduleKind to be one of: rows, split, workqueue}}
// expected-error@+1 {{failed to parse KVRM_ScheduleAttr parameter 'kind'}}
module attributes {test.a = #kvrm.schedule<columns>} {}

// -----

// expected-error@+1 {{q is 0, outside 1..512}}
module attributes {test.a = #kvrm.tile<q = 0, kv = 64>} {}

// -----

// expected-error@+1 {{q is 513, outside 1..512}}
module attributes {test.a = #kvrm.tile<q = 513, kv = 64>} {}

// -----

// expected-error@+1 {{kv is 48, not a power of two}}
module attributes {test.a = #kvrm.tile<q = 1, kv = 48>} {}

// -----

// expected-error@+1 {{kv is 0, not a power of two}}
module attributes {test.a = #kvrm.tile<q = 1, kv = 0>} {}

// -----

// expected-error@+1 {{kv is -64, not a power of two}}
module attributes {test.a = #kvrm.tile<q = 1, kv = -64>} {}

// -----

// expected-error@+2 {{expected ::mlir::kvrm::Transport to be one of: native, staged}}
// expected-error@+1 {{failed to parse KVRM_TransportAttr parameter 'value'}}
module attributes {test.a = #kvrm.transport<copied>} {}

// -----

// expected-error@+2 {{expected ::mlir::kvrm::Layout to be one of: token_major, transposed_keys, swizzled}}
// expected-error@+1 {{failed to parse KVRM_LayoutAttr parameter 'value'}}
module attributes {test.a = #kvrm.layout<row_major>} {}

// -----

// expected-error@+1 {{'builtin.module' op has 'kvrm.step', which belongs on a function}}
module attributes {kvrm.step} {}

// -----

// expected-error@+1 {{'func.func' op has 'kvrm.step', which takes no value}}
func.func private @f() attributes {kvrm.step = 1 : i64}

// -----

// expected-error@+1 {{needs a positive i64 as 'kvrm.panel'}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel = 0 : i64}

// -----

// expected-error@+1 {{needs a positive i64 as 'kvrm.panel'}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel = -4 : i64}

// -----

// expected-error@+1 {{needs a positive i64 as 'kvrm.panel'}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel = 4 : ui64}

// -----

// expected-error@+1 {{needs a positive i64 as 'kvrm.panel'}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel = 4 : i32}

// -----

// expected-error@+1 {{needs a positive i64 as 'kvrm.panel'}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel = "4"}

// -----

// expected-error@+1 {{needs a positive i64 as 'kvrm.panel'}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.panel}

// -----

// expected-error@+1 {{window is 0, outside 1..16777216}}
module attributes {test.a = #kvrm.far_history<window = 0, entries = 64>} {}

// -----

// expected-error@+1 {{window is 16777217, outside 1..16777216}}
module attributes {test.a = #kvrm.far_history<window = 16777217>} {}

// -----

// expected-error@+1 {{entries is 4097, outside 0..4096}}
module attributes {test.a = #kvrm.far_history<window = 64, entries = 4097>} {}

// -----

// expected-error@+1 {{entries is -16, outside 0..4096}}
module attributes {test.a = #kvrm.far_history<window = 64, entries = -16>} {}

// -----

// expected-error@+1 {{sinks is 17, outside 0..16}}
module attributes {test.a = #kvrm.far_history<window = 64, entries = 16, sinks = 17>} {}

// -----

// expected-error@+1 {{one of 16 entries is no sink; it takes two to merge}}
module attributes {test.a = #kvrm.far_history<window = 64, entries = 16, sinks = 15>} {}
