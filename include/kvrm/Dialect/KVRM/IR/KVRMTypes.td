//===- KVRMTypes.td - Types of the kvrm dialect ------------*- tablegen -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_TYPES_TD
#define KVRM_TYPES_TD

include "kvrm/Dialect/KVRM/IR/KVRMAttrs.td"

class KVRM_Type<string name, string typeMnemonic, list<Trait> traits = []>
    : TypeDef<KVRM_Dialect, name, traits> {
  let mnemonic = typeMnemonic;
}

def KVRM_PoolType : KVRM_Type<"Pool", "pool"> {
  let summary = "pages of KV, all layers and heads";
  let description = [{
    `[layer][K or V][kv_head][page][page_tokens * head_dim]` elements. How many
    pages there are is the session's to choose at run time; everything else is
    compiled in. `page` is in tokens and a power of two. `element` is f16, bf16,
    f8E4M3FN or i8, to which keys and values are rounded when they are appended;
    f8E4M3FN has no infinities, and what is over 448 is cut off there. An i8 is
    an integer of -127..127, times a scale that the elements of one token and KV
    head share; a page has its tokens' scales, bf16, behind their elements.

    Example:
    `!kvrm.pool<layers = 30, kv_heads = 3, head_dim = 64, page = 16, element = f16, layout = transposed_keys>`
  }];
  let parameters = (ins
      "int64_t":$layers, "int64_t":$kvHeads, "int64_t":$headDim,
      "int64_t":$page, "::mlir::Type":$element,
      EnumParameter<KVRM_Layout>:$layout);
  let assemblyFormat = [{
    `<` `layers` `=` $layers `,` `kv_heads` `=` $kvHeads `,`
        `head_dim` `=` $headDim `,` `page` `=` $page `,`
        `element` `=` $element `,` `layout` `=` $layout `>`
  }];
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Bytes of K, or of V, of one page of one head.
    int64_t getPageBytes() const { return getPageLayout().bytes; }
    /// Where such a page has what.
    kvrm_page_layout getPageLayout() const;
    /// Bytes of the scale that goes with a token's elements of one head, of K
    /// and of V each; 0 if there is none.
    int64_t getScaleBytes() const;
    bool hasScales() const { return getScaleBytes() > 0; }
  }];
}

def KVRM_SessionType : KVRM_Type<"Session", "session"> {
  let summary = "the state that outlives a step";
  let description = [{
    Owns the pool and the histories of `slots` requests of at most `pages` pages
    each. Opaque to the graph: only the ops of phases 2 and 3 touch it. With
    `far_history` pages older than a window collapse, and `pages` holds the
    summaries, the window and the tokens of one step.

    A `padded` session is what paging is compared with, a static graph's: each
    slot has all its pages at all times, and attention reads all of them,
    whatever the history's length. Tokens past it weigh nothing.

    Examples: `!kvrm.session<slots = 8, pages = 128, pool = <layers = 30, ...>>`,
    `!kvrm.session<slots = 8, pages = 72, pool = <layers = 30, ...>, far_history
    = <window = 1024, entries = 64, sinks = 4>>`,
    `!kvrm.session<slots = 8, pages = 32, pool = <layers = 30, ...>, padded>`
  }];
  let parameters = (ins "int64_t":$slots, "int64_t":$pages, "PoolType":$pool,
                        OptionalParameter<"FarHistoryAttr">:$farHistory,
                        DefaultValuedParameter<"bool", "false">:$isPadded);
  let assemblyFormat = [{
    `<` `slots` `=` $slots `,` `pages` `=` $pages `,` `pool` `=` $pool
        `` custom<HistoryKind>($farHistory, $isPadded) `>`
  }];
  let genMnemonicAlias = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Summary entries of a slot, 0 without far history.
    int64_t getSummaries() const {
      return getFarHistory() ? getFarHistory().getEntries() : 0;
    }
  }];
}

def KVRM_DescriptorType : KVRM_Type<"Descriptor", "descriptor"> {
  let summary = "what one step is told about its rows";
  let description = [{
    A committed step descriptor: for each of `rows` rows its slot, position,
    count of new tokens (at most `queries`) and block table of `pages` entries,
    then transfer groups and work items. Fixed size and address; the layout is
    that of `kvrm_descriptor_layout_of` in abi.h.

    Example: `!kvrm.descriptor<rows = 8, queries = 1, pages = 128>`
  }];
  let parameters = (ins "int64_t":$rows, "int64_t":$queries, "int64_t":$pages);
  let assemblyFormat = "`<` struct(params) `>`";
  let genMnemonicAlias = 1;
  let genVerifyDecl = 1;
}

def KVRM_GroupsType : KVRM_Type<"Groups", "groups"> {
  let summary = "the transfer groups of one step, handed to a transport";
  let description = [{
    A transfer group is a maximal run of physically adjacent pages of one row,
    cut at a bounded size. The same groups serve every layer.
  }];
}

def KVRM_WorkItemType : KVRM_Type<"WorkItem", "work_item"> {
  let summary = "the share of attention one call of a kernel computes";
  let description = [{
    A query tile of one row and KV head, over a range of KV tiles
    (`kvrm_work_item` in abi.h).
  }];
}

def KVRM_FragmentType : KVRM_Type<"Fragment", "fragment"> {
  let summary = "a tile of values inside a kernel";
  let description = [{
    `rows` by `cols` elements held wherever the target holds tiles: pages or
    registers on a CPU, shared memory or registers on a GPU.

    Example: `!kvrm.fragment<64x128xf16>`
  }];
  let parameters = (ins "int64_t":$rows, "int64_t":$cols,
                        "::mlir::Type":$element);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def KVRM_BlockType : KVRM_Type<"Block", "block"> {
  let summary = "neighbours of a row of weights, as codes and scales";
  let description = [{
    One block of a GGUF tensor, or of a format of ours: 32, 128 or 256 elements
    of a row, as codes of four to eight bits and what turns them into values (`kvrm/runtime/abi/block_format.h`). A
    matrix `[n][k]` is a tensor of blocks `[n][k / elements]`; what its values
    are `kvrm.dequantize` says.

    Example: `tensor<960x18x!kvrm.block<q4_1>>`
  }];
  let parameters = (ins EnumParameter<KVRM_BlockFormat>:$format);
  let assemblyFormat = "`<` $format `>`";
}

def KVRM_SoftmaxType : KVRM_Type<"Softmax", "softmax"> {
  let summary = "running state (m, l, acc) of an online softmax";
  let description = [{
    For each of `rows` query rows the running maximum `m`, the sum of weights
    `l` and `acc`, the weighted sum of `cols` values, in f32 (Milakov and
    Gimelshein, arXiv 1805.02867). A value of this type is used once: a target
    may update it in place.

    Example: `!kvrm.softmax<3x64>`
  }];
  let parameters = (ins "int64_t":$rows, "int64_t":$cols);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

#endif // KVRM_TYPES_TD
