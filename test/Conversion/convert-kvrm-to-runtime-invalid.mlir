// RUN: kvrm-opt %s --convert-kvrm-to-runtime -split-input-file -verify-diagnostics

// expected-error@+1 {{argument 0 has no role that the runtime knows; run kvrm-bufferize-step first}}
func.func @step(%x: memref<2x1xi32>) attributes {kvrm.step} {
  return
}

// -----

func.func @step(%x: memref<2x4xf32> {kvrm.argument = #kvrm.argument<logits>}) attributes {kvrm.step} {
  // expected-error@+1 {{'linalg.exp' op is left in a step and has no counterpart in the runtime}}
  linalg.exp ins(%x : memref<2x4xf32>) outs(%x : memref<2x4xf32>)
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
kvrm.kernel @append heads 2 io f32 tile <q = 1, kv = 64> transport <native> on !session at !desc {
  kvrm.append_rows
  kvrm.return
}
func.func @step(%s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  %k = memref.alloc() : memref<2x1x2x64xf32>
  // expected-error@+1 {{'kvrm.launch' op runs a kernel that is not lowered for a target}}
  kvrm.launch @append(%s, %d) ins(%k, %k : memref<2x1x2x64xf32>, memref<2x1x2x64xf32>) {layer = 0 : i64} : !session, !desc
  return
}

// -----

// expected-error@+1 {{a symbol 'kvrm_step' exists already}}
func.func @step() attributes {kvrm.step} {
  return
}
func.func private @kvrm_step()

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
func.func @step(%s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  // expected-error@+1 {{'kvrm.positions' op is not on buffers; run kvrm-bufferize-step first}}
  %p = kvrm.positions %d : !desc -> tensor<2xi32>
  return
}

// -----

func.func @step(%n: memref<2xi32> {kvrm.argument = #kvrm.argument<logits>}) attributes {kvrm.step} {
  %size = arith.constant 4 : index
  // expected-error@+1 {{a buffer of a step must be static and contiguous, got 'memref<?xf32>'}}
  %x = memref.alloc(%size) : memref<?xf32>
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
// expected-error@+1 {{'func.func' op argument 0 is tokens of 'memref<2x2xi32>' for '!kvrm.descriptor<rows = 2, queries = 1, pages = 4>'}}
func.func @step(%t: memref<2x2xi32> {kvrm.argument = #kvrm.argument<tokens>}, %s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  return
}

// -----

!session = !kvrm.session<slots = 2, pages = 4, pool = <layers = 2, kv_heads = 2, head_dim = 64, page = 16, element = f16, layout = transposed_keys>>
!desc = !kvrm.descriptor<rows = 2, queries = 1, pages = 4>
// expected-error@+1 {{'func.func' op argument 1 is tokens of a batch that the step has not; it has 1}}
func.func @step(%t: memref<2x1xi32> {kvrm.argument = #kvrm.argument<tokens>}, %u: memref<1x8xi32> {kvrm.argument = #kvrm.argument<tokens>}, %s: !session {kvrm.argument = #kvrm.argument<session>}) attributes {kvrm.step} {
  %d = kvrm.commit %s : !session -> !desc
  return
}
