//===- KVRMAttrs.td - Attributes of the kvrm dialect -------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_ATTRS_TD
#define KVRM_ATTRS_TD

include "kvrm/Dialect/KVRM/IR/KVRMDialect.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

class KVRM_Attr<string name, string attrMnemonic, list<Trait> traits = []>
    : AttrDef<KVRM_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
}

class KVRM_I32Enum<string name, string summary, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::mlir::kvrm";
  let genSpecializedAttr = 0;
}

// Values follow kvrm_transport in abi.h.
def KVRM_Transport : KVRM_I32Enum<"Transport", "how pages reach a kernel", [
    I32EnumAttrCase<"Native", 0, "native">,
    I32EnumAttrCase<"Staged", 1, "staged">]>;

def KVRM_TransportAttr : EnumAttr<KVRM_Dialect, KVRM_Transport, "transport"> {
  let assemblyFormat = "`<` $value `>`";
  let description = [{
    How history pages reach an attention kernel. `native`: the kernel reads them
    where they lie, through the block table. `staged`: the pages of a tile are
    first copied, one copy a run of adjacent pages, to a contiguous tile of
    fixed shape; for kernels that cannot index pages.

    Example: `#kvrm.transport<native>`
  }];
}

// Values follow kvrm_schedule in abi.h.
def KVRM_ScheduleKind : KVRM_I32Enum<"ScheduleKind", "how work is cut", [
    I32EnumAttrCase<"Rows", 0, "rows">,
    I32EnumAttrCase<"Split", 1, "split">,
    I32EnumAttrCase<"Workqueue", 2, "workqueue">,
    I32EnumAttrCase<"Cluster", 3, "cluster">]>;

def KVRM_ScheduleAttr : KVRM_Attr<"Schedule", "schedule"> {
  let summary = "how attention over a ragged batch is cut into work items";
  let description = [{
    `rows`: one item for each row, KV head and query tile. `split`: a fixed
    number of splits of each (Flash-Decoding). `workqueue`: all tiles of all
    active rows in one line, cut into equal shares, so that no ragged batch
    unbalances the workers and idle rows cost nothing (PersistentKV,
    arXiv 2606.26666). `splits` is used by `split` alone. `cluster`: `blocks`
    thread blocks of a GPU share each row, KV head and query tile.

    Examples: `#kvrm.schedule<workqueue>`, `#kvrm.schedule<split, splits = 4>`,
    `#kvrm.schedule<cluster, blocks = 4>`
  }];
  let parameters = (ins
      EnumParameter<KVRM_ScheduleKind>:$kind,
      DefaultValuedParameter<"int64_t", "1">:$splits,
      DefaultValuedParameter<"int64_t", "1">:$blocks);
  let builders = [
    AttrBuilder<(ins "::mlir::kvrm::ScheduleKind":$kind,
                     CArg<"int64_t", "1">:$splits), [{
      return $_get($_ctxt, kind, splits, /*blocks=*/1);
    }]>];
  let assemblyFormat = [{
    `<` $kind `` custom<ScheduleCount>($splits, $blocks) `>`
  }];
  let genVerifyDecl = 1;
}

def KVRM_Layout : KVRM_I32Enum<"Layout", "order of elements in a page", [
    I32EnumAttrCase<"TokenMajor", 0, "token_major">,
    I32EnumAttrCase<"TransposedKeys", 1, "transposed_keys">,
    I32EnumAttrCase<"Swizzled", 2, "swizzled">]>;

def KVRM_LayoutAttr : EnumAttr<KVRM_Dialect, KVRM_Layout, "layout"> {
  let assemblyFormat = "`<` $value `>`";
  let description = [{
    Order of elements inside one page of one head. `token_major`: K and V as
    `[token][d]`. `transposed_keys`: K as `[d][token]`, V as `[token][d]`, so
    that vector lanes run along tokens for scores and along `d` for the weighted
    sum, and neither needs a horizontal reduction (the host's layout).
    `swizzled`: `[token][d]` with each token's 16-byte chunks XORed with bits of
    the token (`abi/pool.h`), so that a bulk copy lands free of shared-memory
    bank conflicts; for the head dimensions that device kernels take alone.
  }];
}

def KVRM_TileAttr : KVRM_Attr<"Tile", "tile"> {
  let summary = "fixed tile shape of an attention kernel";
  let description = [{
    `q` query tokens by `kv` cached tokens. `kv` is a power of two.

    Example: `#kvrm.tile<q = 4, kv = 64>`
  }];
  let parameters = (ins "int64_t":$q, "int64_t":$kv);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def KVRM_FarHistoryAttr : KVRM_Attr<"FarHistory", "far_history"> {
  let summary = "what becomes of tokens older than a window";
  let description = [{
    A request keeps the KV of about its last `window` tokens as it is. Older
    pages collapse, oldest first, to at most `entries` summaries, each the mean
    key and the mean value of n tokens, attended to as one token whose score is
    `scale * (q . k) + ln n`. The request's first `sinks` tokens are entries of
    their own for good; if no others are left, the rest is dropped. With no
    `entries` at all older pages are dropped: a sliding window. `window` and
    `entries` are whole pages of the pool.

    Examples: `#kvrm.far_history<window = 1024, entries = 64, sinks = 4>`,
    `#kvrm.far_history<window = 1024>`
  }];
  let parameters = (ins "int64_t":$window,
                        DefaultValuedParameter<"int64_t", "0">:$entries,
                        DefaultValuedParameter<"int64_t", "0">:$sinks);
  let assemblyFormat = [{
    `<` `window` `=` $window (`,` `entries` `=` $entries^)?
        (`,` `sinks` `=` $sinks^)? `>`
  }];
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Tokens that a query sees at least, its own among them, once there are so
    /// many: whole pages of `page` tokens collapse until fewer than the window
    /// are left, and then the query's own is appended.
    int64_t getLeastSeen(int64_t page) const { return getWindow() - page + 1; }
  }];
}

def KVRM_StepPlanAttr : KVRM_Attr<"StepPlan", "step_plan"> {
  let summary = "how a batch of a step attends";
  let description = [{
    The tile, schedule and transport of all attention of one batch, for the
    runtime's planner. A step has them, in the order of its descriptors, as
    `kvrm.plans`.

    Example:
    `#kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <workqueue>, transport = <native>>`
  }];
  let parameters = (ins "TileAttr":$tile, "ScheduleAttr":$schedule,
                        "TransportAttr":$transport);
  let assemblyFormat = "`<` struct(params) `>`";
}

def KVRM_ArgumentRole : KVRM_I32Enum<"ArgumentRole",
    "what a step's argument is", [
    I32EnumAttrCase<"Session", 0, "session">,
    I32EnumAttrCase<"Tokens", 1, "tokens">,
    I32EnumAttrCase<"Positions", 2, "positions">,
    I32EnumAttrCase<"Counts", 3, "counts">,
    I32EnumAttrCase<"Slots", 4, "slots">,
    I32EnumAttrCase<"KeyCache", 5, "key_cache">,
    I32EnumAttrCase<"ValueCache", 6, "value_cache">,
    I32EnumAttrCase<"Weights", 7, "weights">,
    I32EnumAttrCase<"Logits", 8, "logits">]>;

def KVRM_ArgumentRoleAttr
    : EnumAttr<KVRM_Dialect, KVRM_ArgumentRole, "argument"> {
  let assemblyFormat = "`<` $value `>`";
  let description = [{
    What the runtime passes as an argument of a step, on the argument as
    `kvrm.argument`: a field of `kvrm_step_args` in the ABI.

    Example: `#kvrm.argument<tokens>`
  }];
}

def KVRM_DeviceRole : KVRM_I32Enum<"DeviceRole", "what a device kernel does", [
    I32EnumAttrCase<"Commit", 0, "commit">,
    I32EnumAttrCase<"Append", 1, "append">,
    I32EnumAttrCase<"Stage", 2, "stage">,
    I32EnumAttrCase<"AttendWorkqueue", 3, "attend_workqueue">,
    I32EnumAttrCase<"AttendCluster", 4, "attend_cluster">,
    I32EnumAttrCase<"AttendWorkqueueStaged", 5, "attend_workqueue_staged">,
    I32EnumAttrCase<"Dense", 6, "dense">,
    I32EnumAttrCase<"Sample", 7, "sample">,
    I32EnumAttrCase<"AttendPrompt", 8, "attend_prompt">,
    I32EnumAttrCase<"Collapse", 9, "collapse">]>;

def KVRM_DeviceKernelAttr : KVRM_Attr<"DeviceKernel", "device_kernel"> {
  let summary = "what a device kernel does and how it is launched";
  let description = [{
    On the function of a kernel for a GPU, as `kvrm.device_kernel`: its part in
    a step, threads of a block, and bytes of dynamic shared memory of a block.

    Example:
    `#kvrm.device_kernel<role = attend_workqueue, threads = 256, shared_bytes = 69888>`
  }];
  let parameters = (ins EnumParameter<KVRM_DeviceRole>:$role,
                        "int64_t":$threads, "int64_t":$sharedBytes);
  let assemblyFormat = [{
    `<` `role` `=` $role `,` `threads` `=` $threads `,`
        `shared_bytes` `=` $sharedBytes `>`
  }];
  let genVerifyDecl = 1;
}

// Values follow kvrmblocks::BlockFormat.
def KVRM_BlockFormat : KVRM_I32Enum<"BlockFormat", "how blocks hold weights", [
    I32EnumAttrCase<"Q4_0", 0, "q4_0">,
    I32EnumAttrCase<"Q4_1", 1, "q4_1">,
    I32EnumAttrCase<"Q5_0", 2, "q5_0">,
    I32EnumAttrCase<"Q5_1", 3, "q5_1">,
    I32EnumAttrCase<"Q8_0", 4, "q8_0">,
    I32EnumAttrCase<"Q4_K", 5, "q4_k">,
    I32EnumAttrCase<"Q5_K", 6, "q5_k">,
    I32EnumAttrCase<"Q6_K", 7, "q6_k">,
    I32EnumAttrCase<"INT4_G128", 8, "int4_g128">,
    I32EnumAttrCase<"INT4_G128_MIN", 9, "int4_g128_min">,
    I32EnumAttrCase<"FP8_G128", 10, "fp8_g128">]>;

def KVRM_BlockFormatAttr
    : EnumAttr<KVRM_Dialect, KVRM_BlockFormat, "block_format"> {
  let assemblyFormat = "`<` $value `>`";
  let description = [{
    Which block format, one of GGUF's or of ours, a weight is in: how many bits a code has, how
    many elements share a scale, and what turns codes into values
    (`kvrm/runtime/abi/block_format.h`).

    Example: `#kvrm.block_format<q4_0>`
  }];
}

def KVRM_WeightFormat : KVRM_I32Enum<"WeightFormat",
                                     "order of elements in a weight", [
    I32EnumAttrCase<"RowMajor", 0, "row_major">,
    I32EnumAttrCase<"Panels", 1, "panels">,
    I32EnumAttrCase<"Blocks", 2, "blocks">]>;

def KVRM_WeightAttr : KVRM_Attr<"Weight", "weight"> {
  let summary = "how a weight is stored, and where";
  let description = [{
    As `kvrm.weight` on an `ml_program.global`. `row_major`: in the order of the
    global's type. `panels`: a matrix of `rows` rows and k columns as
    `[ceil(rows / panel)][k][panel]`, the type of the global; the rows that the
    last panel lacks are zeros. `blocks`: a matrix in blocks of the format
    `block`, as records of `panel` rows (`kvrm/runtime/abi/block_format.h`);
    `[ceil(rows / panel)][blocks of a row][record]` bytes are the type of the
    global. `offset` is in bytes from the start of the weights of a package, in
    which this is the only place that says it.

    Examples: `#kvrm.weight<row_major, offset = 0>`,
    `#kvrm.weight<panels, offset = 256, panel = 32, rows = 72>`,
    `#kvrm.weight<blocks, offset = 512, panel = 16, rows = 72, block = <q4_0>>`
  }];
  let parameters = (ins
      EnumParameter<KVRM_WeightFormat>:$format, "int64_t":$offset,
      DefaultValuedParameter<"int64_t", "0">:$panel,
      DefaultValuedParameter<"int64_t", "0">:$rows,
      OptionalParameter<"BlockFormatAttr">:$block);
  let builders = [
    AttrBuilder<(ins "::mlir::kvrm::WeightFormat":$format, "int64_t":$offset,
                     "int64_t":$panel, "int64_t":$rows), [{
      return $_get($_ctxt, format, offset, panel, rows, BlockFormatAttr());
    }]>];
  let assemblyFormat = [{
    `<` $format `,` `offset` `=` $offset
        (`,` `panel` `=` $panel^ `,` `rows` `=` $rows)?
        (`,` `block` `=` $block^)? `>`
  }];
  let genVerifyDecl = 1;
}

def KVRM_WeightPartAttr : KVRM_Attr<"WeightPart", "weight_part"> {
  let summary = "rows of a weight, as a view of a tensor of a weights file";
  let description = [{
    An `ml_program.global` that a step of another frontend reads has a list of
    these as `kvrm.parts`: the tensors that make it, their rows one under the
    other. A part is elements of `tensor`, which lies row-major: those of the
    rows, by sizes and strides from the slowest dimension on, and those of
    each row. So `rows` of `[256] by [1]` and `columns` of `[512] by [256]` are
    the transpose of a matrix `[512][256]`.

    Example:
    `#kvrm.weight_part<"wq", offset = 0, rows = [256] by [1], columns = [512] by [256]>`
  }];
  let parameters = (ins "StringAttr":$tensor, "int64_t":$offset,
      ArrayRefParameter<"int64_t">:$rowSizes,
      ArrayRefParameter<"int64_t">:$rowStrides,
      ArrayRefParameter<"int64_t">:$columnSizes,
      ArrayRefParameter<"int64_t">:$columnStrides);
  let assemblyFormat = [{
    `<` $tensor `,` `offset` `=` $offset `,`
        `rows` `=` `[` $rowSizes `]` `by` `[` $rowStrides `]` `,`
        `columns` `=` `[` $columnSizes `]` `by` `[` $columnStrides `]` `>`
  }];
  let extraClassDeclaration = [{
    int64_t getRows();
    int64_t getColumns();
  }];
  let genVerifyDecl = 1;
}

def KVRM_ShardAttr : KVRM_Attr<"Shard", "shard"> {
  let summary = "what of a whole weight a rank has";
  let description = [{
    As `kvrm.shard` on an `ml_program.global` of a module of several ranks
    (`kvrm.ranks`). Along dimension `dim` the whole weight is parts, one behind
    the other, of these sizes; rank r has the r-th of as many equal pieces of
    each as there are ranks. The global's type is that of a rank's.

    Example, of queries, keys and values one below the other, a rank of two has
    1024, 256 and 256 rows: `#kvrm.shard<dim = 0, parts = [2048, 512, 512]>`
  }];
  let parameters = (ins "int64_t":$dim, ArrayRefParameter<"int64_t">:$parts);
  let assemblyFormat = [{
    `<` `dim` `=` $dim `,` `parts` `=` `[` $parts `]` `>`
  }];
  let genVerifyDecl = 1;
}

#endif // KVRM_ATTRS_TD
