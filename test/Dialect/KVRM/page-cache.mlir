// RUN: kvrm-opt %s --kvrm-page-cache | FileCheck %s
// RUN: kvrm-opt %s --kvrm-page-cache="page=32 transport=staged layout=swizzled" | FileCheck %s --check-prefix=OPTIONS
// RUN: kvrm-opt %s --kvrm-page-cache | kvrm-opt --kvrm-page-cache | FileCheck %s

// The capacity of 60 tokens takes 4 pages of 16, and 2 of 32.

// CHECK-DAG: !descriptor = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
// CHECK-DAG: !descriptor1 = !kvrm.descriptor<rows = 1, queries = 8, pages = 4>
// CHECK-DAG: !session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
// OPTIONS-DAG: !descriptor = !kvrm.descriptor<rows = 2, queries = 1, pages = 2>
// OPTIONS-DAG: !session = !kvrm.session<slots = 2, pages = 2, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 32, element = f16, layout = swizzled>>
// OPTIONS: kvrm.stage {{.*}} {transport = #kvrm.transport<staged>}

// The caches and the positions leave the signature, the session comes last.
// What else the arguments and results carry stays with them. The dense part is
// untouched.

// CHECK-LABEL: func.func @decode_step(
// CHECK-SAME: %[[Q:[a-z0-9]+]]: tensor<2x1x4x64xf32> {test.query},
// CHECK-SAME: %[[K:[a-z0-9]+]]: tensor<2x1x2x64xf32>,
// CHECK-SAME: %[[S:[a-z0-9]+]]: !session)
// CHECK-SAME: -> (tensor<2x1x4x64xf32> {test.output}, tensor<2xi32>) attributes {kvrm.step} {
// CHECK-NEXT: %[[D:.*]] = kvrm.commit %[[S]] : !session -> !descriptor
// CHECK-NEXT: %[[P:.*]] = kvrm.positions %[[D]] : !descriptor -> tensor<2xi32>
// CHECK-NEXT: %[[G0:.*]] = kvrm.stage %[[S]], %[[D]] {transport = #kvrm.transport<native>}
// CHECK-NEXT: kvrm.append %[[K]], %[[K]] to %[[S]] at %[[D]] {layer = 0 : i64}
// CHECK-NEXT: %[[O0:.*]] = kvrm.attend %[[Q]], %[[G0]] of %[[S]] at %[[D]] {layer = 0 : i64, scale = 1.250000e-01 : f32}
// CHECK-NEXT: %[[DENSE:.*]] = linalg.negf ins(%[[O0]] :
// CHECK-NEXT: %[[G1:.*]] = kvrm.stage
// CHECK-NEXT: kvrm.append %[[K]], %[[K]] to %[[S]] at %[[D]] {layer = 1 : i64}
// CHECK-NEXT: %[[O1:.*]] = kvrm.attend %[[DENSE]], %[[G1]] of %[[S]] at %[[D]] {layer = 1 : i64
// CHECK-NEXT: return %[[O1]], %[[P]]
func.func @decode_step(%q: tensor<2x1x4x64xf32> {test.query}, %k: tensor<2x1x2x64xf32>, %positions: tensor<2xi32>,
                       %keys: tensor<2x2x2x60x64xf16> {test.keys}, %values: tensor<2x2x2x60x64xf16>)
    -> (tensor<2x1x4x64xf32> {test.output}, tensor<2x2x2x60x64xf16> {test.keys}, tensor<2x2x2x60x64xf16>,
        tensor<2xi32>) attributes {kvrm.step} {
  %o, %keys1, %values1 = kvrm.cached_attention %q, %k, %k, %keys, %values at %positions
      {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x60x64xf16>, tensor<2xi32>
  %dense = linalg.negf ins(%o : tensor<2x1x4x64xf32>) outs(%q : tensor<2x1x4x64xf32>) -> tensor<2x1x4x64xf32>
  %o1, %keys2, %values2 = kvrm.cached_attention %dense, %k, %k, %keys1, %values1 at %positions
      {layer = 1 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x60x64xf16>, tensor<2xi32>
  return %o1, %keys2, %values2, %positions
      : tensor<2x1x4x64xf32>, tensor<2x2x2x60x64xf16>, tensor<2x2x2x60x64xf16>, tensor<2xi32>
}

// Another entry point of the same session: the descriptor knows the slots, and
// the counts come from it.

// CHECK-LABEL: func.func @prefill(
// CHECK-SAME: %[[Q:[a-z0-9]+]]: tensor<1x8x4x64xf32>, %[[K:[a-z0-9]+]]: tensor<1x8x2x64xf32>, %[[S:[a-z0-9]+]]: !session)
// CHECK-SAME: -> (tensor<1x8x4x64xf32>, tensor<1xi32>)
// CHECK-NEXT: %[[D:.*]] = kvrm.commit %[[S]] : !session -> !descriptor1
// CHECK-DAG: %[[N:.*]] = kvrm.counts %[[D]] : !descriptor1 -> tensor<1xi32>
// CHECK-DAG: kvrm.positions %[[D]] : !descriptor1 -> tensor<1xi32>
// CHECK: return %{{.*}}, %[[N]]
func.func @prefill(%q: tensor<1x8x4x64xf32>, %k: tensor<1x8x2x64xf32>, %positions: tensor<1xi32>,
                   %counts: tensor<1xi32>, %slots: tensor<1xi32>,
                   %keys: tensor<2x2x2x60x64xf16>, %values: tensor<2x2x2x60x64xf16>)
    -> (tensor<2x2x2x60x64xf16>, tensor<1x8x4x64xf32>, tensor<1xi32>, tensor<2x2x2x60x64xf16>)
    attributes {kvrm.step} {
  %o, %keys1, %values1 = kvrm.cached_attention %q, %k, %k, %keys, %values at %positions
      count %counts : tensor<1xi32> slot %slots : tensor<1xi32> {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x8x4x64xf32>, tensor<1x8x2x64xf32>, tensor<2x2x2x60x64xf16>, tensor<1xi32>
  return %values1, %o, %counts, %keys1
      : tensor<2x2x2x60x64xf16>, tensor<1x8x4x64xf32>, tensor<1xi32>, tensor<2x2x2x60x64xf16>
}

// What is no step is left alone, and so is a step without a cache.

// CHECK-LABEL: func.func @no_step
// CHECK: kvrm.cached_attention
func.func @no_step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %positions: tensor<2xi32>,
                   %keys: tensor<2x2x2x60x64xf16>) -> tensor<2x1x4x64xf32> {
  %o, %keys1, %values1 = kvrm.cached_attention %q, %k, %k, %keys, %keys at %positions
      {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<2x2x2x60x64xf16>, tensor<2xi32>
  return %o : tensor<2x1x4x64xf32>
}

// CHECK-LABEL: func.func @no_cache(
// CHECK-SAME: tensor<1xf32>) -> tensor<1xf32> attributes {kvrm.step}
func.func @no_cache(%x: tensor<1xf32>) -> tensor<1xf32> attributes {kvrm.step} {
  return %x : tensor<1xf32>
}
