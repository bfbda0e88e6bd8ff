// A decode step in the manner of an exporter: one layer, two rows at a position
// that they share, hidden 32, two query heads on one KV head of 16, capacity 32,
// vocabulary 48. Matrices are arguments in f32, some [out][in] and transposed
// before they are multiplied with, some [in][out]; so are caches. The position
// counts on, as a result.

#all2 = affine_map<(b, e) -> (b, e)>
#row2 = affine_map<(b, e) -> (b)>
#column2 = affine_map<(b, e) -> (e)>
#all4 = affine_map<(b, h, t, e) -> (b, h, t, e)>
#angle4 = affine_map<(b, h, t, e) -> (e)>
#one4 = affine_map<(b, h, t, e) -> (0)>
#new4 = affine_map<(b, h, t, e) -> (b, h, 0, e)>
#shared4 = affine_map<(b, h, t, e) -> (b, 0, t, e)>

func.func @main(%embed: tensor<48x32xf32> {kvrm.name = "embed"}, %norm1: tensor<32xf32> {kvrm.name = "norm1"},
    %wq: tensor<32x32xf32> {kvrm.name = "wq"}, %wk: tensor<16x32xf32> {kvrm.name = "wk"},
    %wv: tensor<32x16xf32> {kvrm.name = "wv"}, %wo: tensor<32x32xf32> {kvrm.name = "wo"},
    %norm2: tensor<32xf32> {kvrm.name = "norm2"}, %head: tensor<48x32xf32> {kvrm.name = "head"},
    %keys: tensor<2x1x32x16xf32>, %values: tensor<2x1x32x16xf32>, %tokens: tensor<2x1xi64>, %position: tensor<1xi64>)
    -> (tensor<2x1x32x16xf32>, tensor<2x1x32x16xf32>, tensor<2x1x48xf32>, tensor<1xi64>) {
  %zero = arith.constant 0.0 : f32
  %epsilon = arith.constant 1.0e-5 : f64
  %width = arith.constant 3.2e+1 : f32
  %one = arith.constant 1 : i64
  %two = arith.constant 2 : i64
  %frequencies = arith.constant dense<[1.0, 0.316227766, 0.1, 0.0316227766, 0.01, 0.00316227766, 0.001, 0.000316227766]> : tensor<8xf32>

  %flat = tensor.collapse_shape %tokens [[0, 1]] : tensor<2x1xi64> into tensor<2xi64>
  %hidden = tensor.empty() : tensor<2x32xf32>
  %x = linalg.generic {indexing_maps = [#row2, #all2], iterator_types = ["parallel", "parallel"]}
      ins(%flat : tensor<2xi64>) outs(%hidden : tensor<2x32xf32>) {
  ^bb0(%token: i64, %out: f32):
    %r = arith.index_cast %token : i64 to index
    %e = linalg.index 1 : index
    %element = tensor.extract %embed[%r, %e] : tensor<48x32xf32>
    linalg.yield %element : f32
  } -> tensor<2x32xf32>

  // RMSNorm.
  %x1 = func.call @normalize(%x, %norm1) : (tensor<2x32xf32>, tensor<32xf32>) -> tensor<2x32xf32>

  // Queries, keys and values.
  %square_init = tensor.empty() : tensor<32x32xf32>
  %wq_t = linalg.transpose ins(%wq : tensor<32x32xf32>) outs(%square_init : tensor<32x32xf32>) permutation = [1, 0]
  %zeros = linalg.fill ins(%zero : f32) outs(%hidden : tensor<2x32xf32>) -> tensor<2x32xf32>
  %q_flat = linalg.matmul ins(%x1, %wq_t : tensor<2x32xf32>, tensor<32x32xf32>) outs(%zeros : tensor<2x32xf32>) -> tensor<2x32xf32>
  %narrow_init = tensor.empty() : tensor<32x16xf32>
  %wk_t = linalg.transpose ins(%wk : tensor<16x32xf32>) outs(%narrow_init : tensor<32x16xf32>) permutation = [1, 0]
  %kv_init = tensor.empty() : tensor<2x16xf32>
  %kv_zeros = linalg.fill ins(%zero : f32) outs(%kv_init : tensor<2x16xf32>) -> tensor<2x16xf32>
  %k_flat = linalg.matmul ins(%x1, %wk_t : tensor<2x32xf32>, tensor<32x16xf32>) outs(%kv_zeros : tensor<2x16xf32>) -> tensor<2x16xf32>
  %v_flat = linalg.matmul ins(%x1, %wv : tensor<2x32xf32>, tensor<32x16xf32>) outs(%kv_zeros : tensor<2x16xf32>) -> tensor<2x16xf32>
  %q = tensor.expand_shape %q_flat [[0], [1, 2, 3]] output_shape [2, 2, 1, 16] : tensor<2x32xf32> into tensor<2x2x1x16xf32>
  %k = tensor.expand_shape %k_flat [[0], [1, 2, 3]] output_shape [2, 1, 1, 16] : tensor<2x16xf32> into tensor<2x1x1x16xf32>
  %v = tensor.expand_shape %v_flat [[0], [1, 2, 3]] output_shape [2, 1, 1, 16] : tensor<2x16xf32> into tensor<2x1x1x16xf32>

  // Cosines and sines of the position, twice: element i turns with i + 8.
  %half_init = tensor.empty() : tensor<8xf32>
  %angles = linalg.generic {indexing_maps = [affine_map<(e) -> (0)>, affine_map<(e) -> (e)>, affine_map<(e) -> (e)>], iterator_types = ["parallel"]}
      ins(%position, %frequencies : tensor<1xi64>, tensor<8xf32>) outs(%half_init : tensor<8xf32>) {
  ^bb0(%p: i64, %frequency: f32, %out: f32):
    %number = arith.sitofp %p : i64 to f32
    %angle = arith.mulf %number, %frequency : f32
    linalg.yield %angle : f32
  } -> tensor<8xf32>
  %twice = tensor.concat dim(0) %angles, %angles : (tensor<8xf32>, tensor<8xf32>) -> tensor<16xf32>
  %turned_q = func.call @rotate_q(%q, %twice) : (tensor<2x2x1x16xf32>, tensor<16xf32>) -> tensor<2x2x1x16xf32>
  %turned_k = func.call @rotate_k(%k, %twice) : (tensor<2x1x1x16xf32>, tensor<16xf32>) -> tensor<2x1x1x16xf32>

  // The caches at the position.
  %new_keys = func.call @write(%position, %turned_k, %keys) : (tensor<1xi64>, tensor<2x1x1x16xf32>, tensor<2x1x32x16xf32>) -> tensor<2x1x32x16xf32>
  %new_values = func.call @write(%position, %v, %values) : (tensor<1xi64>, tensor<2x1x1x16xf32>, tensor<2x1x32x16xf32>) -> tensor<2x1x32x16xf32>

  // Attention of two heads over the one that they share.
  %mask_init = tensor.empty() : tensor<2x2x1x32xi1>
  %mask = linalg.generic {indexing_maps = [#one4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position : tensor<1xi64>) outs(%mask_init : tensor<2x2x1x32xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 3 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<2x2x1x32xi1>
  %wide_init = tensor.empty() : tensor<2x2x32x16xf32>
  %wide_keys = linalg.generic {indexing_maps = [#shared4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%new_keys : tensor<2x1x32x16xf32>) outs(%wide_init : tensor<2x2x32x16xf32>) {
  ^bb0(%e: f32, %out: f32):
    linalg.yield %e : f32
  } -> tensor<2x2x32x16xf32>
  %wide_values = linalg.generic {indexing_maps = [#shared4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%new_values : tensor<2x1x32x16xf32>) outs(%wide_init : tensor<2x2x32x16xf32>) {
  ^bb0(%e: f32, %out: f32):
    linalg.yield %e : f32
  } -> tensor<2x2x32x16xf32>
  %heads_init = tensor.empty() : tensor<2x2x1x16xf32>
  %attended = "tm_tensor.attention"(%turned_q, %wide_keys, %wide_values, %mask, %heads_init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<2x2x1x16xf32>, tensor<2x2x32x16xf32>, tensor<2x2x32x16xf32>, tensor<2x2x1x32xi1>, tensor<2x2x1x16xf32>) -> tensor<2x2x1x16xf32>
  %attended_flat = tensor.collapse_shape %attended [[0], [1, 2, 3]] : tensor<2x2x1x16xf32> into tensor<2x32xf32>
  %projected = linalg.matmul ins(%attended_flat, %wo : tensor<2x32xf32>, tensor<32x32xf32>) outs(%zeros : tensor<2x32xf32>) -> tensor<2x32xf32>
  %y = linalg.generic {indexing_maps = [#all2, #all2, #all2], iterator_types = ["parallel", "parallel"]}
      ins(%x, %projected : tensor<2x32xf32>, tensor<2x32xf32>) outs(%hidden : tensor<2x32xf32>) {
  ^bb0(%a: f32, %b: f32, %out: f32):
    %sum = arith.addf %a, %b : f32
    linalg.yield %sum : f32
  } -> tensor<2x32xf32>

  // Logits.
  %y1 = func.call @normalize(%y, %norm2) : (tensor<2x32xf32>, tensor<32xf32>) -> tensor<2x32xf32>
  %head_init = tensor.empty() : tensor<32x48xf32>
  %head_t = linalg.transpose ins(%head : tensor<48x32xf32>) outs(%head_init : tensor<32x48xf32>) permutation = [1, 0]
  %logits_init = tensor.empty() : tensor<2x48xf32>
  %logits_zeros = linalg.fill ins(%zero : f32) outs(%logits_init : tensor<2x48xf32>) -> tensor<2x48xf32>
  %logits_flat = linalg.matmul ins(%y1, %head_t : tensor<2x32xf32>, tensor<32x48xf32>) outs(%logits_zeros : tensor<2x48xf32>) -> tensor<2x48xf32>
  %logits = tensor.expand_shape %logits_flat [[0], [1, 2]] output_shape [2, 1, 48] : tensor<2x48xf32> into tensor<2x1x48xf32>
  %next_init = tensor.empty() : tensor<1xi64>
  %next = linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      ins(%position : tensor<1xi64>) outs(%next_init : tensor<1xi64>) {
  ^bb0(%p: i64, %out: i64):
    %sum = arith.addi %p, %one : i64
    linalg.yield %sum : i64
  } -> tensor<1xi64>
  return %new_keys, %new_values, %logits, %next : tensor<2x1x32x16xf32>, tensor<2x1x32x16xf32>, tensor<2x1x48xf32>, tensor<1xi64>
}

// x / sqrt(mean(x^2) + epsilon) * gain.
func.func private @normalize(%x: tensor<2x32xf32>, %gain: tensor<32xf32>) -> tensor<2x32xf32> {
  %zero = arith.constant 0.0 : f32
  %epsilon = arith.constant 1.0e-5 : f64
  %width = arith.constant 3.2e+1 : f32
  %two = arith.constant 2 : i64
  %sums_init = tensor.empty() : tensor<2xf32>
  %sums_zero = linalg.fill ins(%zero : f32) outs(%sums_init : tensor<2xf32>) -> tensor<2xf32>
  %init = tensor.empty() : tensor<2x32xf32>
  %squares = linalg.generic {indexing_maps = [#all2, #all2], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<2x32xf32>) outs(%init : tensor<2x32xf32>) {
  ^bb0(%e: f32, %out: f32):
    %square = math.fpowi %e, %two : f32, i64
    linalg.yield %square : f32
  } -> tensor<2x32xf32>
  %sums = linalg.generic {indexing_maps = [#all2, #row2], iterator_types = ["parallel", "reduction"]}
      ins(%squares : tensor<2x32xf32>) outs(%sums_zero : tensor<2xf32>) {
  ^bb0(%e: f32, %sum: f32):
    %next = arith.addf %sum, %e : f32
    linalg.yield %next : f32
  } -> tensor<2xf32>
  %scaled = linalg.generic {indexing_maps = [#all2, #row2, #column2, #all2], iterator_types = ["parallel", "parallel"]}
      ins(%x, %sums, %gain : tensor<2x32xf32>, tensor<2xf32>, tensor<32xf32>) outs(%init : tensor<2x32xf32>) {
  ^bb0(%e: f32, %sum: f32, %g: f32, %out: f32):
    %mean = arith.divf %sum, %width : f32
    %small = arith.truncf %epsilon : f64 to f32
    %shifted = arith.addf %mean, %small : f32
    %root = math.rsqrt %shifted : f32
    %normed = arith.mulf %e, %root : f32
    %result = arith.mulf %normed, %g : f32
    linalg.yield %result : f32
  } -> tensor<2x32xf32>
  return %scaled : tensor<2x32xf32>
}

// x * cos + concat(-x[8..], x[..8]) * sin, of two heads and of one.
func.func private @rotate_q(%x: tensor<2x2x1x16xf32>, %angles: tensor<16xf32>) -> tensor<2x2x1x16xf32> {
  %first = tensor.extract_slice %x[0, 0, 0, 0] [2, 2, 1, 8] [1, 1, 1, 1] : tensor<2x2x1x16xf32> to tensor<2x2x1x8xf32>
  %second = tensor.extract_slice %x[0, 0, 0, 8] [2, 2, 1, 8] [1, 1, 1, 1] : tensor<2x2x1x16xf32> to tensor<2x2x1x8xf32>
  %half = tensor.empty() : tensor<2x2x1x8xf32>
  %minus = linalg.generic {indexing_maps = [#all4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%second : tensor<2x2x1x8xf32>) outs(%half : tensor<2x2x1x8xf32>) {
  ^bb0(%e: f32, %out: f32):
    %negative = arith.negf %e : f32
    linalg.yield %negative : f32
  } -> tensor<2x2x1x8xf32>
  %swapped = tensor.concat dim(3) %minus, %first : (tensor<2x2x1x8xf32>, tensor<2x2x1x8xf32>) -> tensor<2x2x1x16xf32>
  %init = tensor.empty() : tensor<2x2x1x16xf32>
  %turned = linalg.generic {indexing_maps = [#all4, #all4, #angle4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%x, %swapped, %angles : tensor<2x2x1x16xf32>, tensor<2x2x1x16xf32>, tensor<16xf32>) outs(%init : tensor<2x2x1x16xf32>) {
  ^bb0(%e: f32, %partner: f32, %angle: f32, %out: f32):
    %cosine = math.cos %angle : f32
    %sine = math.sin %angle : f32
    %a = arith.mulf %e, %cosine : f32
    %b = arith.mulf %partner, %sine : f32
    %sum = arith.addf %a, %b : f32
    linalg.yield %sum : f32
  } -> tensor<2x2x1x16xf32>
  return %turned : tensor<2x2x1x16xf32>
}

func.func private @rotate_k(%x: tensor<2x1x1x16xf32>, %angles: tensor<16xf32>) -> tensor<2x1x1x16xf32> {
  %first = tensor.extract_slice %x[0, 0, 0, 0] [2, 1, 1, 8] [1, 1, 1, 1] : tensor<2x1x1x16xf32> to tensor<2x1x1x8xf32>
  %second = tensor.extract_slice %x[0, 0, 0, 8] [2, 1, 1, 8] [1, 1, 1, 1] : tensor<2x1x1x16xf32> to tensor<2x1x1x8xf32>
  %half = tensor.empty() : tensor<2x1x1x8xf32>
  %minus = linalg.generic {indexing_maps = [#all4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%second : tensor<2x1x1x8xf32>) outs(%half : tensor<2x1x1x8xf32>) {
  ^bb0(%e: f32, %out: f32):
    %negative = arith.negf %e : f32
    linalg.yield %negative : f32
  } -> tensor<2x1x1x8xf32>
  %swapped = tensor.concat dim(3) %minus, %first : (tensor<2x1x1x8xf32>, tensor<2x1x1x8xf32>) -> tensor<2x1x1x16xf32>
  %init = tensor.empty() : tensor<2x1x1x16xf32>
  %turned = linalg.generic {indexing_maps = [#all4, #all4, #angle4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%x, %swapped, %angles : tensor<2x1x1x16xf32>, tensor<2x1x1x16xf32>, tensor<16xf32>) outs(%init : tensor<2x1x1x16xf32>) {
  ^bb0(%e: f32, %partner: f32, %angle: f32, %out: f32):
    %cosine = math.cos %angle : f32
    %sine = math.sin %angle : f32
    %a = arith.mulf %e, %cosine : f32
    %b = arith.mulf %partner, %sine : f32
    %sum = arith.addf %a, %b : f32
    linalg.yield %sum : f32
  } -> tensor<2x1x1x16xf32>
  return %turned : tensor<2x1x1x16xf32>
}

// A token to a cache, where the capacity is the position.
func.func private @write(%position: tensor<1xi64>, %new: tensor<2x1x1x16xf32>, %old: tensor<2x1x32x16xf32>) -> tensor<2x1x32x16xf32> {
  %written = linalg.generic {indexing_maps = [#one4, #new4, #all4, #all4], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position, %new, %old : tensor<1xi64>, tensor<2x1x1x16xf32>, tensor<2x1x32x16xf32>) outs(%old : tensor<2x1x32x16xf32>) {
  ^bb0(%p: i64, %n: f32, %o: f32, %out: f32):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %n, %o : f32
    linalg.yield %value : f32
  } -> tensor<2x1x32x16xf32>
  return %written : tensor<2x1x32x16xf32>
}
