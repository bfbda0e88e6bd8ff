// RUN: kvrm-opt %s --split-input-file --verify-diagnostics

func.func @of_other_elements(%logits: memref<3x203xf16>) {
  // expected-error @+1 {{operand #0 must be}}
  kvrm.sample %logits : memref<3x203xf16>
  return
}

// -----

func.func @of_other_rank(%logits: memref<203xf32>) {
  // expected-error @+1 {{operand #0 must be}}
  kvrm.sample %logits : memref<203xf32>
  return
}

// -----

func.func @dynamic(%logits: memref<?x203xf32>) {
  // expected-error @+1 {{logits must be contiguous and of static shape}}
  kvrm.sample %logits : memref<?x203xf32>
  return
}

// -----

func.func @strided(%logits: memref<3x203xf32, strided<[256, 1]>>) {
  // expected-error @+1 {{logits must be contiguous and of static shape}}
  kvrm.sample %logits : memref<3x203xf32, strided<[256, 1]>>
  return
}
