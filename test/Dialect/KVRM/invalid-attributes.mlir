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

// expected-error@+2 {{expected ::mlir::kvrm::ScheduleKind to be one of: rows, split, workqueue, cluster}}
// expected-error@+1 {{failed to parse KVRM_ScheduleAttr parameter 'kind'}}
module attributes {test.a = #kvrm.schedule<columns>} {}

// -----

// expected-error@+1 {{q is 0, outside 1..4096}}
module attributes {test.a = #kvrm.tile<q = 0, kv = 64>} {}

// -----

// expected-error@+1 {{q is 4097, outside 1..4096}}
module attributes {test.a = #kvrm.tile<q = 4097, kv = 64>} {}

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

// expected-error@+1 {{offset is 100, not a multiple of 64}}
module attributes {test.a = #kvrm.weight<row_major, offset = 100>} {}

// -----

// expected-error@+1 {{offset is -64, not a multiple of 64}}
module attributes {test.a = #kvrm.weight<row_major, offset = -64>} {}

// -----

// expected-error@+1 {{only panels and blocks have a panel and rows}}
module attributes {test.a = #kvrm.weight<row_major, offset = 0, panel = 32, rows = 64>} {}

// -----

// expected-error@+1 {{panel is 0, not positive}}
module attributes {test.a = #kvrm.weight<panels, offset = 0>} {}

// -----

// expected-error@+1 {{panel is -4, not positive}}
module attributes {test.a = #kvrm.weight<panels, offset = 0, panel = -4, rows = 64>} {}

// -----

// expected-error@+1 {{rows is 0, not positive}}
module attributes {test.a = #kvrm.weight<panels, offset = 0, panel = 4, rows = 0>} {}

// -----

// expected-error@+1 {{'ml_program.global' op has 'kvrm.weight', which is a #kvrm.weight on an ml_program.global}}
ml_program.global private @w(#ml_program.extern : tensor<64x32xf16>) : tensor<64x32xf16> {kvrm.weight = 32 : i64}

// -----

// expected-error@+1 {{'ml_program.global' op is a weight whose shape is not static: 'tensor<?x32xf16>'}}
ml_program.global private @w(#ml_program.extern : tensor<?x32xf16>) : tensor<?x32xf16> {kvrm.weight = #kvrm.weight<row_major, offset = 0>}

// -----

// expected-error@+1 {{'ml_program.global' op is a weight of 72 rows in panels of 32, which is not 'tensor<72x64xf16>' but 3xkx32}}
ml_program.global private @w(#ml_program.extern : tensor<72x64xf16>) : tensor<72x64xf16> {kvrm.weight = #kvrm.weight<panels, offset = 0, panel = 32, rows = 72>}

// -----

// expected-error@+1 {{'ml_program.global' op is a weight of 72 rows in panels of 32, which is not 'tensor<2x64x32xf16>' but 3xkx32}}
ml_program.global private @w(#ml_program.extern : tensor<2x64x32xf16>) : tensor<2x64x32xf16> {kvrm.weight = #kvrm.weight<panels, offset = 0, panel = 32, rows = 72>}

// -----

// expected-error@+1 {{'ml_program.global' op is a weight of 72 rows in panels of 32, which is not 'tensor<3x64x16xf16>' but 3xkx32}}
ml_program.global private @w(#ml_program.extern : tensor<3x64x16xf16>) : tensor<3x64x16xf16> {kvrm.weight = #kvrm.weight<panels, offset = 0, panel = 32, rows = 72>}

// -----

// expected-error@+1 {{'func.func' op has 'kvrm.weight', which is a #kvrm.weight on an ml_program.global}}
func.func private @f() attributes {kvrm.weight = #kvrm.weight<row_major, offset = 0>}

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

// -----

// expected-error@+1 {{blocks is 3, not a power of two up to 8}}
module attributes {test.a = #kvrm.schedule<cluster, blocks = 3>} {}

// -----

// expected-error@+1 {{blocks is 16, not a power of two up to 8}}
module attributes {test.a = #kvrm.schedule<cluster, blocks = 16>} {}

// -----

// expected-error@+1 {{blocks is 0, not a power of two up to 8}}
module attributes {test.a = #kvrm.schedule<cluster, blocks = 0>} {}

// -----

// expected-error@+1 {{only a cluster schedule has blocks}}
module attributes {test.a = #kvrm.schedule<workqueue, blocks = 2>} {}

// -----

// expected-error@+1 {{only a split schedule has splits}}
module attributes {test.a = #kvrm.schedule<cluster, splits = 2>} {}

// -----

// expected-error@+1 {{threads is 0, outside 1..1024}}
module attributes {test.a = #kvrm.device_kernel<role = commit, threads = 0, shared_bytes = 0>} {}

// -----

// expected-error@+1 {{threads is 1025, outside 1..1024}}
module attributes {test.a = #kvrm.device_kernel<role = commit, threads = 1025, shared_bytes = 0>} {}

// -----

// expected-error@+1 {{shared_bytes is -1}}
module attributes {test.a = #kvrm.device_kernel<role = commit, threads = 1, shared_bytes = -1>} {}

// -----

// expected-error@+1 {{'builtin.module' op has 'kvrm.plans', which belongs on a function}}
module attributes {kvrm.plans = [#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <rows>, transport = <native>>]} {}

// -----

// expected-error@+1 {{'func.func' op has 'kvrm.plans', which takes an array of #kvrm.step_plan}}
func.func private @f() attributes {kvrm.plans = #kvrm.schedule<rows>}

// -----

// expected-error@+1 {{'func.func' op has 'kvrm.plans' with what is no #kvrm.step_plan}}
func.func private @f() attributes {kvrm.plans = [#kvrm.schedule<rows>]}

// -----

// expected-error@+1 {{'builtin.module' op has 'kvrm.device_kernel', which belongs on a function}}
module attributes {kvrm.device_kernel = #kvrm.device_kernel<role = commit, threads = 1, shared_bytes = 0>} {}

// -----

// expected-error@+1 {{'func.func' op has 'kvrm.device_kernel', which takes a #kvrm.device_kernel}}
func.func private @f() attributes {kvrm.device_kernel = "commit"}

// -----

// expected-error@+1 {{'func.func' op has 'kvrm.arena_bytes', which takes an integer}}
func.func private @f() attributes {kvrm.arena_bytes = "64"}

// -----

// expected-error@+1 {{'func.func' op argument 0 has 'kvrm.argument', which takes a #kvrm.argument}}
func.func private @f(memref<2x1xi32> {kvrm.argument = "tokens"})

// -----

// expected-error@+1 {{'func.func' op argument 0 has 'kvrm.role', which the dialect does not know}}
func.func private @f(memref<2x1xi32> {kvrm.role = "tokens"})

// -----

// expected-error@+1 {{'func.func' op argument 0 of type 'memref<2x1xi32>' cannot be session}}
func.func private @f(memref<2x1xi32> {kvrm.argument = #kvrm.argument<session>})

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
// expected-error@+1 {{cannot be tokens}}
func.func private @f(!session {kvrm.argument = #kvrm.argument<tokens>})

// -----

// expected-error @below {{'ml_program.global' op has 'kvrm.parts', which is a list of #kvrm.weight_part on an ml_program.global}}
ml_program.global private @w(#ml_program.extern : tensor<2x3xf32>) : tensor<2x3xf32> {kvrm.parts = ["w"]}

// -----

// expected-error @below {{offset is -1, negative}}
ml_program.global private @w(#ml_program.extern : tensor<2x3xf32>) : tensor<2x3xf32> {kvrm.parts = [#kvrm.weight_part<"w", offset = -1, rows = [2] by [3], columns = [3] by [1]>]}

// -----

// expected-error @below {{rows are 1 sizes and 2 strides}}
ml_program.global private @w(#ml_program.extern : tensor<2x3xf32>) : tensor<2x3xf32> {kvrm.parts = [#kvrm.weight_part<"w", offset = 0, rows = [2] by [3, 1], columns = [3] by [1]>]}

// -----

// expected-error @below {{columns have a size below 1 or a negative stride}}
ml_program.global private @w(#ml_program.extern : tensor<2x3xf32>) : tensor<2x3xf32> {kvrm.parts = [#kvrm.weight_part<"w", offset = 0, rows = [2] by [3], columns = [0] by [1]>]}

// -----

// expected-error @below {{argument 0 has 'kvrm.name', which takes a string}}
func.func @name(%x: tensor<2xf32> {kvrm.name = 1 : i32}) {
  return
}
