// Options that no session can have.

// RUN: not kvrm-opt %s --kvrm-page-cache=page=24 2>&1 | FileCheck %s --check-prefix=PAGE
// RUN: not kvrm-opt %s --kvrm-page-cache=page=0 2>&1 | FileCheck %s --check-prefix=ZERO
// RUN: not kvrm-opt %s --kvrm-page-cache=page=-16 2>&1 | FileCheck %s --check-prefix=NEGATIVE
// RUN: not kvrm-opt %s --kvrm-page-cache=page=many 2>&1 | FileCheck %s --check-prefix=MANY
// RUN: not kvrm-opt %s --kvrm-page-cache=transport=wagon 2>&1 | FileCheck %s --check-prefix=TRANSPORT
// RUN: not kvrm-opt %s --kvrm-page-cache=layout=spiral 2>&1 | FileCheck %s --check-prefix=LAYOUT
// RUN: not kvrm-opt %s --kvrm-page-cache=summaries=16 2>&1 | FileCheck %s --check-prefix=ALONE
// RUN: not kvrm-opt %s --kvrm-page-cache=window=24 2>&1 | FileCheck %s --check-prefix=WINDOW
// RUN: not kvrm-opt %s --kvrm-page-cache=window=-16 2>&1 | FileCheck %s --check-prefix=MINUS
// RUN: not kvrm-opt %s --kvrm-page-cache=window=64 2>&1 | FileCheck %s --check-prefix=WIDE
// RUN: not kvrm-opt %s --kvrm-page-cache="window=32 summaries=4112" 2>&1 | FileCheck %s --check-prefix=ENTRIES
// RUN: not kvrm-opt %s --kvrm-page-cache="window=32 summaries=20" 2>&1 | FileCheck %s --check-prefix=PARTS

// ALONE: error: there are summaries or sinks but no window
// WINDOW: error: cannot page the caches: far_history window of 24 is not whole pages of 16
// MINUS: error: cannot page the caches: window is -16, outside 1..16777216
// WIDE: error: window is 64, not less than the capacity 64
// ENTRIES: error: cannot page the caches: entries is 4112, outside 0..4096
// PARTS: error: cannot page the caches: far_history entries of 20 is not whole pages of 16
// PAGE: error: cannot page the caches: page is 24, not a power of two
// ZERO: error: cannot page the caches: page is 0, outside 1..256
// NEGATIVE: error: cannot page the caches: page is -16, outside 1..256
// MANY: 'many' value invalid for long argument
// TRANSPORT: error: transport is 'wagon', neither native nor staged
// LAYOUT: error: layout is 'spiral', none of token_major, transposed_keys and swizzled

func.func @step(%q: tensor<2x1x4x64xf32>, %k: tensor<2x1x2x64xf32>, %p: tensor<2xi32>, %kc: tensor<1x2x2x64x64xf16>, %vc: tensor<1x2x2x64x64xf16>)
    -> (tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>) attributes {kvrm.step} {
  %o, %o_k, %o_v = kvrm.cached_attention %q, %k, %k, %kc, %vc at %p {layer = 0 : i64, scale = 0.125 : f32}
      : tensor<2x1x4x64xf32>, tensor<2x1x2x64xf32>, tensor<1x2x2x64x64xf16>, tensor<2xi32>
  return %o, %o_k, %o_v : tensor<2x1x4x64xf32>, tensor<1x2x2x64x64xf16>, tensor<1x2x2x64x64xf16>
}
