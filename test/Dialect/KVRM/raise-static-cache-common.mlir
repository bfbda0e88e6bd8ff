// One position for all rows becomes one for each. What has no rows is computed of
// each position and stacked; queries, which have rows, take each row's.

// RUN: kvrm-opt %s --kvrm-raise-static-cache=narrow=f16 | FileCheck %s

// A result with rows would be of the first row's position, were it raised.
// RUN: sed -e 's/  return %%output,/  %%sum = arith.addf %%output, %%turned : tensor<2x1x1x4xf32>\n  return %%sum,/' %s \
// RUN:   | kvrm-opt --kvrm-raise-static-cache=narrow=f16 2>&1 | FileCheck %s --check-prefix=RESULT
// RESULT: remark: not raised: the rows of the step share a position, and result 0 depends on it other than through attention
// RESULT: func.func @step(%{{.*}}: tensor<1xi64>, %{{.*}}: tensor<2x1x16x4xf32>, %{{.*}}: tensor<2x1x16x4xf32>)
// RESULT-NOT: kvrm.

// What a branch reads has no index op of its own.
// RUN: sed -e 's/%%product = arith.mulf %%x, %%cosine : f32/%%d = linalg.index 3 : index\n%%zero = arith.constant 0 : index\n%%first = arith.cmpi eq, %%d, %%zero : index\n%%either = scf.if %%first -> (f32) {\n%%read = tensor.extract %%cosines[%%d] : tensor<4xf32>\nscf.yield %%read : f32\n} else {\nscf.yield %%cosine : f32\n}\n%%product = arith.mulf %%x, %%either : f32/' %s \
// RUN:   | kvrm-opt --kvrm-raise-static-cache=narrow=f16 | FileCheck %s --check-prefix=BRANCH
// BRANCH: %[[ROW:.*]] = linalg.index 0 : index
// BRANCH: scf.if
// BRANCH-NEXT: tensor.extract %{{.*}}[%[[ROW]], %{{.*}}] : tensor<2x4xf32>
// BRANCH: kvrm.cached_attention

// A row that reads the front of a longer tensor reads what is computed at its
// own position: the tensor has no rows.
// RUN: sed -e 's/%%product = arith.mulf %%x, %%cosine : f32/%%b = linalg.index 0 : index\n%%read = tensor.extract %%cosines[%%b] : tensor<4xf32>\n%%product = arith.mulf %%x, %%read : f32/' %s \
// RUN:   | kvrm-opt --kvrm-raise-static-cache=narrow=f16 | FileCheck %s --check-prefix=LONGER
// LONGER: %[[ROW:.*]] = linalg.index 0 : index
// LONGER: tensor.extract %{{.*}}[%[[ROW]], %{{.*}}] : tensor<2x4xf32>
// LONGER: kvrm.cached_attention

#row = affine_map<(b, g, t, s) -> (0)>
#all = affine_map<(b, g, t, s) -> (b, g, t, s)>
#column = affine_map<(b, g, t, s) -> (s)>
#new = affine_map<(b, g, s, d) -> (b, g, 0, d)>

// CHECK-DAG: #[[ALL:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
// CHECK-DAG: #[[STACKED:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d3)>
// CHECK: func.func @step(%[[Q:.*]]: tensor<2x1x1x4xf32>, %{{.*}}: tensor<2x1x1x4xf32>, %{{.*}}: tensor<2x1x1x4xf32>, %[[POSITIONS:.*]]: tensor<2xi32>,
// CHECK-SAME: -> (tensor<2x1x1x4xf32>, tensor<1xi64>, tensor<1x2x1x16x4xf16>, tensor<1x2x1x16x4xf16>)
// CHECK: %[[SLICE_0:.*]] = tensor.extract_slice %[[POSITIONS]][0] [1] [1]
// CHECK: %[[FIRST:.*]] = linalg.generic {{.*}} ins(%[[SLICE_0]] : tensor<1xi32>)
// CHECK: %[[SLICE_1:.*]] = tensor.extract_slice %[[POSITIONS]][1] [1] [1]
// CHECK: %[[SECOND:.*]] = linalg.generic {{.*}} ins(%[[SLICE_1]] : tensor<1xi32>)
// CHECK-DAG: linalg.generic {{.*}} ins(%[[FIRST]] : tensor<1xi64>) outs({{.*}} : tensor<4xf32>)
// CHECK-DAG: linalg.generic {{.*}} ins(%[[SECOND]] : tensor<1xi64>) outs({{.*}} : tensor<4xf32>)
// CHECK: tensor.insert_slice {{.*}}[0, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
// CHECK: %[[COSINES:.*]] = tensor.insert_slice {{.*}}[1, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
// CHECK: linalg.generic {indexing_maps = [#[[ALL]], #[[STACKED]], #[[ALL]]]
// CHECK-SAME: ins(%[[Q]], %[[COSINES]] : tensor<2x1x1x4xf32>, tensor<2x4xf32>)
// CHECK: kvrm.cached_attention {{.*}} at %[[POSITIONS]]
// CHECK: return %{{.*}}, %[[FIRST]], %newKeyCache, %newValueCache

func.func @step(%q: tensor<2x1x1x4xf32>, %k: tensor<2x1x1x4xf32>, %v: tensor<2x1x1x4xf32>, %position: tensor<1xi64>, %keys: tensor<2x1x16x4xf32>, %values: tensor<2x1x16x4xf32>)
    -> (tensor<2x1x1x4xf32>, tensor<1xi64>, tensor<2x1x16x4xf32>, tensor<2x1x16x4xf32>) {
  %columns = tensor.empty() : tensor<4xf32>
  %cosines = linalg.generic {indexing_maps = [affine_map<(d) -> (0)>, affine_map<(d) -> (d)>], iterator_types = ["parallel"]}
      ins(%position : tensor<1xi64>) outs(%columns : tensor<4xf32>) {
  ^bb0(%p: i64, %out: f32):
    %angle = arith.sitofp %p : i64 to f32
    %cosine = math.cos %angle : f32
    linalg.yield %cosine : f32
  } -> tensor<4xf32>
  %init = tensor.empty() : tensor<2x1x1x4xf32>
  %turned = linalg.generic {indexing_maps = [#all, #column, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%q, %cosines : tensor<2x1x1x4xf32>, tensor<4xf32>) outs(%init : tensor<2x1x1x4xf32>) {
  ^bb0(%x: f32, %cosine: f32, %out: f32):
    %product = arith.mulf %x, %cosine : f32
    linalg.yield %product : f32
  } -> tensor<2x1x1x4xf32>
  %new_keys = linalg.generic {indexing_maps = [#row, #new, #all, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position, %k, %keys : tensor<1xi64>, tensor<2x1x1x4xf32>, tensor<2x1x16x4xf32>) outs(%keys : tensor<2x1x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<2x1x16x4xf32>
  %new_values = linalg.generic {indexing_maps = [#row, #new, #all, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position, %v, %values : tensor<1xi64>, tensor<2x1x1x4xf32>, tensor<2x1x16x4xf32>) outs(%values : tensor<2x1x16x4xf32>) {
  ^bb0(%p: i64, %new: f32, %old: f32, %out: f32):
    %s = linalg.index 2 : index
    %token = arith.index_cast %s : index to i64
    %here = arith.cmpi eq, %token, %p : i64
    %value = arith.select %here, %new, %old : f32
    linalg.yield %value : f32
  } -> tensor<2x1x16x4xf32>
  %mask_init = tensor.empty() : tensor<2x1x1x16xi1>
  %mask = linalg.generic {indexing_maps = [#row, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%position : tensor<1xi64>) outs(%mask_init : tensor<2x1x1x16xi1>) {
  ^bb0(%p: i64, %out: i1):
    %s = linalg.index 3 : index
    %token = arith.index_cast %s : index to i64
    %seen = arith.cmpi sle, %token, %p : i64
    linalg.yield %seen : i1
  } -> tensor<2x1x1x16xi1>
  %output = "tm_tensor.attention"(%turned, %new_keys, %new_values, %mask, %init) <{operandSegmentSizes = array<i32: 4, 1>}>
      : (tensor<2x1x1x4xf32>, tensor<2x1x16x4xf32>, tensor<2x1x16x4xf32>, tensor<2x1x1x16xi1>, tensor<2x1x1x4xf32>) -> tensor<2x1x1x4xf32>
  return %output, %position, %new_keys, %new_values : tensor<2x1x1x4xf32>, tensor<1xi64>, tensor<2x1x16x4xf32>, tensor<2x1x16x4xf32>
}
