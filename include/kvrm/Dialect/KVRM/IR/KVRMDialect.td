//===- KVRMDialect.td - The kvrm dialect -------------------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_TD
#define KVRM_DIALECT_TD

include "mlir/IR/OpBase.td"

def KVRM_Dialect : Dialect {
  let name = "kvrm";
  let cppNamespace = "::mlir::kvrm";
  let summary = "KV-cache movement under a static decode step";
  let description = [{
    The `kvrm` dialect carries one decode step of a static-graph LLM decoder
    through three phases, each complete and verified by itself:

    1. *Static*: value-semantic tensors of fixed shape. `kvrm.cached_attention`
       appends to the caches and attends to them.
    2. *Paged*: the caches are gone from the signature. A session owns a pool of
       pages, one `kvrm.commit` a step yields the descriptor that says where
       every row's history lies, `kvrm.stage` names the transfer groups,
       `kvrm.append` and `kvrm.attend` write and read pages.
    3. *Kernels*: `kvrm.launch` runs a `kvrm.kernel`, a fixed-shape tile program.

    `kvrm.linear` and `kvrm.rms_norm`, forms of the dense part that a target may
    have kernels for, belong to all of them.

    A function marked `kvrm.step` is one compiled step. Operations that define a
    phase never stand in one step beside those of another. The rationale is in
    docs/Dialect/Rationale.md.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::scf::SCFDialect"];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let hasRegionArgAttrVerify = 1;
  let extraClassDeclaration = [{
    // Attributes by which passes, kvrmc and the runtime's packages talk to each
    // other.

    /// Marks a function that is one compiled step.
    static constexpr ::llvm::StringLiteral getStepAttrName() {
      return "kvrm.step";
    }
    /// On an `ml_program.global`: a `#kvrm.weight`, how and where it is stored.
    static constexpr ::llvm::StringLiteral getWeightAttrName() {
      return "kvrm.weight";
    }
    /// On an `ml_program.global` of a graph from outside: a list of
    /// `#kvrm.weight_part`, of which tensors it is made.
    static constexpr ::llvm::StringLiteral getPartsAttrName() {
      return "kvrm.parts";
    }

    /// On an `ml_program.global`: a `#kvrm.shard`, what of it a rank has.
    static constexpr ::llvm::StringLiteral getShardAttrName() {
      return "kvrm.shard";
    }
    /// On a module: how many ranks run its steps together, each with its part
    /// of the weights and of the heads; one without it.
    static constexpr ::llvm::StringLiteral getRanksAttrName() {
      return "kvrm.ranks";
    }

    /// On a step: a `#kvrm.step_plan` for each of its batches, once its kernels
    /// are generated.
    static constexpr ::llvm::StringLiteral getPlansAttrName() {
      return "kvrm.plans";
    }
    /// On a step's argument: its `#kvrm.argument`.
    static constexpr ::llvm::StringLiteral getArgumentAttrName() {
      return "kvrm.argument";
    }
    /// On an argument of a graph from outside: a string, its name in the file
    /// of its values.
    static constexpr ::llvm::StringLiteral getNameAttrName() {
      return "kvrm.name";
    }
    /// On a kernel's function in a `gpu.module`: its `#kvrm.device_kernel`.
    static constexpr ::llvm::StringLiteral getDeviceKernelAttrName() {
      return "kvrm.device_kernel";
    }
    /// On a step that is lowered: bytes of scratch memory that it takes.
    static constexpr ::llvm::StringLiteral getArenaBytesAttrName() {
      return "kvrm.arena_bytes";
    }

  private:
    void registerAttributes();
    void registerTypes();

  public:
  }];
}

#endif // KVRM_DIALECT_TD
