#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A Llama decoder in NumPy float64, to judge compiled packages by.

It shares nothing with kvrm: weights come from the GGUF file through the `gguf`
package, RoPE rotates adjacent pairs as the file orders them, and all arithmetic
is in float64. Matrices are first rounded to the type that packages hold them
in; norms are not. All prompts advance together, so that a step reads the
weights once.

    reference.py --gguf model.gguf --prompt-ids 1,2,3 --prompt-ids 4,5 \\
        --tokens 64 --json
"""

import argparse
import json
import sys

import gguf
import numpy as np


def round_to(values, kind):
    """Rounds an array to f16, bf16 or f32 (to nearest even); returns float64."""
    if kind == "f64":
        return np.asarray(values, np.float64)
    # Rounding twice, by way of float32, could differ from rounding once, but
    # weights are float32 to begin with, and for KV kvrm does the same.
    single = np.ascontiguousarray(values, np.float32)
    if kind == "f16":
        single = single.astype(np.float16)
    elif kind == "bf16":
        bits = single.view(np.uint32)
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        single = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    return single.astype(np.float64)


class Model:
    def __init__(self, path, weight_type="f16"):
        reader = gguf.GGUFReader(path)
        tensors = {t.name: t for t in reader.tensors}

        def value(key, default=None):
            field = reader.get_field(key)
            if field is None:
                if default is None:
                    sys.exit(f"reference: error: {path}: '{key}' is missing")
                return default
            return field.contents()

        def load(name, rounded):
            tensor = tensors[name]
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            return round_to(values, weight_type if rounded else "f32")

        if value("general.architecture") != "llama":
            sys.exit(f"reference: error: {path}: not a 'llama' model")
        self.layers = value("llama.block_count")
        self.heads = value("llama.attention.head_count")
        self.kv_heads = value("llama.attention.head_count_kv", self.heads)
        hidden = value("llama.embedding_length")
        self.head_dim = value("llama.attention.key_length", hidden // self.heads)
        self.rope_dim = value("llama.rope.dimension_count", self.head_dim)
        self.epsilon = value("llama.attention.layer_norm_rms_epsilon")
        theta = value("llama.rope.freq_base", 10000.0)
        self.frequencies = float(theta) ** (
            -2.0 * np.arange(self.rope_dim // 2) / self.rope_dim
        )
        if "rope_freqs.weight" in tensors:
            self.frequencies /= load("rope_freqs.weight", False)

        self.embedding = load("token_embd.weight", True)
        self.output_norm = load("output_norm.weight", False)
        self.output = (
            load("output.weight", True)
            if "output.weight" in tensors
            else self.embedding
        )
        self.blocks = [
            {
                name: load(f"blk.{layer}.{name}.weight", "norm" not in name)
                for name in (
                    "attn_norm",
                    "attn_q",
                    "attn_k",
                    "attn_v",
                    "attn_output",
                    "ffn_norm",
                    "ffn_gate",
                    "ffn_up",
                    "ffn_down",
                )
            }
            for layer in range(self.layers)
        ]

    def norm(self, x, weight):
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + self.epsilon) * weight

    def rotate(self, x, positions):
        """Rotates elements 2i and 2i+1 of each head: x is [n][heads][dim]."""
        angles = positions[:, None, None] * self.frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        out = x.copy()
        even, odd = x[..., 0 : self.rope_dim : 2], x[..., 1 : self.rope_dim : 2]
        out[..., 0 : self.rope_dim : 2] = even * cos - odd * sin
        out[..., 1 : self.rope_dim : 2] = even * sin + odd * cos
        return out


class Sequence:
    """The KV cache of one request; doubles its room when it is full."""

    def __init__(self, model, kv_type):
        self.kv_type = kv_type
        self.length = 0
        shape = (model.layers, 64, model.kv_heads, model.head_dim)
        self.k, self.v = np.zeros(shape), np.zeros(shape)

    def reserve(self, length):
        while length > self.k.shape[1]:
            self.k = np.concatenate([self.k, np.zeros_like(self.k)], axis=1)
            self.v = np.concatenate([self.v, np.zeros_like(self.v)], axis=1)

    def append(self, layer, k, v):
        end = self.length + len(k)
        self.k[layer, self.length : end] = round_to(k, self.kv_type)
        self.v[layer, self.length : end] = round_to(v, self.kv_type)
        return self.k[layer, :end], self.v[layer, :end]


def attend(model, q, k, v):
    """Causal attention of the last len(q) positions. q is [n][heads][dim]."""
    n, length = len(q), len(k)
    group = model.heads // model.kv_heads
    q = q.reshape(n, model.kv_heads, group, model.head_dim)
    scores = np.einsum("nhgd,thd->hgnt", q, k, optimize=True)
    scores /= np.sqrt(model.head_dim)
    hidden = np.arange(length)[None, :] > np.arange(length - n, length)[:, None]
    scores[..., hidden] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.einsum("hgnt,thd->nhgd", weights, v, optimize=True)
    return out.reshape(n, model.heads * model.head_dim)


def forward(model, batch):
    """Runs new tokens of several sequences: batch is [(sequence, ids)]. Returns
    the logits of the last token of each."""
    counts = [len(ids) for _, ids in batch]
    ends = np.cumsum(counts)
    spans = [slice(end - count, end) for end, count in zip(ends, counts)]
    positions = np.concatenate(
        [np.arange(s.length, s.length + len(ids)) for s, ids in batch]
    )
    for sequence, ids in batch:
        sequence.reserve(sequence.length + len(ids))

    x = model.embedding[np.concatenate([ids for _, ids in batch])]
    for layer, block in enumerate(model.blocks):
        h = model.norm(x, block["attn_norm"])
        heads = (len(x), -1, model.head_dim)
        q = model.rotate((h @ block["attn_q"].T).reshape(heads), positions)
        k = model.rotate((h @ block["attn_k"].T).reshape(heads), positions)
        v = (h @ block["attn_v"].T).reshape(heads)
        attended = np.empty((len(x), model.heads * model.head_dim))
        for (sequence, _), span in zip(batch, spans):
            all_k, all_v = sequence.append(layer, k[span], v[span])
            attended[span] = attend(model, q[span], all_k, all_v)
        x = x + attended @ block["attn_output"].T
        h = model.norm(x, block["ffn_norm"])
        gate, up = h @ block["ffn_gate"].T, h @ block["ffn_up"].T
        x = x + (gate / (1.0 + np.exp(-gate)) * up) @ block["ffn_down"].T
    for sequence, ids in batch:
        sequence.length += len(ids)
    return model.norm(x[ends - 1], model.output_norm) @ model.output.T


def generate(model, prompts, tokens, kv_type="f64", forced=None, keep=False):
    """Greedy continuations. With `forced`, step i is fed forced[p][i] instead
    of its own choice. Returns per prompt: chosen tokens, margins between the
    best two logits, and with `keep` the logits."""
    sequences = [Sequence(model, kv_type) for _ in prompts]
    chosen = [[] for _ in prompts]
    margins = [[] for _ in prompts]
    kept = [[] for _ in prompts]
    feed = [np.asarray(ids, np.int64) for ids in prompts]
    for step in range(tokens):
        logits = forward(model, list(zip(sequences, feed)))
        for p, row in enumerate(logits):
            token = int(np.argmax(row))
            second, best = np.partition(row, -2)[-2:]
            chosen[p].append(token)
            margins[p].append(float(best - second))
            if keep:
                kept[p].append(row.astype(np.float32))
            if forced and step < len(forced[p]):
                token = forced[p][step]
            feed[p] = np.asarray([token], np.int64)
    return chosen, margins, np.asarray(kept)


def ids_of(text):
    return [int(part) for part in text.replace(" ", "").split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", required=True, help="the model")
    parser.add_argument(
        "--prompt-ids",
        type=ids_of,
        action="append",
        default=[],
        help="token ids, 1,2,3; repeat for several prompts",
    )
    parser.add_argument(
        "--prompts", help="a JSON file with a list of lists of token ids"
    )
    parser.add_argument("--tokens", type=int, default=64, help="steps to run")
    parser.add_argument(
        "--force-ids",
        type=ids_of,
        action="append",
        help="tokens to feed instead of the chosen ones; once a prompt",
    )
    parser.add_argument(
        "--weights", choices=["f16", "bf16", "f32"], default="f16",
        help="type that matrices are rounded to",
    )
    parser.add_argument(
        "--kv", choices=["f64", "f16", "bf16"], default="f64",
        help="type that the KV cache is rounded to",
    )
    parser.add_argument(
        "--logits", help="write float32 logits [prompt][step][vocabulary], .npy"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    prompts = list(args.prompt_ids)
    if args.prompts:
        with open(args.prompts, encoding="utf-8") as file:
            prompts += json.load(file)
    if not prompts or not all(prompts):
        parser.error("a prompt of one token or more is needed")
    if args.force_ids and len(args.force_ids) != len(prompts):
        parser.error("--force-ids must be given once for each prompt")

    model = Model(args.gguf, args.weights)
    limit = len(model.embedding)
    if any(not 0 <= t < limit for ids in prompts for t in ids):
        parser.error(f"token ids must be in [0, {limit})")
    chosen, margins, logits = generate(
        model, prompts, args.tokens, args.kv, args.force_ids, bool(args.logits)
    )
    if args.logits:
        np.save(args.logits, logits)
    if args.json:
        results = [
            {"prompt_ids": p, "tokens": t, "margins": m}
            for p, t, m in zip(prompts, chosen, margins)
        ]
        print(json.dumps({"weights": args.weights, "kv": args.kv, "results": results}))
    else:
        for row in chosen:
            print(",".join(map(str, row)))


if __name__ == "__main__":
    main()
