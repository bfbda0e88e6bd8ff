// RUN: kvrm-opt %s --split-input-file --verify-diagnostics --kvrm-lower-kernels-to-nvvm --kvrm-lower-dense-to-nvvm

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @on_tensors(%session: !session, %x: tensor<2x8xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  // expected-error @+1 {{is not on buffers; run kvrm-bufferize-step first}}
  %y = linalg.fill ins(%zero : f32) outs(%x : tensor<2x8xf32>) -> tensor<2x8xf32>
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @not_static(%session: !session, %x: memref<?x8xf32>) attributes {kvrm.step} {
  %zero = arith.constant 0.0 : f32
  // expected-error @+1 {{in a step must have static loops}}
  linalg.fill ins(%zero : f32) outs(%x : memref<?x8xf32>)
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @not_constant(%session: !session, %value: f32, %x: memref<2x8xf32>) attributes {kvrm.step} {
  // expected-error @+1 {{uses a value that is neither a buffer nor a constant}}
  linalg.fill ins(%value : f32) outs(%x : memref<2x8xf32>)
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

// Threads would write one element at once.
func.func @one_element_twice(%session: !session, %x: memref<2x8xf32>, %y: memref<2xf32>) attributes {kvrm.step} {
  // expected-error @+1 {{writes an element in several parallel iterations, or one of a reduction's own}}
  linalg.generic {indexing_maps = [affine_map<(d0, d1) -> (d0, d1)>, affine_map<(d0, d1) -> (d0)>], iterator_types = ["parallel", "parallel"]} ins(%x : memref<2x8xf32>) outs(%y : memref<2xf32>) {
  ^bb0(%in: f32, %out: f32):
    linalg.yield %in : f32
  }
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @decode(%session: !session, %logits: memref<2x203xf32>) attributes {kvrm.step} {
  kvrm.sample %logits : memref<2x203xf32>
  return
}

func.func @prefill(%session: !session, %logits: memref<1x204xf32>) attributes {kvrm.step} {
  // expected-error @+1 {{chooses from 204 logits, and another from 203}}
  kvrm.sample %logits : memref<1x204xf32>
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @norm_in_f32(%session: !session, %x: memref<2x64xf32>, %w: memref<64x64xf32>, %g: memref<64xf32>, %y: memref<2x64xf32>) attributes {kvrm.step} {
  // expected-error @+1 {{has a norm and is no product for matrix units; run kvrm-split-products first}}
  kvrm.linear ins(%x, %w : memref<2x64xf32>, memref<64x64xf32>) norm(%g : memref<64xf32>) epsilon 1.0e-5 outs(%y : memref<2x64xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 128, page = 16, element = f16, layout = swizzled>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>

kvrm.kernel @append heads 2 io f16 tile <q = 1, kv = 16> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}

func.func @projection_in_f32(%session: !session, %x: memref<2x64xf32>, %w: memref<512x64xf32>, %c: memref<2x64xf32>, %q: memref<2x256xf16>, %k: memref<2x128xf16>, %v: memref<2x128xf16>) attributes {kvrm.step} {
  // expected-error @+1 {{is no product for matrix units; run kvrm-split-products first}}
  kvrm.qkv_projection ins(%x, %w : memref<2x64xf32>, memref<512x64xf32>) rotation(%c, %c : memref<2x64xf32>, memref<2x64xf32>) outs(%q, %k, %v : memref<2x256xf16>, memref<2x128xf16>, memref<2x128xf16>)
  return
}
