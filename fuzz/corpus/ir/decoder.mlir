// PASSES: kvrm-to-host{lanes=8}
#extern = #ml_program.extern : tensor<16x16xf16>
#extern1 = #ml_program.extern : tensor<32x4xf32>
#extern2 = #ml_program.extern : tensor<16xf32>
#extern3 = #ml_program.extern : tensor<32x16xf16>
#extern4 = #ml_program.extern : tensor<64x16xf16>
#extern5 = #ml_program.extern : tensor<16x32xf16>
#map = affine_map<(d0, d1, d2) -> (d0)>
#map1 = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#map2 = affine_map<(d0, d1) -> (d0)>
#map3 = affine_map<(d0, d1) -> (d0, d1)>
#map4 = affine_map<(d0) -> (d0)>
#map5 = affine_map<(d0, d1) -> (d1)>
#map6 = affine_map<(d0, d1, d2) -> (d0, d2)>
#map7 = affine_map<(d0, d1, d2) -> (d1, d2)>
#map8 = affine_map<(d0, d1, d2) -> (d0, d1)>
#map9 = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#map10 = affine_map<(d0, d1, d2, d3) -> (d0, d3)>
module {
 ml_program.global private @token_embd(#extern) : tensor<16x16xf16>
 ml_program.global private @rope_cos(#extern1) : tensor<32x4xf32>
 ml_program.global private @rope_sin(#extern1) : tensor<32x4xf32>
 ml_program.global private @blk.0.attn_norm(#extern2) : tensor<16xf32>
 ml_program.global private @blk.0.attn_qkv(#extern3) : tensor<32x16xf16>
 ml_program.global private @blk.0.attn_output(#extern) : tensor<16x16xf16>
 ml_program.global private @blk.0.ffn_norm(#extern2) : tensor<16xf32>
 ml_program.global private @blk.0.ffn_gate_up(#extern4) : tensor<64x16xf16>
 ml_program.global private @blk.0.ffn_down(#extern5) : tensor<16x32xf16>
 ml_program.global private @output_norm(#extern2) : tensor<16xf32>
 ml_program.global private @output(#extern) : tensor<16x16xf16>
 func.func @decode_step(%arg0: tensor<2x1xi32>, %arg1: tensor<2xi32>, %arg2: tensor<1x2x1x32x8xf16>, %arg3: tensor<1x2x1x32x8xf16>) -> (tensor<2x16xf32>, tensor<1x2x1x32x8xf16>, tensor<1x2x1x32x8xf16>) attributes {kvrm.step} {
 %rope_cos = ml_program.global_load_const @rope_cos : tensor<32x4xf32>
 %0 = tensor.empty() : tensor<2x1x4xf32>
 %1 = linalg.generic {indexing_maps = [#map, #map1], iterator_types = ["parallel", "parallel", "parallel"]} ins(%arg1 : tensor<2xi32>) outs(%0 : tensor<2x1x4xf32>) {
 ^bb0(%in: i32, %out: f32):
 %52 = arith.index_cast %in : i32 to index
 %53 = linalg.index 1 : index
 %54 = arith.addi %52, %53 : index
 %c31 = arith.constant 31 : index
 %55 = arith.minui %54, %c31 : index
 %56 = linalg.index 2 : index
 %extracted = tensor.extract %rope_cos[%55, %56] : tensor<32x4xf32>
 linalg.yield %extracted : f32
 } -> tensor<2x1x4xf32>
 %collapsed = tensor.collapse_shape %1 [[0, 1], [2]] : tensor<2x1x4xf32> into tensor<2x4xf32>
 %rope_sin = ml_program.global_load_const @rope_sin : tensor<32x4xf32>
 %2 = tensor.empty() : tensor<2x1x4xf32>
 %3 = linalg.generic {indexing_maps = [#map, #map1], iterator_types = ["parallel", "parallel", "parallel"]} ins(%arg1 : tensor<2xi32>) outs(%2 : tensor<2x1x4xf32>) {
 ^bb0(%in: i32, %out: f32):
 %52 = arith.index_cast %in : i32 to index
 %53 = linalg.index 1 : index
 %54 = arith.addi %52, %53 : index
 %c31 = arith.constant 31 : index
 %55 = arith.minui %54, %c31 : index
 %56 = linalg.index 2 : index
 %extracted = tensor.extract %rope_sin[%55, %56] : tensor<32x4xf32>
 linalg.yield %extracted : f32
 } -> tensor<2x1x4xf32>
 %collapsed_0 = tensor.collapse_shape %3 [[0, 1], [2]] : tensor<2x1x4xf32> into tensor<2x4xf32>
 %token_embd = ml_program.global_load_const @token_embd : tensor<16x16xf16>
 %collapsed_1 = tensor.collapse_shape %arg0 [[0, 1]] : tensor<2x1xi32> into tensor<2xi32>
 %4 = tensor.empty() : tensor<2x16xf32>
 %5 = linalg.generic {indexing_maps = [#map2, #map3], iterator_types = ["parallel", "parallel"]} ins(%collapsed_1 : tensor<2xi32>) outs(%4 : tensor<2x16xf32>) {
 ^bb0(%in: i32, %out: f32):
 %52 = arith.index_cast %in : i32 to index
 %53 = linalg.index 1 : index
 %extracted = tensor.extract %token_embd[%52, %53] : tensor<16x16xf16>
 %54 = arith.extf %extracted : f16 to f32
 linalg.yield %54 : f32
 } -> tensor<2x16xf32>
 %blk.0.attn_norm = ml_program.global_load_const @blk.0.attn_norm : tensor<16xf32>
 %cst = arith.constant 0.000000e+00 : f32
 %6 = tensor.empty() : tensor<2xf32>
 %7 = linalg.fill ins(%cst : f32) outs(%6 : tensor<2xf32>) -> tensor<2xf32>
 %8 = linalg.generic {indexing_maps = [#map3, #map2], iterator_types = ["parallel", "reduction"]} ins(%5 : tensor<2x16xf32>) outs(%7 : tensor<2xf32>) {
 ^bb0(%in: f32, %out: f32):
 %52 = arith.mulf %in, %in : f32
 %53 = arith.addf %out, %52 : f32
 linalg.yield %53 : f32
 } -> tensor<2xf32>
 %9 = tensor.empty() : tensor<2xf32>
 %10 = linalg.generic {indexing_maps = [#map4, #map4], iterator_types = ["parallel"]} ins(%8 : tensor<2xf32>) outs(%9 : tensor<2xf32>) {
 ^bb0(%in: f32, %out: f32):
 %cst_21 = arith.constant 6.250000e-02 : f32
 %cst_22 = arith.constant 9.99999974E-6 : f32
 %cst_23 = arith.constant 1.000000e+00 : f32
 %52 = arith.mulf %in, %cst_21 : f32
 %53 = arith.addf %52, %cst_22 : f32
 %54 = math.sqrt %53 : f32
 %55 = arith.divf %cst_23, %54 : f32
 linalg.yield %55 : f32
 } -> tensor<2xf32>
 %11 = tensor.empty() : tensor<2x16xf32>
 %12 = linalg.generic {indexing_maps = [#map3, #map2, #map5, #map3], iterator_types = ["parallel", "parallel"]} ins(%5, %10, %blk.0.attn_norm : tensor<2x16xf32>, tensor<2xf32>, tensor<16xf32>) outs(%11 : tensor<2x16xf32>) {
 ^bb0(%in: f32, %in_21: f32, %in_22: f32, %out: f32):
 %52 = arith.mulf %in, %in_21 : f32
 %53 = arith.mulf %52, %in_22 : f32
 linalg.yield %53 : f32
 } -> tensor<2x16xf32>
 %blk.0.attn_qkv = ml_program.global_load_const @blk.0.attn_qkv : tensor<32x16xf16>
 %cst_2 = arith.constant 0.000000e+00 : f32
 %13 = tensor.empty() : tensor<2x32xf32>
 %14 = linalg.fill ins(%cst_2 : f32) outs(%13 : tensor<2x32xf32>) -> tensor<2x32xf32>
 %15 = linalg.matmul indexing_maps = [#map6, #map7, #map8] ins(%12, %blk.0.attn_qkv : tensor<2x16xf32>, tensor<32x16xf16>) outs(%14 : tensor<2x32xf32>) -> tensor<2x32xf32>
 %extracted_slice = tensor.extract_slice %15[0, 0] [2, 16] [1, 1] : tensor<2x32xf32> to tensor<2x16xf32>
 %expanded = tensor.expand_shape %extracted_slice [[0], [1, 2, 3]] output_shape [2, 2, 2, 4] : tensor<2x16xf32> into tensor<2x2x2x4xf32>
 %16 = tensor.empty() : tensor<2x2x2x4xf32>
 %17 = linalg.generic {indexing_maps = [#map9, #map10, #map10, #map9], iterator_types = ["parallel", "parallel", "parallel", "parallel"]} ins(%expanded, %collapsed, %collapsed_0 : tensor<2x2x2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) outs(%16 : tensor<2x2x2x4xf32>) {
 ^bb0(%in: f32, %in_21: f32, %in_22: f32, %out: f32):
 %52 = linalg.index 0 : index
 %53 = linalg.index 1 : index
 %54 = linalg.index 2 : index
 %55 = linalg.index 3 : index
 %c1 = arith.constant 1 : index
 %56 = arith.cmpi ult, %54, %c1 : index
 %57 = arith.subi %c1, %54 : index
 %extracted = tensor.extract %expanded[%52, %53, %57, %55] : tensor<2x2x2x4xf32>
 %58 = arith.negf %in_22 : f32
 %59 = arith.select %56, %58, %in_22 : f32
 %60 = arith.mulf %in, %in_21 : f32
 %61 = arith.mulf %extracted, %59 : f32
 %62 = arith.addf %60, %61 : f32
 linalg.yield %62 : f32
 } -> tensor<2x2x2x4xf32>
 %collapsed_3 = tensor.collapse_shape %17 [[0], [1, 2, 3]] : tensor<2x2x2x4xf32> into tensor<2x16xf32>
 %expanded_4 = tensor.expand_shape %collapsed_3 [[0, 1], [2, 3]] output_shape [2, 1, 2, 8] : tensor<2x16xf32> into tensor<2x1x2x8xf32>
 %extracted_slice_5 = tensor.extract_slice %15[0, 16] [2, 8] [1, 1] : tensor<2x32xf32> to tensor<2x8xf32>
 %expanded_6 = tensor.expand_shape %extracted_slice_5 [[0], [1, 2, 3]] output_shape [2, 1, 2, 4] : tensor<2x8xf32> into tensor<2x1x2x4xf32>
 %18 = tensor.empty() : tensor<2x1x2x4xf32>
 %19 = linalg.generic {indexing_maps = [#map9, #map10, #map10, #map9], iterator_types = ["parallel", "parallel", "parallel", "parallel"]} ins(%expanded_6, %collapsed, %collapsed_0 : tensor<2x1x2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) outs(%18 : tensor<2x1x2x4xf32>) {
 ^bb0(%in: f32, %in_21: f32, %in_22: f32, %out: f32):
 %52 = linalg.index 0 : index
 %53 = linalg.index 1 : index
 %54 = linalg.index 2 : index
 %55 = linalg.index 3 : index
 %c1 = arith.constant 1 : index
 %56 = arith.cmpi ult, %54, %c1 : index
 %57 = arith.subi %c1, %54 : index
 %extracted = tensor.extract %expanded_6[%52, %53, %57, %55] : tensor<2x1x2x4xf32>
 %58 = arith.negf %in_22 : f32
 %59 = arith.select %56, %58, %in_22 : f32
 %60 = arith.mulf %in, %in_21 : f32
 %61 = arith.mulf %extracted, %59 : f32
 %62 = arith.addf %60, %61 : f32
 linalg.yield %62 : f32
 } -> tensor<2x1x2x4xf32>
 %collapsed_7 = tensor.collapse_shape %19 [[0], [1, 2, 3]] : tensor<2x1x2x4xf32> into tensor<2x8xf32>
 %expanded_8 = tensor.expand_shape %collapsed_7 [[0, 1], [2, 3]] output_shape [2, 1, 1, 8] : tensor<2x8xf32> into tensor<2x1x1x8xf32>
 %extracted_slice_9 = tensor.extract_slice %15[0, 24] [2, 8] [1, 1] : tensor<2x32xf32> to tensor<2x8xf32>
 %expanded_10 = tensor.expand_shape %extracted_slice_9 [[0, 1], [2, 3]] output_shape [2, 1, 1, 8] : tensor<2x8xf32> into tensor<2x1x1x8xf32>
 %output, %newKeyCache, %newValueCache = kvrm.cached_attention %expanded_4, %expanded_8, %expanded_10, %arg2, %arg3 at %arg1 {layer = 0 : i64, scale = 0.353553385 : f32} : tensor<2x1x2x8xf32>, tensor<2x1x1x8xf32>, tensor<1x2x1x32x8xf16>, tensor<2xi32>
 %collapsed_11 = tensor.collapse_shape %output [[0, 1], [2, 3]] : tensor<2x1x2x8xf32> into tensor<2x16xf32>
 %blk.0.attn_output = ml_program.global_load_const @blk.0.attn_output : tensor<16x16xf16>
 %cst_12 = arith.constant 0.000000e+00 : f32
 %20 = tensor.empty() : tensor<2x16xf32>
 %21 = linalg.fill ins(%cst_12 : f32) outs(%20 : tensor<2x16xf32>) -> tensor<2x16xf32>
 %22 = linalg.matmul indexing_maps = [#map6, #map7, #map8] ins(%collapsed_11, %blk.0.attn_output : tensor<2x16xf32>, tensor<16x16xf16>) outs(%21 : tensor<2x16xf32>) -> tensor<2x16xf32>
 %23 = tensor.empty() : tensor<2x16xf32>
 %24 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel"]} ins(%5, %22 : tensor<2x16xf32>, tensor<2x16xf32>) outs(%23 : tensor<2x16xf32>) {
 ^bb0(%in: f32, %in_21: f32, %out: f32):
 %52 = arith.addf %in, %in_21 : f32
 linalg.yield %52 : f32
 } -> tensor<2x16xf32>
 %blk.0.ffn_norm = ml_program.global_load_const @blk.0.ffn_norm : tensor<16xf32>
 %cst_13 = arith.constant 0.000000e+00 : f32
 %25 = tensor.empty() : tensor<2xf32>
 %26 = linalg.fill ins(%cst_13 : f32) outs(%25 : tensor<2xf32>) -> tensor<2xf32>
 %27 = linalg.generic {indexing_maps = [#map3, #map2], iterator_types = ["parallel", "reduction"]} ins(%24 : tensor<2x16xf32>) outs(%26 : tensor<2xf32>) {
 ^bb0(%in: f32, %out: f32):
 %52 = arith.mulf %in, %in : f32
 %53 = arith.addf %out, %52 : f32
 linalg.yield %53 : f32
 } -> tensor<2xf32>
 %28 = tensor.empty() : tensor<2xf32>
 %29 = linalg.generic {indexing_maps = [#map4, #map4], iterator_types = ["parallel"]} ins(%27 : tensor<2xf32>) outs(%28 : tensor<2xf32>) {
 ^bb0(%in: f32, %out: f32):
 %cst_21 = arith.constant 6.250000e-02 : f32
 %cst_22 = arith.constant 9.99999974E-6 : f32
 %cst_23 = arith.constant 1.000000e+00 : f32
 %52 = arith.mulf %in, %cst_21 : f32
 %53 = arith.addf %52, %cst_22 : f32
 %54 = math.sqrt %53 : f32
 %55 = arith.divf %cst_23, %54 : f32
 linalg.yield %55 : f32
 } -> tensor<2xf32>
 %30 = tensor.empty() : tensor<2x16xf32>
 %31 = linalg.generic {indexing_maps = [#map3, #map2, #map5, #map3], iterator_types = ["parallel", "parallel"]} ins(%24, %29, %blk.0.ffn_norm : tensor<2x16xf32>, tensor<2xf32>, tensor<16xf32>) outs(%30 : tensor<2x16xf32>) {
 ^bb0(%in: f32, %in_21: f32, %in_22: f32, %out: f32):
 %52 = arith.mulf %in, %in_21 : f32
 %53 = arith.mulf %52, %in_22 : f32
 linalg.yield %53 : f32
 } -> tensor<2x16xf32>
 %blk.0.ffn_gate_up = ml_program.global_load_const @blk.0.ffn_gate_up : tensor<64x16xf16>
 %cst_14 = arith.constant 0.000000e+00 : f32
 %32 = tensor.empty() : tensor<2x64xf32>
 %33 = linalg.fill ins(%cst_14 : f32) outs(%32 : tensor<2x64xf32>) -> tensor<2x64xf32>
 %34 = linalg.matmul indexing_maps = [#map6, #map7, #map8] ins(%31, %blk.0.ffn_gate_up : tensor<2x16xf32>, tensor<64x16xf16>) outs(%33 : tensor<2x64xf32>) -> tensor<2x64xf32>
 %extracted_slice_15 = tensor.extract_slice %34[0, 0] [2, 32] [1, 1] : tensor<2x64xf32> to tensor<2x32xf32>
 %extracted_slice_16 = tensor.extract_slice %34[0, 32] [2, 32] [1, 1] : tensor<2x64xf32> to tensor<2x32xf32>
 %35 = tensor.empty() : tensor<2x32xf32>
 %36 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel"]} ins(%extracted_slice_15, %extracted_slice_16 : tensor<2x32xf32>, tensor<2x32xf32>) outs(%35 : tensor<2x32xf32>) {
 ^bb0(%in: f32, %in_21: f32, %out: f32):
 %cst_22 = arith.constant 1.000000e+00 : f32
 %52 = arith.negf %in : f32
 %53 = math.exp %52 : f32
 %54 = arith.addf %53, %cst_22 : f32
 %55 = arith.divf %in, %54 : f32
 %56 = arith.mulf %55, %in_21 : f32
 linalg.yield %56 : f32
 } -> tensor<2x32xf32>
 %blk.0.ffn_down = ml_program.global_load_const @blk.0.ffn_down : tensor<16x32xf16>
 %cst_17 = arith.constant 0.000000e+00 : f32
 %37 = tensor.empty() : tensor<2x16xf32>
 %38 = linalg.fill ins(%cst_17 : f32) outs(%37 : tensor<2x16xf32>) -> tensor<2x16xf32>
 %39 = linalg.matmul indexing_maps = [#map6, #map7, #map8] ins(%36, %blk.0.ffn_down : tensor<2x32xf32>, tensor<16x32xf16>) outs(%38 : tensor<2x16xf32>) -> tensor<2x16xf32>
 %40 = tensor.empty() : tensor<2x16xf32>
 %41 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel"]} ins(%24, %39 : tensor<2x16xf32>, tensor<2x16xf32>) outs(%40 : tensor<2x16xf32>) {
 ^bb0(%in: f32, %in_21: f32, %out: f32):
 %52 = arith.addf %in, %in_21 : f32
 linalg.yield %52 : f32
 } -> tensor<2x16xf32>
 %output_18 = ml_program.global_load_const @output : tensor<16x16xf16>
 %output_norm = ml_program.global_load_const @output_norm : tensor<16xf32>
 %cst_19 = arith.constant 0.000000e+00 : f32
 %42 = tensor.empty() : tensor<2xf32>
 %43 = linalg.fill ins(%cst_19 : f32) outs(%42 : tensor<2xf32>) -> tensor<2xf32>
 %44 = linalg.generic {indexing_maps = [#map3, #map2], iterator_types = ["parallel", "reduction"]} ins(%41 : tensor<2x16xf32>) outs(%43 : tensor<2xf32>) {
 ^bb0(%in: f32, %out: f32):
 %52 = arith.mulf %in, %in : f32
 %53 = arith.addf %out, %52 : f32
 linalg.yield %53 : f32
 } -> tensor<2xf32>
 %45 = tensor.empty() : tensor<2xf32>
 %46 = linalg.generic {indexing_maps = [#map4, #map4], iterator_types = ["parallel"]} ins(%44 : tensor<2xf32>) outs(%45 : tensor<2xf32>) {
 ^bb0(%in: f32, %out: f32):
 %cst_21 = arith.constant 6.250000e-02 : f32
 %cst_22 = arith.constant 9.99999974E-6 : f32
 %cst_23 = arith.constant 1.000000e+00 : f32
 %52 = arith.mulf %in, %cst_21 : f32
 %53 = arith.addf %52, %cst_22 : f32
 %54 = math.sqrt %53 : f32
 %55 = arith.divf %cst_23, %54 : f32
 linalg.yield %55 : f32
 } -> tensor<2xf32>
 %47 = tensor.empty() : tensor<2x16xf32>
 %48 = linalg.generic {indexing_maps = [#map3, #map2, #map5, #map3], iterator_types = ["parallel", "parallel"]} ins(%41, %46, %output_norm : tensor<2x16xf32>, tensor<2xf32>, tensor<16xf32>) outs(%47 : tensor<2x16xf32>) {
 ^bb0(%in: f32, %in_21: f32, %in_22: f32, %out: f32):
 %52 = arith.mulf %in, %in_21 : f32
 %53 = arith.mulf %52, %in_22 : f32
 linalg.yield %53 : f32
 } -> tensor<2x16xf32>
 %cst_20 = arith.constant 0.000000e+00 : f32
 %49 = tensor.empty() : tensor<2x16xf32>
 %50 = linalg.fill ins(%cst_20 : f32) outs(%49 : tensor<2x16xf32>) -> tensor<2x16xf32>
 %51 = linalg.matmul indexing_maps = [#map6, #map7, #map8] ins(%48, %output_18 : tensor<2x16xf32>, tensor<16x16xf16>) outs(%50 : tensor<2x16xf32>) -> tensor<2x16xf32>
 return %51, %newKeyCache, %newValueCache : tensor<2x16xf32>, tensor<1x2x1x32x8xf16>, tensor<1x2x1x32x8xf16>
 }
}
