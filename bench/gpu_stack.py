#!/usr/bin/env python3
"""Whole decode steps and prompts of PyTorch on a GPU, beside kvrm's where those are given.

A Llama decoder with random f16 weights runs in three ways. What is compared with kvrm
is a whole step as its caller sees it: by wall clock, from a step's plan to its tokens
on the host.

  stack     decode as serving engines build it: cuBLAS products with Q, K and V in one
            and gate and up in one; Triton kernels for residual and RMS norm, for RoPE
            and the append to pages, for SiLU and product; attention of FlashInfer over
            pages of 16 in random order; argmax. All of it is one CUDA graph a step.
            Page tables of all steps are on the GPU before the first: making them is
            not counted.
  prefill   one prompt in one go through the same layers, as one CUDA graph, and the
            logits of its last token alone. K and V go to pages, too.
  static    LlamaForCausalLM of transformers with a StaticCache under torch.compile in
            mode reduce-overhead, which attends to the whole capacity at every step.

Of FlashInfer every variant runs, and its best one counts, for each row apart:

  fa2, fa2 tc, xqa   its kernels, fa2 without and with tensor cores (xqa has no plan)
  HND, NHD           the layout of pages, as --layouts says
  pdl                programmatic dependent launch, of attention and of the Triton kernels
  lt                 the best one again with products of cuBLASLt

`none` is no attention at all: it is what runs where FlashInfer is missing, is marked so,
and computes no decoder. Prompts attend by fa3 (FlashInfer's for Hopper), cudnn and flash
(both of PyTorch), and the fastest counts.

A row is ROWSxTOKENS, and an entry a list of them with commas between, or NAME=LENGTHS as
in `kvrm-run bench attention --rows`, with semicolons between entries:
  8x2048,32x4000;mine=70001,17*8
Histories grow by a token a step from there. Their K and V are random, and what steps
append is computed.

Before anything is timed, every variant decodes prompts of 40 tokens from empty pages by
the graph that is timed later, with the first --check-layers layers. Logits are compared
with those of plain PyTorch in f32: off by more than 1e-2 of their norm, a variant does
not count. All logits that are timed are checked to be finite.

Times are medians of --steps steps. `graph` is the graph's replay alone, by events; `plan`
is the host's time in plan(), which is in `step`, and not in `graph`.

--kvrm reads what `kvrm-run bench --json` wrote, and may be repeated: for decode rows
those of the same lengths; for a prompt that of one slot; for static those of the
longest context within the capacity. Ratios are over 1 where kvrm is ahead.

Needs PyTorch, Triton and a GPU; transformers for static.
"""

import argparse
import dataclasses
import functools
import gc
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types

from common import machine, progress

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

PAGE = 16
MOST_TOKENS = 1 << 20
MOST_ROWS = 1024
ROWS = "1x2048,8x2048,8x4000,16x2048,32x2048,32x4000,64x1024"
PARTS = ("stack", "prefill", "static")
PROMPT_KINDS = ("fa3", "cudnn", "flash")

EPSILON = 1e-5
ROPE_BASE = 500000.0
CHECK_PROMPTS = 3
CHECK_TOKENS = 40
TOLERANCE = 1e-2
WRONG = "wrong logits"

# A worker's exit after an error that leaves its GPU context useless.
LOST = 7


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int


SHAPES = {
    "8b": Shape(32, 4096, 32, 8, 128, 14336, 128256),
    "1b": Shape(16, 2048, 32, 8, 64, 8192, 128256),
}


# --- Rows ---


def listed_lengths(text):
    """Lengths of "17" or "17*8"."""
    found = re.fullmatch(r"(\d+)(?:\*(\d+))?", text)
    length, count = (int(found[1]), int(found[2] or 1)) if found else (0, 0)
    if not (1 <= length <= MOST_TOKENS and 1 <= count <= MOST_ROWS):
        raise ValueError(
            f"'{text}' is not LENGTH or LENGTH*COUNT, of 1 to {MOST_TOKENS} tokens and "
            f"{MOST_ROWS} rows"
        )
    return [length] * count


def product(text, names):
    """The two numbers of "8x2048"."""
    found = re.fullmatch(r"B?(\d+)x(\d+)", text)
    if not found:
        raise ValueError(f"'{text}' is not {names}")
    return int(found[1]), int(found[2])


def parse_rows(texts):
    rows = []
    for entry in ";".join(texts).split(";"):
        if "=" in entry:
            name, _, lengths = entry.partition("=")
            if not name:
                raise ValueError(f"'{entry}' has no name before its =")
            listed = map(listed_lengths, lengths.split(","))
            rows.append({"name": name, "lengths": list(itertools.chain(*listed))})
        elif entry and entry != "none":
            for name in entry.split(","):
                count, length = product(name, "ROWSxTOKENS")
                rows.append({"name": name, "lengths": listed_lengths(f"{length}*{count}")})
    for row in rows:
        if len(row["lengths"]) > MOST_ROWS:
            raise ValueError(f"{row['name']}: has more than {MOST_ROWS} rows")
    return rows


def pages_of(lengths):
    return [-(-length // PAGE) for length in lengths]


# --- Kernels ---


def make_kernels():
    """What stands between two products, and between a product and attention."""
    import triton
    import triton.language as tl
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

    @triton.jit
    def add_norm(
        stream, delta, weight, out, width, epsilon,
        ADD: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
    ):  # fmt: skip
        column = tl.arange(0, BLOCK)
        inside = column < width
        scale = tl.load(weight + column, inside, 0.0).to(tl.float32)
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        at = tl.program_id(0).to(tl.int64) * width + column
        x = tl.load(stream + at, inside, 0.0).to(tl.float32)
        if ADD:
            x += tl.load(delta + at, inside, 0.0).to(tl.float32)
            tl.store(stream + at, x.to(tl.float16), inside)
        x *= tl.rsqrt(tl.sum(x * x, 0) / width + epsilon)
        tl.store(out + at, (x * scale).to(tl.float16), inside)

    @triton.jit
    def rope_append(
        qkv, q, k, k_pages, v_pages, table, lens, cos_sin,
        table_width, head_stride, token_stride,
        GROUPS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,
        PROMPT: tl.constexpr, PDL: tl.constexpr,
    ):  # fmt: skip
        # A program has HEADS heads of a token: GROUPS of Q, then K, then V.
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        token = tl.program_id(0).to(tl.int64)
        group = tl.program_id(1)
        head = tl.arange(0, HEADS)[:, None]
        half = tl.arange(0, DIM // 2)[None, :]
        inner = head * DIM + half
        source = qkv + (token * (GROUPS + 2) + group) * HEADS * DIM + inner
        low = tl.load(source).to(tl.float32)
        high = tl.load(source + DIM // 2).to(tl.float32)
        if PROMPT:
            slot = token * 0
            position = token
        else:
            slot = token
            position = tl.load(lens + token).to(tl.int64) - 1
        angle = cos_sin + position * DIM + half
        turned = (group <= GROUPS) & (half < DIM)
        cos = tl.load(angle, turned, 1.0)
        sin = tl.load(angle + DIM // 2, turned, 0.0)
        first = (low * cos - high * sin).to(tl.float16)
        second = (high * cos + low * sin).to(tl.float16)
        if group < GROUPS:
            target = q + (token * GROUPS + group) * HEADS * DIM + inner
            tl.store(target, first)
            tl.store(target + DIM // 2, second)
        else:
            page = tl.load(table + slot * table_width + position // PAGE).to(tl.int64)
            offset = page * PAGE * HEADS * DIM + position % PAGE * token_stride
            offset += head * head_stride + half
            if group == GROUPS:
                tl.store(k_pages + offset, first)
                tl.store(k_pages + offset + DIM // 2, second)
                if PROMPT:
                    tl.store(k + token * HEADS * DIM + inner, first)
                    tl.store(k + token * HEADS * DIM + inner + DIM // 2, second)
            else:
                tl.store(v_pages + offset, first)
                tl.store(v_pages + offset + DIM // 2, second)

    @triton.jit
    def silu_product(gate_up, out, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        token = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < width
        gate = tl.load(gate_up + token * 2 * width + column, inside, 0.0).to(tl.float32)
        up = tl.load(gate_up + token * 2 * width + width + column, inside, 0.0).to(tl.float32)
        result = gate * tl.sigmoid(gate) * up
        tl.store(out + token * width + column, result.to(tl.float16), inside)

    return types.SimpleNamespace(
        add_norm=add_norm, rope_append=rope_append, silu_product=silu_product
    )


# --- The decoder ---


class Decoder:
    """Random weights of a shape, and one pass through them."""

    def __init__(self, shape, positions, device="cuda", seed=1):
        self.shape = shape
        self.device = device
        self.kernels = make_kernels()
        self.pdl = False
        torch.manual_seed(seed)
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.embedding = self.normal(shape.vocab, shape.hidden)
        self.layers = [
            types.SimpleNamespace(
                norm=self.near_one(),
                qkv=self.weight(q + 2 * kv, shape.hidden),
                out=self.weight(shape.hidden, q),
                ffn_norm=self.near_one(),
                gate_up=self.weight(2 * shape.ffn, shape.hidden),
                down=self.weight(shape.hidden, shape.ffn),
            )
            for _ in range(shape.layers)
        ]
        self.norm = self.near_one()
        self.head = self.weight(shape.vocab, shape.hidden)
        self.cos_sin = torch.cat(self.angles(positions), 1).contiguous()

    def normal(self, *size, std=1.0):
        return torch.empty(size, dtype=torch.float16, device=self.device).normal_(std=std)

    def weight(self, outputs, inputs):
        return self.normal(outputs, inputs, std=inputs**-0.5)

    def near_one(self):
        return 1 + self.normal(self.shape.hidden, std=0.1)

    def angles(self, positions):
        """Cosines and sines of RoPE, in f32."""
        half = self.shape.head_dim // 2
        power = torch.arange(half, dtype=torch.float64, device=self.device) / half
        position = torch.arange(positions, dtype=torch.float64, device=self.device)
        angle = position[:, None] * ROPE_BASE**-power
        return angle.cos().float(), angle.sin().float()

    def launch(self, kernel, grid, *arguments, **options):
        if self.pdl:
            options["launch_pdl"] = True
        kernel[grid](*arguments, PDL=self.pdl, **options)

    def add_norm(self, stream, delta, weight):
        """Adds to the residual stream, in place, and norms it."""
        rows, width = stream.shape
        out = torch.empty_like(stream)
        self.launch(
            self.kernels.add_norm, (rows,), stream, stream if delta is None else delta, weight,
            out, width, EPSILON, ADD=delta is not None,
            BLOCK=1 << (width - 1).bit_length(), num_warps=8,
        )  # fmt: skip
        return out

    def silu_product(self, gate_up):
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
        self.launch(
            self.kernels.silu_product, (rows, -(-width // 1024)), gate_up, out, width, BLOCK=1024
        )
        return out

    def rope_append(self, qkv, pages, layer):
        """Rotated Q and, of a prompt, K and V beside what went to pages."""
        shape, rows = self.shape, qkv.shape[0]
        q = torch.empty((rows, shape.heads, shape.head_dim), dtype=qkv.dtype, device=qkv.device)
        k = q
        if pages.is_prompt:
            k = torch.empty_like(q[:, : shape.kv_heads], memory_format=torch.contiguous_format)
        groups = shape.heads // shape.kv_heads
        self.launch(
            self.kernels.rope_append, (rows, groups + 2), qkv, q, k, *pages.flat[layer],
            pages.table, pages.lens, self.cos_sin, pages.table.shape[1], pages.head_stride,
            pages.token_stride, GROUPS=groups, HEADS=shape.kv_heads, DIM=shape.head_dim,
            PAGE=PAGE, PROMPT=pages.is_prompt,
        )  # fmt: skip
        return q, k, qkv.view(rows, -1, shape.head_dim)[:, shape.heads + shape.kv_heads :]

    def forward(self, tokens, pages, attend, depth):
        """Logits of every row, or of a prompt's last token."""
        stream = F.embedding(tokens, self.embedding)
        rows, delta = len(tokens), None
        for index, layer in enumerate(self.layers[:depth]):
            normed = self.add_norm(stream, delta, layer.norm)
            q, k, v = self.rope_append(F.linear(normed, layer.qkv), pages, index)
            delta = F.linear(attend(index, q, k, v).view(rows, -1), layer.out)
            normed = self.add_norm(stream, delta, layer.ffn_norm)
            gated = self.silu_product(F.linear(normed, layer.gate_up))
            delta = F.linear(gated, layer.down)
        if pages.is_prompt:
            stream, delta = stream[-1:], delta[-1:]
        return F.linear(self.add_norm(stream, delta, self.norm), self.head)

    def reference(self, prompts, depth):
        """Logits after prompts of one length, by plain PyTorch in f32."""
        shape = self.shape
        x = self.embedding[prompts].float()
        batch, length = prompts.shape
        cos, sin = (part[:, None] for part in self.angles(length))
        mask = torch.ones(length, length, device=self.device).tril().log()

        def norm(x, weight):
            return x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight.float()

        def rotated(x):
            low, high = x.chunk(2, -1)
            return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

        for layer in self.layers[:depth]:
            qkv = norm(x, layer.norm) @ layer.qkv.float().T
            heads = qkv.view(batch, length, -1, shape.head_dim)
            q, k, v = heads.split([shape.heads, shape.kv_heads, shape.kv_heads], 2)
            group = shape.heads // shape.kv_heads
            k, v = (part.repeat_interleave(group, 2) for part in (rotated(k), v))
            scores = torch.einsum("bqhd,bkhd->bhqk", rotated(q), k) * shape.head_dim**-0.5
            mixed = torch.einsum("bhqk,bkhd->bqhd", torch.softmax(scores + mask, -1), v)
            x = x + mixed.reshape(batch, length, -1) @ layer.out.float().T
            gate, up = (norm(x, layer.ffn_norm) @ layer.gate_up.float().T).chunk(2, -1)
            x = x + (F.silu(gate) * up) @ layer.down.float().T
        return norm(x[:, -1], self.norm) @ self.head.float().T


def check_logits(logits, wanted):
    """The error in the norm, relative."""
    error = ((logits.float() - wanted).norm() / wanted.norm()).item()
    if not error <= TOLERANCE:
        raise RuntimeError(f"{WRONG}: off by {error:.3g} of their norm")
    return error


def check_finite(logits):
    if not torch.isfinite(logits).all().item():
        raise RuntimeError(f"{WRONG}: not all are finite")


class Pages:
    """Where K and V of a batch lie: views of one storage, in random order."""

    def __init__(self, shape, storage, lengths, layout, is_prompt=False):
        self.is_prompt = is_prompt
        self.counts = pages_of(lengths)
        total = sum(self.counts)
        size = total * PAGE * shape.kv_heads * shape.head_dim
        inner = (PAGE, shape.kv_heads, shape.head_dim)
        self.head_stride, self.token_stride = shape.head_dim, shape.kv_heads * shape.head_dim
        if layout == "HND":
            inner = (shape.kv_heads, PAGE, shape.head_dim)
            self.head_stride, self.token_stride = PAGE * shape.head_dim, shape.head_dim
        self.flat = storage
        self.caches = [
            tuple(part[:size].view(total, *inner) for part in layer) for layer in storage
        ]
        device = storage[0][0].device
        self.lists = list(torch.randperm(total).int().split(self.counts))
        self.table = torch.nn.utils.rnn.pad_sequence(self.lists, batch_first=True)
        self.table = self.table.contiguous().to(device)
        self.lens = torch.ones(len(lengths), dtype=torch.int32, device=device)


# --- Attention of FlashInfer over pages ---


class Plans:
    """What the host knows of each step, in pinned memory, as copies of it should be."""

    def __init__(self, pages, lengths, steps):
        batch = len(lengths)
        self.pinned = torch.zeros((3, steps, batch + 1), dtype=torch.int32, pin_memory=True)
        self.indices = []
        before = None
        for i in range(steps):
            grown = torch.tensor(lengths, dtype=torch.int32) + i + 1
            counts = (grown + PAGE - 1) // PAGE
            self.pinned[0, i, 1:] = counts.cumsum(0)
            self.pinned[1, i, :batch] = (grown - 1) % PAGE + 1
            self.pinned[2, i, :batch] = grown
            # The indices change where a history enters its next page.
            if counts.tolist() != before:
                used = [part[:count] for part, count in zip(pages.lists, counts)]
                latest = torch.cat(used).to(pages.table.device)
            before = counts.tolist()
            self.indices.append(latest)
        self.batch = batch

    def csr(self, i):
        return self.pinned[0, i], self.indices[i], self.pinned[1, i, : self.batch]

    def lens(self, i):
        return self.pinned[2, i, : self.batch]


class NoAttention:
    def __init__(self, worker, pages, plans, variant):
        self.pages, self.plans = pages, plans

    def plan(self, i):
        self.pages.lens.copy_(self.plans.lens(i), non_blocking=True)

    def __call__(self, layer, q, k, v):
        return q


class Xqa(NoAttention):
    def __init__(self, worker, pages, plans, variant):
        super().__init__(worker, pages, plans, variant)
        shape = worker.shape
        self.run = functools.partial(
            worker.flashinfer.decode.xqa_batch_decode_with_kv_cache,
            workspace_buffer=worker.xqa_workspace, block_tables=pages.table,
            seq_lens=pages.lens, max_seq_len=pages.table.shape[1] * PAGE,
            bmm1_scale=shape.head_dim**-0.5, bmm2_scale=1.0, kv_layout=variant["layout"],
            enable_pdl=variant["pdl"],
        )  # fmt: skip

    def __call__(self, layer, q, k, v):
        out = torch.empty_like(q)
        self.run(q, self.pages.caches[layer], out=out)
        return out


class Fa2(NoAttention):
    def __init__(self, worker, pages, plans, variant):
        super().__init__(worker, pages, plans, variant)
        flashinfer, shape = worker.flashinfer, worker.shape
        batch, zeros = plans.batch, functools.partial(torch.zeros, device="cuda")
        self.wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            worker.workspace, variant["layout"], use_cuda_graph=True,
            use_tensor_cores=variant["kind"] == "fa2 tc",
            paged_kv_indptr_buffer=zeros(batch + 1, dtype=torch.int32),
            paged_kv_indices_buffer=zeros(sum(pages.counts), dtype=torch.int32),
            paged_kv_last_page_len_buffer=zeros(batch, dtype=torch.int32), backend="fa2",
        )  # fmt: skip
        self.extra = {"enable_pdl": variant["pdl"]}
        self.shape = (shape.heads, shape.kv_heads, shape.head_dim, PAGE)
        # The first plan is a whole one; later ones leave out what does not change.
        half = torch.float16
        self.wrapper.plan(*plans.csr(0), *self.shape, q_data_type=half, kv_data_type=half)
        self.fast_plan = getattr(flashinfer, "fast_decode_plan", None)

    def plan(self, i):
        super().plan(i)
        indptr, indices, last = self.plans.csr(i)
        wrapper, half = self.wrapper, torch.float16
        if self.fast_plan is None:
            wrapper.plan(indptr, indices, last, *self.shape, q_data_type=half, kv_data_type=half)
            return
        wrapper._paged_kv_indptr_buf.copy_(indptr, non_blocking=True)
        wrapper._paged_kv_indices_buf[: len(indices)].copy_(indices)
        wrapper._paged_kv_last_page_len_buf.copy_(last, non_blocking=True)
        self.fast_plan(
            wrapper, indptr, indices, last, *self.shape,
            q_data_type=half, kv_data_type=half, global_override_indptr_cpu=indptr,
        )  # fmt: skip

    def __call__(self, layer, q, k, v):
        out = torch.empty_like(q)
        self.wrapper.run(q, self.pages.caches[layer], out=out, **self.extra)
        return out


ATTENTION = {"none": NoAttention, "xqa": Xqa, "fa2": Fa2, "fa2 tc": Fa2}


def attend_prompt(kind, flashinfer, layer, q, k, v):
    if kind == "fa3":
        return flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True, backend="fa3")
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = SDPBackend.CUDNN_ATTENTION if kind == "cudnn" else SDPBackend.FLASH_ATTENTION
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1).reshape(q.shape[2], -1)


# --- One part, in a process of its own ---


class Worker:
    def __init__(self, state_path):
        self.state_path = state_path
        with open(state_path) as file:
            self.state = json.load(file)
        self.work = types.SimpleNamespace(**self.state["work"])
        self.shape = SHAPES[self.work.shape]
        self.stream = torch.cuda.Stream()
        self.state["about"] |= {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        }

    def save(self):
        part = self.state_path + ".part"
        with open(part, "w") as file:
            json.dump(self.state, file)
        os.replace(part, self.state_path)

    def attempt(self, key, measure, patience=None):
        """Measures once, whatever process this is, and keeps what went wrong."""
        results = self.state["results"]
        if key in results:
            return results[key]
        self.state["current"] = key
        self.save()

        def lose(error):
            progress(f"  {key}: {error}")
            results[key] = {"error": error}
            self.state["current"] = None
            self.save()
            os._exit(LOST)

        patience = patience or self.work.patience
        timer = threading.Timer(patience, lose, [f"not done in {patience:.0f} s"])
        timer.daemon = True
        timer.start()
        try:
            results[key] = measure()
        except Exception as error:  # noqa: BLE001 -- whatever a library raises is its answer
            text = str(error).strip() or type(error).__name__
            results[key] = {"error": text.splitlines()[0][:300]}
        try:
            torch.cuda.synchronize()
            timer.cancel()
        except Exception as error:  # noqa: BLE001
            lose(f"the GPU context is lost: {str(error).splitlines()[0]}")
        self.state["current"] = None
        self.save()
        progress(f"  {key}: {told(results[key])}")
        return results[key]

    def load_flashinfer(self):
        about, self.flashinfer = self.state["about"], None
        try:
            import flashinfer
        except Exception as error:  # noqa: BLE001 -- so many things may be missing
            text = str(error).strip() or type(error).__name__
            about["flashinfer_error"] = text.splitlines()[0]
            return
        self.flashinfer = flashinfer
        about["flashinfer"] = flashinfer.__version__
        self.workspace = torch.zeros(512 << 20, dtype=torch.uint8, device="cuda")
        self.xqa_workspace = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")

    def make_decoder(self, token_counts):
        """Weights, and K and V for the largest of these batches."""
        shape = self.shape
        longest = max(max(lengths) for lengths in token_counts)
        self.decoder = Decoder(shape, longest)
        most = max(sum(pages_of(lengths)) for lengths in token_counts)
        size = most * PAGE * shape.kv_heads * shape.head_dim
        self.storage = [
            (self.decoder.normal(size), self.decoder.normal(size)) for _ in range(shape.layers)
        ]

    def capture(self, call):
        """A graph of a call, and what the call returned in it."""
        with torch.cuda.stream(self.stream):
            call()
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            result = call()
        return graph, result

    def replay_ms(self, graph, count=20):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        with torch.cuda.stream(self.stream):
            graph.replay()
            for mark in marks:
                mark.record()
                if mark is not marks[-1]:
                    graph.replay()
        self.stream.synchronize()
        times = [first.elapsed_time(second) for first, second in itertools.pairwise(marks)]
        return statistics.median(times)

    # Decode

    def variants(self, flashinfer):
        for layout in self.work.layouts:
            for kind in self.work.backends if flashinfer else ("none",):
                for pdl in (True, False):
                    name = f"{kind} {layout}" + " pdl" * pdl
                    yield {"name": name, "kind": kind, "layout": layout, "pdl": pdl, "lt": False}

    def prepare(self, lengths, steps, variant, depth):
        """The graph of a step, and what it reads and writes."""
        pages = Pages(
            self.shape, self.storage, [length + steps for length in lengths], variant["layout"]
        )
        run = types.SimpleNamespace(pages=pages)
        with torch.cuda.stream(self.stream):
            plans = Plans(pages, lengths, steps)
            run.attention = ATTENTION[variant["kind"]](self, pages, plans, variant)
            run.attention.plan(0)
        run.tokens = torch.randint(self.shape.vocab, (len(lengths),), device="cuda")
        run.host = torch.zeros(len(lengths), dtype=torch.int64, pin_memory=True)
        self.decoder.pdl = variant["pdl"]

        def step():
            logits = self.decoder.forward(run.tokens, pages, run.attention, depth)
            torch.argmax(logits, -1, out=run.tokens)
            run.host.copy_(run.tokens, non_blocking=True)
            return logits

        torch.backends.cuda.preferred_blas_library("cublaslt" if variant["lt"] else "cublas")
        torch.cuda.synchronize()
        run.graph, run.logits = self.capture(step)
        return run

    def check_decode(self, variant):
        depth = self.work.check_layers
        torch.manual_seed(7)
        prompts = torch.randint(self.shape.vocab, (CHECK_PROMPTS, CHECK_TOKENS), device="cuda")
        run = self.prepare([0] * CHECK_PROMPTS, CHECK_TOKENS, variant, depth)
        with torch.cuda.stream(self.stream):
            for i in range(CHECK_TOKENS):
                run.attention.plan(i)
                run.tokens.copy_(prompts[:, i])
                run.graph.replay()
                self.stream.synchronize()
        wanted = self.decoder.reference(prompts, depth)
        return {"error": check_logits(run.logits, wanted)}

    def measure_decode(self, row, variant):
        steps, warmup = self.work.steps, self.work.warmup
        run = self.prepare(row["lengths"], steps + warmup, variant, None)
        times, plans = [], []
        with torch.cuda.stream(self.stream):
            for i in range(warmup + steps):
                begin = time.perf_counter()
                run.attention.plan(i)
                planned = time.perf_counter()
                run.graph.replay()
                self.stream.synchronize()
                run.host.tolist()
                times.append(1e3 * (time.perf_counter() - begin))
                plans.append(1e6 * (planned - begin))
        check_finite(run.logits)
        return {
            "step_ms": statistics.median(times[warmup:]),
            "max_ms": max(times[warmup:]),
            "graph_ms": self.replay_ms(run.graph),
            "plan_us": statistics.median(plans[warmup:]),
        }

    def measure_stack(self):
        self.load_flashinfer()
        grown = self.work.steps + self.work.warmup
        counts = [[length + grown for length in row["lengths"]] for row in self.work.rows]
        self.make_decoder([*counts, [CHECK_TOKENS] * CHECK_PROMPTS])
        right = []
        for variant in self.variants(self.flashinfer):
            if variant["kind"] == "none":
                right.append(variant)
                continue
            check = functools.partial(self.check_decode, variant)
            # The first use of a kernel may compile it.
            checked = self.attempt(f"check | {variant['name']}", check, self.work.build_patience)
            if not isinstance(checked["error"], str):
                right.append(variant)
        for row in self.work.rows:
            self.measure_row(row, right)

    def measure_row(self, row, variants):
        results = {}

        def measure(variant):
            call = functools.partial(self.measure_decode, row, variant)
            results[variant["name"]] = self.attempt(f"{row['name']} | {variant['name']}", call)

        for variant in variants:
            measure(variant)
        if not any("step_ms" in result for result in results.values()):
            variants = list(self.variants(None))
            for variant in variants:
                measure(variant)
        best = best_of(results)
        if best:
            variant = next(v for v in variants if v["name"] == best["variant"])
            measure(variant | {"name": variant["name"] + " lt", "lt": True})

    # Prompts

    def prepare_prompt(self, length, kind, depth):
        pages = Pages(self.shape, self.storage, [length], "HND", is_prompt=True)
        run = types.SimpleNamespace()
        run.source = torch.randint(self.shape.vocab, (length,)).pin_memory()
        run.tokens = run.source.cuda()
        run.host = torch.zeros(1, dtype=torch.int64, pin_memory=True)
        attend = functools.partial(attend_prompt, kind, self.flashinfer)

        def whole():
            logits = self.decoder.forward(run.tokens, pages, attend, depth)
            run.host.copy_(logits.argmax(-1), non_blocking=True)
            return logits

        torch.cuda.synchronize()
        run.graph, run.logits = self.capture(whole)
        return run

    def check_prompt(self, kind):
        depth = self.work.check_layers
        run = self.prepare_prompt(CHECK_TOKENS, kind, depth)
        with torch.cuda.stream(self.stream):
            run.graph.replay()
        self.stream.synchronize()
        return {"error": check_logits(run.logits, self.decoder.reference(run.tokens[None], depth))}

    def measure_prompt(self, length, kind):
        run = self.prepare_prompt(length, kind, None)
        times = []
        with torch.cuda.stream(self.stream):
            for _ in range(self.work.prompt_repeats + 2):
                begin = time.perf_counter()
                run.tokens.copy_(run.source, non_blocking=True)
                run.graph.replay()
                self.stream.synchronize()
                run.host.tolist()
                times.append(1e3 * (time.perf_counter() - begin))
        check_finite(run.logits)
        median = statistics.median(times[2:])
        return {"step_ms": median, "max_ms": max(times[2:]), "tokens_per_s": 1e3 * length / median}

    def measure_prefill(self):
        self.load_flashinfer()
        self.make_decoder([[length] for length in (*self.work.prompts, CHECK_TOKENS)])
        self.decoder.pdl = False
        kinds = [kind for kind in PROMPT_KINDS if self.flashinfer or kind != "fa3"]
        right = []
        for kind in kinds:
            check = functools.partial(self.check_prompt, kind)
            checked = self.attempt(f"check | {kind}", check, self.work.build_patience)
            if not isinstance(checked["error"], str):
                right.append(kind)
        for length in self.work.prompts:
            for kind in right:
                call = functools.partial(self.measure_prompt, length, kind)
                self.attempt(f"{length} | {kind}", call)

    # Static

    def measure_static(self):
        import transformers

        self.state["about"]["transformers"] = transformers.__version__
        transformers.utils.logging.set_verbosity_error()
        model = make_llama(transformers, self.shape, "cuda")
        for slots, capacity in self.work.static:
            for whole in (True, False):
                name = "one graph" if whole else "graph breaks"
                call = functools.partial(self.measure_slots, model, slots, capacity, whole)
                key = f"{slots}x{capacity} | {name}"
                if "error" not in self.attempt(key, call, self.work.compile_patience):
                    break

    def measure_slots(self, model, slots, capacity, whole):
        steps, warmup = self.work.steps, max(5, self.work.warmup)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        gc.collect()
        cache = make_static_cache(model, slots, capacity, capacity - steps - warmup - 1)
        step = torch.compile(
            functools.partial(static_step, model, cache), mode="reduce-overhead", fullgraph=whole
        )
        times = []
        with torch.inference_mode():
            tokens = torch.randint(self.shape.vocab, (slots, 1), device="cuda")
            for _ in range(warmup + steps):
                begin = time.perf_counter()
                torch.compiler.cudagraph_mark_step_begin()
                chosen, logits = step(tokens)
                chosen.tolist()
                times.append(1e3 * (time.perf_counter() - begin))
                tokens = chosen.clone()
            check_finite(logits)
        return {
            "step_ms": statistics.median(times[warmup:]),
            "max_ms": max(times[warmup:]),
            "first_s": times[0] / 1e3,
            "cudagraph_skips": torch._dynamo.utils.counters["inductor"]["cudagraph_skips"],
        }

    def measure(self, part):
        # It runs where a graph is captured, and not amid steps.
        gc.disable()
        {
            "stack": self.measure_stack,
            "prefill": self.measure_prefill,
            "static": self.measure_static,
        }[part]()
        self.state["finished"] = True
        self.save()


def make_llama(transformers, shape, device):
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, rms_norm_eps=EPSILON,
        max_position_embeddings=MOST_TOKENS, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        attn_implementation="sdpa",
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def make_static_cache(model, slots, capacity, history):
    """A cache with a random history of that many tokens in every slot."""
    from transformers import StaticCache

    config, device = model.config, model.device
    cache = StaticCache(config=config, max_cache_len=capacity)
    cache.early_initialization(
        slots, config.num_key_value_heads, config.head_dim, torch.float16, device
    )
    for layer in cache.layers:
        layer.keys.normal_()
        layer.values.normal_()
        layer.cumulative_length.fill_(history)
    return cache


def static_step(model, cache, tokens):
    logits = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, -1]
    return logits.argmax(-1, keepdim=True), logits


# --- What starts the parts and reports ---


def told(result):
    if "step_ms" in result:
        return f"{result['step_ms']:.3f} ms"
    error = result["error"]
    return error if isinstance(error, str) else f"off by {error:.2g}"


def best_of(results):
    measured = {name: result for name, result in results.items() if "step_ms" in result}
    if not measured:
        return None
    name = min(measured, key=lambda name: measured[name]["step_ms"])
    return {"variant": name, **measured[name]}


def run_part(part, work, folder, timeout):
    """Runs a part until it ends; what kills its process is that variant's error."""
    path = os.path.join(folder, f"{part}.json")
    state = {"work": work, "about": {}, "results": {}, "current": None, "finished": False}
    with open(path, "w") as file:
        json.dump(state, file)
    command = [sys.executable, os.path.abspath(__file__), "--worker", part, path]
    deadline = time.monotonic() + timeout
    for _ in range(6):
        left = deadline - time.monotonic()
        try:
            code = subprocess.run(command, timeout=max(1, left)).returncode
            reason = f"the process ended with {code}"
        except subprocess.TimeoutExpired:
            code, reason = None, "out of time"
        with open(path) as file:
            state = json.load(file)
        if state["finished"]:
            break
        failed = state["current"]
        progress(f"{part}: {reason}" + (f" in {failed}" if failed else ""))
        if failed:
            state["results"][failed] = {"error": reason}
            state["current"] = None
            with open(path, "w") as file:
                json.dump(state, file)
        if code is None or (code != LOST and not failed):
            state["about"]["failed"] = reason
            break
    return state


def variants_of(state, name):
    prefix = f"{name} | "
    return {
        key.removeprefix(prefix): result
        for key, result in state["results"].items()
        if key.startswith(prefix)
    }


def with_lengths(run, result):
    lengths = run["lengths"] or [result["context"]] * run["slots_active"]
    return {**result, "lengths": lengths}


def read_kvrm(paths):
    """Results of `kvrm-run bench --json`, each with the rows of its run."""
    found = []
    for path in paths:
        try:
            with open(path) as file:
                runs = json.load(file)
            for run in runs if isinstance(runs, list) else [runs]:
                if run["mode"] == "paged" and not run["ragged"]:
                    found += map(functools.partial(with_lengths, run), run["results"])
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: is not what kvrm-run bench --json prints") from None
    return found


def kvrm_of_row(kvrm, lengths):
    for result in kvrm:
        if sorted(result["lengths"]) == sorted(lengths):
            return {"context": result["context"], "step_ms": result["step_ms"]["p50"]}
    return None


def kvrm_of_static(kvrm, slots, capacity):
    fitting = [
        result["context"]
        for result in kvrm
        if result["lengths"] == [result["context"]] * slots and result["context"] <= capacity
    ]
    return kvrm_of_row(kvrm, [max(fitting)] * slots) if fitting else None


def kvrm_of_prompt(kvrm, length):
    for result in kvrm:
        if result["lengths"] == [length] and result["prefill_tokens_per_s"]:
            return {key: result[key] for key in ("prefill_tokens", "prefill_tokens_per_s")}
    return None


def report_of(args, work, states):
    kvrm = read_kvrm(args.kvrm)
    report = {"shape": work["shape"], "machine": machine(), "steps": work["steps"], "parts": {}}

    def entry(part, name, ours, **more):
        variants = variants_of(states[part], name)
        best = best_of(variants)
        return {"name": name, **more, "best": best, "variants": variants, "kvrm": ours}

    for part, state in states.items():
        if part == "stack":
            rows = [
                entry(part, row["name"], kvrm_of_row(kvrm, row["lengths"]), lengths=row["lengths"])
                for row in work["rows"]
            ]
        elif part == "prefill":
            rows = [entry(part, str(n), kvrm_of_prompt(kvrm, n)) for n in work["prompts"]]
        else:
            rows = [entry(part, f"{s}x{c}", kvrm_of_static(kvrm, s, c)) for s, c in work["static"]]
        report["parts"][part] = {
            **state["about"],
            "finished": state["finished"],
            "check": variants_of(state, "check"),
            "rows": rows,
        }
    return report


def figure(value, digits=2):
    return f"{value:.{digits}f}" if value is not None else "-"


def print_table(head, lines):
    print("\n| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for line in lines:
        print("| " + " | ".join(line) + " |")


def print_steps(title, rows):
    """Decode steps of the stack or of static."""
    lines = []
    for row in rows:
        best, ours = row["best"] or {}, (row["kvrm"] or {}).get("step_ms")
        variant = best.get("variant", "-")
        step = best.get("step_ms")
        comparable = step and ours
        if variant.startswith("none"):
            variant += ", no attention"
            comparable = False
        lines.append(
            [
                re.sub(r"^(\d+)x(\d+)$", r"\1 × \2", row["name"]),
                figure(step),
                figure(best.get("max_ms")),
                figure(best.get("graph_ms")),
                figure(best.get("plan_us"), 0),
                variant,
                figure(ours) + (f" at {row['kvrm']['context']}" if ours else ""),
                figure(step / ours if comparable else None),
            ]
        )
    head = [title, "step ms", "max ms", "graph ms", "plan µs", "best of", "kvrm ms", "ratio"]
    print_table(head, lines)


def print_prompts(rows):
    lines = []
    for row in rows:
        best, ours = row["best"] or {}, (row["kvrm"] or {}).get("prefill_tokens_per_s")
        rate = best.get("tokens_per_s")
        others = [
            f"{name} {result['tokens_per_s']:.0f}"
            for name, result in row["variants"].items()
            if "tokens_per_s" in result and name != best["variant"]
        ]
        ratio = figure(ours / rate if ours and rate else None)
        variant = best.get("variant", "-")
        ms = figure(best.get("step_ms"))
        line = [row["name"], figure(rate, 0), ms, variant, ", ".join(others) or "-"]
        lines.append([*line, figure(ours, 0), ratio])
    head = ["prompt", "tokens/s", "ms", "best of", "others", "kvrm tokens/s", "ratio"]
    print_table(head, lines)


def print_part(report, part):
    about = report["parts"][part]
    versions = ", ".join(
        f"{name} {about[name]}"
        for name in ("torch", "cuda", "flashinfer", "transformers")
        if about.get(name)
    )
    print(f"\n{part}, shape {report['shape']}: {about.get('device', 'no device')}, {versions}")
    if "flashinfer_error" in about:
        left = "attention is left out" if part == "stack" else "attention is PyTorch's"
        print(f"FlashInfer cannot be loaded ({about['flashinfer_error']}): {left}")
    if part == "prefill":
        print_prompts(about["rows"])
    else:
        print_steps("rows × tokens" if part == "stack" else "slots × capacity", about["rows"])
    checks = [f"{name} {told(result)}" for name, result in about["check"].items()]
    if checks:
        print("\nlogits: " + "; ".join(checks))
    for row in about["rows"]:
        for name, result in row["variants"].items():
            if "error" in result:
                print(f"{row['name']}, {name}: {result['error']}")
            if result.get("cudagraph_skips"):
                print(
                    f"{row['name']}, {name}: {result['cudagraph_skips']} graphs were not CUDA graphs"
                )
    if about.get("failed"):
        print(f"{part}: {about['failed']}")
    sys.stdout.flush()


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", choices=SHAPES, default="8b", help="8b: Llama-3-8B's; 1b: 3.2-1B's"
    )
    parser.add_argument("--parts", default="stack,prefill,static", help="which of them to run")
    parser.add_argument("--rows", action="append", help=f"of stack; {ROWS} without")
    parser.add_argument("--prompts", default="512,2048,8192", help="lengths, of prefill")
    parser.add_argument("--static", default="8x4096,32x4096", help="SLOTSxCAPACITY, of static")
    parser.add_argument("--steps", type=int, default=50, help="timed steps")
    parser.add_argument("--warmup", type=int, default=5, help="steps before those")
    parser.add_argument("--prompt-repeats", type=int, default=9, help="timed runs of a prompt")
    parser.add_argument(
        "--backends", default="fa2,fa2 tc,xqa", help="kernels of FlashInfer, or none"
    )
    parser.add_argument("--layouts", default="HND", help="HND, NHD or both, with a comma")
    parser.add_argument("--check-layers", type=int, default=2, help="layers that are checked")
    parser.add_argument(
        "--kvrm", action="append", default=[], metavar="FILE", help="kvrm's figures"
    )
    parser.add_argument("--json", help="writes all figures here")
    parser.add_argument("--timeout", type=float, default=420, help="seconds for a part")
    parser.add_argument("--patience", type=float, default=40, help="seconds for a variant")
    parser.add_argument(
        "--build-patience", type=float, default=180, help="seconds for its check, the first use"
    )
    parser.add_argument(
        "--compile-patience", type=float, default=300, help="seconds for torch.compile and steps"
    )
    args = parser.parse_args()
    return args, work_of(parser, args)


def parsed(option, parse, *arguments):
    try:
        return parse(*arguments)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def work_of(parser, args):
    def numbers(text):
        if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", text):
            raise ValueError(f"'{text}' is not a list of lengths, of 1 to 999999 tokens")
        return [int(part) for part in text.split(",")]

    def known(text, names):
        parts = text.split(",")
        for part in parts:
            if part not in names:
                raise ValueError(f"'{part}' is not one of {', '.join(names)}")
        return parts

    def slots(text):
        pairs = [product(part, "SLOTSxCAPACITY") for part in text.split(",")]
        least = args.steps + max(5, args.warmup) + 2
        for count, capacity in pairs:
            if not 1 <= count <= MOST_ROWS or not least <= capacity <= MOST_TOKENS:
                raise ValueError(
                    f"{count}x{capacity} is outside 1..{MOST_ROWS} slots of "
                    f"{least}..{MOST_TOKENS} tokens"
                )
        return pairs

    try:
        args.parts = parsed("--parts", known, args.parts, PARTS)
        work = {
            "shape": args.shape,
            "rows": parsed("--rows", parse_rows, args.rows or [ROWS]),
            "prompts": parsed("--prompts", numbers, args.prompts),
            "static": parsed("--static", slots, args.static),
            "backends": parsed("--backends", known, args.backends, ATTENTION),
            "layouts": parsed("--layouts", known, args.layouts, ("HND", "NHD")),
            "steps": args.steps,
            "warmup": args.warmup,
            "prompt_repeats": args.prompt_repeats,
            "check_layers": args.check_layers,
            "patience": args.patience,
            "build_patience": args.build_patience,
            "compile_patience": args.compile_patience,
        }
        if min(args.steps, args.prompt_repeats, args.check_layers) < 1 or args.warmup < 0:
            raise ValueError(
                "--steps, --prompt-repeats and --check-layers are 1 or more, --warmup is 0 or more"
            )
        parsed("--kvrm", read_kvrm, args.kvrm)
    except ValueError as error:
        parser.error(str(error))
    return work


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--worker":
        Worker(sys.argv[3]).measure(sys.argv[2])
        return
    args, work = parse()
    if torch is None or not torch.cuda.is_available():
        sys.exit("gpu_stack.py: needs PyTorch and a GPU that it sees")
    states = {}
    with tempfile.TemporaryDirectory(prefix="kvrm-bench-") as folder:
        for part in args.parts:
            progress(part)
            begin = time.monotonic()
            states[part] = run_part(part, work, folder, args.timeout)
            states[part]["about"]["seconds"] = time.monotonic() - begin
            report = report_of(args, work, states)
            if args.json:
                with open(args.json, "w") as file:
                    json.dump(report, file, indent=1)
                    file.write("\n")
            print_part(report, part)
    if not all(state["finished"] for state in states.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
