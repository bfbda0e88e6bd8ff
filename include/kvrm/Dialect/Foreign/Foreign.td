//===- Foreign.td - Ops of other frontends -----------------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The few ops that torch-mlir, StableHLO and IREE leave in graphs that are
// linalg else, as far as it takes to read them in their generic form.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_FOREIGN_FOREIGN_TD
#define KVRM_DIALECT_FOREIGN_FOREIGN_TD

include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/IR/OpBase.td"

def TMTensorDialect : Dialect {
  let name = "tm_tensor";
  let cppNamespace = "::mlir::kvrm::tm_tensor";
  let summary = "Two ops of torch-mlir, to be read";
}

def LinalgExtDialect : Dialect {
  let name = "iree_linalg_ext";
  let cppNamespace = "::mlir::kvrm::iree_linalg_ext";
  let summary = "Two ops of IREE, to be read";
}

def StableHLODialect : Dialect {
  let name = "stablehlo";
  let cppNamespace = "::mlir::kvrm::stablehlo";
  let summary = "Two ops of StableHLO, to be read";
  let description = [{
    An attribute of the dialect is kept as its text.
  }];
  let extraClassDeclaration = [{
    ::mlir::Attribute parseAttribute(::mlir::DialectAsmParser &parser,
                                     ::mlir::Type type) const override;
    void printAttribute(::mlir::Attribute attribute,
                        ::mlir::DialectAsmPrinter &printer) const override;
  }];
}

/// An op in generic form, of which no more is known than what its users read.
class KVRM_ForeignOp<Dialect dialect, string mnemonic, list<Trait> traits = []>
    : Op<dialect, mnemonic, !listconcat([Pure], traits)>;

class KVRM_ForeignYield<Dialect dialect, string mnemonic>
    : Op<dialect, mnemonic, [Pure, Terminator]> {
  let summary = "end a region of a foreign op";
  let arguments = (ins Variadic<AnyType>:$values);
}

def TMTensor_ScatterOp
    : KVRM_ForeignOp<TMTensorDialect, "scatter", [AttrSizedOperandSegments]> {
  let summary = "write updates where indices say";
  let arguments = (ins Variadic<AnyRankedTensor>:$inputs,
                       Variadic<AnyRankedTensor>:$outputs,
                       DenseI64ArrayAttr:$dimension_map,
                       OptionalAttr<BoolAttr>:$unique_indices);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let regions = (region AnyRegion:$region);
}

def TMTensor_AttentionOp
    : KVRM_ForeignOp<TMTensorDialect, "attention",
                     [AttrSizedOperandSegments]> {
  let summary = "softmax(q k^T / sqrt(d), masked) v";
  let arguments = (ins Variadic<AnyRankedTensor>:$inputs,
                       Variadic<AnyRankedTensor>:$outputs);
  let results = (outs Variadic<AnyRankedTensor>:$results);
}

def TMTensor_YieldOp : KVRM_ForeignYield<TMTensorDialect, "yield">;

def LinalgExt_ScatterOp : KVRM_ForeignOp<LinalgExtDialect, "scatter"> {
  let summary = "write updates where indices say";
  let arguments = (ins Variadic<AnyRankedTensor>:$inputs,
                       DenseI64ArrayAttr:$dimension_map,
                       OptionalAttr<BoolAttr>:$unique_indices);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let regions = (region AnyRegion:$region);
}

def LinalgExt_AttentionOp : KVRM_ForeignOp<LinalgExtDialect, "attention"> {
  let summary = "attention with a body of its own";
  let arguments = (ins Variadic<AnyType>:$inputs,
                       OptionalAttr<ArrayAttr>:$indexing_maps,
                       OptionalAttr<DenseI32ArrayAttr>:$operandSegmentSizes);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let regions = (region AnyRegion:$region);
}

def LinalgExt_YieldOp : KVRM_ForeignYield<LinalgExtDialect, "yield">;

def StableHLO_ScatterOp : KVRM_ForeignOp<StableHLODialect, "scatter"> {
  let summary = "write updates where indices say";
  let arguments = (ins Variadic<AnyRankedTensor>:$inputs,
                       AnyAttr:$scatter_dimension_numbers,
                       OptionalAttr<BoolAttr>:$indices_are_sorted,
                       OptionalAttr<BoolAttr>:$unique_indices);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let regions = (region AnyRegion:$update_computation);
}

def StableHLO_WhileOp
    : KVRM_ForeignOp<StableHLODialect, "while"> {
  let summary = "a loop, mostly over layers";
  let arguments = (ins Variadic<AnyType>:$inputs);
  let results = (outs Variadic<AnyType>:$results);
  let regions = (region AnyRegion:$cond, AnyRegion:$body);
}

def StableHLO_ReturnOp : KVRM_ForeignYield<StableHLODialect, "return">;

#endif // KVRM_DIALECT_FOREIGN_FOREIGN_TD
