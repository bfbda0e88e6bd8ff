// Attention of one layer over static caches: four query heads on two KV heads,
// a position for each row.

#row = affine_map<(b, g, s, d) -> (b)>
#new = affine_map<(b, g, s, d) -> (b, g, d)>
#cache = affine_map<(b, g, s, d) -> (b, g, s, d)>
#query = affine_map<(b, g, h, s, d) -> (b, g, h, d)>
#keys = affine_map<(b, g, h, s, d) -> (b, g, s, d)>
#scores = affine_map<(b, g, h, s, d) -> (b, g, h, s)>
#all = affine_map<(b, g, h, s) -> (b, g, h, s)>
#rowOf = affine_map<(b, g, h, s) -> (b)>
#head = affine_map<(b, g, h, s) -> (b, g, h)>

func.func @step(%q: tensor<3x2x2x4xf32>, %k: tensor<3x2x4xf32>, %v: tensor<3x2x4xf32>, %position: tensor<3xi32>, %keys: tensor<3x2x16x4xf16>, %values: tensor<3x2x16x4xf16>)
    -> (tensor<3x2x2x4xf32>, tensor<3x2x16x4xf16>, tensor<3x2x16x4xf16>) {
  %zero = arith.constant 0.0 : f32
  %lowest = arith.constant 0xFF800000 : f32
  %scale = arith.constant 0.125 : f32
  %empty_cache = tensor.empty() : tensor<3x2x16x4xf16>
  %empty_scores = tensor.empty() : tensor<3x2x2x16xf32>
  %empty_output = tensor.empty() : tensor<3x2x2x4xf32>
  %empty_heads = tensor.empty() : tensor<3x2x2xf32>
  %zero_scores = linalg.fill ins(%zero : f32) outs(%empty_scores : tensor<3x2x2x16xf32>) -> tensor<3x2x2x16xf32>
  %zero_output = linalg.fill ins(%zero : f32) outs(%empty_output : tensor<3x2x2x4xf32>) -> tensor<3x2x2x4xf32>
  %zero_heads = linalg.fill ins(%zero : f32) outs(%empty_heads : tensor<3x2x2xf32>) -> tensor<3x2x2xf32>
  %lowest_heads = linalg.fill ins(%lowest : f32) outs(%empty_heads : tensor<3x2x2xf32>) -> tensor<3x2x2xf32>

  // Write keys and values where the token is the position.
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<3xi32>, tensor<3x2x4xf32>, tensor<3x2x16x4xf16>) outs(%empty_cache : tensor<3x2x16x4xf16>) {
  ^bb0(%p: i32, %new: f32, %old: f16, %out: f16):
    %token = linalg.index 2 : index
    %place = arith.index_cast %token : index to i32
    %here = arith.cmpi eq, %place, %p : i32 // keys
    %rounded = arith.truncf %new : f32 to f16
    %value = arith.select %here, %rounded, %old : f16
    linalg.yield %value : f16
  } -> tensor<3x2x16x4xf16>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #cache, #cache], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<3xi32>, tensor<3x2x4xf32>, tensor<3x2x16x4xf16>) outs(%empty_cache : tensor<3x2x16x4xf16>) {
  ^bb0(%p: i32, %new: f32, %old: f16, %out: f16):
    %token = linalg.index 2 : index
    %place = arith.index_cast %token : index to i32
    %here = arith.cmpi eq, %place, %p : i32 // values
    %rounded = arith.truncf %new : f32 to f16
    %value = arith.select %here, %rounded, %old : f16
    linalg.yield %value : f16
  } -> tensor<3x2x16x4xf16>

  // Scores, scaled and masked.
  %products = linalg.generic {indexing_maps = [#query, #keys, #scores], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction"]}
      ins(%q, %new_keys : tensor<3x2x2x4xf32>, tensor<3x2x16x4xf16>) outs(%zero_scores : tensor<3x2x2x16xf32>) {
  ^bb0(%left: f32, %right: f16, %sum: f32):
    %wide = arith.extf %right : f16 to f32
    %product = arith.mulf %left, %wide : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<3x2x2x16xf32>
  %scores = linalg.generic {indexing_maps = [#all, #rowOf, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%products, %position : tensor<3x2x2x16xf32>, tensor<3xi32>) outs(%empty_scores : tensor<3x2x2x16xf32>) {
  ^bb0(%product: f32, %p: i32, %out: f32):
    %token = linalg.index 3 : index
    %place = arith.index_cast %token : index to i32
    %scaled = arith.mulf %product, %scale : f32
    %seen = arith.cmpi sle, %place, %p : i32
    %masked = arith.select %seen, %scaled, %lowest : f32
    linalg.yield %masked : f32
  } -> tensor<3x2x2x16xf32>

  // Softmax.
  %highest = linalg.generic {indexing_maps = [#all, #head], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%scores : tensor<3x2x2x16xf32>) outs(%lowest_heads : tensor<3x2x2xf32>) {
  ^bb0(%score: f32, %max: f32):
    %next = arith.maximumf %score, %max : f32
    linalg.yield %next : f32
  } -> tensor<3x2x2xf32>
  %powers = linalg.generic {indexing_maps = [#all, #head, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%scores, %highest : tensor<3x2x2x16xf32>, tensor<3x2x2xf32>) outs(%empty_scores : tensor<3x2x2x16xf32>) {
  ^bb0(%score: f32, %max: f32, %out: f32):
    %less = arith.subf %score, %max : f32
    %power = math.exp %less : f32
    linalg.yield %power : f32
  } -> tensor<3x2x2x16xf32>
  %sums = linalg.generic {indexing_maps = [#all, #head], iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%powers : tensor<3x2x2x16xf32>) outs(%zero_heads : tensor<3x2x2xf32>) {
  ^bb0(%power: f32, %sum: f32):
    %next = arith.addf %power, %sum : f32
    linalg.yield %next : f32
  } -> tensor<3x2x2xf32>
  %probabilities = linalg.generic {indexing_maps = [#all, #head, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%powers, %sums : tensor<3x2x2x16xf32>, tensor<3x2x2xf32>) outs(%empty_scores : tensor<3x2x2x16xf32>) {
  ^bb0(%power: f32, %sum: f32, %out: f32):
    %probability = arith.divf %power, %sum : f32
    linalg.yield %probability : f32
  } -> tensor<3x2x2x16xf32>

  // Weighted values.
  %output = linalg.generic {indexing_maps = [#scores, #keys, #query], iterator_types = ["parallel", "parallel", "parallel", "reduction", "parallel"]}
      ins(%probabilities, %new_values : tensor<3x2x2x16xf32>, tensor<3x2x16x4xf16>) outs(%zero_output : tensor<3x2x2x4xf32>) {
  ^bb0(%left: f32, %right: f16, %sum: f32):
    %wide = arith.extf %right : f16 to f32
    %product = arith.mulf %left, %wide : f32
    %next = arith.addf %sum, %product : f32
    linalg.yield %next : f32
  } -> tensor<3x2x2x4xf32>
  return %output, %new_keys, %new_values : tensor<3x2x2x4xf32>, tensor<3x2x16x4xf16>, tensor<3x2x16x4xf16>
}
