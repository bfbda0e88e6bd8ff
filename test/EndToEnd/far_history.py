#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges far history by a float64 reference that keeps it in its own way.

Small synthetic decoders with a window, with and without summaries, are fed
sequences that end before, at and after the first collapse and after many
merges, through fewer slots than there are sequences. The reference holds the
far history as a plain list in order of time and follows the same steps.

    far_history.py --work /tmp/far
"""

import dataclasses

import harness
import numpy as np
from synthetic_shapes import Reference, Shape, error

# A mean is rounded to 16 or 8 bits, and a last bit of f32 can decide which way.
# One sink more or less moves logits by some 1e-2 of the largest.
TOLERANCE = {"f16": 3e-4, "bf16": 2e-3, "f8e4m3": 5e-3, "int8": 2e-3}

@dataclasses.dataclass
class FarShape(Shape):
    window: int = 32
    summaries: int = 16
    sinks: int = 4
    capacity: int = 400
    slots: int = 3

    def name(self):
        return f"w{self.window} s{self.summaries}/{self.sinks} {super().name()}"

    def paging(self):
        options = [*super().paging(), f"--window={self.window}"]
        if self.summaries:
            options += [f"--summaries={self.summaries}", f"--sinks={self.sinks}"]
        return options


SHAPES = [
    FarShape(),
    FarShape(summaries=64, window=64, group=3, schedule="split"),
    FarShape(summaries=0, chunk=7, group=4, mixes=True),
    FarShape(sinks=16, group=3, chunk=16, mixes=True),
    FarShape(summaries=48, sinks=40, window=16, chunk=33, transport="staged", slots=1),
    FarShape(page=32, window=32, summaries=96, sinks=0, cache="bf16", schedule="rows"),
    FarShape(page=32, window=96, summaries=32, tile=32, head_dim=128, chunk=1),
    FarShape(arch="x86-64-v3", window=48, summaries=32, group=8, kv_heads=1),
    FarShape(cache="f8e4m3", group=3, schedule="split", mixes=True),
    FarShape(cache="f8e4m3", page=32, window=64, summaries=32, head_dim=128, chunk=7),
    FarShape(cache="int8", group=3, schedule="split", mixes=True),
    FarShape(cache="int8", page=32, window=64, summaries=32, head_dim=128, chunk=7),
]


class Sequence:
    """KV of one request: entries of the far history, then exact tokens. Each is
    (tokens, K, V), K and V of all layers."""

    def __init__(self, shape, rounded):
        self.shape = shape
        self.rounded = rounded
        self.far = []
        self.exact = []
        self.gone = 0

    def add_entry(self, tokens):
        count = sum(n for n, _, _ in tokens)
        if len(self.far) == self.shape.summaries:
            pairs = range(self.shape.sinks, len(self.far) - 1)
            i = min(pairs, key=lambda i: (self.far[i][0] + self.far[i + 1][0], i))
            self.far[i : i + 2] = [self.mean(self.far[i : i + 2])]
        assert count == len(tokens)
        self.far.append(self.mean(tokens))

    def mean(self, parts):
        total = sum(n for n, _, _ in parts)
        k = sum(n * k for n, k, _ in parts) / total
        v = sum(n * v for n, _, v in parts) / total
        return total, self.rounded(k), self.rounded(v)

    def collapse(self):
        page, sinks = self.shape.page, self.shape.sinks
        while len(self.exact) >= self.shape.window:
            old, self.exact = self.exact[:page], self.exact[page:]
            if self.shape.summaries:
                alone = max(0, min(page, sinks - self.gone))
                for token in old[:alone]:
                    self.add_entry([token])
                if old[alone:] and self.shape.summaries > sinks:
                    self.add_entry(old[alone:])
            self.gone += page


class FarReference(Reference):
    def __init__(self, package, shape):
        super().__init__(package, shape)
        names = ["token_embd", "output_norm", "output", "rope_cos", "rope_sin"]
        rows = [shape.vocab, 1, shape.vocab, shape.capacity, shape.capacity]
        q, kv = shape.kv_heads * shape.group, shape.kv_heads
        for layer in range(shape.layers):
            names += [
                f"blk.{layer}.{part}"
                for part in "attn_norm attn_qkv attn_output ffn_norm ffn_gate_up ffn_down".split()
            ]
            rows += [1, (q + 2 * kv) * shape.head_dim, shape.hidden, 1]
            rows += [2 * shape.ffn, shape.hidden]
        read = super().weight
        self.kept = {name: read(name, n) for name, n in zip(names, rows)}

    def weight(self, name, rows):
        return self.kept[name]

    def turn(self, x, first):
        half = self.shape.head_dim // 2
        span = slice(first, first + len(x))
        cos, sin = (
            self.kept[name][span, None, :] for name in ("rope_cos", "rope_sin")
        )
        low, high = x[..., :half], x[..., half:]
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)

    def step(self, sequence, ids, first):
        """Appends tokens at positions from `first` on; logits of the last."""
        s = self.shape
        n, heads = len(ids), s.kv_heads * s.group
        q_width, kv_width = heads * s.head_dim, s.kv_heads * s.head_dim
        sequence.collapse()
        past = sequence.far + sequence.exact
        bias = np.log([count for count, _, _ in past] + [1] * n)
        hidden = np.zeros((n, len(bias)), bool)
        hidden[:, len(past) :] = np.triu(np.ones((n, n), bool), 1)
        new_k, new_v = [], []
        x = self.kept["token_embd"][ids]
        for layer in range(s.layers):
            name = f"blk.{layer}."
            h = self.norm(x, name + "attn_norm")
            qkv = h @ self.kept[name + "attn_qkv"].T
            q, k, v = np.split(qkv, [q_width, q_width + kv_width], axis=1)
            q = self.turn(q.reshape(n, heads, s.head_dim), first)
            k = self.cached(self.turn(k.reshape(n, s.kv_heads, s.head_dim), first))
            v = self.cached(v.reshape(n, s.kv_heads, s.head_dim))
            new_k.append(k)
            new_v.append(v)
            all_k = np.concatenate([[k[layer] for _, k, _ in past], k]) if past else k
            all_v = np.concatenate([[v[layer] for _, _, v in past], v]) if past else v
            q = q.reshape(n, s.kv_heads, s.group, s.head_dim)
            scores = np.einsum("nhgd,thd->hgnt", q, all_k) / np.sqrt(s.head_dim)
            scores += bias
            scores[..., hidden] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            out = np.einsum("hgnt,thd->nhgd", scores, all_v).reshape(n, q_width)
            x = x + out @ self.kept[name + "attn_output"].T
            h = self.norm(x, name + "ffn_norm")
            both = h @ self.kept[name + "ffn_gate_up"].T
            gate, up = both[:, : s.ffn], both[:, s.ffn :]
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.kept[name + "ffn_down"].T
        for t in range(n):
            k, v = (np.stack([part[t] for part in new]) for new in (new_k, new_v))
            sequence.exact.append((1, k, v))
        return self.norm(x[-1:], "output_norm")[0] @ self.kept["output"].T

    def logits(self, ids, prompt):
        """After the prompt and after each later token."""
        sequence = Sequence(self.shape, self.cached)
        rows = []
        at = 0
        while at < len(ids):
            n = min(self.shape.chunk, prompt - at) if at < prompt else 1
            row = self.step(sequence, ids[at : at + n], at)
            at += n
            if at >= prompt:
                rows.append(row)
        return np.asarray(rows)


def batch(shape):
    """[(length, prompt length)]: around the first collapse, and far beyond."""
    window, page = shape.window, shape.page
    once_full = window + (shape.summaries + 2) * page
    edges = [
        (1, 1),
        (page + 1, 1),
        (window, window - 1),
        (window + 1, window + 1),
        (window + 2, 1),
        (window + page + 1, window),
        (min(shape.capacity, once_full), 3),
        (shape.capacity, shape.capacity - 40),
    ]
    return [(length, prompt) for length, prompt in edges if prompt <= length]


def judge(tools, report, shape, keep):
    label = shape.name()
    package = tools.compile(shape.model(), "far", *shape.options(), *shape.paging())
    reference = FarReference(package, shape)
    random = np.random.default_rng(5)
    lengths = batch(shape)
    sequences = [random.integers(0, shape.vocab, n).tolist() for n, _ in lengths]
    prompts = [prompt for _, prompt in lengths]
    file = tools.path("far.npy")
    scored = tools.score(package, sequences, prompts, file)
    got = np.load(file)
    worst = 0.0
    for i, ids in enumerate(sequences):
        off = error(got[i], reference.logits(ids, prompts[i]))
        worst = max(worst, off)
        report.check(
            off <= TOLERANCE[shape.cache],
            f"{label}: {len(ids)} tokens, {prompts[i]} of them prompt: off by "
            f"{off:.3g} of the largest logit",
        )
    tokens = -(-(shape.window + shape.summaries + shape.chunk) // shape.page)
    row_bytes = shape.head_dim * {"f8e4m3": 1, "int8": 1}.get(shape.cache, 2)
    row_bytes += 2 * (shape.cache == "int8")
    bound = tokens * shape.page * shape.layers * shape.kv_heads * 2 * row_bytes
    report.check(
        scored["kv"]["peak_live_bytes"] <= bound * shape.slots,
        f"{label}: {scored['kv']['peak_live_bytes']} bytes of KV at once, more "
        f"than {shape.slots} x {bound}",
    )
    print(f"{worst:9.2e}  {label}", flush=True)
    if not keep:
        harness.remove(package, file)


def main():
    args = harness.parser(__doc__.split("\n", maxsplit=1)[0]).parse_args()
    tools = harness.Tools(args)
    report = harness.Report()
    print("to float64, of the largest logit")
    for shape in SHAPES:
        judge(tools, report, shape, args.keep)
    report.finish()


if __name__ == "__main__":
    main()
