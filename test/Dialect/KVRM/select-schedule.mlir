// RUN: kvrm-opt %s --kvrm-select-schedule | FileCheck %s --check-prefixes=CHECK,AUTO
// RUN: kvrm-opt %s --kvrm-select-schedule="schedule=rows" | FileCheck %s --check-prefixes=CHECK,ROWS
// RUN: kvrm-opt %s --kvrm-select-schedule="schedule=split splits=8 kv-tile=32" | FileCheck %s --check-prefixes=CHECK,SPLIT
// RUN: kvrm-opt %s --kvrm-select-schedule="kv-tile=8 max-query-rows=1" | FileCheck %s --check-prefixes=CHECK,SMALL
// RUN: kvrm-opt %s --kvrm-select-schedule="schedule=cluster blocks=8" | FileCheck %s --check-prefixes=CHECK,CLUSTER
// RUN: kvrm-opt %s --kvrm-select-schedule="max-query-rows=4 prompt-warps=6 prompt-blocks=4" | FileCheck %s --check-prefixes=CHECK,SHARED
// RUN: kvrm-opt %s --kvrm-select-schedule="max-query-rows=4 prompt-warps=6 prompt-blocks=5" | FileCheck %s --check-prefixes=CHECK,FEWER
// RUN: kvrm-opt %s --kvrm-select-schedule="max-query-rows=4 prompt-warps=3 prompt-blocks=1" | FileCheck %s --check-prefixes=CHECK,FEWER
// RUN: not kvrm-opt %s --kvrm-select-schedule=prompt-warps=9 2>&1 | FileCheck %s --check-prefix=WARPS
// RUN: not kvrm-opt %s --kvrm-select-schedule=blocks=3 2>&1 | FileCheck %s --check-prefix=BLOCKS
// RUN: not kvrm-opt %s --kvrm-select-schedule=blocks=16 2>&1 | FileCheck %s --check-prefix=BLOCKS
// RUN: not kvrm-opt %s --kvrm-select-schedule=schedule=random 2>&1 | FileCheck %s --check-prefix=RANDOM
// RUN: not kvrm-opt %s --kvrm-select-schedule=kv-tile=48 2>&1 | FileCheck %s --check-prefix=TILE
// RUN: not kvrm-opt %s --kvrm-select-schedule=kv-tile=-64 2>&1 | FileCheck %s --check-prefix=NEGATIVE
// RUN: not kvrm-opt %s --kvrm-select-schedule=splits=0 2>&1 | FileCheck %s --check-prefix=SPLITS
// RUN: not kvrm-opt %s --kvrm-select-schedule=splits=65 2>&1 | FileCheck %s --check-prefix=SPLITS

// RANDOM: error: schedule is 'random', none of auto, rows, split, workqueue and cluster
// TILE: error: kv-tile is 48, not a power of two
// NEGATIVE: error: kv-tile is -64, not a power of two
// BLOCKS: error: blocks is {{3|16}}, not a power of two up to 8
// WARPS: error: prompt-warps is 9, outside 1..8
// SPLITS: error: splits is {{0|65}}, outside 1..64

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
!chunk = !kvrm.descriptor<rows = 1, queries = 16, pages = 4>

// One query token a row is decode, whose rows are ragged.

// CHECK-LABEL: func.func @decode
// AUTO: kvrm.attend {{.*}} schedule = #kvrm.schedule<workqueue>, tile = #kvrm.tile<q = 1, kv = 64>
// ROWS: kvrm.attend {{.*}} schedule = #kvrm.schedule<rows>, tile = #kvrm.tile<q = 1, kv = 64>
// SPLIT: kvrm.attend {{.*}} schedule = #kvrm.schedule<split, splits = 8>, tile = #kvrm.tile<q = 1, kv = 32>
// CLUSTER: kvrm.attend {{.*}} schedule = #kvrm.schedule<cluster, blocks = 8>, tile = #kvrm.tile<q = 1, kv = 64>
// A tile is at least a page, and one token's query rows whatever they are.
// SMALL: kvrm.attend {{.*}} tile = #kvrm.tile<q = 1, kv = 16>
func.func @decode(%q: tensor<2x1x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !desc
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32} : tensor<2x1x4x64xf32>, !session, !desc
  return
}

// Several are prefill. Two heads a group: 12 query rows are 6 tokens, and the
// largest divisor of 16 below that is 4.

// CHECK-LABEL: func.func @prefill
// AUTO: kvrm.attend {{.*}} schedule = #kvrm.schedule<rows>, tile = #kvrm.tile<q = 4, kv = 64>
// ROWS: kvrm.attend {{.*}} schedule = #kvrm.schedule<rows>, tile = #kvrm.tile<q = 4, kv = 64>
// SPLIT: kvrm.attend {{.*}} schedule = #kvrm.schedule<split, splits = 8>, tile = #kvrm.tile<q = 4, kv = 32>
// SMALL: kvrm.attend {{.*}} schedule = #kvrm.schedule<rows>, tile = #kvrm.tile<q = 1, kv = 16>
// Four warps with 4 of 16 rows each: two tiles of 8 tokens for each of two KV
// heads. If these are too few, or warps are, two warps have tiles of 4.
// SHARED: kvrm.attend {{.*}} tile = #kvrm.tile<q = 8, kv = 64>
// FEWER: kvrm.attend {{.*}} tile = #kvrm.tile<q = 4, kv = 64>
func.func @prefill(%q: tensor<1x16x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !chunk
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !chunk
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<1x16x4x64xf32>, !session, !chunk
  return
}

// A choice that was made stands.

// CHECK-LABEL: func.func @chosen
// CHECK: kvrm.attend {{.*}} schedule = #kvrm.schedule<split, splits = 2>, tile = #kvrm.tile<q = 2, kv = 128>
func.func @chosen(%q: tensor<1x16x4x64xf32>, %s: !session) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !chunk
  %g = kvrm.stage %s, %d {transport = #kvrm.transport<native>} : !session, !chunk
  %o = kvrm.attend %q, %g of %s at %d {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 2, kv = 128>,
      schedule = #kvrm.schedule<split, splits = 2>} : tensor<1x16x4x64xf32>, !session, !chunk
  return
}
