# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Calls the compiled decode step of a package for a CPU as the runtime does, on a
history that is given: that no session can be told. The structures are those of
kvrm/runtime/abi."""

import ctypes
import os

import harness
import numpy as np
from elements import codes_of, scales_of

POINTER, I32, I64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
# No number in any element, nor in a scale of int8: what is read of it shows.
POISON = {"f16": 0x7FC0, "bf16": 0x7FC0, "f8e4m3": 0x7F, "int8": 0xFF}


def scale_bytes_of(values):
    """Scales of int8 of rows of values, as bytes, [...][2]."""
    return scales_of(values)[..., None].view(np.uint8)


class StepArguments(ctypes.Structure):
    """kvrm_step_args."""

    _fields_ = [
        *((name, POINTER) for name in ("api", "session", "weights", "arena")),
        *((name, POINTER * 2) for name in ("descriptors", "tokens")),
        *((name, POINTER) for name in ("logits", "positions", "counts", "slots")),
        *((name, POINTER) for name in ("k_cache", "v_cache")),
    ]


class KernelArguments(ctypes.Structure):
    """kvrm_kernel_args."""

    _fields_ = [
        *((name, POINTER) for name in ("descriptor", "k_pool", "v_pool")),
        ("head_stride", I64),
        *((name, POINTER) for name in ("q", "out", "k", "v", "partials", "stage_tile")),
        ("context", POINTER),
    ]


class WorkItem(ctypes.Structure):
    """kvrm_work_item."""

    _fields_ = [
        *((name, I32) for name in ("row", "kv_head", "query_tile", "tile_begin")),
        *((name, I32) for name in ("tile_end", "partial", "segment", "reserved")),
    ]


def function(*arguments):
    return ctypes.CFUNCTYPE(None, *arguments)


TASKS = function(POINTER, I64, I64)
APPEND = function(POINTER)
ATTEND = function(POINTER, POINTER, POINTER, POINTER)
# The members of kvrm_host_api, but for the collectives of several ranks.
API = (
    function(POINTER),
    function(POINTER, I32, I32),
    function(POINTER, I32, I32, APPEND, POINTER, POINTER),
    function(POINTER, I32, I32, ATTEND, POINTER, POINTER),
    function(POINTER, TASKS, POINTER, I64),
)


def aligned(count, kind=np.uint8):
    """Zeros at an address that is a multiple of 64."""
    size = count * np.dtype(kind).itemsize
    block = np.zeros(size + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size].view(kind)


def align_up(count):
    return -(-count // 64) * 64


class CompiledStep:
    """What calls of either mode share. A step runs on the calling thread."""

    def __init__(self, package):
        self.manifest = harness.manifest(package)
        self.library = ctypes.CDLL(os.path.join(package, "code.so"))
        self.entry = next(
            e for e in self.manifest["entries"] if e["name"] == "decode_step"
        )
        self.rows = self.entry["rows"]
        self.vocabulary = self.manifest["model"]["vocabulary"]
        self.element = self.manifest["cache"]["element"]
        data = open(os.path.join(package, "weights.safetensors"), "rb").read()
        data = data[8 + int.from_bytes(data[:8], "little") :]
        self.weights = aligned(len(data))
        self.weights[:] = np.frombuffer(data, np.uint8)
        self.arena = aligned(max(self.entry["arena_bytes"], 1))
        calls = (
            lambda session: None,
            lambda session, batch, transport: None,
            self.append,
            self.attend,
            lambda session, tasks, context, count: tasks(context, 0, count),
        )
        self.calls = [kind(call) for kind, call in zip(API, calls)]
        self.api = (ctypes.c_void_p * 7)()
        for i, call in enumerate(self.calls):
            self.api[i] = ctypes.cast(call, ctypes.c_void_p).value

    def append(self, session, batch, layer, kernel, k, v):
        raise AssertionError("a static step appends by itself")

    def attend(self, session, batch, layer, kernel, q, out):
        raise AssertionError("a static step attends by itself")

    def run(self, **arguments):
        """The logits, [rows][vocabulary]. Pointers of `arguments` are first of two."""
        logits = aligned(self.rows * self.vocabulary, np.float32)
        logits[:] = np.nan
        self.arena[:] = 0xFF
        step = StepArguments(
            api=ctypes.cast(self.api, ctypes.c_void_p),
            weights=self.weights.ctypes.data,
            arena=self.arena.ctypes.data,
            logits=logits.ctypes.data,
        )
        for name, array in arguments.items():
            if name in ("tokens", "descriptors"):
                getattr(step, name)[0] = array.ctypes.data
            else:
                setattr(step, name, array.ctypes.data)
        self.library.kvrm_decode_step(ctypes.byref(step))
        return logits.reshape(self.rows, self.vocabulary)


class StaticStep(CompiledStep):
    """Of a static package. `history` is [K or V][layer][row][head][token][column]."""

    def __init__(self, package, history):
        super().__init__(package)
        self.caches = []
        for cache in history:
            bits = codes_of(cache, self.element)
            if self.element == "int8":
                bits = np.concatenate([bits, scale_bytes_of(cache)], -1)
            self.caches.append(aligned(bits.size, bits.dtype))
            self.caches[-1][:] = bits.ravel()

    def __call__(self, tokens, positions):
        tokens, positions = (
            np.ascontiguousarray(values, np.int32) for values in (tokens, positions)
        )
        return self.run(
            tokens=tokens,
            positions=positions,
            k_cache=self.caches[0],
            v_cache=self.caches[1],
        )


class PagedStep(CompiledStep):
    """Of a paged package, with such a history in pages that lie in random order.
    What lies past a row's position is poison, as are pages of nobody."""

    def __init__(self, rng, package, history):
        super().__init__(package)
        cache = self.manifest["cache"]
        self.page, self.per_row = cache["page_tokens"], cache["pages_per_slot"]
        _, self.layers, _, self.heads, capacity, self.columns = history.shape
        self.history = codes_of(history, self.element)
        pages = self.rows * self.per_row + 3
        self.tables = rng.permutation(pages)[: self.rows * self.per_row]
        self.tables = self.tables.astype(np.int32).reshape(self.rows, self.per_row)
        self.scales = None  # those of a page lie behind its elements
        self.scales_at = items = self.page * self.columns
        if self.element == "int8":
            self.scales = scale_bytes_of(history)
            items = -(-(items + 2 * self.page) // 16) * 16
        shape = (self.layers, 2, self.heads, pages, items)
        kind = self.history.dtype
        self.pool = aligned(int(np.prod(shape)), kind).reshape(shape)
        self.pool[:] = POISON[self.element]
        self.written = np.zeros(self.rows, np.int64)
        self.scratch = aligned(self.entry["scratch_bytes"])
        self.lay_out()

    def lay_out(self):
        """kvrm_descriptor_layout_of, as far as a step and its kernels read."""
        self.rows_at = 64
        self.tokens_at = align_up(self.rows_at + 32 * self.rows)
        self.tables_at = align_up(self.tokens_at + 4 * self.rows)
        end = align_up(self.tables_at + 4 * self.rows * self.per_row)
        self.descriptor = aligned(end + 4096)

    def field(self, at, count):
        return self.descriptor[at : at + 4 * count].view(np.int32)

    def write_history(self, positions):
        """Writes what the pool does not have yet of the tokens before `positions`."""
        for row, position in enumerate(positions):
            for token in range(self.written[row], position):
                page = self.tables[row, token // self.page]
                slot = token % self.page
                new = self.history[:, :, row, :, token]
                # K is [column][token], V [token][column].
                self.pool[:, 0, :, page, slot : self.scales_at : self.page] = new[0]
                first = slot * self.columns
                self.pool[:, 1, :, page, first : first + self.columns] = new[1]
                if self.scales is None:
                    continue
                first = self.scales_at + 2 * slot
                for side, scales in enumerate(self.scales[:, :, row, :, token]):
                    self.pool[:, side, :, page, first : first + 2] = scales
            self.written[row] = position + 1

    def describe(self, tokens, positions):
        self.field(0, 16)[:] = 0
        self.field(0, 2)[:] = (0x44525643, self.manifest["abi_version"])
        self.field(16, 2)[:] = self.rows
        rows = self.field(self.rows_at, 8 * self.rows).reshape(self.rows, 8)
        for row, position in enumerate(positions):
            page = self.tables[row, position // self.page]
            offset = position % self.page
            rows[row] = (row, position, 1, position + 1, page, offset, 0, 0)
        self.field(self.tokens_at, self.rows)[:] = tokens
        self.field(self.tables_at, self.tables.size)[:] = self.tables.ravel()

    def arguments(self, layer):
        pool = self.pool[layer]
        return KernelArguments(
            descriptor=self.descriptor.ctypes.data,
            k_pool=pool[0].ctypes.data,
            v_pool=pool[1].ctypes.data,
            head_stride=pool[0, 0].nbytes,
        )

    def append(self, session, batch, layer, kernel, k, v):
        arguments = self.arguments(layer)
        arguments.k, arguments.v = k, v
        kernel(ctypes.byref(arguments))

    def attend(self, session, batch, layer, kernel, q, out):
        arguments = self.arguments(layer)
        arguments.q, arguments.out = q, out
        for row in range(self.rows):
            tiles = -(-int(self.written[row]) // self.entry["kv_tile"])
            for head in range(self.heads):
                item = WorkItem(row, head, 0, 0, tiles, -1, -1, 0)
                kernel(
                    ctypes.byref(arguments),
                    ctypes.byref(item),
                    self.scratch.ctypes.data,
                    None,
                )

    def __call__(self, tokens, positions):
        tokens = np.ascontiguousarray(tokens, np.int32).reshape(self.rows)
        positions = np.asarray(positions, np.int64).reshape(self.rows)
        self.write_history(positions)
        self.describe(tokens, positions)
        at = self.tokens_at
        return self.run(
            descriptors=self.descriptor, tokens=self.descriptor[at : at + 4 * self.rows]
        )
