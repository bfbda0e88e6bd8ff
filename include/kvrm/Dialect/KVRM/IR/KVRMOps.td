//===- KVRMOps.td - Operations of the kvrm dialect ---------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_OPS_TD
#define KVRM_OPS_TD

include "kvrm/Dialect/KVRM/IR/KVRMInterfaces.td"
include "kvrm/Dialect/KVRM/IR/KVRMTypes.td"
include "mlir/IR/OpAsmInterface.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/FunctionInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

// What ops of a step touch beside values: the descriptor (written by commit),
// the pool (written by append, read by attend), and the results of attention.
def KVRM_DescriptorResource : Resource<"::mlir::kvrm::DescriptorResource">;
def KVRM_PoolResource : Resource<"::mlir::kvrm::PoolResource">;
def KVRM_OutputResource : Resource<"::mlir::kvrm::OutputResource">;

def KVRM_LayerAttr : ConfinedAttr<I64Attr, [IntNonNegative]>;

class KVRM_Op<string mnemonic, list<Trait> traits = []>
    : Op<KVRM_Dialect, mnemonic, traits>;

/// Last tokens of a history that a query token sees, its own among them.
def KVRM_WindowAttr : ConfinedAttr<I64Attr, [IntPositive]>;

def KVRM_RowTensor : RankedTensorOf<[I32]>;
def KVRM_RowBuffer : AnyTypeOf<[1DTensorOf<[I32]>, MemRefRankOf<[I32], [1]>]>;
def KVRM_CacheElement : AnyTypeOf<[F16, BF16, F8E4M3FN, I8]>;
def KVRM_CacheTensor : RankedTensorOf<[KVRM_CacheElement]>;
// What kernels read as queries, keys and values and write as outputs.
def KVRM_ActivationElement : AnyTypeOf<[F32, F16, BF16]>;
def KVRM_ActivationTensor : RankedTensorOf<[F32, F16, BF16]>;
def KVRM_ActivationShaped : AnyTypeOf<[RankedTensorOf<[F32, F16, BF16]>,
                                       MemRefOf<[F32, F16, BF16]>]>;
def KVRM_F32Shaped : AnyTypeOf<[RankedTensorOf<[F32]>, MemRefOf<[F32]>]>;
// What a norm rounds to.
def KVRM_NormElementAttr
    : TypeAttrBase<"::mlir::FloatType", "an element of f32, f16 or bf16">;
// Weights of products: elements, or the bytes of records of blocks.
def KVRM_WeightShaped : AnyTypeOf<[RankedTensorOf<[F32, F16, BF16, I8]>,
                                   MemRefOf<[F32, F16, BF16, I8]>]>;

//===----------------------------------------------------------------------===//
// Phase 1: static
//===----------------------------------------------------------------------===//

def KVRM_CachedAttentionOp : KVRM_Op<"cached_attention", [
    KVRM_InPhases<"Phase::Static">, Pure, AttrSizedOperandSegments,
    AllTypesMatch<["query", "output"]>, AllTypesMatch<["key", "value"]>,
    AllTypesMatch<["keyCache", "valueCache", "newKeyCache",
                   "newValueCache"]>]> {
  let summary = "append to static KV caches and attend to them";
  let description = [{
    Writes the new keys and values of every row into its slot's caches at
    `positions`, then computes causal grouped-query attention of the row's
    queries over the slot's tokens up to and including each query's own:

    `output[b, t, h] = softmax(scale * q[b, t, h] . K[slot(b), h / G, 0..p+t])
    . V[slot(b), h / G, 0..p+t]` with `p = positions[b]` and
    `G = heads / kv_heads`.

    With a `window` a query sees no more than the last so many tokens, its own
    among them: those from `p + t - window + 1` on. With a `softcap` a scaled
    score `s` becomes `softcap * tanh(s / softcap)`, before anything is hidden.

    Shapes: query and output `[rows, queries, heads, head_dim]`, key and value
    `[rows, queries, kv_heads, head_dim]`, all of one element, f32, f16 or bf16;
    caches `[layers, slots, kv_heads, capacity, head_dim]` in f16, bf16 or f8E4M3FN, or `[...,
    head_dim + 2]` in i8: the last two are the scale of the row before them, the bytes of a bf16; `positions`,
    `counts` and `slots` `[rows]` in i32. Keys and values are rounded to nearest even when they are
    written; to f8E4M3FN, with what is over 448 cut off there, and to i8 as in a pool. Without `slots` row `b` is slot `b` (then rows =
    slots). Without `counts` every query token is valid; with it only the first
    `counts[b]` are. A token whose position is not below the capacity is not
    written.

    Example:

    ```mlir
    %o, %kc1, %vc1 = kvrm.cached_attention %q, %k, %v, %kc, %vc at %positions
        {layer = 0 : i64, scale = 0.125 : f32}
        : tensor<8x1x9x64xf32>, tensor<8x1x3x64xf32>,
          tensor<30x8x3x2048x64xf16>, tensor<8xi32>
    ```
  }];
  let arguments = (ins
      KVRM_ActivationTensor:$query, KVRM_ActivationTensor:$key, KVRM_ActivationTensor:$value,
      KVRM_CacheTensor:$keyCache, KVRM_CacheTensor:$valueCache,
      KVRM_RowTensor:$positions, Optional<KVRM_RowTensor>:$counts,
      Optional<KVRM_RowTensor>:$slots, KVRM_LayerAttr:$layer, F32Attr:$scale,
      OptionalAttr<KVRM_WindowAttr>:$window, OptionalAttr<F32Attr>:$softcap);
  let results = (outs KVRM_ActivationTensor:$output, KVRM_CacheTensor:$newKeyCache,
                      KVRM_CacheTensor:$newValueCache);
  let assemblyFormat = [{
    $query `,` $key `,` $value `,` $keyCache `,` $valueCache `at` $positions
    (`count` $counts^ `:` type($counts))? (`slot` $slots^ `:` type($slots))?
    attr-dict `:` type($query) `,` type($key) `,` type($keyCache) `,`
    type($positions)
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Phase 2: paged
//===----------------------------------------------------------------------===//

def KVRM_CommitOp : KVRM_Op<"commit", [
    KVRM_InPhases<"Phase::Paged | Phase::Kernels">,
    MemoryEffects<[MemWrite<KVRM_DescriptorResource>]>]> {
  let summary = "make what is planned what this step runs on";
  let description = [{
    Exactly one in a step, in the entry block of the function, so that every use
    sees one plan and no kernel sees half a commit.

    A step has one batch or more, rows that take the same number of queries,
    and a descriptor for each. No slot is in two batches of a step.

    Examples, of a decode step and of one that takes a part of a prompt along:

    ```mlir
    %desc = kvrm.commit %session : !kvrm.session<...>
        -> !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
    %rows, %prompt = kvrm.commit %session : !kvrm.session<...>
        -> !kvrm.descriptor<rows = 8, queries = 1, pages = 128>,
           !kvrm.descriptor<rows = 1, queries = 64, pages = 128>
    ```
  }];
  let arguments = (ins KVRM_SessionType:$session);
  let results = (outs Variadic<KVRM_DescriptorType>:$descriptors);
  let assemblyFormat = [{
    $session attr-dict `:` type($session) `->` type($descriptors)
  }];
  let hasVerifier = 1;
}

class KVRM_RowFieldOp<string mnemonic, string what>
    : KVRM_Op<mnemonic, [
          KVRM_InPhases<"Phase::Paged | Phase::Kernels">,
          MemoryEffects<[MemRead<KVRM_DescriptorResource>]>]> {
  let summary = what;
  let arguments = (ins KVRM_DescriptorType:$descriptor);
  let results = (outs KVRM_RowBuffer:$result);
  let assemblyFormat = [{
    $descriptor attr-dict `:` type($descriptor) `->` type($result)
  }];
  let hasVerifier = 1;
  let extraClassDefinition = [{
    ::llvm::LogicalResult $cppClass::verify() {
      return verifyRowField(*this, getDescriptor().getType(),
                            ::llvm::cast<::mlir::ShapedType>(
                                getResult().getType()));
    }
  }];
}

def KVRM_PositionsOp : KVRM_RowFieldOp<"positions",
    "position of each row's first new token"> {
  let description = [{
    Example:

    ```mlir
    %p = kvrm.positions %desc : !kvrm.descriptor<rows = 8, queries = 1, pages = 128>
        -> tensor<8xi32>
    ```
  }];
}

def KVRM_CountsOp : KVRM_RowFieldOp<"counts", "each row's new tokens"> {
  let description = [{
    Zero for an idle row, otherwise at most the descriptor's `queries`.

    Example:

    ```mlir
    %n = kvrm.counts %desc : !kvrm.descriptor<rows = 1, queries = 64, pages = 128>
        -> tensor<1xi32>
    ```
  }];
}

def KVRM_StageOp : KVRM_Op<"stage", [
    KVRM_InPhases<"Phase::Paged | Phase::Kernels">,
    MemoryEffects<[MemRead<KVRM_DescriptorResource>,
                   MemRead<KVRM_PoolResource>]>]> {
  let summary = "hand the step's transfer groups to a transport";
  let description = [{
    History pages are immutable during a step and all layers share a batch's
    descriptor, so that one staging serves them all: `kvrm-merge-transport`
    leaves one for each batch of a step.

    Example:

    ```mlir
    %groups = kvrm.stage %session, %desc {transport = #kvrm.transport<native>}
        : !kvrm.session<...>, !kvrm.descriptor<...>
    ```
  }];
  let arguments = (ins KVRM_SessionType:$session,
                       KVRM_DescriptorType:$descriptor,
                       KVRM_TransportAttr:$transport);
  let results = (outs KVRM_GroupsType:$groups);
  let assemblyFormat = [{
    $session `,` $descriptor attr-dict `:` type($session) `,` type($descriptor)
  }];
  let hasVerifier = 1;
}

def KVRM_AppendOp : KVRM_Op<"append", [
    KVRM_InPhases<"Phase::Paged">, AllTypesMatch<["key", "value"]>,
    MemoryEffects<[MemRead<KVRM_DescriptorResource>,
                   MemWrite<KVRM_PoolResource>]>]> {
  let summary = "write each row's new keys and values to its pages";
  let description = [{
    Row `b` writes its first `count(b)` tokens at positions `position(b)` and
    on, through its block table. Shapes as for `kvrm.cached_attention`.

    Example:

    ```mlir
    kvrm.append %k, %v to %session at %desc {layer = 0 : i64}
        : tensor<8x1x3x64xf32>, !kvrm.session<...>, !kvrm.descriptor<...>
    ```
  }];
  let arguments = (ins KVRM_ActivationTensor:$key, KVRM_ActivationTensor:$value,
                       KVRM_SessionType:$session,
                       KVRM_DescriptorType:$descriptor, KVRM_LayerAttr:$layer);
  let assemblyFormat = [{
    $key `,` $value `to` $session `at` $descriptor attr-dict `:` type($key) `,`
    type($session) `,` type($descriptor)
  }];
  let hasVerifier = 1;
}

def KVRM_AttendOp : KVRM_Op<"attend", [
    KVRM_InPhases<"Phase::Paged">, AllTypesMatch<["query", "output"]>,
    MemoryEffects<[MemRead<KVRM_DescriptorResource>,
                   MemRead<KVRM_PoolResource>]>]> {
  let summary = "causal grouped-query attention over paged histories";
  let description = [{
    The mathematics of `kvrm.cached_attention`, its window and softcap, over
    the pages that the descriptor names, and over the summaries of the far
    history if the session keeps such: then there is no window. What it returns for an idle row, and for query tokens past
    a row's count, is unspecified. `tile` and `schedule` are absent until
    `kvrm-select-schedule` has run.

    Example:

    ```mlir
    %o = kvrm.attend %q, %groups of %session at %desc
        {layer = 0 : i64, scale = 0.125 : f32, tile = #kvrm.tile<q = 1, kv = 64>,
         schedule = #kvrm.schedule<workqueue>}
        : tensor<8x1x9x64xf32>, !kvrm.session<...>, !kvrm.descriptor<...>
    ```
  }];
  let arguments = (ins KVRM_ActivationTensor:$query, KVRM_GroupsType:$groups,
                       KVRM_SessionType:$session,
                       KVRM_DescriptorType:$descriptor, KVRM_LayerAttr:$layer,
                       F32Attr:$scale, OptionalAttr<KVRM_WindowAttr>:$window,
                       OptionalAttr<F32Attr>:$softcap,
                       OptionalAttr<KVRM_TileAttr>:$tile,
                       OptionalAttr<KVRM_ScheduleAttr>:$schedule);
  let results = (outs KVRM_ActivationTensor:$output);
  let assemblyFormat = [{
    $query `,` $groups `of` $session `at` $descriptor attr-dict `:`
    type($query) `,` type($session) `,` type($descriptor)
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Phase 3: kernels
//===----------------------------------------------------------------------===//

def KVRM_KernelOp : KVRM_Op<"kernel", [
    IsolatedFromAbove, Symbol, SingleBlock, NoRegionArguments,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getDefaultDialect"]>]> {
  let summary = "a fixed-shape tile program";
  let description = [{
    What one launch of append, or one work item of attention, does; the same
    text for every target. `heads` is the number of query heads, `io` the
    element of what a launch passes: queries, keys, values and outputs. The
    shapes of pool, tables and rows come from the two types. In a kernel with a
    `window` a query token sees no more than so many tokens, its own among them.

    The body is one of two programs, and nothing but that. One appends: a
    `kvrm.append_rows`. The other attends: an item, its range and query, a state
    before any token, loops over tiles that each load, score, turn scores to
    weights and accumulate, and a store of the last state. The loops take all
    tiles from `begin` to `end` once, in order, from one bound of the item to
    another; those that reach `end` or, with a window, start at `begin` are
    masked, those that may meet summaries heed them, and all scores have one
    scale and one softcap. TileProgram.h reads and writes
    both.

    Example:

    ```mlir
    kvrm.kernel @attend heads 9 io f32 tile <q = 1, kv = 64> transport <native>
        on !kvrm.session<...> at !kvrm.descriptor<...> {
      %item = kvrm.get_work_item
      ...
      kvrm.return
    }
    ```
  }];
  let arguments = (ins
      SymbolNameAttr:$sym_name, OptionalAttr<StrAttr>:$sym_visibility,
      I64Attr:$heads, TypeAttrOf<KVRM_ActivationElement>:$io,
      KVRM_TileAttr:$tile, KVRM_TransportAttr:$transport,
      OptionalAttr<KVRM_WindowAttr>:$window,
      TypeAttrOf<KVRM_SessionType>:$session,
      TypeAttrOf<KVRM_DescriptorType>:$descriptor);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $sym_name `heads` $heads `io` $io `tile` $tile `transport` $transport
    (`window` $window^)? `on` $session `at` $descriptor attr-dict-with-keyword
    $body
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
  let extraClassDeclaration = [{
    SessionType getSessionType() {
      return ::llvm::cast<SessionType>(getSession());
    }
    DescriptorType getDescriptorType() {
      return ::llvm::cast<DescriptorType>(getDescriptor());
    }
    PoolType getPool() { return getSessionType().getPool(); }
    /// Query heads that share one KV head.
    int64_t getGroupSize() { return getHeads() / getPool().getKvHeads(); }
    /// Rows of a query tile: query tokens times heads of the group.
    int64_t getQueryRows() { return getTile().getQ() * getGroupSize(); }
    /// Whether the body is the attention of one work item, and does not append.
    bool attends();
  }];
}

def KVRM_LaunchOp : KVRM_Op<"launch", [
    KVRM_InPhases<"Phase::Kernels">,
    DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DestinationStyleOpInterface, AttrSizedOperandSegments,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "run a kernel for one layer";
  let description = [{
    With one input and one output the kernel attends (`ins` is the query); with
    two inputs and none it appends (key, value).

    Example:

    ```mlir
    kvrm.launch @append(%session, %desc) ins(%k, %v : tensor<...>, tensor<...>)
        {layer = 0 : i64} : !kvrm.session<...>, !kvrm.descriptor<...>
    %o = kvrm.launch @attend(%session, %desc) ins(%q : tensor<...>)
        outs(%init : tensor<...>) {layer = 0 : i64}
        : !kvrm.session<...>, !kvrm.descriptor<...> -> tensor<...>
    ```
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, KVRM_SessionType:$session,
                       KVRM_DescriptorType:$descriptor,
                       Variadic<KVRM_ActivationShaped>:$inputs,
                       Variadic<KVRM_ActivationShaped>:$outputs, KVRM_LayerAttr:$layer);
  let results = (outs Variadic<KVRM_ActivationTensor>:$results);
  let assemblyFormat = [{
    $kernel `(` $session `,` $descriptor `)`
    `ins` `(` $inputs `:` type($inputs) `)`
    (`outs` `(` $outputs^ `:` type($outputs) `)`)? attr-dict `:`
    type($session) `,` type($descriptor) (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return getOutputsMutable();
    }
    bool isAttention() { return !getOutputs().empty(); }
  }];
}

def KVRM_DispatchOp : KVRM_Op<"dispatch", [
    KVRM_InPhases<"Phase::Kernels">,
    DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DestinationStyleOpInterface, AttrSizedOperandSegments,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "run a function over tasks [0, count) on all workers";
  let description = [{
    Calls `callee(begin, end, inputs..., outputs...)` on each worker with its
    contiguous share of the tasks, and returns when all are done. The callee
    takes buffers; the operands may be tensors until they are bufferized. With
    `serial` the calling thread runs all tasks: the work is not worth sharing.
    The dense part of a step runs through this op.

    Example:

    ```mlir
    kvrm.dispatch @linear_0 tasks 18
        ins(%x, %w : memref<8x576xf32>, memref<18x576x32xf16>)
        outs(%y : memref<8x576xf32>)
    ```
  }];
  let arguments = (ins FlatSymbolRefAttr:$callee, I64Attr:$tasks,
                       Variadic<AnyShaped>:$inputs,
                       Variadic<AnyShaped>:$outputs, UnitAttr:$serial);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let assemblyFormat = [{
    $callee `tasks` $tasks (`serial` $serial^)? (`ins` `(` $inputs^ `:` type($inputs) `)`)?
    (`outs` `(` $outputs^ `:` type($outputs) `)`)? attr-dict
    (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return getOutputsMutable();
    }
  }];
}

def KVRM_DeviceDispatchOp : KVRM_Op<"device_dispatch", [
    KVRM_InPhases<"Phase::Kernels">, AttrSizedOperandSegments,
    DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "run a dense kernel of a GPU";
  let description = [{
    Launches `kernel`, a function of role `dense` in a `gpu.module`, with the
    address of each buffer, inputs first. `grid` is in blocks; with
    `per_processor` its first number counts for each multiprocessor of the
    device. What `kvrm.dispatch` is to a CPU: the dense part of a step runs
    through this op.

    With `appends` the kernel writes the keys and values of the step's new
    tokens to the pages of that layer, too; it then takes what
    `kvrm_append_arg_base` (abi/program.h) lists, behind the buffers.

    Example:

    ```mlir
    kvrm.device_dispatch @kvrm_kernels::@linear_0 grid [1, 1, 1] per_processor
        ins(%x, %w : memref<8x576xf16>, memref<960x576xf16>)
        outs(%y : memref<8x960xf32>)
    ```
  }];
  let arguments = (ins SymbolRefAttr:$kernel, DenseI64ArrayAttr:$grid,
                       UnitAttr:$perProcessor, Variadic<AnyMemRef>:$inputs,
                       Variadic<AnyMemRef>:$outputs,
                       OptionalAttr<KVRM_LayerAttr>:$appends);
  let assemblyFormat = [{
    $kernel `grid` $grid (`per_processor` $perProcessor^)?
    (`ins` `(` $inputs^ `:` type($inputs) `)`)?
    (`outs` `(` $outputs^ `:` type($outputs) `)`)?
    (`appends` `layer` $appends^)? attr-dict
  }];
  let hasVerifier = 1;
}

def KVRM_SampleOp : KVRM_Op<"sample", [KVRM_InPhases<"Phase::Kernels">]> {
  let summary = "choose the next token of each row of a step on the device";
  let description = [{
    Chooses a token from the logits of each active row, by the sampling that the
    descriptor has for it, and hands the tokens to the session: greedy, or drawn
    by temperature, top-k and top-p, as `abi/sampling.h` defines it. Shape:
    logits `[rows, vocabulary]` in f32, contiguous, what the step returns.

    Example: `kvrm.sample %logits : memref<8x49152xf32>`
  }];
  let arguments = (ins Arg<MemRefRankOf<[F32], [2]>, "", [MemRead]>:$logits);
  let assemblyFormat = "$logits attr-dict `:` type($logits)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getVocabulary() { return getLogits().getType().getDimSize(1); }
  }];
}

def KVRM_DeviceProductOp : KVRM_Op<"device_product", [
    KVRM_InPhases<"Phase::Kernels">,
    DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "a product that a library or a dense kernel of a GPU runs";
  let description = [{
    `output[m, n] = sum over k of input[m, k] * weight[n, k]`, and with an
    addend `+ addend[m, n]`: all that libraries of matrix products have in
    common. Where the runtime finds one, it runs the product; where not,
    `kernel` is launched as `kvrm.device_dispatch` says, with the addresses of
    input, weight, addend and output.

    Shapes: input `[M, K]`, weight `[N, K]`, output and addend `[M, N]`, static,
    positive and without gaps between rows. Input and weight are of f16 or of
    bf16, output of that element or of f32; an addend is of f32, and so is the
    output then. Sums are in f32, in any order, and rounded once. The output
    shares no memory with input or weight; it may be the addend.

    Example:

    ```mlir
    kvrm.device_product
        ins(%x, %w : memref<512x576xf16>, memref<960x576xf16>)
        addend(%r : memref<512x960xf32>) outs(%y : memref<512x960xf32>)
        else @kvrm_kernels::@linear_0 grid [1, 8, 1] per_processor
    ```
  }];
  let arguments = (ins SymbolRefAttr:$kernel, DenseI64ArrayAttr:$grid,
                       UnitAttr:$perProcessor, AnyMemRef:$input,
                       AnyMemRef:$weight, Optional<AnyMemRef>:$addend,
                       AnyMemRef:$output);
  let assemblyFormat = [{
    `ins` `(` $input `,` $weight `:` type($input) `,` type($weight) `)`
    (`addend` `(` $addend^ `:` type($addend) `)`)?
    `outs` `(` $output `:` type($output) `)`
    `else` $kernel `grid` $grid (`per_processor` $perProcessor^)? attr-dict
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Any phase: forms of the dense part
//===----------------------------------------------------------------------===//

// An op of the dense part that a target may have a kernel for. It writes an
// output that no operand overlaps and whose old contents it does not read.
class KVRM_FormOp<string mnemonic, list<Trait> traits = []>
    : KVRM_Op<mnemonic, !listconcat([
          KVRM_InPhases<"Phase::Static | Phase::Paged | Phase::Kernels">,
          DestinationStyleOpInterface,
          DeclareOpInterfaceMethods<MemoryEffectsOpInterface>], traits)> {
  let hasVerifier = 1;
  /// Of products.
  code multiplicandDeclaration = [{
    /// The element of what is multiplied with the weight.
    ::mlir::Type getMultiplicandElement() {
      if (!getGain())
        return ::mlir::getElementTypeOrSelf(getInput());
      if (auto element = getNormElement())
        return *element;
      return ::mlir::getElementTypeOrSelf(getWeight());
    }
  }];
  code initsDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return ::mlir::MutableOperandRange(getOutputMutable());
    }
  }];
}

def KVRM_LinearOp : KVRM_FormOp<"linear", [
    IsolatedFromAbove, SingleBlock, AttrSizedOperandSegments]> {
  let summary = "a product with a weight, and what follows it elementwise";
  let description = [{
    Rows of activations times the transpose of a matrix of weights, and then a
    scalar function of each element of the product:

    `sum[p][m, n] = sum over k of f32(input[m, k]) * f32(weight[p * N + n, k])`

    `output[m, n] = body(sum[0][m, n], ..., extras at [m, n] or [n])`

    Shapes: input `[M, K]`, weight `[parts * N, K]`, output `[M, N]`, each of
    f32, f16 or bf16; an extra `[M, N]` or `[N]`, of one of these too. All are
    static and positive. Sums are in f32, in any order. Buffers are contiguous
    in their last dimension, and may have any stride in the first; the output
    shares no memory with another operand.

    With a norm the product reads the input as `kvrm.rms_norm` with that gain
    and epsilon makes it, rounded to the element of the weight, or to one that
    stands behind epsilon; input and gain are then f32.

    With a block format the weight is the records of a package, `[ceil(parts * N
    / panel)][K / E][record]` in i8, as `kvrm/runtime/abi/block_format.h` describes
    them; what a record has of bytes says what a panel has of rows. Its values
    are those that `kvrm.dequantize` gives, in f32; a norm in front says then
    what it rounds to.

    The body has a sum of each part as its first arguments, in f32, then an
    element of each extra. It holds ops of `arith` and `math` on scalars, has no
    effect, and yields one element of the output. With `parts = 2` one op is a
    gated feed-forward: gate and up are rows of one weight, and the body
    multiplies one with the activation of the other.

    Examples, a product with a residual, and a gate:

    ```mlir
    %y = kvrm.linear ins(%x, %w : tensor<8x64xf16>, tensor<128x64xf16>)
        extras(%r : tensor<8x128xf32>) outs(%init : tensor<8x128xf32>) {
    ^bb0(%sum: f32, %residual: f32):
      %v = arith.addf %residual, %sum : f32
      kvrm.yield %v : f32
    } -> tensor<8x128xf32>

    kvrm.linear ins(%x, %w : memref<8x64xf32>, memref<256x64xf16>)
        norm(%gain : memref<64xf32>) epsilon 1.0e-5
        outs(%y : memref<8x128xf16>) parts 2 {
    ^bb0(%gate: f32, %up: f32):
      %one = arith.constant 1.0 : f32
      %negated = arith.negf %gate : f32
      %power = math.exp %negated : f32
      %above = arith.addf %power, %one : f32
      %silu = arith.divf %gate, %above : f32
      %product = arith.mulf %silu, %up : f32
      %v = arith.truncf %product : f32 to f16
      kvrm.yield %v : f16
    }
    ```
  }];
  let arguments = (ins
      KVRM_ActivationShaped:$input, KVRM_WeightShaped:$weight,
      Optional<KVRM_F32Shaped>:$gain, Variadic<KVRM_ActivationShaped>:$extras,
      KVRM_ActivationShaped:$output, OptionalAttr<F32Attr>:$epsilon,
      DefaultValuedAttr<ConfinedAttr<I64Attr, [IntPositive]>, "1">:$parts,
      OptionalAttr<KVRM_BlockFormatAttr>:$format,
      OptionalAttr<KVRM_NormElementAttr>:$normElement);
  let results = (outs Optional<KVRM_ActivationTensor>:$result);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    `ins` `(` $input `,` $weight `:` type($input) `,` type($weight) `)`
    (`block` $format^)?
    (`norm` `(` $gain^ `:` type($gain) `)` `epsilon` $epsilon
    (`to` $normElement^)?)?
    (`extras` `(` $extras^ `:` type($extras) `)`)?
    `outs` `(` $output `:` type($output) `)` (`parts` $parts^)?
    attr-dict-with-keyword $body (`->` type($result)^)?
  }];
  let hasRegionVerifier = 1;
  let extraClassDeclaration = initsDeclaration # multiplicandDeclaration # [{
    /// Whether a body may hold `op`: a pure op of arith or math on scalars.
    static bool isBodyOp(::mlir::Operation *op);
    /// M, K and N.
    int64_t getRows() { return getDimension(getInput(), 0); }
    int64_t getDepth() { return getDimension(getInput(), 1); }
    int64_t getColumns() { return getDimension(getOutput(), 1); }
    /// The arguments of the body for the sums, one a part, and for the extras.
    ::mlir::Block::BlockArgListType getSums() {
      return getBody().getArguments().take_front(getParts());
    }
    ::mlir::Block::BlockArgListType getExtraElements() {
      return getBody().getArguments().drop_front(getParts());
    }

  private:
    static int64_t getDimension(::mlir::Value operand, unsigned dim) {
      return ::llvm::cast<::mlir::ShapedType>(operand.getType())
          .getDimSize(dim);
    }

  public:
  }];
}

def KVRM_YieldOp : KVRM_Op<"yield", [Pure, Terminator, HasParent<"LinearOp">]> {
  let summary = "what the body of a kvrm.linear is for one element";
  let description = [{
    Example: `kvrm.yield %v : f16`
  }];
  let arguments = (ins KVRM_ActivationElement:$value);
  let assemblyFormat = "$value attr-dict `:` type($value)";
}

def KVRM_QKVProjectionOp : KVRM_FormOp<"qkv_projection",
                                       [AttrSizedOperandSegments]> {
  let summary = "query, key and value of tokens, turned to their positions";
  let description = [{
    A product with a weight whose rows are those of the query heads, then of the
    key heads, then of the value heads, and the rotary embedding of query and
    key in its half-split form (Su et al., arXiv 2104.09864):

    `sum[m, n] = sum over k of f32(input[m, k]) * f32(weight[n, k])`

    and, with a bias, `+ bias[n]`.

    With H = head_dim / 2 and i below H, for each head of query and key, whose
    columns start at c:

    `out[m, c + i] = sum[m, c + i] * cosines[m, i] - sum[m, c + i + H] * sines[m, i]`

    `out[m, c + i + H] = sum[m, c + i + H] * cosines[m, i] + sum[m, c + i] * sines[m, i]`

    A head of the value is the sum as it is. All is in f32, sums in any order,
    and rounded once to the element of the outputs.

    Shapes: input `[M, K]`, weight `[N, K]`, bias `[N]` in f32, cosines and
    sines `[M, H]` in f32, query `[M, heads * 2H]`, key and value `[M, kv_heads * 2H]`, of one element;
    N is the columns of all three. Norm, a weight in blocks, and buffers are as
    for `kvrm.linear`; no output shares memory with another operand.

    Example:

    ```mlir
    %q, %k, %v = kvrm.qkv_projection
        ins(%x, %w : tensor<8x64xf32>, tensor<128x64xf16>)
        norm(%gain : tensor<64xf32>) epsilon 1.0e-5
        bias(%bias : tensor<128xf32>)
        rotation(%cos, %sin : tensor<8x16xf32>, tensor<8x16xf32>)
        outs(%q0, %k0, %v0 : tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>)
        -> tensor<8x64xf16>, tensor<8x32xf16>, tensor<8x32xf16>
    ```
  }];
  let arguments = (ins
      KVRM_ActivationShaped:$input, KVRM_WeightShaped:$weight,
      Optional<KVRM_F32Shaped>:$gain, Optional<KVRM_F32Shaped>:$bias,
      KVRM_F32Shaped:$cosines, KVRM_F32Shaped:$sines,
      KVRM_ActivationShaped:$query, KVRM_ActivationShaped:$key,
      KVRM_ActivationShaped:$value, OptionalAttr<F32Attr>:$epsilon,
      OptionalAttr<KVRM_BlockFormatAttr>:$format,
      OptionalAttr<KVRM_NormElementAttr>:$normElement);
  let results = (outs Variadic<KVRM_ActivationTensor>:$results);
  let assemblyFormat = [{
    `ins` `(` $input `,` $weight `:` type($input) `,` type($weight) `)`
    (`block` $format^)?
    (`norm` `(` $gain^ `:` type($gain) `)` `epsilon` $epsilon
    (`to` $normElement^)?)?
    (`bias` `(` $bias^ `:` type($bias) `)`)?
    `rotation` `(` $cosines `,` $sines `:` type($cosines) `,` type($sines) `)`
    `outs` `(` $query `,` $key `,` $value `:` type($query) `,` type($key) `,`
    type($value) `)` attr-dict (`->` type($results)^)?
  }];
  let extraClassDeclaration = multiplicandDeclaration # [{
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return ::mlir::MutableOperandRange(
          getOperation(), getQueryMutable().getOperandNumber(), 3);
    }
    /// M, K, N and 2H.
    int64_t getRows() { return getDimension(getInput(), 0); }
    int64_t getDepth() { return getDimension(getInput(), 1); }
    int64_t getColumns() { return getQueryColumns() + 2 * getKeyColumns(); }
    int64_t getHeadDim() { return 2 * getDimension(getCosines(), 1); }
    /// Columns of the query, and of the key or the value.
    int64_t getQueryColumns() { return getDimension(getQuery(), 1); }
    int64_t getKeyColumns() { return getDimension(getKey(), 1); }

  private:
    static int64_t getDimension(::mlir::Value operand, unsigned dim) {
      return ::llvm::cast<::mlir::ShapedType>(operand.getType())
          .getDimSize(dim);
    }

  public:
  }];
}

def KVRM_RmsNormOp : KVRM_FormOp<"rms_norm"> {
  let summary = "root-mean-square normalization of rows";
  let description = [{
    `output[m, k] = cast(input[m, k] * (1 / sqrt(mean + epsilon)) * gain[k])`
    where `mean` is that of `input[m, k]^2` over `k`.

    Shapes: input `[M, K]` and gain `[K]` in f32, output `[M, K]` in f32, f16 or
    bf16, static and positive. All is computed in f32, sums in any order, and
    rounded once to the output's element, to nearest even. Buffers are as for
    `kvrm.linear`.

    Example:

    ```mlir
    %y = kvrm.rms_norm ins(%x, %gain : tensor<8x576xf32>, tensor<576xf32>)
        outs(%init : tensor<8x576xf16>) epsilon 1.0e-5 -> tensor<8x576xf16>
    ```
  }];
  let arguments = (ins KVRM_F32Shaped:$input, KVRM_F32Shaped:$gain,
                       KVRM_ActivationShaped:$output, F32Attr:$epsilon);
  let results = (outs Optional<KVRM_ActivationTensor>:$result);
  let assemblyFormat = [{
    `ins` `(` $input `,` $gain `:` type($input) `,` type($gain) `)`
    `outs` `(` $output `:` type($output) `)` `epsilon` $epsilon attr-dict
    (`->` type($result)^)?
  }];
  let extraClassDeclaration = initsDeclaration;
}

include "kvrm/Dialect/KVRM/IR/KVRMBlockOps.td"

//===----------------------------------------------------------------------===//
// Any phase: what the ranks of a step hand each other
//===----------------------------------------------------------------------===//

// All ranks run the same step, so that each meets the same collectives in the
// same order.
class KVRM_CollectiveOp<string mnemonic> : KVRM_FormOp<mnemonic> {
  let arguments = (ins KVRM_ActivationShaped:$input,
                       KVRM_ActivationShaped:$output);
  let results = (outs Optional<KVRM_ActivationTensor>:$result);
  let assemblyFormat = [{
    `ins` `(` $input `:` type($input) `)`
    `outs` `(` $output `:` type($output) `)` attr-dict (`->` type($result)^)?
  }];
  let extraClassDeclaration = initsDeclaration # [{
    /// Elements of the input.
    int64_t getElements() {
      return ::llvm::cast<::mlir::ShapedType>(getInput().getType())
          .getNumElements();
    }
  }];
}

def KVRM_AllReduceOp : KVRM_CollectiveOp<"all_reduce"> {
  let summary = "the sum over all ranks, on each of them";
  let description = [{
    `output[i] = sum over ranks of input[i]`, the same bits on every rank. Sums
    are of the element, in an order that the transport chooses: of N ranks in
    f32 the result is within (N - 1) * 2^-24 times the sum of magnitudes of the
    exact one.

    Shapes: input and output are of one static shape and element, f32, f16 or
    bf16, and contiguous; they share no memory. The module says the number of
    ranks (`kvrm.ranks`).

    Example:

    ```mlir
    %y = kvrm.all_reduce ins(%x : tensor<8x4096xf32>)
        outs(%init : tensor<8x4096xf32>) -> tensor<8x4096xf32>
    ```
  }];
}

def KVRM_AllGatherOp : KVRM_CollectiveOp<"all_gather"> {
  let summary = "what all ranks have, on each of them";
  let description = [{
    `output[r, ...] = input[...]` of rank r.

    Shapes: output is input with the number of ranks in front, of one element,
    f32, f16 or bf16, static and contiguous; they share no memory.

    Example, on two ranks:

    ```mlir
    %y = kvrm.all_gather ins(%x : tensor<8x512xf32>)
        outs(%init : tensor<2x8x512xf32>) -> tensor<2x8x512xf32>
    ```
  }];
}

//===----------------------------------------------------------------------===//
// Phase 3: the tile program inside a kernel
//===----------------------------------------------------------------------===//

def KVRM_InKernel : NativeOpTrait<"InKernel"> {
  let cppNamespace = "::mlir::kvrm";
}

class KVRM_TileOp<string mnemonic, list<Trait> traits = []>
    : KVRM_Op<mnemonic, !listconcat([KVRM_InKernel], traits)>;

def KVRM_ReturnOp : KVRM_Op<"return", [Pure, Terminator,
                                       HasParent<"KernelOp">]> {
  let summary = "end of a kernel";
  let description = [{
    Example: `kvrm.return`
  }];
  let assemblyFormat = "attr-dict";
}

def KVRM_GetWorkItemOp : KVRM_TileOp<"get_work_item", [Pure]> {
  let summary = "the work item this call computes";
  let description = [{
    Example: `%item = kvrm.get_work_item`
  }];
  let results = (outs KVRM_WorkItemType:$item);
  let assemblyFormat = "attr-dict";
}

def KVRM_TileRangeOp : KVRM_TileOp<"tile_range", [Pure]> {
  let summary = "the KV tiles of an item";
  let description = [{
    Tiles `[begin, full)` hold only tokens that every query row of the item may
    see; tiles `[full, end)` need a mask. The row's history ends in the last
    one; in a padded session its block table does. In a kernel with a window
    `begin` is the item's first tile that holds a token which some query row may
    see, and tiles up to `kvrm.window_edge` need a mask, too.

    Example: `%begin, %full, %end = kvrm.tile_range %item`
  }];
  let arguments = (ins KVRM_WorkItemType:$item);
  let results = (outs Index:$begin, Index:$full, Index:$end);
  let assemblyFormat = "$item attr-dict";
}

def KVRM_SummaryEndOp : KVRM_TileOp<"summary_end", [Pure]> {
  let summary = "where the tiles of an item stop to hold summaries";
  let description = [{
    Of the tiles `[begin, full)` of `kvrm.tile_range`, those before the result
    hold summaries of the far history and those from it on hold none. Only in
    kernels of a session that keeps summaries.

    Example: `%split = kvrm.summary_end %item`
  }];
  let arguments = (ins KVRM_WorkItemType:$item);
  let results = (outs Index:$end);
  let assemblyFormat = "$item attr-dict";
  let hasVerifier = 1;
}

def KVRM_WindowEdgeOp : KVRM_TileOp<"window_edge", [Pure]> {
  let summary = "where the tiles of an item stop to be cut by a window";
  let description = [{
    Of the tiles `[begin, full)` of `kvrm.tile_range`, those before the result
    hold tokens that are behind some query row's window, and need a mask; those
    from it on hold none. Only in kernels with a window.

    Example: `%edge = kvrm.window_edge %item`
  }];
  let arguments = (ins KVRM_WorkItemType:$item);
  let results = (outs Index:$edge);
  let assemblyFormat = "$item attr-dict";
  let hasVerifier = 1;
}

def KVRM_LoadQueryOp : KVRM_TileOp<"load_query", [Pure]> {
  let summary = "the query tile of an item";
  let description = [{
    One row for each query token and head of the group, `head_dim` columns, of
    the kernel's `io`.

    Example: `%q = kvrm.load_query %item : !kvrm.fragment<3x64xf32>`
  }];
  let arguments = (ins KVRM_WorkItemType:$item);
  let results = (outs KVRM_FragmentType:$query);
  let assemblyFormat = "$item attr-dict `:` type($query)";
  let hasVerifier = 1;
}

def KVRM_LoadTileOp : KVRM_TileOp<"load_tile", [
    AllTypesMatch<["key", "value"]>,
    MemoryEffects<[MemRead<KVRM_PoolResource>]>]> {
  let summary = "the keys and values of one KV tile";
  let description = [{
    Through the block table or the staging tile, as the kernel's transport says.
    Rows past the item's last token are unspecified.

    Example: `%k, %v = kvrm.load_tile %item[%t] : !kvrm.fragment<64x64xf16>`
  }];
  let arguments = (ins KVRM_WorkItemType:$item, Index:$index);
  let results = (outs KVRM_FragmentType:$key, KVRM_FragmentType:$value);
  let assemblyFormat = "$item `[` $index `]` attr-dict `:` type($key)";
  let hasVerifier = 1;
}

def KVRM_ScoreOp : KVRM_TileOp<"score", [Pure]> {
  let summary = "scaled products of a query tile and a key tile";
  let description = [{
    `scores[r, t] = scale * log2(e) * (query[r] . key[t])`, so that weights are
    powers of two; with a `softcap` c, `c * tanh(scale * (query[r] . key[t]) /
    c)` in place of the scaled product. With `masked`, tokens that a query row
    may not see, and those past the history, score -1e30. With `summaries` the tile may hold summaries
    of the far history: to the score of one that stands for n tokens log2(n) is
    added, to that of one not in use -1e30.

    Example:

    ```mlir
    %s = kvrm.score %q, %k, %item[%t] {masked, scale = 0.125 : f32}
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>
        -> !kvrm.fragment<3x64xf32>
    ```
  }];
  let arguments = (ins KVRM_FragmentType:$query, KVRM_FragmentType:$key,
                       KVRM_WorkItemType:$item, Index:$index, F32Attr:$scale,
                       OptionalAttr<F32Attr>:$softcap, UnitAttr:$masked,
                       UnitAttr:$summaries);
  let results = (outs KVRM_FragmentType:$scores);
  let assemblyFormat = [{
    $query `,` $key `,` $item `[` $index `]` attr-dict `:` type($query) `,`
    type($key) `->` type($scores)
  }];
  let hasVerifier = 1;
}

def KVRM_SoftmaxInitOp : KVRM_TileOp<"softmax_init", [Pure]> {
  let summary = "the state before any token: m = -1e30, l = 0, acc = 0";
  let description = [{
    Example: `%s = kvrm.softmax_init : !kvrm.softmax<3x64>`
  }];
  let results = (outs KVRM_SoftmaxType:$state);
  let assemblyFormat = "attr-dict `:` type($state)";
  let hasVerifier = 1;
}

def KVRM_OnlineSoftmaxOp : KVRM_TileOp<"online_softmax", [
    Pure, AllTypesMatch<["state", "newState"]>,
    AllTypesMatch<["scores", "weights"]>]> {
  let summary = "turn scores to weights against a running maximum";
  let description = [{
    `m' = max(m, max scores)`, `weights = 2^(scores - m')`,
    `l' = l * 2^(m - m') + sum weights`, `acc' = acc * 2^(m - m')`.

    Example:

    ```mlir
    %p, %s1 = kvrm.online_softmax %scores, %s0
        : !kvrm.fragment<3x64xf32>, !kvrm.softmax<3x64>
    ```
  }];
  let arguments = (ins KVRM_FragmentType:$scores, KVRM_SoftmaxType:$state);
  let results = (outs KVRM_FragmentType:$weights, KVRM_SoftmaxType:$newState);
  let assemblyFormat = [{
    $scores `,` $state attr-dict `:` type($scores) `,` type($state)
  }];
  let hasVerifier = 1;
}

def KVRM_AccumulateOp : KVRM_TileOp<"accumulate", [
    Pure, AllTypesMatch<["state", "newState"]>]> {
  let summary = "add a tile's weighted values: acc' = acc + weights . value";
  let description = [{
    Example:

    ```mlir
    %s2 = kvrm.accumulate %p, %v, %s1, %item[%t]
        : !kvrm.fragment<3x64xf32>, !kvrm.fragment<64x64xf16>, !kvrm.softmax<3x64>
    ```
  }];
  let arguments = (ins KVRM_FragmentType:$weights, KVRM_FragmentType:$value,
                       KVRM_SoftmaxType:$state, KVRM_WorkItemType:$item,
                       Index:$index, UnitAttr:$masked);
  let results = (outs KVRM_SoftmaxType:$newState);
  let assemblyFormat = [{
    $weights `,` $value `,` $state `,` $item `[` $index `]` attr-dict `:`
    type($weights) `,` type($value) `,` type($state)
  }];
  let hasVerifier = 1;
}

def KVRM_StoreSoftmaxOp : KVRM_TileOp<"store_softmax", [
    MemoryEffects<[MemWrite<KVRM_OutputResource>]>]> {
  let summary = "write an item's result";
  let description = [{
    `acc / l` to the output if the item is the whole of its output tile, else
    the state to the item's partial, to be merged.

    Example: `kvrm.store_softmax %s, %item : !kvrm.softmax<3x64>`
  }];
  let arguments = (ins KVRM_SoftmaxType:$state, KVRM_WorkItemType:$item);
  let assemblyFormat = "$state `,` $item attr-dict `:` type($state)";
  let hasVerifier = 1;
}

def KVRM_AppendRowsOp : KVRM_TileOp<"append_rows", [
    MemoryEffects<[MemRead<KVRM_DescriptorResource>,
                   MemWrite<KVRM_PoolResource>]>]> {
  let summary = "write all rows' new keys and values to their pages";
  let description = [{
    Example: `kvrm.append_rows`
  }];
  let assemblyFormat = "attr-dict";
}

#endif // KVRM_OPS_TD
