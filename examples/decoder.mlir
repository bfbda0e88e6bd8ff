// A static decode graph, as a frontend hands it to kvrm: phase 1.
//
// Two layers of a Llama decoder: 2 slots, hidden 128, 4 query heads and 2 KV
// heads of 64, feed-forward 256, vocabulary 256, a capacity of 64 tokens a slot.
// Every shape is fixed, every value a tensor, and the KV caches are arguments
// and results. docs/Tutorial.md takes this file through every phase; start with
//
//   kvrm-opt examples/decoder.mlir
//
// `kvrmc --emit=static` prints the same for a real model.

#rows    = affine_map<(r, c) -> (r)>
#columns = affine_map<(r, c) -> (c)>
#both    = affine_map<(r, c) -> (r, c)>
#row     = affine_map<(r) -> (r)>
// A matrix is stored as [out][in]: y[m, n] = sum over k of x[m, k] * w[n, k].
#x = affine_map<(m, n, k) -> (m, k)>
#w = affine_map<(m, n, k) -> (n, k)>
#y = affine_map<(m, n, k) -> (m, n)>
// RoPE: slot, head, half of the head, element of the half.
#element = affine_map<(s, h, p, i) -> (s, h, p, i)>
#angle   = affine_map<(s, h, p, i) -> (s, i)>

module {
  // Weights have a shape and a name here; their values come with the package.
  ml_program.global private @token_embd(#ml_program.extern : tensor<256x128xf16>) : tensor<256x128xf16>
  ml_program.global private @rope_cos(#ml_program.extern : tensor<64x32xf32>) : tensor<64x32xf32>
  ml_program.global private @rope_sin(#ml_program.extern : tensor<64x32xf32>) : tensor<64x32xf32>
  ml_program.global private @"blk.0.attn_norm"(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>
  ml_program.global private @"blk.0.attn_qkv"(#ml_program.extern : tensor<512x128xf16>) : tensor<512x128xf16>
  ml_program.global private @"blk.0.attn_output"(#ml_program.extern : tensor<128x256xf16>) : tensor<128x256xf16>
  ml_program.global private @"blk.0.ffn_norm"(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>
  ml_program.global private @"blk.0.ffn_gate_up"(#ml_program.extern : tensor<512x128xf16>) : tensor<512x128xf16>
  ml_program.global private @"blk.0.ffn_down"(#ml_program.extern : tensor<128x256xf16>) : tensor<128x256xf16>
  ml_program.global private @"blk.1.attn_norm"(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>
  ml_program.global private @"blk.1.attn_qkv"(#ml_program.extern : tensor<512x128xf16>) : tensor<512x128xf16>
  ml_program.global private @"blk.1.attn_output"(#ml_program.extern : tensor<128x256xf16>) : tensor<128x256xf16>
  ml_program.global private @"blk.1.ffn_norm"(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>
  ml_program.global private @"blk.1.ffn_gate_up"(#ml_program.extern : tensor<512x128xf16>) : tensor<512x128xf16>
  ml_program.global private @"blk.1.ffn_down"(#ml_program.extern : tensor<128x256xf16>) : tensor<128x256xf16>
  ml_program.global private @output_norm(#ml_program.extern : tensor<128xf32>) : tensor<128xf32>
  ml_program.global private @output(#ml_program.extern : tensor<256x128xf16>) : tensor<256x128xf16>

  // One token a slot in, the logits of the next one out. `positions` says how
  // many tokens each slot holds already.
  func.func @decode_step(%tokens: tensor<2x1xi32>, %positions: tensor<2xi32>,
                         %keys: tensor<2x2x2x64x64xf16>, %values: tensor<2x2x2x64x64xf16>)
      -> (tensor<2x256xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>) attributes {kvrm.step} {
    %zero = arith.constant 0.0 : f32
    %one = arith.constant 1.0 : f32
    %per_hidden = arith.constant 7.812500e-03 : f32 // 1 / 128
    %epsilon = arith.constant 1.0e-05 : f32
    %c1 = arith.constant 1 : index
    %last = arith.constant 63 : index

    // The tokens' rows of the embedding table.
    %table = ml_program.global_load_const @token_embd : tensor<256x128xf16>
    %token = tensor.collapse_shape %tokens [[0, 1]] : tensor<2x1xi32> into tensor<2xi32>
    %hidden_init = tensor.empty() : tensor<2x128xf32>
    %x0 = linalg.generic {indexing_maps = [#rows, #both], iterator_types = ["parallel", "parallel"]}
        ins(%token : tensor<2xi32>) outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%id: i32, %unused: f32):
      %r = arith.index_cast %id : i32 to index
      %c = linalg.index 1 : index
      %e = tensor.extract %table[%r, %c] : tensor<256x128xf16>
      %f = arith.extf %e : f16 to f32
      linalg.yield %f : f32
    } -> tensor<2x128xf32>

    // The positions' rows of the RoPE tables. An idle slot may stand at the
    // capacity; it reads the last row.
    %cos_table = ml_program.global_load_const @rope_cos : tensor<64x32xf32>
    %cos_init = tensor.empty() : tensor<2x32xf32>
    %cos = linalg.generic {indexing_maps = [#rows, #both], iterator_types = ["parallel", "parallel"]}
        ins(%positions : tensor<2xi32>) outs(%cos_init : tensor<2x32xf32>) {
    ^bb0(%position: i32, %unused: f32):
      %p = arith.index_cast %position : i32 to index
      %r = arith.minui %p, %last : index
      %c = linalg.index 1 : index
      %e = tensor.extract %cos_table[%r, %c] : tensor<64x32xf32>
      linalg.yield %e : f32
    } -> tensor<2x32xf32>
    %sin_table = ml_program.global_load_const @rope_sin : tensor<64x32xf32>
    %sin_init = tensor.empty() : tensor<2x32xf32>
    %sin = linalg.generic {indexing_maps = [#rows, #both], iterator_types = ["parallel", "parallel"]}
        ins(%positions : tensor<2xi32>) outs(%sin_init : tensor<2x32xf32>) {
    ^bb0(%position: i32, %unused: f32):
      %p = arith.index_cast %position : i32 to index
      %r = arith.minui %p, %last : index
      %c = linalg.index 1 : index
      %e = tensor.extract %sin_table[%r, %c] : tensor<64x32xf32>
      linalg.yield %e : f32
    } -> tensor<2x32xf32>

    //===------------------------------------------------------------------===//
    // Layer 0
    //===------------------------------------------------------------------===//

    // RMSNorm: x / sqrt(mean(x^2) + epsilon) * weight.
    %norm0_weight = ml_program.global_load_const @"blk.0.attn_norm" : tensor<128xf32>
    %norm0_sum_init = tensor.empty() : tensor<2xf32>
    %norm0_zeros = linalg.fill ins(%zero : f32) outs(%norm0_sum_init : tensor<2xf32>) -> tensor<2xf32>
    %norm0_squares = linalg.generic {indexing_maps = [#both, #rows], iterator_types = ["parallel", "reduction"]}
        ins(%x0 : tensor<2x128xf32>) outs(%norm0_zeros : tensor<2xf32>) {
    ^bb0(%e: f32, %sum: f32):
      %square = arith.mulf %e, %e : f32
      %next = arith.addf %sum, %square : f32
      linalg.yield %next : f32
    } -> tensor<2xf32>
    %norm0_scale = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel"]}
        ins(%norm0_squares : tensor<2xf32>) outs(%norm0_sum_init : tensor<2xf32>) {
    ^bb0(%sum: f32, %unused: f32):
      %mean = arith.mulf %sum, %per_hidden : f32
      %shifted = arith.addf %mean, %epsilon : f32
      %root = math.sqrt %shifted : f32
      %inverse = arith.divf %one, %root : f32
      linalg.yield %inverse : f32
    } -> tensor<2xf32>
    %n0 = linalg.generic {indexing_maps = [#both, #rows, #columns, #both], iterator_types = ["parallel", "parallel"]}
        ins(%x0, %norm0_scale, %norm0_weight : tensor<2x128xf32>, tensor<2xf32>, tensor<128xf32>)
        outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %s: f32, %g: f32, %unused: f32):
      %scaled = arith.mulf %e, %s : f32
      %result = arith.mulf %scaled, %g : f32
      linalg.yield %result : f32
    } -> tensor<2x128xf32>

    // Q, K and V in one projection: 256 + 128 + 128 columns.
    %qkv0_weight = ml_program.global_load_const @"blk.0.attn_qkv" : tensor<512x128xf16>
    %qkv0_init = tensor.empty() : tensor<2x512xf32>
    %qkv0_zeros = linalg.fill ins(%zero : f32) outs(%qkv0_init : tensor<2x512xf32>) -> tensor<2x512xf32>
    %qkv0 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%n0, %qkv0_weight : tensor<2x128xf32>, tensor<512x128xf16>)
        outs(%qkv0_zeros : tensor<2x512xf32>) -> tensor<2x512xf32>
    %q0_columns = tensor.extract_slice %qkv0[0, 0] [2, 256] [1, 1] : tensor<2x512xf32> to tensor<2x256xf32>
    %k0_columns = tensor.extract_slice %qkv0[0, 256] [2, 128] [1, 1] : tensor<2x512xf32> to tensor<2x128xf32>
    %v0_columns = tensor.extract_slice %qkv0[0, 384] [2, 128] [1, 1] : tensor<2x512xf32> to tensor<2x128xf32>

    // RoPE in the half-split form: element i of a head turns with i + 32.
    %q0_halves = tensor.expand_shape %q0_columns [[0], [1, 2, 3]] output_shape [2, 4, 2, 32]
        : tensor<2x256xf32> into tensor<2x4x2x32xf32>
    %q0_init = tensor.empty() : tensor<2x4x2x32xf32>
    %q0_turned = linalg.generic {indexing_maps = [#element, #angle, #angle, #element],
                                  iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%q0_halves, %cos, %sin : tensor<2x4x2x32xf32>, tensor<2x32xf32>, tensor<2x32xf32>)
        outs(%q0_init : tensor<2x4x2x32xf32>) {
    ^bb0(%e: f32, %cosine: f32, %sine: f32, %unused: f32):
      %s = linalg.index 0 : index
      %h = linalg.index 1 : index
      %p = linalg.index 2 : index
      %i = linalg.index 3 : index
      %is_first = arith.cmpi ult, %p, %c1 : index
      %other_half = arith.subi %c1, %p : index
      %partner = tensor.extract %q0_halves[%s, %h, %other_half, %i] : tensor<2x4x2x32xf32>
      %minus = arith.negf %sine : f32
      %signed = arith.select %is_first, %minus, %sine : f32
      %a = arith.mulf %e, %cosine : f32
      %b = arith.mulf %partner, %signed : f32
      %turned = arith.addf %a, %b : f32
      linalg.yield %turned : f32
    } -> tensor<2x4x2x32xf32>
    %q0_flat = tensor.collapse_shape %q0_turned [[0], [1, 2, 3]]
        : tensor<2x4x2x32xf32> into tensor<2x256xf32>
    %q0 = tensor.expand_shape %q0_flat [[0, 1], [2, 3]] output_shape [2, 1, 4, 64]
        : tensor<2x256xf32> into tensor<2x1x4x64xf32>
    %k0_halves = tensor.expand_shape %k0_columns [[0], [1, 2, 3]] output_shape [2, 2, 2, 32]
        : tensor<2x128xf32> into tensor<2x2x2x32xf32>
    %k0_init = tensor.empty() : tensor<2x2x2x32xf32>
    %k0_turned = linalg.generic {indexing_maps = [#element, #angle, #angle, #element],
                                  iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%k0_halves, %cos, %sin : tensor<2x2x2x32xf32>, tensor<2x32xf32>, tensor<2x32xf32>)
        outs(%k0_init : tensor<2x2x2x32xf32>) {
    ^bb0(%e: f32, %cosine: f32, %sine: f32, %unused: f32):
      %s = linalg.index 0 : index
      %h = linalg.index 1 : index
      %p = linalg.index 2 : index
      %i = linalg.index 3 : index
      %is_first = arith.cmpi ult, %p, %c1 : index
      %other_half = arith.subi %c1, %p : index
      %partner = tensor.extract %k0_halves[%s, %h, %other_half, %i] : tensor<2x2x2x32xf32>
      %minus = arith.negf %sine : f32
      %signed = arith.select %is_first, %minus, %sine : f32
      %a = arith.mulf %e, %cosine : f32
      %b = arith.mulf %partner, %signed : f32
      %turned = arith.addf %a, %b : f32
      linalg.yield %turned : f32
    } -> tensor<2x2x2x32xf32>
    %k0_flat = tensor.collapse_shape %k0_turned [[0], [1, 2, 3]]
        : tensor<2x2x2x32xf32> into tensor<2x128xf32>
    %k0 = tensor.expand_shape %k0_flat [[0, 1], [2, 3]] output_shape [2, 1, 2, 64]
        : tensor<2x128xf32> into tensor<2x1x2x64xf32>
    %v0 = tensor.expand_shape %v0_columns [[0, 1], [2, 3]] output_shape [2, 1, 2, 64]
        : tensor<2x128xf32> into tensor<2x1x2x64xf32>

    // The one op of kvrm in this phase: append to the caches, attend to them.
    %o0, %keys0, %values0 = kvrm.cached_attention %q0, %k0, %v0, %keys, %values at %positions
        {layer = 0 : i64, scale = 1.250000e-01 : f32}
        : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
    %o0_flat = tensor.collapse_shape %o0 [[0, 1], [2, 3]] : tensor<2x1x4x64xf32> into tensor<2x256xf32>
    %attn0_weight = ml_program.global_load_const @"blk.0.attn_output" : tensor<128x256xf16>
    %attn0_init = tensor.empty() : tensor<2x128xf32>
    %attn0_zeros = linalg.fill ins(%zero : f32) outs(%attn0_init : tensor<2x128xf32>) -> tensor<2x128xf32>
    %attn0 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%o0_flat, %attn0_weight : tensor<2x256xf32>, tensor<128x256xf16>)
        outs(%attn0_zeros : tensor<2x128xf32>) -> tensor<2x128xf32>
    %y0 = linalg.generic {indexing_maps = [#both, #both, #both], iterator_types = ["parallel", "parallel"]}
        ins(%x0, %attn0 : tensor<2x128xf32>, tensor<2x128xf32>) outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %d: f32, %unused: f32):
      %sum = arith.addf %e, %d : f32
      linalg.yield %sum : f32
    } -> tensor<2x128xf32>

    // The feed-forward part: down(silu(gate) * up), gate and up in one projection.
    %ffn_norm0_weight = ml_program.global_load_const @"blk.0.ffn_norm" : tensor<128xf32>
    %ffn_norm0_sum_init = tensor.empty() : tensor<2xf32>
    %ffn_norm0_zeros = linalg.fill ins(%zero : f32) outs(%ffn_norm0_sum_init : tensor<2xf32>) -> tensor<2xf32>
    %ffn_norm0_squares = linalg.generic {indexing_maps = [#both, #rows], iterator_types = ["parallel", "reduction"]}
        ins(%y0 : tensor<2x128xf32>) outs(%ffn_norm0_zeros : tensor<2xf32>) {
    ^bb0(%e: f32, %sum: f32):
      %square = arith.mulf %e, %e : f32
      %next = arith.addf %sum, %square : f32
      linalg.yield %next : f32
    } -> tensor<2xf32>
    %ffn_norm0_scale = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel"]}
        ins(%ffn_norm0_squares : tensor<2xf32>) outs(%ffn_norm0_sum_init : tensor<2xf32>) {
    ^bb0(%sum: f32, %unused: f32):
      %mean = arith.mulf %sum, %per_hidden : f32
      %shifted = arith.addf %mean, %epsilon : f32
      %root = math.sqrt %shifted : f32
      %inverse = arith.divf %one, %root : f32
      linalg.yield %inverse : f32
    } -> tensor<2xf32>
    %m0 = linalg.generic {indexing_maps = [#both, #rows, #columns, #both], iterator_types = ["parallel", "parallel"]}
        ins(%y0, %ffn_norm0_scale, %ffn_norm0_weight : tensor<2x128xf32>, tensor<2xf32>, tensor<128xf32>)
        outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %s: f32, %g: f32, %unused: f32):
      %scaled = arith.mulf %e, %s : f32
      %result = arith.mulf %scaled, %g : f32
      linalg.yield %result : f32
    } -> tensor<2x128xf32>
    %gate_up0_weight = ml_program.global_load_const @"blk.0.ffn_gate_up" : tensor<512x128xf16>
    %gate_up0_init = tensor.empty() : tensor<2x512xf32>
    %gate_up0_zeros = linalg.fill ins(%zero : f32) outs(%gate_up0_init : tensor<2x512xf32>) -> tensor<2x512xf32>
    %gate_up0 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%m0, %gate_up0_weight : tensor<2x128xf32>, tensor<512x128xf16>)
        outs(%gate_up0_zeros : tensor<2x512xf32>) -> tensor<2x512xf32>
    %gate0 = tensor.extract_slice %gate_up0[0, 0] [2, 256] [1, 1] : tensor<2x512xf32> to tensor<2x256xf32>
    %up0 = tensor.extract_slice %gate_up0[0, 256] [2, 256] [1, 1] : tensor<2x512xf32> to tensor<2x256xf32>
    %act0_init = tensor.empty() : tensor<2x256xf32>
    %act0 = linalg.generic {indexing_maps = [#both, #both, #both], iterator_types = ["parallel", "parallel"]}
        ins(%gate0, %up0 : tensor<2x256xf32>, tensor<2x256xf32>) outs(%act0_init : tensor<2x256xf32>) {
    ^bb0(%g: f32, %u: f32, %unused: f32):
      %minus = arith.negf %g : f32
      %power = math.exp %minus : f32
      %sum = arith.addf %power, %one : f32
      %silu = arith.divf %g, %sum : f32
      %product = arith.mulf %silu, %u : f32
      linalg.yield %product : f32
    } -> tensor<2x256xf32>
    %down0_weight = ml_program.global_load_const @"blk.0.ffn_down" : tensor<128x256xf16>
    %down0_init = tensor.empty() : tensor<2x128xf32>
    %down0_zeros = linalg.fill ins(%zero : f32) outs(%down0_init : tensor<2x128xf32>) -> tensor<2x128xf32>
    %down0 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%act0, %down0_weight : tensor<2x256xf32>, tensor<128x256xf16>)
        outs(%down0_zeros : tensor<2x128xf32>) -> tensor<2x128xf32>
    %x1 = linalg.generic {indexing_maps = [#both, #both, #both], iterator_types = ["parallel", "parallel"]}
        ins(%y0, %down0 : tensor<2x128xf32>, tensor<2x128xf32>) outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %d: f32, %unused: f32):
      %sum = arith.addf %e, %d : f32
      linalg.yield %sum : f32
    } -> tensor<2x128xf32>

    //===------------------------------------------------------------------===//
    // Layer 1
    //===------------------------------------------------------------------===//

    // RMSNorm: x / sqrt(mean(x^2) + epsilon) * weight.
    %norm1_weight = ml_program.global_load_const @"blk.1.attn_norm" : tensor<128xf32>
    %norm1_sum_init = tensor.empty() : tensor<2xf32>
    %norm1_zeros = linalg.fill ins(%zero : f32) outs(%norm1_sum_init : tensor<2xf32>) -> tensor<2xf32>
    %norm1_squares = linalg.generic {indexing_maps = [#both, #rows], iterator_types = ["parallel", "reduction"]}
        ins(%x1 : tensor<2x128xf32>) outs(%norm1_zeros : tensor<2xf32>) {
    ^bb0(%e: f32, %sum: f32):
      %square = arith.mulf %e, %e : f32
      %next = arith.addf %sum, %square : f32
      linalg.yield %next : f32
    } -> tensor<2xf32>
    %norm1_scale = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel"]}
        ins(%norm1_squares : tensor<2xf32>) outs(%norm1_sum_init : tensor<2xf32>) {
    ^bb0(%sum: f32, %unused: f32):
      %mean = arith.mulf %sum, %per_hidden : f32
      %shifted = arith.addf %mean, %epsilon : f32
      %root = math.sqrt %shifted : f32
      %inverse = arith.divf %one, %root : f32
      linalg.yield %inverse : f32
    } -> tensor<2xf32>
    %n1 = linalg.generic {indexing_maps = [#both, #rows, #columns, #both], iterator_types = ["parallel", "parallel"]}
        ins(%x1, %norm1_scale, %norm1_weight : tensor<2x128xf32>, tensor<2xf32>, tensor<128xf32>)
        outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %s: f32, %g: f32, %unused: f32):
      %scaled = arith.mulf %e, %s : f32
      %result = arith.mulf %scaled, %g : f32
      linalg.yield %result : f32
    } -> tensor<2x128xf32>

    // Q, K and V in one projection: 256 + 128 + 128 columns.
    %qkv1_weight = ml_program.global_load_const @"blk.1.attn_qkv" : tensor<512x128xf16>
    %qkv1_init = tensor.empty() : tensor<2x512xf32>
    %qkv1_zeros = linalg.fill ins(%zero : f32) outs(%qkv1_init : tensor<2x512xf32>) -> tensor<2x512xf32>
    %qkv1 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%n1, %qkv1_weight : tensor<2x128xf32>, tensor<512x128xf16>)
        outs(%qkv1_zeros : tensor<2x512xf32>) -> tensor<2x512xf32>
    %q1_columns = tensor.extract_slice %qkv1[0, 0] [2, 256] [1, 1] : tensor<2x512xf32> to tensor<2x256xf32>
    %k1_columns = tensor.extract_slice %qkv1[0, 256] [2, 128] [1, 1] : tensor<2x512xf32> to tensor<2x128xf32>
    %v1_columns = tensor.extract_slice %qkv1[0, 384] [2, 128] [1, 1] : tensor<2x512xf32> to tensor<2x128xf32>

    // RoPE in the half-split form: element i of a head turns with i + 32.
    %q1_halves = tensor.expand_shape %q1_columns [[0], [1, 2, 3]] output_shape [2, 4, 2, 32]
        : tensor<2x256xf32> into tensor<2x4x2x32xf32>
    %q1_init = tensor.empty() : tensor<2x4x2x32xf32>
    %q1_turned = linalg.generic {indexing_maps = [#element, #angle, #angle, #element],
                                  iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%q1_halves, %cos, %sin : tensor<2x4x2x32xf32>, tensor<2x32xf32>, tensor<2x32xf32>)
        outs(%q1_init : tensor<2x4x2x32xf32>) {
    ^bb0(%e: f32, %cosine: f32, %sine: f32, %unused: f32):
      %s = linalg.index 0 : index
      %h = linalg.index 1 : index
      %p = linalg.index 2 : index
      %i = linalg.index 3 : index
      %is_first = arith.cmpi ult, %p, %c1 : index
      %other_half = arith.subi %c1, %p : index
      %partner = tensor.extract %q1_halves[%s, %h, %other_half, %i] : tensor<2x4x2x32xf32>
      %minus = arith.negf %sine : f32
      %signed = arith.select %is_first, %minus, %sine : f32
      %a = arith.mulf %e, %cosine : f32
      %b = arith.mulf %partner, %signed : f32
      %turned = arith.addf %a, %b : f32
      linalg.yield %turned : f32
    } -> tensor<2x4x2x32xf32>
    %q1_flat = tensor.collapse_shape %q1_turned [[0], [1, 2, 3]]
        : tensor<2x4x2x32xf32> into tensor<2x256xf32>
    %q1 = tensor.expand_shape %q1_flat [[0, 1], [2, 3]] output_shape [2, 1, 4, 64]
        : tensor<2x256xf32> into tensor<2x1x4x64xf32>
    %k1_halves = tensor.expand_shape %k1_columns [[0], [1, 2, 3]] output_shape [2, 2, 2, 32]
        : tensor<2x128xf32> into tensor<2x2x2x32xf32>
    %k1_init = tensor.empty() : tensor<2x2x2x32xf32>
    %k1_turned = linalg.generic {indexing_maps = [#element, #angle, #angle, #element],
                                  iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%k1_halves, %cos, %sin : tensor<2x2x2x32xf32>, tensor<2x32xf32>, tensor<2x32xf32>)
        outs(%k1_init : tensor<2x2x2x32xf32>) {
    ^bb0(%e: f32, %cosine: f32, %sine: f32, %unused: f32):
      %s = linalg.index 0 : index
      %h = linalg.index 1 : index
      %p = linalg.index 2 : index
      %i = linalg.index 3 : index
      %is_first = arith.cmpi ult, %p, %c1 : index
      %other_half = arith.subi %c1, %p : index
      %partner = tensor.extract %k1_halves[%s, %h, %other_half, %i] : tensor<2x2x2x32xf32>
      %minus = arith.negf %sine : f32
      %signed = arith.select %is_first, %minus, %sine : f32
      %a = arith.mulf %e, %cosine : f32
      %b = arith.mulf %partner, %signed : f32
      %turned = arith.addf %a, %b : f32
      linalg.yield %turned : f32
    } -> tensor<2x2x2x32xf32>
    %k1_flat = tensor.collapse_shape %k1_turned [[0], [1, 2, 3]]
        : tensor<2x2x2x32xf32> into tensor<2x128xf32>
    %k1 = tensor.expand_shape %k1_flat [[0, 1], [2, 3]] output_shape [2, 1, 2, 64]
        : tensor<2x128xf32> into tensor<2x1x2x64xf32>
    %v1 = tensor.expand_shape %v1_columns [[0, 1], [2, 3]] output_shape [2, 1, 2, 64]
        : tensor<2x128xf32> into tensor<2x1x2x64xf32>

    // The one op of kvrm in this phase: append to the caches, attend to them.
    %o1, %keys1, %values1 = kvrm.cached_attention %q1, %k1, %v1, %keys0, %values0 at %positions
        {layer = 1 : i64, scale = 1.250000e-01 : f32}
        : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x64x64xf16>, tensor<2xi32>
    %o1_flat = tensor.collapse_shape %o1 [[0, 1], [2, 3]] : tensor<2x1x4x64xf32> into tensor<2x256xf32>
    %attn1_weight = ml_program.global_load_const @"blk.1.attn_output" : tensor<128x256xf16>
    %attn1_init = tensor.empty() : tensor<2x128xf32>
    %attn1_zeros = linalg.fill ins(%zero : f32) outs(%attn1_init : tensor<2x128xf32>) -> tensor<2x128xf32>
    %attn1 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%o1_flat, %attn1_weight : tensor<2x256xf32>, tensor<128x256xf16>)
        outs(%attn1_zeros : tensor<2x128xf32>) -> tensor<2x128xf32>
    %y1 = linalg.generic {indexing_maps = [#both, #both, #both], iterator_types = ["parallel", "parallel"]}
        ins(%x1, %attn1 : tensor<2x128xf32>, tensor<2x128xf32>) outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %d: f32, %unused: f32):
      %sum = arith.addf %e, %d : f32
      linalg.yield %sum : f32
    } -> tensor<2x128xf32>

    // The feed-forward part: down(silu(gate) * up), gate and up in one projection.
    %ffn_norm1_weight = ml_program.global_load_const @"blk.1.ffn_norm" : tensor<128xf32>
    %ffn_norm1_sum_init = tensor.empty() : tensor<2xf32>
    %ffn_norm1_zeros = linalg.fill ins(%zero : f32) outs(%ffn_norm1_sum_init : tensor<2xf32>) -> tensor<2xf32>
    %ffn_norm1_squares = linalg.generic {indexing_maps = [#both, #rows], iterator_types = ["parallel", "reduction"]}
        ins(%y1 : tensor<2x128xf32>) outs(%ffn_norm1_zeros : tensor<2xf32>) {
    ^bb0(%e: f32, %sum: f32):
      %square = arith.mulf %e, %e : f32
      %next = arith.addf %sum, %square : f32
      linalg.yield %next : f32
    } -> tensor<2xf32>
    %ffn_norm1_scale = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel"]}
        ins(%ffn_norm1_squares : tensor<2xf32>) outs(%ffn_norm1_sum_init : tensor<2xf32>) {
    ^bb0(%sum: f32, %unused: f32):
      %mean = arith.mulf %sum, %per_hidden : f32
      %shifted = arith.addf %mean, %epsilon : f32
      %root = math.sqrt %shifted : f32
      %inverse = arith.divf %one, %root : f32
      linalg.yield %inverse : f32
    } -> tensor<2xf32>
    %m1 = linalg.generic {indexing_maps = [#both, #rows, #columns, #both], iterator_types = ["parallel", "parallel"]}
        ins(%y1, %ffn_norm1_scale, %ffn_norm1_weight : tensor<2x128xf32>, tensor<2xf32>, tensor<128xf32>)
        outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %s: f32, %g: f32, %unused: f32):
      %scaled = arith.mulf %e, %s : f32
      %result = arith.mulf %scaled, %g : f32
      linalg.yield %result : f32
    } -> tensor<2x128xf32>
    %gate_up1_weight = ml_program.global_load_const @"blk.1.ffn_gate_up" : tensor<512x128xf16>
    %gate_up1_init = tensor.empty() : tensor<2x512xf32>
    %gate_up1_zeros = linalg.fill ins(%zero : f32) outs(%gate_up1_init : tensor<2x512xf32>) -> tensor<2x512xf32>
    %gate_up1 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%m1, %gate_up1_weight : tensor<2x128xf32>, tensor<512x128xf16>)
        outs(%gate_up1_zeros : tensor<2x512xf32>) -> tensor<2x512xf32>
    %gate1 = tensor.extract_slice %gate_up1[0, 0] [2, 256] [1, 1] : tensor<2x512xf32> to tensor<2x256xf32>
    %up1 = tensor.extract_slice %gate_up1[0, 256] [2, 256] [1, 1] : tensor<2x512xf32> to tensor<2x256xf32>
    %act1_init = tensor.empty() : tensor<2x256xf32>
    %act1 = linalg.generic {indexing_maps = [#both, #both, #both], iterator_types = ["parallel", "parallel"]}
        ins(%gate1, %up1 : tensor<2x256xf32>, tensor<2x256xf32>) outs(%act1_init : tensor<2x256xf32>) {
    ^bb0(%g: f32, %u: f32, %unused: f32):
      %minus = arith.negf %g : f32
      %power = math.exp %minus : f32
      %sum = arith.addf %power, %one : f32
      %silu = arith.divf %g, %sum : f32
      %product = arith.mulf %silu, %u : f32
      linalg.yield %product : f32
    } -> tensor<2x256xf32>
    %down1_weight = ml_program.global_load_const @"blk.1.ffn_down" : tensor<128x256xf16>
    %down1_init = tensor.empty() : tensor<2x128xf32>
    %down1_zeros = linalg.fill ins(%zero : f32) outs(%down1_init : tensor<2x128xf32>) -> tensor<2x128xf32>
    %down1 = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%act1, %down1_weight : tensor<2x256xf32>, tensor<128x256xf16>)
        outs(%down1_zeros : tensor<2x128xf32>) -> tensor<2x128xf32>
    %x2 = linalg.generic {indexing_maps = [#both, #both, #both], iterator_types = ["parallel", "parallel"]}
        ins(%y1, %down1 : tensor<2x128xf32>, tensor<2x128xf32>) outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %d: f32, %unused: f32):
      %sum = arith.addf %e, %d : f32
      linalg.yield %sum : f32
    } -> tensor<2x128xf32>

    //===------------------------------------------------------------------===//
    // Logits
    //===------------------------------------------------------------------===//
    %output_norm_weight = ml_program.global_load_const @output_norm : tensor<128xf32>
    %output_norm_sum_init = tensor.empty() : tensor<2xf32>
    %output_norm_zeros = linalg.fill ins(%zero : f32) outs(%output_norm_sum_init : tensor<2xf32>) -> tensor<2xf32>
    %output_norm_squares = linalg.generic {indexing_maps = [#both, #rows], iterator_types = ["parallel", "reduction"]}
        ins(%x2 : tensor<2x128xf32>) outs(%output_norm_zeros : tensor<2xf32>) {
    ^bb0(%e: f32, %sum: f32):
      %square = arith.mulf %e, %e : f32
      %next = arith.addf %sum, %square : f32
      linalg.yield %next : f32
    } -> tensor<2xf32>
    %output_norm_scale = linalg.generic {indexing_maps = [#row, #row], iterator_types = ["parallel"]}
        ins(%output_norm_squares : tensor<2xf32>) outs(%output_norm_sum_init : tensor<2xf32>) {
    ^bb0(%sum: f32, %unused: f32):
      %mean = arith.mulf %sum, %per_hidden : f32
      %shifted = arith.addf %mean, %epsilon : f32
      %root = math.sqrt %shifted : f32
      %inverse = arith.divf %one, %root : f32
      linalg.yield %inverse : f32
    } -> tensor<2xf32>
    %n_out = linalg.generic {indexing_maps = [#both, #rows, #columns, #both], iterator_types = ["parallel", "parallel"]}
        ins(%x2, %output_norm_scale, %output_norm_weight : tensor<2x128xf32>, tensor<2xf32>, tensor<128xf32>)
        outs(%hidden_init : tensor<2x128xf32>) {
    ^bb0(%e: f32, %s: f32, %g: f32, %unused: f32):
      %scaled = arith.mulf %e, %s : f32
      %result = arith.mulf %scaled, %g : f32
      linalg.yield %result : f32
    } -> tensor<2x128xf32>
    %logits_weight = ml_program.global_load_const @output : tensor<256x128xf16>
    %logits_init = tensor.empty() : tensor<2x256xf32>
    %logits_zeros = linalg.fill ins(%zero : f32) outs(%logits_init : tensor<2x256xf32>) -> tensor<2x256xf32>
    %logits = linalg.matmul indexing_maps = [#x, #w, #y]
        ins(%n_out, %logits_weight : tensor<2x128xf32>, tensor<256x128xf16>)
        outs(%logits_zeros : tensor<2x256xf32>) -> tensor<2x256xf32>
    return %logits, %keys1, %values1 : tensor<2x256xf32>, tensor<2x2x2x64x64xf16>, tensor<2x2x2x64x64xf16>
  }
}
