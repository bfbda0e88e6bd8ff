//===- KVRMInterfaces.td - Interfaces of the kvrm dialect --*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_INTERFACES_TD
#define KVRM_INTERFACES_TD

include "mlir/IR/EnumAttr.td"
include "mlir/IR/OpBase.td"

def KVRM_Phase : I32BitEnumAttr<"Phase", "a phase of a step", [
    I32BitEnumAttrCaseBit<"Static", 0, "static">,
    I32BitEnumAttrCaseBit<"Paged", 1, "paged">,
    I32BitEnumAttrCaseBit<"Kernels", 2, "kernels">]> {
  let cppNamespace = "::mlir::kvrm";
  let genSpecializedAttr = 0;
}

def KVRM_PhaseOpInterface : OpInterface<"PhaseOpInterface"> {
  let cppNamespace = "::mlir::kvrm";
  let description = [{
    An operation that belongs to some phases of a step alone. A step is in a
    phase that all of its operations of this interface have in common.
  }];
  let methods = [
    StaticInterfaceMethod<"The phases that have the operation.",
                          "::mlir::kvrm::Phase", "getPhases">
  ];
}

class KVRM_PhasesTrait<string phases> : ParamNativeOpTrait<"InPhases", phases> {
  let cppNamespace = "::mlir::kvrm";
}

// Of an operation that these phases have: `KVRM_InPhases<"Phase::Paged">`.
class KVRM_InPhases<string phases>
    : TraitList<[KVRM_PhasesTrait<phases>, KVRM_PhaseOpInterface]>;

#endif // KVRM_INTERFACES_TD
