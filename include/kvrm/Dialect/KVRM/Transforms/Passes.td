//===- Passes.td - Passes inside the kvrm dialect ----------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_DIALECT_TRANSFORMS_PASSES_TD
#define KVRM_DIALECT_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def ImportGraphPass : Pass<"kvrm-import-graph"> {
  let summary = "Make graphs of other frontends straight-line tensor code";
  let description = [{
    Unrolls loops that carry tensors: `scf.for` with constant bounds, and
    `stablehlo.while` with a condition that constants decide, which is how a
    scan over layers arrives. Assertions go, so that what they assert, indices
    within bounds, becomes an assumption. `tensor.concat` becomes slices, and an
    op of arith or math on tensors a `linalg.generic` of elements.

    A loop of which it is not known how often it runs stays, with a remark.
  }];
  let statistics = [
    Statistic<"numUnrolled", "loops-unrolled", "Number of loops unrolled">,
    Statistic<"numAssertions", "assertions-dropped",
              "Number of assertions dropped">,
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::tensor::TensorDialect"];
}

def RaiseStaticCachePass : Pass<"kvrm-raise-static-cache", "::mlir::ModuleOp"> {
  let summary = "Recognise attention over static caches in other graphs";
  let description = [{
    Takes a decode step that another frontend wrote, in linalg, tensor and
    arith, to phase 1: each layer's attention over its static cache becomes a
    `kvrm.cached_attention`, and the function a `kvrm.step`. docs/raising.md
    says what is recognised, what has to be proved and what is assumed.

    The pass looks at what elements of tensors are, not at the ops that make
    them, so that a cache may be written and read in any spelling. All layers of
    a function are raised, or none. What stops the pass is a remark at its op,
    with the obligation that failed and the expression that was seen.

    The caches leave the signature for one pair of `[layers, rows, kv_heads,
    capacity, head_dim]`, the last arguments and results. The position becomes
    an i32 for each row, where it was. Other arguments and results stay.
  }];
  let options = [
    Option<"narrow", "narrow", "std::string", /*default=*/"\"\"",
           "Make caches of f32 f16, bf16, f8e4m3 or int8, which rounds what they "
           "hold; a step with such caches is not raised else">,
    ListOption<"causalMasks", "causal-masks", "unsigned",
               "Numbers of arguments that are causal masks, by contract: their "
               "last dim is the token, which they let be up to the position">,
    ListOption<"positions", "positions", "unsigned",
               "Numbers of arguments that are the position, by contract: all "
               "have one value a row">,
    Option<"analyseOnly", "analyse-only", "bool", /*default=*/"false",
           "Change nothing; a remark at each layer says what was found">,
  ];
  let statistics = [
    Statistic<"numRaised", "layers-raised", "Number of layers raised">,
  ];
  let dependentDialects = [
    "::mlir::kvrm::KVRMDialect", "::mlir::arith::ArithDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::tensor::TensorDialect",
  ];
}

def AdoptStepPass : Pass<"kvrm-adopt-step", "::mlir::ModuleOp"> {
  let summary = "Give a raised step the interface of a decode step";
  let description = [{
    The one raised step of a module becomes `decode_step`, of tokens `[rows, 1]`
    and positions `[rows]`, i32, and both caches, to logits `[rows, vocabulary]`
    in f32 and both caches.

    - The argument of integers, one a row, is the tokens. Where several could
      be, one has the role: `kvrm.argument = #kvrm.argument<tokens>`.
    - Arguments of floating point are weights: globals without a value. Their
      name is their `kvrm.name`, the name of their location, or `argN`.
    - Tensors of floating point in the graph are weights with a value, called
      `constant.N`.
    - The result of floating point, `[rows, vocabulary]` with sizes of one in
      between, is the logits. Results of integers that no cache is in go, with
      a remark.
    - Positions are at most the last of the capacity for all but attention:
      idle rows may stand behind it.

    What is none of this is an error.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::ml_program::MLProgramDialect", "::mlir::tensor::TensorDialect",
  ];
}

def BatchStepPass : Pass<"kvrm-batch-step", "::mlir::ModuleOp"> {
  let summary = "Make a decode step one of other rows, and prompts' steps of it";
  let description = [{
    Follows the rows of an adopted decode step (`kvrm-adopt-step`) from tokens
    and positions to the logits, through `linalg.generic`, reshapes and slices,
    and proves that no row depends on another but through attention. The step
    is then built again for `slots` rows. A step of one row is the function of a
    row, and its tensors get a dim of rows.

    A prefill is the same graph again: tokens of a prompt are rows to all but
    attention, which takes them as queries of one row. What attention does not
    need, behind the last layer, is computed for the last token alone. A mixed
    step has rows of both kinds: its attention is one op for each.

    Values that were computed row by row and stacked, as
    `kvrm-raise-static-cache` makes them of a position that rows share, are
    computed for all rows at once.

    An op through which rows cannot be followed is an error. Named ops are to be
    generalised before, and unit dims folded.
  }];
  let options = [
    Option<"slots", "slots", "int64_t", /*default=*/"0",
           "Rows of the decode step, and slots of its caches; 0: as many as it "
           "has">,
    Option<"chunk", "chunk", "int64_t", /*default=*/"0",
           "Tokens of a prefill; 0: make none">,
    Option<"mixed", "mixed", "bool", /*default=*/"false",
           "Make a step, too, that decodes and takes a chunk of a prompt">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::kvrm::KVRMDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::tensor::TensorDialect",
  ];
}

def ArrangeWeightsPass : Pass<"kvrm-arrange-weights", "::mlir::ModuleOp"> {
  let summary = "Make products with weights those that this compiler has";
  let description = [{
    In the steps of a graph from outside, a `linalg.generic` that multiplies
    activations with a weight, whatever the order of their dims, and whether
    the weight was transposed, reshaped or sliced before, becomes a
    `linalg.matmul` of `[rows, depth]` with the transpose of a matrix
    `[columns, depth]`, summed in f32. Products of the same activations become
    one, of a matrix that has the rows of all.

    Such a matrix is a global of its own. Its `kvrm.parts` say which elements
    of which tensors it has, so that the package's writer puts them in order
    and nothing is transposed in a step. Steps share it.

    Matrices of f32, and tables of f32 that are read by tokens, get the element
    `element`. Globals that nothing uses any more go.
  }];
  let options = [
    Option<"element", "element", "std::string", /*default=*/"\"\"",
           "Element of matrices: f32, f16 or bf16; empty: as in the graph">,
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::kvrm::KVRMDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::ml_program::MLProgramDialect",
    "::mlir::tensor::TensorDialect",
  ];
}

def FuseElementwisePass : Pass<"kvrm-fuse-elementwise"> {
  let summary = "Fuse elementwise ops with the one op that uses each";
  let description = [{
    The fusion of upstream's `linalg-fuse-elementwise-ops`, without that of
    reshapes, which takes apart the dims of what is near them, and of what a
    product reads. Single numbers go wherever they are used. Powers with
    constant exponents become products.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::tensor::TensorDialect",
  ];
}

def WidenDensePass : Pass<"kvrm-widen-dense", "::mlir::ModuleOp"> {
  let summary = "Compute the dense part of a step in f32";
  let description = [{
    A graph from outside may be f16 or bf16 throughout, which CPUs have no
    arithmetic for. Its values become f32, and casts between go: results are
    more exact than those of the graph. Weights stay as they are, and are
    widened where they are read; so do caches.

    Named ops of `linalg` are to be generalised before.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::tensor::TensorDialect",
  ];
}

def ShardStepPass : Pass<"kvrm-shard-step", "::mlir::ModuleOp"> {
  let summary = "Make of each step what one of several ranks does";
  let description = [{
    Tensor parallelism over KV heads, on phase 1. Each step becomes the step
    that each of `ranks` ranks runs, all of them the same: with its part of the
    KV heads and their queries, and of each weight its slice, which the global
    says (`kvrm.shard`) and has the type of. Values that all ranks have alike
    stay as they are; what ranks have apart comes together again by
    `kvrm.all_reduce` and `kvrm.all_gather`.

    What is split follows from the caches, which are split by KV heads, and from
    the products, from the first op of a step to the last:

    - A product of a whole input is split by columns: each rank has some rows of
      the weight. Columns that slices of the result take apart, as queries, keys
      and values or gate and up, are split each by itself.
    - A product of an input that is split by columns is split by depth: each
      rank has some columns of the weight and a sum of its own, and the sums are
      reduced. So is a sum of f32 over a dimension that is split.
    - Elementwise ops, slices and other shapes of what is split are split, and
      so is a weight that they read along the same dimension.
    - What else reads a split value, or returns it, reads it gathered. So a
      width that the ranks do not divide costs time and nothing else.

    Refused, with the op: KV heads that the ranks do not divide, attention whose
    query, keys and values are not split by heads, and a weight that is used
    both whole and in parts.
  }];
  let options = [
    Option<"ranks", "ranks", "int64_t", /*default=*/"1",
           "Ranks that run the steps together; 1: nothing changes">,
  ];
  let statistics = [
    Statistic<"numReduced", "all-reduces", "Number of kvrm.all_reduce made">,
    Statistic<"numGathered", "all-gathers", "Number of kvrm.all_gather made">,
    Statistic<"numSharded", "weights-sharded", "Number of weights split">,
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::kvrm::KVRMDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::tensor::TensorDialect"];
}

def PageCachePass : Pass<"kvrm-page-cache", "::mlir::ModuleOp"> {
  let summary = "Replace static KV caches by a paged session";
  let description = [{
    Takes each step (a function marked `kvrm.step`) from phase 1 to phase 2. The
    cache tensors leave the signature, and with them the arguments that say
    where each row stands (`positions`, `counts`, `slots`): the session and its
    committed descriptor own those facts now. Every `kvrm.cached_attention`
    becomes a `kvrm.append` and a `kvrm.attend`, with a `kvrm.stage` of its own
    that `kvrm-merge-transport` merges later. The dense part is untouched.

    Each cache must go from an argument through `kvrm.cached_attention` alone to
    a result; anything else that reads or writes it is an error.

    With `window` the session keeps about so many tokens of a request as they
    are, and at most `summaries` entries for all older ones. A block table then
    holds the entries, the window and the tokens of one step, whatever the
    capacity, which still bounds positions. Without `window`, and where every
    attention has one of its own, the session keeps what the longest of these
    shows, and drops the pages behind it.

    With `padded` nothing is saved: the step reads pages as a static graph reads
    its caches, all of them. That is the baseline on GPUs; on CPUs it is
    `kvrm-static-baseline`.
  }];
  let options = [
    Option<"page", "page", "int64_t", /*default=*/"16",
           "Tokens a page, a power of two">,
    Option<"transport", "transport", "std::string", /*default=*/"\"native\"",
           "How pages reach a kernel: native or staged">,
    Option<"layout", "layout", "std::string",
           /*default=*/"\"transposed_keys\"",
           "Order of elements in a page: token_major, transposed_keys or "
           "swizzled">,
    Option<"window", "window", "int64_t", /*default=*/"0",
           "Tokens of a request kept exactly, whole pages; 0 = all">,
    Option<"summaries", "summaries", "int64_t", /*default=*/"0",
           "Entries that older tokens collapse to, whole pages; 0 = none, "
           "they are dropped">,
    Option<"sinks", "sinks", "int64_t", /*default=*/"0",
           "Entries that are a request's first tokens for good">,
    Option<"padded", "padded", "bool", /*default=*/"false",
           "Histories have all their pages at all times, and attention reads "
           "them all: a static graph's cost">,
  ];
  let statistics = [
    Statistic<"numPaged", "attention-ops-paged",
              "Number of cached_attention ops paged">,
  ];
  let dependentDialects = ["::mlir::kvrm::KVRMDialect"];
}

def MergeTransportPass : Pass<"kvrm-merge-transport"> {
  let summary = "Hoist and merge stage ops into one a step";
  let description = [{
    History pages are immutable during a step and all layers share one
    descriptor, so the transfer groups that one layer stages are those of every
    layer. The pass moves the first `kvrm.stage` of a step right behind the
    commit and makes it serve all others. Stage ops of one step that ask for
    different transports are an error.
  }];
  let statistics = [
    Statistic<"numMerged", "stages-merged", "Number of stage ops removed">,
  ];
  let dependentDialects = ["::mlir::kvrm::KVRMDialect"];
}

def SelectSchedulePass : Pass<"kvrm-select-schedule"> {
  let summary = "Choose the tile and the schedule of every attend op";
  let description = [{
    Sets `tile` and `schedule` where they are absent. `auto` gives a step of one
    query token a row a `workqueue` (decode is ragged), and a step of several a
    `rows` schedule (prefill has query tiles enough). A tile of queries is the
    largest divisor of the step's queries that keeps query rows (tokens times
    heads of a group) within `max-query-rows`: their scores and accumulators
    have to fit the register file. By default that is what kernels for the
    pool's layout take: the limit of the head shape (`abi/pool.h`) where it is
    `swizzled`, and 12 elsewhere.

    With `prompt-warps` the warps of a block may share what they read: a tile
    then has as many times these rows as there are warps, so many that a row of
    the step still makes `prompt-blocks` tiles over all KV heads.
  }];
  let options = [
    Option<"schedule", "schedule", "std::string", /*default=*/"\"auto\"",
           "auto, rows, split, workqueue or cluster">,
    Option<"splits", "splits", "int64_t", /*default=*/"4",
           "Splits of a split schedule">,
    Option<"blocks", "blocks", "int64_t", /*default=*/"4",
           "Thread blocks of a cluster schedule: 1, 2, 4 or 8">,
    Option<"kvTile", "kv-tile", "int64_t", /*default=*/"64",
           "Cached tokens a tile; at least a page">,
    Option<"maxQueryRows", "max-query-rows", "int64_t", /*default=*/"0",
           "Query rows of a tile, if one token's do not exceed it already; "
           "0: as the pool's layout has it">,
    Option<"promptWarps", "prompt-warps", "int64_t", /*default=*/"1",
           "Most warps that share a tile, each with max-query-rows rows">,
    Option<"promptBlocks", "prompt-blocks", "int64_t", /*default=*/"96",
           "Fewest tiles of a row of the step that they are to leave">,
  ];
  let statistics = [
    Statistic<"numScheduled", "attend-ops-scheduled",
              "Number of attend ops given a schedule">,
  ];
  let dependentDialects = ["::mlir::kvrm::KVRMDialect"];
}

def PrintStepSummaryPass : Pass<"kvrm-print-step-summary"> {
  let summary = "Print what each step is, a few lines a step";
  let description = [{
    Prints to standard error, for each step, its phase; rows, query tokens a row
    and shapes of attention; the tile, schedule and transport, if they are
    chosen; how many operations it has, those of other dialects together; and how
    often it launches which kernel. Changes nothing.

    ```
    step @decode_step: phase paged
      rows 2, queries 1, layers 2, heads 4, KV heads 2, head_dim 64, cache f16
      plan #kvrm.step_plan<tile = <q = 1, kv = 64>, schedule = <workqueue>, ...>
      ops arith 6, func 1, kvrm.append 2, kvrm.attend 2, kvrm.commit 1, ...
    ```
  }];
}

def FormDispatchesPass : Pass<"kvrm-form-dispatches", "::mlir::ModuleOp"> {
  let summary = "Make one op of dense ops that one kernel can run";
  let description = [{
    On the tensors of each step, and whatever the target:

    - A transposed `linalg.matmul` of an f32, f16 or bf16 tensor with a weight
      (what an `ml_program.global_load_const` loads), summed in f32 from a zero
      fill, becomes a `kvrm.linear`.
    - A `kvrm.linear` takes in the op that alone uses its result, as long as
      there is one: a `linalg.generic` over rows and columns, all parallel,
      whose output starts from nothing and whose other inputs are `[M, N]` in
      the same order or `[N]` for all rows, of f32, f16 or bf16, with a body of
      pure scalar ops of `arith` and `math`. So residuals, biases, activations
      and casts go along with the product.
    - It takes that op in, too, if it uses the product in parts: slices of equal
      width that share all columns among them. Gate and up of a feed-forward are
      two.
    - `x * (1 / sqrt(mean(x^2) + epsilon)) * gain`, written as a sum of squares
      over columns from zero, an op on one scalar a row and an op on all
      elements, becomes a `kvrm.rms_norm`. The operands of sums and products may
      be in any order, the mean a product or a quotient, the root `math.rsqrt`
      or one over `math.sqrt`. A cast to f16 or bf16 goes along, in the last op
      or as the op that alone uses it.

    - A product whose columns are three slices, of which the first two are
      turned to the tokens' positions, by the same angles, and nothing or a cast
      follows the third, becomes a `kvrm.qkv_projection` with what follows.
    - A product takes in the `kvrm.rms_norm` that makes its input and nobody
      else's, if that rounds to the weight's element.

    What has another user in between stays as it is. A `kvrm.linear` moves down
    to the last op that it took in, where all that it reads is known.
    `kvrm-decompose-forms` is the way back.
  }];
  let statistics = [
    Statistic<"numLinears", "linears", "Number of kvrm.linear formed">,
    Statistic<"numNorms", "norms", "Number of kvrm.rms_norm formed">,
    Statistic<"numProjections", "projections",
              "Number of kvrm.qkv_projection formed">,
    Statistic<"numAbsorbed", "absorbed", "Number of ops that products took in">,
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::kvrm::KVRMDialect",
                           "::mlir::tensor::TensorDialect"];
}

def DecomposeFormsPass : Pass<"kvrm-decompose-forms", "::mlir::ModuleOp"> {
  let summary = "Take forms of the dense part apart again";
  let description = [{
    Each `kvrm.linear`, `kvrm.qkv_projection` and `kvrm.rms_norm` of a step
    becomes `linalg` ops of the same meaning, for a target without kernels for
    them: a matmul from zero, slices of its parts and one elementwise op, or one
    for each of query, key and value; a sum of squares, a scale of each row and
    their product.

    A product to which the body does nothing but to add an f32 extra `[M, N]`
    becomes a matmul that accumulates onto the extra: there is then no fill, no
    addition and no product of its own in memory. `panel` restricts that to
    outputs whose columns are a multiple of it: `kvrm-pack-weights` would have
    to copy another to a wider buffer.
  }];
  let options = [
    Option<"panel", "panel", "int64_t", /*default=*/"1",
           "Columns of an output that is accumulated onto are a multiple of "
           "this">,
  ];
  let statistics = [
    Statistic<"numDecomposed", "forms-decomposed",
              "Number of forms taken apart">,
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::math::MathDialect",
                           "::mlir::tensor::TensorDialect"];
}

def SplitProductsPass : Pass<"kvrm-split-products", "::mlir::ModuleOp"> {
  let summary = "Leave a library nothing but the product of a linear";
  let description = [{
    A library of matrix products runs a `kvrm.linear` whose body does no more
    than to round the sum, or to add to it an extra `[M, N]` of the output's
    element, unrounded. On the tensors of each step, and for more than `rows`
    rows of activations, this pass makes such a product of any other linear
    with f16 or bf16 operands: of the columns of all parts, rounded to that
    element, and a `linalg.generic` over slices of it, one a part, with the body
    of the linear.

    The intermediate is worth its memory where the product takes long: at M rows
    it is written and read once, 4 bytes for 2 * K operations.

    A linear of a shape that matrix units do not take stays as it is: its depth
    a multiple of 32, the columns of all parts one of 8.

    Products with a weight in blocks are for a library from 65 rows on, and read
    its values rounded to the element of the activations. With fewer they stay
    whole, unless parts, or halves of heads, are no whole panels of 8 rows.

    A `kvrm.qkv_projection` is split the same way, the product in f32; and
    whatever its rows where matrix units do not take it, since no other kernel
    runs one. A norm becomes a `kvrm.rms_norm` of its own in front of a product
    for a library, of one of more than 8 rows, and of one that matrix units do
    not take.
  }];
  let options = [
    Option<"rows", "rows", "int64_t", /*default=*/"kStreamedRows",
           "Rows of activations up to which a linear stays whole">,
  ];
  let statistics = [
    Statistic<"numSplit", "products-split", "Number of products split">,
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::math::MathDialect",
                           "::mlir::tensor::TensorDialect"];
}

def PackWeightsPass : Pass<"kvrm-pack-weights", "::mlir::ModuleOp"> {
  let summary = "Lay weights out in the order that kernels read them";
  let description = [{
    A matrix that is only ever the transposed right-hand side of `linalg.matmul`
    is retyped from `[n][k]` to panels, `[n / panel][k][panel]`, and its matmuls
    to contractions over panels: vector lanes then run along n, each weight is
    read once and in address order, and no dot product needs a horizontal sum.
    Rows that the last panel lacks are zeros; the extra columns are cut off
    after the contraction.

    A weight in blocks (`!kvrm.block`) becomes records of `block-panel` rows, its
    matmuls `kvrm.block_product`, behind a `kvrm.quantize_rows` of what they
    read unless activations are exact, and every element that `tensor.extract`
    reads of it is computed where it is read. A form whose weight it is reads the
    records itself. Values that are rounded to f16 or bf16 (`kvrm.dequantize`)
    are unpacked, by `kvrm.unpack_blocks`. Any other use is an error.

    Every weight then gets its place in the package's data section. Nothing is
    copied here: `#kvrm.weight` on the global says layout and offset, to the
    package writer as to the code that is compiled.

    A weight is a global that a step loads. Other globals and functions stay as
    they are, and a weight that something outside the steps uses is an error.
  }];
  let options = [
    Option<"panel", "panel", "int64_t", /*default=*/"32",
           "Rows of a panel, a multiple of the vector lanes; 0: matrices stay "
           "row-major">,
    Option<"blockPanel", "block-panel", "int64_t", /*default=*/"16",
           "Rows of a record of a weight in blocks: the vector lanes; 0: the "
           "target has no code for blocks">,
    Option<"exactActivations", "exact-activations", "bool",
           /*default=*/"false",
           "Multiply weights in blocks with activations as they are, and not "
           "rounded to eight bits">,
  ];
  let statistics = [
    Statistic<"numPacked", "weights-packed", "Number of matrices packed">,
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::tensor::TensorDialect"];
}

def BufferizeStepPass : Pass<"kvrm-bufferize-step", "::mlir::ModuleOp"> {
  let summary = "Turn the tensors of each step into buffers";
  let description = [{
    One-shot bufferization of each step with its boundary fixed: inputs are
    read-only buffers, caches are written in place, the result is written to a
    buffer that is a new last argument, and weights are views of one block of
    memory. Each argument's meaning is recorded as `kvrm.argument`.
  }];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::memref::MemRefDialect",
                           "::mlir::kvrm::KVRMDialect"];
}

def OutlineDispatchesPass : Pass<"kvrm-outline-dispatches", "::mlir::ModuleOp"> {
  let summary = "Outline the dense part to functions";
  let description = [{
    Each linalg op of a bufferized step becomes a function of a task range and
    its buffers, and a `kvrm.dispatch` of it. A task is an iteration of the
    outermost loop; the function holds the same op, on the parts of the buffers
    that the range of tasks touches, so that it means what it says for every
    target. The fill of an op's output goes with it. Equal ops become one
    function, and code size does not grow with the number of layers.
  }];
  let options = [
    Option<"parallelWork", "parallel-work", "int64_t", /*default=*/"32768",
           "Iterations from which an op is shared among workers">,
  ];
  let statistics = [
    Statistic<"numOutlined", "ops-outlined", "Number of ops outlined">,
    Statistic<"numFunctions", "functions", "Number of functions made">,
  ];
  let dependentDialects = [
    "::mlir::affine::AffineDialect", "::mlir::arith::ArithDialect",
    "::mlir::func::FuncDialect", "::mlir::kvrm::KVRMDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect"];
}

#endif // KVRM_DIALECT_TRANSFORMS_PASSES_TD
