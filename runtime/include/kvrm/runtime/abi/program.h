//===- program.h - A step of a GPU as data ------------------------*- C -*-===//
//
// Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
// See LICENSE for licence information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A static step is a straight line of launches whose addresses never change. So
// it is a table: the compiler writes it, and the runtime checks it, prints it
// and records it into one graph a schedule. What a step does is in the
// descriptor alone; nothing of a program depends on the rows' lengths.
//
// The file is a kvrm_program_header, its commands, then the arguments of all
// commands, little-endian, with no bytes between or after.
//
//===----------------------------------------------------------------------===//

#ifndef KVRM_RUNTIME_ABI_PROGRAM_H
#define KVRM_RUNTIME_ABI_PROGRAM_H

#include "kvrm/runtime/abi/limits.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVRM_PROGRAM_MAGIC 0x5052564bu /* "KVRP" in a little-endian dump */

enum {
  KVRM_MAX_PROGRAM_COMMANDS = 1 << 16,
  KVRM_MAX_COMMAND_ARGS = 64,
  KVRM_MAX_PROGRAM_TENSORS = 4096,
  KVRM_MAX_KERNELS = 4096,                ///< of a package
  KVRM_MAX_PRODUCT_SIZE = 1 << 24,        ///< M, N and K of a product
  KVRM_MAX_COLLECTIVE_ELEMENTS = 1 << 30, ///< of in
  KVRM_MAX_STAND_INS = 16,    ///< commands that stand in for a product
  KVRM_PRODUCT_ALIGNMENT = 16 ///< of a product's arguments, in bytes
};

/// What a device kernel is for. Kernels of the first six roles take exactly the
/// fields of kvrm_device_args, in order; a dense one takes what its command
/// gives it; one that samples takes logits, rows, sampling and next.
typedef enum kvrm_kernel_role {
  KVRM_ROLE_COMMIT = 0,           ///< applies a commit's delta
  KVRM_ROLE_APPEND = 1,           ///< new keys and values to their pages
  KVRM_ROLE_ATTEND_WORKQUEUE = 2, ///< blocks take shares of the work items
  KVRM_ROLE_ATTEND_CLUSTER = 3,   ///< a cluster an output tile
  KVRM_ROLE_STAGE = 4,            ///< transfer groups to staging memory
  KVRM_ROLE_ATTEND_STAGED = 5,    ///< as workqueue, over staged pages
  KVRM_ROLE_DENSE = 6,            ///< any other; a package may have several
  KVRM_ROLE_SAMPLE = 7,           ///< next tokens by sampling.h, a block a row
  KVRM_ROLE_ATTEND_PROMPT = 8,    ///< a block an output tile of many query rows
  /// Far history's summaries, between steps: a block a KV head of each layer's
  /// K and V. Of kvrm_device_args it reads delta, k_pool, which is all of the
  /// pool, and head_stride.
  KVRM_ROLE_COLLAPSE = 9,
  KVRM_KERNEL_ROLES = 10
} kvrm_kernel_role;

/// A role as manifests and IR spell it; null for what is none.
static inline const char *kvrm_kernel_role_name(int32_t role) {
  static const char *const names[KVRM_KERNEL_ROLES] = {
      "commit",         "append", "attend_workqueue",
      "attend_cluster", "stage",  "attend_workqueue_staged",
      "dense",          "sample", "attend_prompt",
      "collapse"};
  return role >= 0 && role < KVRM_KERNEL_ROLES ? names[role] : 0;
}

typedef enum kvrm_command_kind {
  KVRM_COMMAND_KERNEL = 0,
  /// Copies the bytes of the second argument to the first's; both say how many.
  KVRM_COMMAND_COPY = 1,
  /// out[M][N] = in[M][K] * weight[N][K]^T, plus addend[M][N] if there is a
  /// fourth argument. Rows are contiguous and follow one another; sums are f32
  /// in any order, and rounded once. For a library: a runtime that has one runs
  /// the product and skips the commands right after it that stand in for it;
  /// any other skips the product. Arguments are out, in, weight, addend: the
  /// weight of the weights or, where a kernel has unpacked it, of the arena,
  /// the others of the arena; out may be all the logits, too. Out overlaps
  /// neither in nor weight; the addend it may be. An addend is f32: a library
  /// was seen to round twice when it adds to f16 or bf16.
  KVRM_COMMAND_PRODUCT = 2,
  /// out[i] = sum over all ranks of in[i], the same bits on every rank. For a
  /// library of collectives, as is the next. All ranks run the same program,
  /// and so meet the same collectives in the same order. Arguments are out and
  /// in, both of the arena and apart; out may be all the logits, too.
  /// A sum may have one command right after it that stands in for it, a dense
  /// kernel that hands the values over through the ranks' mailboxes
  /// (KVRM_BASE_PEERS). A runtime whose ranks have such runs it and skips the
  /// sum; any other skips it. It may stand in for the command behind it, too:
  /// a dense kernel that is given the sum's out, which nobody else is.
  KVRM_COMMAND_ALL_REDUCE = 3,
  /// out[r][i] = in[i] of rank r.
  KVRM_COMMAND_ALL_GATHER = 4,
  KVRM_COMMAND_KINDS = 5
} kvrm_command_kind;

/// Elements of a collective's in and out, of which its sums are.
typedef enum kvrm_collective_type {
  KVRM_COLLECTIVE_F32 = 0,
  KVRM_COLLECTIVE_F16 = 1,
  KVRM_COLLECTIVE_BF16 = 2,
  KVRM_COLLECTIVE_TYPES = 3
} kvrm_collective_type;

static inline int64_t kvrm_collective_bytes(kvrm_collective_type type) {
  return type == KVRM_COLLECTIVE_F32 ? 4 : 2;
}

static inline int32_t kvrm_command_is_collective(int32_t kind) {
  return kind == KVRM_COMMAND_ALL_REDUCE || kind == KVRM_COMMAND_ALL_GATHER;
}

/// Elements of a product: those of in and weight, and of out.
typedef enum kvrm_product_type {
  KVRM_PRODUCT_F16 = 0, ///< f16 all
  KVRM_PRODUCT_BF16 = 1,
  KVRM_PRODUCT_F16_F32 = 2, ///< f16 in and weight, f32 out
  KVRM_PRODUCT_BF16_F32 = 3,
  KVRM_PRODUCT_TYPES = 4
} kvrm_product_type;

/// The element of a product's in and weight.
static inline kvrm_element kvrm_product_element(kvrm_product_type type) {
  return type == KVRM_PRODUCT_F16 || type == KVRM_PRODUCT_F16_F32 ? KVRM_F16
                                                                  : KVRM_BF16;
}

/// Whether its out is f32, and not of that element.
static inline int32_t kvrm_product_is_f32(kvrm_product_type type) {
  return type == KVRM_PRODUCT_F16_F32 || type == KVRM_PRODUCT_BF16_F32;
}

/// How many blocks a kernel gets along x; along y and z it is grid[1] and
/// grid[2].
typedef enum kvrm_grid_rule {
  KVRM_GRID_FIXED = 0,     ///< grid[0]
  KVRM_GRID_ROWS = 1,      ///< grid[0] a row of the step
  KVRM_GRID_SHARES = 2,    ///< one a share of the descriptor; grid[0] is 1
  KVRM_GRID_CLUSTERS = 3,  ///< a cluster for each of grid[0] outputs of a row
  KVRM_GRID_PROCESSORS = 4 ///< grid[0] a multiprocessor of the device
} kvrm_grid_rule;

/// The ways in which a program can be run; a command says in which of them it
/// takes part.
typedef enum kvrm_program_schedule {
  KVRM_RUN_WORKQUEUE = 1,
  KVRM_RUN_CLUSTER = 2, ///< the cluster's size is chosen when it is recorded
  KVRM_RUN_STAGED = 4,
  KVRM_RUN_ALL = 7
} kvrm_program_schedule;

enum {
  /// Blocks may start before the command ahead has ended; the kernel waits by
  /// itself (programmatic dependent launch).
  KVRM_COMMAND_PROGRAMMATIC = 1
};

/// Where an argument points. `offset` and `bytes` count in the memory named;
/// where they mean nothing both are 0, and so is `index`, which says the batch
/// of what is in a descriptor (kvrm_base_has_batch). Of the rows `offset` may
/// be that of a field in kvrm_row, for dense kernels; of logits and next that
/// of a batch's first row, for sample kernels.
typedef enum kvrm_program_base {
  KVRM_BASE_IMMEDIATE = 0, ///< no address: the value is `offset`
  KVRM_BASE_ARENA = 1,     ///< intermediate values; offset, bytes
  KVRM_BASE_WEIGHTS = 2,   ///< offset, bytes
  KVRM_BASE_TENSOR = 3,    ///< `index` of the entry's inputs and outputs, whole
  KVRM_BASE_DELTA = 4,     ///< a commit as it travels
  KVRM_BASE_DESCRIPTOR = 5, ///< the committed descriptor, and its sections:
  KVRM_BASE_ROWS = 6,
  KVRM_BASE_TABLES = 7,
  KVRM_BASE_GROUPS = 8,
  KVRM_BASE_ITEMS = 9,
  KVRM_BASE_SEGMENTS = 10,
  KVRM_BASE_SHARES = 11,
  KVRM_BASE_K_POOL = 12, ///< K of layer `index`
  KVRM_BASE_V_POOL = 13, ///< V of layer `index`
  KVRM_BASE_PARTIALS = 14,
  KVRM_BASE_HEAD_STRIDE = 15,    ///< no address: kvrm_device_args::head_stride
  KVRM_BASE_PAGES_PER_SLOT = 16, ///< no address
  KVRM_BASE_STAGED_K = 17,       ///< 0 without staging
  KVRM_BASE_STAGED_V = 18,
  KVRM_BASE_TOKENS = 19, ///< the descriptor's tokens; of dense kernels alone
  /// float[rows of all batches][vocabulary]; of dense and sample kernels.
  KVRM_BASE_LOGITS = 20,
  KVRM_BASE_SAMPLING = 21, ///< the descriptor's; of sample kernels alone
  /// int32_t[rows of all batches], chosen; of sample kernels alone.
  KVRM_BASE_NEXT = 22,
  /// kvrm_peers of mailbox `index` (device.h); of dense kernels alone that
  /// stand in for sums. Of a program's, the first is mailbox 0, the last is
  /// not, and no two that follow one another are the same.
  KVRM_BASE_PEERS = 23,
  KVRM_PROGRAM_BASES = 24
} kvrm_program_base;

/// Whether each batch of a step has its own: a descriptor, what is in it, and
/// what depends on its layout.
static inline int32_t kvrm_base_has_batch(int32_t base) {
  return (base >= KVRM_BASE_DELTA && base <= KVRM_BASE_SHARES) ||
         base == KVRM_BASE_PAGES_PER_SLOT || base == KVRM_BASE_TOKENS ||
         base == KVRM_BASE_SAMPLING;
}

/// First bytes of a program.
typedef struct kvrm_program_header {
  uint32_t magic;       ///< KVRM_PROGRAM_MAGIC
  uint32_t abi_version; ///< KVRM_ABI_VERSION
  uint32_t commands;
  uint32_t args;       ///< of all commands together
  uint32_t tensors;    ///< inputs and outputs of the entry
  uint32_t layers;     ///< layers of the pool that it reaches
  uint32_t batches;    ///< of the step, each with its descriptor
  uint32_t ranks;      ///< that run it together; 1 = no collectives
} kvrm_program_header; // 32 bytes

/// One command. Its arguments are [first_arg, first_arg + args); those of a
/// program's commands follow one another.
typedef struct kvrm_program_command {
  uint16_t kind;      ///< kvrm_command_kind
  uint16_t flags;     ///< KVRM_COMMAND_PROGRAMMATIC, of a kernel
  uint16_t schedules; ///< kvrm_program_schedule, a bit each
  /// kvrm_grid_rule of a kernel, kvrm_product_type of a product,
  /// kvrm_collective_type of a collective, 0 for a copy.
  uint16_t grid_rule;
  /// Index in the manifest's kernels; of a product or sum how many commands
  /// after it stand in for it, dense kernels of the same schedules, at least
  /// one of which is given its out; 0 for others.
  uint32_t kernel;
  /// M, N and K of a product; of a collective elements of in, whether what
  /// stands in for it does for the command behind that too, and 0; 0 for a
  /// copy.
  uint32_t grid[3];
  uint32_t first_arg;
  uint32_t args;
} kvrm_program_command; // 32 bytes

/// One argument, a kernel parameter of 8 bytes.
typedef struct kvrm_program_arg {
  uint16_t base;  ///< kvrm_program_base
  uint16_t index; ///< a layer, tensor or batch, where the base has such
  uint32_t reserved;
  int64_t offset;
  int64_t bytes;    ///< that the command may touch
} kvrm_program_arg; // 24 bytes

/// What the fields of kvrm_device_args are, one a field: the base that an
/// argument there must have. q, out, k and v may lie in the arena instead.
static inline int32_t kvrm_device_arg_base(int32_t field) {
  static const uint8_t bases[] = {
      KVRM_BASE_DELTA,       KVRM_BASE_DESCRIPTOR,     KVRM_BASE_ROWS,
      KVRM_BASE_TABLES,      KVRM_BASE_GROUPS,         KVRM_BASE_ITEMS,
      KVRM_BASE_SEGMENTS,    KVRM_BASE_SHARES,         KVRM_BASE_K_POOL,
      KVRM_BASE_V_POOL,      KVRM_BASE_TENSOR,         KVRM_BASE_TENSOR,
      KVRM_BASE_TENSOR,      KVRM_BASE_TENSOR,         KVRM_BASE_PARTIALS,
      KVRM_BASE_HEAD_STRIDE, KVRM_BASE_PAGES_PER_SLOT, KVRM_BASE_STAGED_K,
      KVRM_BASE_STAGED_V};
  return field >= 0 && field < (int32_t)sizeof(bases) ? bases[field] : -1;
}

/// The base that an argument of a sample kernel must have; -1 past the last.
static inline int32_t kvrm_sample_arg_base(int32_t position) {
  static const uint8_t bases[] = {KVRM_BASE_LOGITS, KVRM_BASE_ROWS,
                                  KVRM_BASE_SAMPLING, KVRM_BASE_NEXT};
  return position >= 0 && position < (int32_t)sizeof(bases) ? bases[position]
                                                            : -1;
}

/// What a dense kernel that appends keys and values to the pages of a layer
/// takes behind its buffers.
enum { KVRM_APPEND_ARGS = 6 };
static inline int32_t kvrm_append_arg_base(int32_t position) {
  static const uint8_t bases[KVRM_APPEND_ARGS] = {
      KVRM_BASE_ROWS,   KVRM_BASE_TABLES,      KVRM_BASE_K_POOL,
      KVRM_BASE_V_POOL, KVRM_BASE_HEAD_STRIDE, KVRM_BASE_PAGES_PER_SLOT};
  return position >= 0 && position < KVRM_APPEND_ARGS ? bases[position] : -1;
}

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KVRM_RUNTIME_ABI_PROGRAM_H
