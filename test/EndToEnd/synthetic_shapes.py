#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges small synthetic decoders of many shapes by a float64 reference.

Each configuration is compiled paged and static. Sequences that end before, at
and after page boundaries and at the capacity are fed to both, through fewer
slots than there are sequences, alone beside empty slots, and in all slots until
the pool is full. All logits must be near those of the reference, which reads
the package's own weights and rounds K and V to the type of the cache.

    synthetic_shapes.py --work /tmp/synthetic [--full]
"""

import dataclasses
import os

import harness
import numpy as np
from elements import rounded

# The arithmetic of packages is f32; what is rounded to 16 or 8 bits is rounded
# in the reference too, but a last bit of f32 can decide which way.
TOLERANCE = {"f16": 3e-4, "bf16": 2e-3, "f8e4m3": 5e-3, "int8": 2e-3}
PAGED_TO_STATIC = TOLERANCE


@dataclasses.dataclass
class Shape:
    head_dim: int = 64
    kv_heads: int = 2
    group: int = 1
    cache: str = "f16"
    page: int = 16
    transport: str = "native"
    schedule: str = "workqueue"
    chunk: int = 64
    hidden: int = 192
    ffn: int = 200
    vocab: int = 331
    layers: int = 2
    slots: int = 4
    capacity: int = 160
    arch: str = "native"
    weights: str = "f16"
    tile: int = 64
    splits: int = 4
    mixes: bool = False

    def name(self):
        return (
            f"d{self.head_dim} g{self.group} kv{self.kv_heads} {self.cache} "
            f"p{self.page} t{self.tile} {self.transport} {self.schedule} "
            f"c{self.chunk} h{self.hidden} f{self.ffn} v{self.vocab} "
            f"s{self.slots}x{self.capacity} {self.weights} {self.arch}{' mixed' if self.mixes else ''}"
        )

    def model(self):
        return [
            "synth",
            f"--layers={self.layers}",
            f"--hidden={self.hidden}",
            f"--heads={self.kv_heads * self.group}",
            f"--kv-heads={self.kv_heads}",
            f"--head-dim={self.head_dim}",
            f"--ffn={self.ffn}",
            f"--vocab={self.vocab}",
            "--seed=7",
        ]

    def options(self, is_static=False):
        # Static attention wants a capacity of whole vectors.
        capacity = -(-self.capacity // 16) * 16 if is_static else self.capacity
        return [
            f"--slots={self.slots}",
            f"--capacity={capacity}",
            f"--prefill-chunk={self.chunk}",
            f"--cache-type={self.cache}",
            f"--weight-type={self.weights}",
            f"--arch={self.arch}",
            *(["--mixed"] if self.mixes and not is_static else []),
        ]

    def paging(self):
        return [
            f"--page-size={self.page}",
            f"--transport={self.transport}",
            f"--schedule={self.schedule}",
            f"--kv-tile={self.tile}",
            f"--splits={self.splits}",
        ]


# Every value of every dimension at least twice, the awkward ones together.
SHAPES = [
    Shape(),
    Shape(group=3, page=32, transport="staged", schedule="split", chunk=7, mixes=True),
    Shape(group=4, head_dim=128, page=64, schedule="rows", kv_heads=1),
    Shape(group=8, kv_heads=1, cache="bf16", transport="staged", chunk=1, mixes=True),
    Shape(group=3, kv_heads=3, hidden=65, ffn=33, vocab=97, page=32, chunk=7, mixes=True),
    Shape(head_dim=128, cache="bf16", page=64, schedule="split", transport="staged"),
    Shape(group=8, head_dim=128, kv_heads=1, page=32, tile=32, slots=3, capacity=100, mixes=True),
    Shape(group=4, cache="bf16", weights="bf16", tile=128, chunk=33),
    Shape(slots=1, capacity=65, vocab=1, group=3, chunk=1),
    Shape(arch="x86-64-v3", group=3, hidden=200, vocab=1001, transport="staged"),
    Shape(arch="x86-64-v3", group=4, head_dim=128, cache="bf16", page=32, chunk=7, mixes=True),
    Shape(arch="x86-64-v3", group=8, kv_heads=1, schedule="split", page=64, ffn=20),
    Shape(head_dim=96, group=3, cache="bf16", page=32, chunk=7, mixes=True),
    Shape(head_dim=256, group=2, kv_heads=1, schedule="split", transport="staged"),
    Shape(arch="x86-64-v3", head_dim=96, group=4, kv_heads=1, schedule="rows"),
    Shape(arch="x86-64-v3", head_dim=256, cache="bf16", page=64, chunk=33),
    Shape(arch="x86-64-v3", schedule="rows", weights="bf16", hidden=72, chunk=1, mixes=True),
    Shape(cache="f8e4m3", group=3, mixes=True),
    Shape(cache="f8e4m3", head_dim=96, page=32, schedule="split", transport="staged", chunk=7),
    Shape(cache="f8e4m3", head_dim=128, group=4, page=64, schedule="rows", kv_heads=1),
    Shape(arch="x86-64-v3", cache="f8e4m3", head_dim=80, group=8, kv_heads=1, transport="staged"),
    Shape(arch="x86-64-v3", cache="f8e4m3", head_dim=256, page=32, schedule="split", mixes=True),
    Shape(cache="int8", group=3, mixes=True),
    Shape(cache="int8", head_dim=96, page=32, schedule="split", transport="staged", chunk=7),
    Shape(cache="int8", head_dim=128, group=4, page=64, schedule="rows", kv_heads=1),
    Shape(arch="x86-64-v3", cache="int8", head_dim=80, page=8, tile=8, group=8, kv_heads=1),
    Shape(arch="x86-64-v3", cache="int8", head_dim=256, page=32, transport="staged", mixes=True),
]


def all_shapes():
    """Head shapes, caches and pages in full, the rest in turn."""
    yield from SHAPES
    turn = 0
    for arch in ("native", "x86-64-v3"):
        for head_dim in (64, 128):
            for group in (1, 3, 4, 8):
                for cache in ("f16", "bf16", "f8e4m3", "int8"):
                    for page in (16, 32, 64):
                        turn += 1
                        yield Shape(
                            arch=arch,
                            head_dim=head_dim,
                            group=group,
                            kv_heads=1 + turn % 2,
                            cache=cache,
                            page=page,
                            transport=("native", "staged")[turn // 3 % 2],
                            schedule=("rows", "split", "workqueue")[turn % 3],
                            chunk=(1, 7, 64)[turn // 2 % 3],
                            hidden=(192, 72, 65)[turn // 5 % 3],
                            ffn=(200, 33, 129)[turn // 7 % 3],
                            vocab=(331, 1001, 97)[turn // 4 % 3],
                            mixes=turn % 2 == 0,
                        )


class Reference:
    """A decoder in float64, from the weights of a package."""

    def __init__(self, package, shape):
        self.shape = shape
        self.tensors = harness.safetensors(os.path.join(package, "weights.safetensors"))

    def weight(self, name, rows):
        """[rows][columns]; panels [rows / n][columns][n] are undone."""
        kind, dims, data = self.tensors[name]
        if kind == "F32":
            values = np.frombuffer(data, "<f4")
        elif kind == "F16":
            values = np.frombuffer(data, "<f2")
        else:
            bits = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
            values = bits.view(np.float32)
        values = values.astype(np.float64).reshape(dims)
        if values.ndim == 3:
            values = values.transpose(0, 2, 1).reshape(-1, dims[1])
        return values[:rows]

    def norm(self, x, name):
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + 1e-5) * self.weight(name, 1)

    def rotate(self, x):
        """Element i of a head turns with element i + d / 2."""
        half = self.shape.head_dim // 2
        cos = self.weight("rope_cos", self.shape.capacity)[: len(x), None, :]
        sin = self.weight("rope_sin", self.shape.capacity)[: len(x), None, :]
        low, high = x[..., :half], x[..., half:]
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)

    def cached(self, x):
        return rounded(x, self.shape.cache)

    def logits(self, ids):
        """Of every token of a sequence: [len(ids)][vocab]."""
        s = self.shape
        n, heads = len(ids), s.kv_heads * s.group
        q_width, kv_width = heads * s.head_dim, s.kv_heads * s.head_dim
        x = self.weight("token_embd", s.vocab)[ids]
        hidden = np.triu(np.ones((n, n), bool), 1)
        for layer in range(s.layers):
            name = f"blk.{layer}."
            h = self.norm(x, name + "attn_norm")
            qkv = h @ self.weight(name + "attn_qkv", q_width + 2 * kv_width).T
            q, k, v = np.split(qkv, [q_width, q_width + kv_width], axis=1)
            q = self.rotate(q.reshape(n, heads, s.head_dim))
            k = self.cached(self.rotate(k.reshape(n, s.kv_heads, s.head_dim)))
            v = self.cached(v.reshape(n, s.kv_heads, s.head_dim))
            q = q.reshape(n, s.kv_heads, s.group, s.head_dim)
            scores = np.einsum("nhgd,thd->hgnt", q, k) / np.sqrt(s.head_dim)
            scores[..., hidden] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            out = np.einsum("hgnt,thd->nhgd", scores, v).reshape(n, q_width)
            x = x + out @ self.weight(name + "attn_output", s.hidden).T
            h = self.norm(x, name + "ffn_norm")
            both = h @ self.weight(name + "ffn_gate_up", 2 * s.ffn).T
            gate, up = both[:, : s.ffn], both[:, s.ffn :]
            act = gate / (1 + np.exp(-gate)) * up
            x = x + act @ self.weight(name + "ffn_down", s.hidden).T
        return self.norm(x, "output_norm") @ self.weight("output", s.vocab).T


def batches(shape):
    """(what it is, [(length, prompt length)])."""
    capacity, page = shape.capacity, shape.page
    edges = [1, page - 1, page, page + 1, 2 * page, capacity - 3, capacity]
    waiting = [
        (min(prompt + extra, capacity), min(prompt, capacity))
        for prompt, extra in zip(edges, (19, 2, 1, 0, 3, 3, 0))
    ]
    yield "waiting", waiting
    yield "alone", [(min(page + 2, capacity), 1)]
    yield "full", [
        (capacity, min(1 + 5 * slot, capacity)) for slot in range(shape.slots)
    ]


def error(got, want):
    """max|d| / max|logit| of the worst step, of rows that are not padding."""
    delta = np.abs(got[: len(want)].astype(np.float64) - want).max(-1)
    return (delta / np.abs(want).max(-1)).max()


def judge(tools, report, shape, keep):
    label = shape.name()
    paged = tools.compile(shape.model(), "paged", *shape.options(), *shape.paging())
    static = tools.compile(shape.model(), "static", *shape.options(True), "--static")
    reference = Reference(paged, shape)
    random = np.random.default_rng(11)
    worst, apart = 0.0, 0.0
    for what, batch in batches(shape):
        sequences = [
            random.integers(0, shape.vocab, length).tolist() for length, _ in batch
        ]
        prompts = [prompt for _, prompt in batch]
        got = {}
        for kind, package in (("paged", paged), ("static", static)):
            file = tools.path(kind + ".npy")
            tools.score(package, sequences, prompts, file)
            got[kind] = np.load(file)
        for i, ids in enumerate(sequences):
            want = reference.logits(ids)[prompts[i] - 1 :]
            for kind in got:
                off = error(got[kind][i], want)
                worst = max(worst, off)
                report.check(
                    off <= TOLERANCE[shape.cache],
                    f"{label}: {kind}, {what}, {len(ids)} tokens, {prompts[i]} of "
                    f"them prompt: off by {off:.3g} of the largest logit",
                )
                report.check(
                    np.isnan(got[kind][i][len(want) :]).all(),
                    f"{label}: {kind}, {what}: steps past the end are not NaN",
                )
            off = error(got["paged"][i], got["static"][i][: len(want)].astype(float))
            apart = max(apart, off)
            report.check(
                off <= PAGED_TO_STATIC[shape.cache],
                f"{label}: {what}: paged and static differ by {off:.3g}",
            )
    print(f"{worst:9.2e} {apart:9.2e}  {label}", flush=True)
    if not keep:
        harness.remove(paged, static, tools.path("paged.npy"), tools.path("static.npy"))


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--full", action="store_true", help="all head shapes")
    parser.add_argument("--only", default="", help="shapes with this in their name")
    args = parser.parse_args()
    tools = harness.Tools(args)
    report = harness.Report()
    print("to float64, to static; of the largest logit")
    for shape in all_shapes() if args.full else SHAPES:
        if args.only in shape.name():
            judge(tools, report, shape, args.keep)
    report.finish()


if __name__ == "__main__":
    main()
