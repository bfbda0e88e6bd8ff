// RUN: kvrm-opt %s -split-input-file -verify-diagnostics

// expected-error@+1 {{'ml_program.global' op is a weight of 40 rows in blocks of q4_0, panels of 16, which is not 'tensor<3x8x320xi8>' but 3xkx288xi8}}
ml_program.global private @other_format(#ml_program.extern : tensor<3x8x320xi8>) : tensor<3x8x320xi8>
    {kvrm.weight = #kvrm.weight<blocks, offset = 0, panel = 16, rows = 40, block = <q4_0>>}

// -----

// expected-error@+1 {{but 3xkx288xi8}}
ml_program.global private @few_panels(#ml_program.extern : tensor<2x8x288xi8>) : tensor<2x8x288xi8>
    {kvrm.weight = #kvrm.weight<blocks, offset = 0, panel = 16, rows = 40, block = <q4_0>>}

// -----

ml_program.global private @no_format(#ml_program.extern : tensor<3x8x288xi8>) : tensor<3x8x288xi8>
    // expected-error@+1 {{blocks have a block format, and nothing else has}}
    {kvrm.weight = #kvrm.weight<blocks, offset = 0, panel = 16, rows = 40>}

// -----

func.func @uneven(%w: tensor<4x2x!kvrm.block<q4_k>>) {
  // expected-error@+1 {{op gives 'tensor<4x500xf32>' of 'tensor<4x2x!kvrm.block<q4_k>>', whose blocks hold 256}}
  %0 = kvrm.dequantize %w : tensor<4x2x!kvrm.block<q4_k>> to tensor<4x500xf32>
  return
}

// -----

func.func @rows(%w: tensor<4x2x!kvrm.block<q8_0>>) {
  // expected-error@+1 {{whose blocks hold 32}}
  %0 = kvrm.dequantize %w : tensor<4x2x!kvrm.block<q8_0>> to tensor<5x64xf32>
  return
}

// -----

func.func @dynamic(%w: tensor<?x2x!kvrm.block<q8_0>>) {
  // expected-error@+1 {{takes and gives matrices of a static, positive shape}}
  %0 = kvrm.dequantize %w : tensor<?x2x!kvrm.block<q8_0>> to tensor<?x64xf32>
  return
}

// -----

func.func @depth(%x: memref<2x40xf32>, %y: memref<2x1x48xi8>) {
  // expected-error@+1 {{input has 40 columns, not a multiple of 32}}
  kvrm.quantize_rows ins(%x : memref<2x40xf32>) outs(%y : memref<2x1x48xi8>)
  return
}

// -----

func.func @records(%x: memref<2x64xf32>, %y: memref<2x2x44xi8>) {
  // expected-error@+1 {{output is 'memref<2x2x44xi8>', expected [rows, 2, 48] of the rows of 'memref<2x64xf32>'}}
  kvrm.quantize_rows ins(%x : memref<2x64xf32>) outs(%y : memref<2x2x44xi8>)
  return
}

// -----

func.func @strided(%x: memref<2x64xf32, strided<[128, 2]>>, %y: memref<2x2x48xi8>) {
  // expected-error@+1 {{not contiguous in its last dimension}}
  kvrm.quantize_rows ins(%x : memref<2x64xf32, strided<[128, 2]>>) outs(%y : memref<2x2x48xi8>)
  return
}

// -----

func.func @deep(%x: memref<2x64xf32>, %w: memref<1x3x288xi8>, %y: memref<2x16xf32>) {
  // expected-error@+1 {{input is 64 deep, weight 3 blocks of 32}}
  kvrm.block_product <q4_0> ins(%x, %w : memref<2x64xf32>, memref<1x3x288xi8>) outs(%y : memref<2x16xf32>) panel 16
  return
}

// -----

func.func @record(%x: memref<2x64xf32>, %w: memref<1x2x320xi8>, %y: memref<2x16xf32>) {
  // expected-error@+1 {{weight has records of 320 bytes, which are not those of q4_0 in panels of 16}}
  kvrm.block_product <q4_0> ins(%x, %w : memref<2x64xf32>, memref<1x2x320xi8>) outs(%y : memref<2x16xf32>) panel 16
  return
}

// -----

func.func @codes(%x: memref<2x2x44xi8>, %w: memref<1x2x288xi8>, %y: memref<2x16xf32>) {
  // expected-error@+1 {{input has records of 44 bytes, expected 48}}
  kvrm.block_product <q4_0> ins(%x, %w : memref<2x2x44xi8>, memref<1x2x288xi8>) outs(%y : memref<2x16xf32>) panel 16
  return
}

// -----

func.func @columns(%x: memref<2x64xf32>, %w: memref<2x2x288xi8>, %y: memref<2x16xf32>) {
  // expected-error@+1 {{output has 16 columns, weight 2 panels of 16}}
  kvrm.block_product <q4_0> ins(%x, %w : memref<2x64xf32>, memref<2x2x288xi8>) outs(%y : memref<2x16xf32>) panel 16
  return
}

// -----

func.func @output_rows(%x: memref<2x64xf32>, %w: memref<1x2x288xi8>, %y: memref<3x16xf32>) {
  // expected-error@+1 {{input has 2 rows, output 3}}
  kvrm.block_product <q4_0> ins(%x, %w : memref<2x64xf32>, memref<1x2x288xi8>) outs(%y : memref<3x16xf32>) panel 16
  return
}

// -----

func.func @blocks_dynamic(%x: memref<2x64xf32>, %w: memref<1x?x288xi8>, %y: memref<2x16xf32>) {
  // expected-error@+1 {{weight must have a positive shape [panels, blocks, record], static but for dimension 0}}
  kvrm.block_product <q4_0> ins(%x, %w : memref<2x64xf32>, memref<1x?x288xi8>) outs(%y : memref<2x16xf32>) panel 16
  return
}

// -----

func.func @records_of_linear(%x: tensor<2x64xf16>, %w: tensor<3x2x145xi8>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{weight has 3 x 2 records of 145 bytes, which are not those of 24 rows in q4_0}}
  %r = kvrm.linear ins(%x, %w : tensor<2x64xf16>, tensor<3x2x145xi8>) block <q4_0> outs(%y : tensor<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<2x24xf32>
  return
}

// -----

func.func @panels_of_linear(%x: tensor<2x64xf16>, %w: tensor<2x2x144xi8>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{weight has 2 x 2 records of 144 bytes, which are not those of 24 rows in q4_0}}
  %r = kvrm.linear ins(%x, %w : tensor<2x64xf16>, tensor<2x2x144xi8>) block <q4_0> outs(%y : tensor<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<2x24xf32>
  return
}

// -----

func.func @depth_of_linear(%x: tensor<2x96xf16>, %w: tensor<3x2x144xi8>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{input has 96 columns, weight 2 blocks of 32}}
  %r = kvrm.linear ins(%x, %w : tensor<2x96xf16>, tensor<3x2x144xi8>) block <q4_0> outs(%y : tensor<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<2x24xf32>
  return
}

// -----

func.func @bytes_without_format(%x: tensor<2x64xf16>, %w: tensor<24x64xi8>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{weight is of bytes, and in no block format}}
  %r = kvrm.linear ins(%x, %w : tensor<2x64xf16>, tensor<24x64xi8>) outs(%y : tensor<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<2x24xf32>
  return
}

// -----

func.func @elements_in_blocks(%x: tensor<2x64xf16>, %w: tensor<3x2x144xf16>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{weight in blocks is of 'f16', expected bytes, i8}}
  %r = kvrm.linear ins(%x, %w : tensor<2x64xf16>, tensor<3x2x144xf16>) block <q4_0> outs(%y : tensor<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<2x24xf32>
  return
}

// -----

func.func @norm_in_blocks(%x: tensor<2x64xf32>, %w: tensor<3x2x144xi8>, %g: tensor<64xf32>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{has a norm, which rounds to f32, f16 or bf16 and not to 'i8'}}
  %r = kvrm.linear ins(%x, %w : tensor<2x64xf32>, tensor<3x2x144xi8>) block <q4_0> norm(%g : tensor<64xf32>) epsilon 1.0e-5 outs(%y : tensor<2x24xf32>) {
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  } -> tensor<2x24xf32>
  return
}

// -----

func.func @rounding_without_norm(%x: tensor<2x64xf16>, %w: tensor<3x2x144xi8>, %y: tensor<2x24xf32>) {
  // expected-error@+1 {{says what a norm rounds to, and has none}}
  %r = "kvrm.linear"(%x, %w, %y) <{format = #kvrm.block_format<q4_0>, normElement = f16, operandSegmentSizes = array<i32: 1, 1, 0, 0, 1>}> ({
  ^bb0(%sum: f32):
    kvrm.yield %sum : f32
  }) : (tensor<2x64xf16>, tensor<3x2x144xi8>, tensor<2x24xf32>) -> tensor<2x24xf32>
  return
}

// -----

func.func @unpacked_depth(%w: memref<3x2x144xi8>, %y: memref<24x32xf16>) {
  // expected-error@+1 {{output has 32 columns, weight 2 blocks of 32}}
  kvrm.unpack_blocks <q4_0> ins(%w : memref<3x2x144xi8>) outs(%y : memref<24x32xf16>)
  return
}

// -----

func.func @unpacked_to_f32(%w: memref<3x2x144xi8>, %y: memref<24x64xf32>) {
  // expected-error@+1 {{operand #1 must be}}
  kvrm.unpack_blocks <q4_0> ins(%w : memref<3x2x144xi8>) outs(%y : memref<24x64xf32>)
  return
}
