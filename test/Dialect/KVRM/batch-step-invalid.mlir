// Steps whose rows depend on each other, or may.

// RUN: kvrm-opt %s --split-input-file --verify-diagnostics --kvrm-batch-step=slots=3

// expected-error @below {{has no single adopted step; run kvrm-adopt-step first}}
module {
  func.func @main() {
    return
  }
}

// -----

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

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
  %sum_init = tensor.empty() : tensor<4xf32>
  // expected-error @below {{cannot be made of another number of rows: it reduces over rows}}
  %sums = linalg.generic {indexing_maps = [#all, affine_map<(b, e) -> (e)>], iterator_types = ["reduction", "parallel"]}
      ins(%x : tensor<2x4xf32>) outs(%sum_init : tensor<4xf32>) {
  ^bb0(%e: f32, %sum: f32):
    %next = arith.addf %sum, %e : f32
    linalg.yield %next : f32
  } -> tensor<4xf32>
  %y = linalg.generic {indexing_maps = [#all, affine_map<(b, e) -> (e)>, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %sums : tensor<2x4xf32>, tensor<4xf32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %sum: f32, %out: f32):
    %next = arith.addf %sum, %e : f32
    linalg.yield %next : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
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

// -----

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

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
  // expected-error @below {{cannot be made of another number of rows: its body reads other rows than its own}}
  %y = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<2x4xf32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %out: f32):
    %one = arith.constant 1 : index
    %b = linalg.index 0 : index
    %c = linalg.index 1 : index
    %other = arith.subi %one, %b : index
    %f = tensor.extract %x[%other, %c] : tensor<2x4xf32>
    linalg.yield %f : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
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

// -----

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

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
  // expected-error @below {{cannot be made of another number of rows: its body computes with the number of the row}}
  %y = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<2x4xf32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %out: f32):
    %b = linalg.index 0 : index
    %i = arith.index_cast %b : index to i32
    %f = arith.sitofp %i : i32 to f32
    %g = arith.addf %e, %f : f32
    linalg.yield %g : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
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

// -----

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

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
  %own = tensor.extract_slice %table[0, 0] [2, 4] [1, 1] : tensor<5x4xf32> to tensor<2x4xf32>
  // expected-error @below {{cannot be made of another number of rows: it takes a value that differs from row to row}}
  %y = linalg.generic {indexing_maps = [#all, #all, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %own : tensor<2x4xf32>, tensor<2x4xf32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %w: f32, %out: f32):
    %g = arith.addf %e, %w : f32
    linalg.yield %g : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
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

// -----

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

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
  %turned_init = tensor.empty() : tensor<4x2xf32>
  %turned = linalg.generic {indexing_maps = [#all, affine_map<(b, e) -> (e, b)>], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<2x4xf32>) outs(%turned_init : tensor<4x2xf32>) {
  ^bb0(%e: f32, %out: f32):
    linalg.yield %e : f32
  } -> tensor<4x2xf32>
  %square_init = tensor.empty() : tensor<2x2xf32>
  // expected-error @below {{cannot be made of another number of rows: its operands have rows along different loops}}
  %square = linalg.generic {indexing_maps = [affine_map<(a, b, e) -> (a, e)>, affine_map<(a, b, e) -> (e, b)>, affine_map<(a, b, e) -> (a, b)>],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%x, %turned : tensor<2x4xf32>, tensor<4x2xf32>) outs(%square_init : tensor<2x2xf32>) {
  ^bb0(%e: f32, %f: f32, %out: f32):
    %g = arith.mulf %e, %f : f32
    linalg.yield %g : f32
  } -> tensor<2x2xf32>
  %y = tensor.insert_slice %square into %x[0, 0] [2, 2] [1, 1] : tensor<2x2xf32> into tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
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

// -----

#all = affine_map<(b, e) -> (b, e)>
#row = affine_map<(b, e) -> (b)>

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
  %p0 = tensor.extract_slice %positions[0] [1] [1] : tensor<2xi32> to tensor<i32>
  %p1 = tensor.extract_slice %positions[1] [1] [1] : tensor<2xi32> to tensor<i32>
  %one = arith.constant 1 : i32
  %n_init = tensor.empty() : tensor<i32>
  %n1 = linalg.generic {indexing_maps = [affine_map<() -> ()>, affine_map<() -> ()>], iterator_types = []}
      ins(%p1 : tensor<i32>) outs(%n_init : tensor<i32>) {
  ^bb0(%p: i32, %out: i32):
    %next = arith.addi %p, %one : i32
    linalg.yield %next : i32
  } -> tensor<i32>
  %stack_init = tensor.empty() : tensor<2xi32>
  %stack0 = tensor.insert_slice %p0 into %stack_init[0] [1] [1] : tensor<i32> into tensor<2xi32>
  // expected-error @below {{cannot be made of another number of rows: it stacks rows that are made in different ways}}
  %stack1 = tensor.insert_slice %n1 into %stack0[1] [1] [1] : tensor<i32> into tensor<2xi32>
  %y = linalg.generic {indexing_maps = [#all, #row, #all], iterator_types = ["parallel", "parallel"]}
      ins(%x, %stack1 : tensor<2x4xf32>, tensor<2xi32>) outs(%x_init : tensor<2x4xf32>) {
  ^bb0(%e: f32, %p: i32, %out: f32):
    %f = arith.sitofp %p : i32 to f32
    %g = arith.addf %e, %f : f32
    linalg.yield %g : f32
  } -> tensor<2x4xf32>
  %q = tensor.expand_shape %y [[0], [1, 2, 3]] output_shape [2, 1, 1, 4] : tensor<2x4xf32> into tensor<2x1x1x4xf32>
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
