#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A decode step of a Llama decoder in JAX, exported for kvrmc: StableHLO, random
weights as safetensors, and a manifest of the step's arguments.

    export_step.py OUT [--layers 2] [--hidden 128] ...

writes OUT.stablehlo.mlir, OUT.safetensors and OUT.json. docs/Tutorial.md takes
them to a package. Needs jax, numpy and safetensors of PyPI.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from safetensors.numpy import save_file


def normalize(x, gain):
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * gain


def rotate(x, positions):
    """`[rows, heads, head_dim]`, turned to the rows' positions."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-jnp.arange(half) / half)
    angles = positions[:, None, None].astype(jnp.float32) * frequencies
    first, second = jnp.split(x, 2, -1)
    cosines, sines = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate(
        [first * cosines - second * sines, second * cosines + first * sines], -1
    )


def write(cache, new, positions):
    """A token of each row, to `[rows, kv_heads, capacity, head_dim]`."""
    here = jnp.arange(cache.shape[2]) == positions[:, None, None, None]
    return jnp.where(here[:, 0, 0][:, None, :, None], new[:, :, None], cache)


def attend(query, keys, values, positions):
    rows, heads, head_dim = query.shape
    grouped = query.reshape(rows, keys.shape[1], -1, head_dim)
    scores = jnp.einsum("bkgd,bksd->bkgs", grouped, keys) / head_dim**0.5
    seen = jnp.arange(keys.shape[2]) <= positions[:, None, None, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
    return jnp.einsum("bkgs,bksd->bkgd", weights, values).reshape(rows, -1)


def step(weights, tokens, positions, keys, values, head_dim):
    """One token of each row; logits and the caches with it."""
    rows = tokens.shape[0]
    x = weights["embed"][tokens]
    new_keys, new_values = [], []
    for layer, old_keys, old_values in zip(weights["layers"], keys, values):
        normed = normalize(x, layer["attn_norm"])
        query, key, value = (
            (normed @ layer[name]).reshape(rows, -1, head_dim)
            for name in ("wq", "wk", "wv")
        )
        new_keys.append(write(old_keys, rotate(key, positions), positions))
        new_values.append(write(old_values, value, positions))
        query = rotate(query, positions)
        x = x + attend(query, new_keys[-1], new_values[-1], positions) @ layer["wo"]
        normed = normalize(x, layer["ffn_norm"])
        gated = jax.nn.silu(normed @ layer["gate"]) * (normed @ layer["up"])
        x = x + gated @ layer["down"]
    return normalize(x, weights["norm"]) @ weights["head"], new_keys, new_values


def random_weights(args):
    rng = np.random.default_rng(args.seed)

    def matrix(rows, columns):
        values = rng.normal(0, rows**-0.5, (rows, columns))
        return values.astype(np.float32)

    def gain():
        return (1 + 0.1 * rng.normal(size=args.hidden)).astype(np.float32)

    def layer():
        queries, keys = args.heads * args.head_dim, args.kv_heads * args.head_dim
        return {
            "attn_norm": gain(),
            "wq": matrix(args.hidden, queries),
            "wk": matrix(args.hidden, keys),
            "wv": matrix(args.hidden, keys),
            "wo": matrix(queries, args.hidden),
            "ffn_norm": gain(),
            "gate": matrix(args.hidden, args.ffn),
            "up": matrix(args.hidden, args.ffn),
            "down": matrix(args.ffn, args.hidden),
        }

    return {
        "embed": rng.normal(size=(args.vocab, args.hidden)).astype(np.float32),
        "layers": [layer() for _ in range(args.layers)],
        "norm": gain(),
        "head": matrix(args.hidden, args.vocab),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    for name, value in [
        ("rows", 2),
        ("capacity", 256),
        ("layers", 2),
        ("hidden", 128),
        ("heads", 4),
        ("kv-heads", 2),
        ("head-dim", 64),
        ("ffn", 256),
        ("vocab", 512),
        ("seed", 1),
    ]:
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    weights = random_weights(args)
    cache = jax.ShapeDtypeStruct(
        (args.rows, args.kv_heads, args.capacity, args.head_dim), jnp.float32
    )
    caches = [cache] * args.layers
    row = jax.ShapeDtypeStruct((args.rows,), jnp.int32)
    jitted = jax.jit(step, static_argnames="head_dim")
    lowered = jitted.lower(weights, row, row, caches, caches, head_dim=args.head_dim)
    with open(args.out + ".stablehlo.mlir", "w") as file:
        file.write(lowered.as_text())
    # Arguments are the leaves of what the step takes, in their order.
    leaves = jax.tree_util.tree_flatten_with_path(weights)[0]
    named = {jax.tree_util.keystr(path): value for path, value in leaves}
    save_file(named, args.out + ".safetensors")
    arguments = [{"name": name} for name in named]
    arguments += [{"role": "tokens"}, {}] + [{}] * (2 * args.layers)
    with open(args.out + ".json", "w") as file:
        json.dump({"arguments": arguments}, file, indent=1)


if __name__ == "__main__":
    main()
