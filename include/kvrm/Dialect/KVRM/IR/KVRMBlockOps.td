//===- KVRMBlockOps.td - Weights in blocks of codes --------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Included by KVRMOps.td, whose classes it uses.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_BLOCK_OPS_TD
#define KVRM_BLOCK_OPS_TD

def KVRM_BlockTensor : RankedTensorOf<[KVRM_BlockType]>;
def KVRM_F32Tensor : RankedTensorOf<[F32]>;
def KVRM_I8Tensor : RankedTensorOf<[I8]>;
def KVRM_I8Shaped : AnyTypeOf<[RankedTensorOf<[I8]>, MemRefOf<[I8]>]>;
def KVRM_MatrixUnitShaped : AnyTypeOf<[RankedTensorOf<[F16, BF16]>,
                                       MemRefOf<[F16, BF16]>]>;
def KVRM_BlockInput : AnyTypeOf<[KVRM_F32Shaped, KVRM_I8Shaped]>;

def KVRM_DequantizeOp : KVRM_Op<"dequantize", [Pure]> {
  let summary = "the values of a matrix in blocks";
  let description = [{
    `result[n, k]` is the value of element `k % E` of block `[n, k / E]`, where
    E is what a block of the format holds: 32, 128 or 256. In exact arithmetic,
    rounded once where a minimum is added, and once more to an element that is
    not f32, to nearest even.

    Shapes: blocks `[N, K / E]`, result `[N, K]` in f32, f16 or bf16, static and
    positive. A weight in blocks is a matrix of products, which read it as the
    transposed right-hand side of `linalg.matmul` or as the weight of a form, or
    a table, of which `tensor.extract` reads elements; `kvrm-pack-weights` says
    which code does so. The values of a whole matrix are in memory only where a
    library multiplies with them, which are then not f32 (`kvrm.unpack_blocks`).

    Example:

    ```mlir
    %w = ml_program.global_load_const @wq : tensor<960x18x!kvrm.block<q4_1>>
    %f = kvrm.dequantize %w
        : tensor<960x18x!kvrm.block<q4_1>> to tensor<960x576xf32>
    ```
  }];
  let arguments = (ins KVRM_BlockTensor:$blocks);
  let results = (outs KVRM_ActivationTensor:$result);
  let assemblyFormat = [{
    $blocks attr-dict `:` type($blocks) `to` type($result)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    BlockFormat getFormat() {
      return ::llvm::cast<BlockType>(getBlocks().getType().getElementType())
          .getFormat();
    }
  }];
}

def KVRM_UnpackBlocksOp : KVRM_FormOp<"unpack_blocks"> {
  let summary = "the values of a weight that is stored as blocks";
  let description = [{
    `output[n, k]` is what `kvrm.dequantize` gives of the blocks that the
    records have. For a library, which multiplies matrices of elements.

    Shapes: weight `[ceil(N / panel)][K / E][record]` in i8, records of a
    package as `kvrm/runtime/abi/block_format.h` describes them, output `[N, K]` in
    f16 or bf16; static and positive. Buffers are as for `kvrm.linear`.

    Example:

    ```mlir
    %w = kvrm.unpack_blocks <q4_0> ins(%r : tensor<120x18x144xi8>)
        outs(%init : tensor<960x576xf16>) -> tensor<960x576xf16>
    ```
  }];
  let arguments = (ins KVRM_BlockFormatAttr:$format, KVRM_I8Shaped:$weight,
                       KVRM_MatrixUnitShaped:$output);
  let results = (outs Optional<KVRM_ActivationTensor>:$result);
  let assemblyFormat = [{
    $format `ins` `(` $weight `:` type($weight) `)`
    `outs` `(` $output `:` type($output) `)` attr-dict (`->` type($result)^)?
  }];
  let extraClassDeclaration = initsDeclaration;
}

def KVRM_QuantizeRowsOp : KVRM_FormOp<"quantize_rows"> {
  let summary = "activations as codes of eight bits";
  let description = [{
    Cuts rows of activations into stretches of 32 and writes a record of each,
    an `ActivationRecord` of `kvrm/runtime/abi/block_format.h`: with `s` the largest
    magnitude of the stretch over 127, the codes `round(x / s)`, ties to even,
    then `s` and sums of codes times `s`. A value that is not finite makes `s`
    so, too. Below 1e-30 all codes are 0.

    Shapes: input `[M, K]` in f32, output `[M, K / 32, 48]` in i8, positive, and
    static but perhaps for M, of a share of rows. Buffers are as for
    `kvrm.linear`.

    Example:

    ```mlir
    %q = kvrm.quantize_rows ins(%x : tensor<8x576xf32>)
        outs(%init : tensor<8x18x48xi8>) -> tensor<8x18x48xi8>
    ```
  }];
  let arguments = (ins KVRM_F32Shaped:$input, KVRM_I8Shaped:$output);
  let results = (outs Optional<KVRM_I8Tensor>:$result);
  let assemblyFormat = [{
    `ins` `(` $input `:` type($input) `)` `outs` `(` $output `:` type($output)
    `)` attr-dict (`->` type($result)^)?
  }];
  let extraClassDeclaration = initsDeclaration # [{
    /// K / 32.
    int64_t getStretches() {
      return ::llvm::cast<::mlir::ShapedType>(getOutput().getType())
          .getDimSize(1);
    }
  }];
}

def KVRM_BlockProductOp : KVRM_FormOp<"block_product"> {
  let summary = "a product with a weight that is stored as blocks";
  let description = [{
    `output[m, n] += sum over k of input[m, k] * value of weight[n, k]`

    The weight is a package's: `[ceil(N / panel)][K / E][record]` bytes, records
    of `panel` rows as `kvrm/runtime/abi/block_format.h` describes them. The input is
    f32 `[M, K]`, and products are of f32; or it is what `kvrm.quantize_rows`
    makes of such, `[M, K / 32, 48]` in i8, and products are of integers, scaled
    a stretch at a time. Sums are in f32, in any order. The output is `[M,
    panels * panel]` in f32.

    All shapes are positive; those of weight and output may be dynamic in the
    panels, for a share of them. Buffers are as for `kvrm.linear`.

    Example:

    ```mlir
    %y = kvrm.block_product <q4_1>
        ins(%x, %w : tensor<8x576xf32>, tensor<60x18x320xi8>)
        outs(%zero : tensor<8x960xf32>) panel 16 -> tensor<8x960xf32>
    ```
  }];
  let arguments = (ins KVRM_BlockFormatAttr:$format,
                       KVRM_BlockInput:$input, KVRM_I8Shaped:$weight,
                       KVRM_F32Shaped:$output,
                       ConfinedAttr<I64Attr, [IntPositive]>:$panel);
  let results = (outs Optional<KVRM_F32Tensor>:$result);
  let assemblyFormat = [{
    $format `ins` `(` $input `,` $weight `:` type($input) `,` type($weight) `)`
    `outs` `(` $output `:` type($output) `)` `panel` $panel attr-dict
    (`->` type($result)^)?
  }];
  let extraClassDeclaration = initsDeclaration # [{
    bool isQuantized() {
      return ::mlir::getElementTypeOrSelf(getInput()).isInteger(8);
    }
    int64_t getRows() { return getDimension(getInput(), 0); }
    /// Blocks of a row.
    int64_t getBlocks() { return getDimension(getWeight(), 1); }

  private:
    static int64_t getDimension(::mlir::Value operand, unsigned dim) {
      return ::llvm::cast<::mlir::ShapedType>(operand.getType())
          .getDimSize(dim);
    }

  public:
  }];
}

#endif // KVRM_BLOCK_OPS_TD
