#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A decoder in NumPy float64, to judge compiled packages by.

It shares nothing with kvrm: models.py reads the files, and all arithmetic is in
float64. Matrices are first rounded to the type that packages hold them in;
norms and biases are not. All prompts advance together, so that a step reads the
weights once.

    reference.py --model model.gguf --prompt-ids 1,2,3 --prompt-ids 4,5 \\
        --tokens 64 --json
"""

import argparse
import json
import sys

import numpy as np
from models import open_model, round_to


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


def soft_cap(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def activate(model, x):
    if not model.gelu:
        return x / (1.0 + np.exp(-x))
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attend(model, layer, q, k, v):
    """Causal attention of the last len(q) positions. q is [n][heads][dim]."""
    n, length = len(q), len(k)
    group = model.heads // model.kv_heads
    q = q.reshape(n, model.kv_heads, group, model.head_dim)
    scores = np.einsum("nhgd,thd->hgnt", q, k, optimize=True)
    scores *= model.attention_scale or model.head_dim**-0.5
    scores = soft_cap(scores, model.attention_softcap)
    seen, own = np.arange(length)[None, :], np.arange(length - n, length)[:, None]
    hidden = seen > own
    if model.windows[layer]:
        hidden = hidden | (seen <= own - model.windows[layer])
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
    x = x * model.embedding_scale
    for layer, block in enumerate(model.blocks):
        h = model.before(layer, "attn", x)
        q, k, v = (model.heads_of(layer, name, h) for name in "qkv")
        if model.turns[layer]:
            q = model.rotate(q, positions, layer)
            k = model.rotate(k, positions, layer)
        attended = np.empty((len(x), model.heads * model.head_dim))
        for (sequence, _), span in zip(batch, spans):
            all_k, all_v = sequence.append(layer, k[span], v[span])
            attended[span] = attend(model, layer, q[span], all_k, all_v)
        x = x + model.after(layer, "attn", attended @ block["attn_output"].T)
        h = model.before(layer, "ffn", x)
        gate, up = h @ block["ffn_gate"].T, h @ block["ffn_up"].T
        activated = activate(model, gate) * up
        x = x + model.after(layer, "ffn", activated @ block["ffn_down"].T)
    for sequence, ids in batch:
        sequence.length += len(ids)
    logits = model.norm(x[ends - 1], model.output_norm) @ model.output.T
    return soft_cap(logits, model.logit_softcap)


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
    parser.add_argument(
        "--model", required=True, help="a GGUF file, or a folder of Hugging Face"
    )
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
        "--kv", choices=["f64", "f16", "bf16", "f8e4m3", "int8"], default="f64",
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

    model = open_model(args.model, args.weights)
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
