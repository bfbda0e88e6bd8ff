# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A Llama decoder in NumPy float64, to judge packages of exported graphs by.

It shares nothing with kvrm. Matrices are [out][in]; RoPE turns element i of a
head with i + head_dim / 2. What a layer lacks (feed-forward, biases, norms of
queries and keys) it has no weights for.
"""

import json
import struct

import numpy as np
from elements import rounded


def round_to(values, kind):
    """Rounds to f16, bf16, f8e4m3 or int8, to nearest even; returns float64."""
    if kind == "f16":
        return values.astype(np.float16).astype(np.float64)
    if kind == "bf16":
        bits = values.astype(np.float32).view(np.uint32)
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    if kind in ("f8e4m3", "int8"):
        return rounded(values, kind)
    return np.asarray(values, np.float64)


def write_safetensors(path, tensors):
    names = {np.dtype("float32"): "F32", np.dtype("float16"): "F16"}
    header, data = {}, b""
    for name, values in tensors.items():
        values = np.ascontiguousarray(values)
        header[name] = {
            "dtype": names.get(values.dtype, str(values.dtype).upper().replace("INT", "I")),
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + values.nbytes],
        }
        data += values.tobytes()
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def normalize(x, gain, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * gain


class Llama:
    """`weights` has embed, norm, head and layers, a list of dictionaries: wq,
    wk, wv, wo, attn_norm, and perhaps bq, bk, bv, q_norm, k_norm, ffn_norm, w1
    (gate), w3 (up), w2 (down)."""

    def __init__(self, weights, head_dim, epsilon=1e-5, theta=10000.0):
        self.weights = weights
        self.head_dim = head_dim
        self.epsilon = epsilon
        self.frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)

    def turn(self, x, position):
        angles = position * self.frequencies
        first, second = np.split(x, 2, axis=-1)
        cosines, sines = np.cos(angles), np.sin(angles)
        return np.concatenate(
            [first * cosines - second * sines, second * cosines + first * sines], -1
        )

    def project(self, layer, name, x):
        rows = layer["w" + name] @ x + layer.get("b" + name, 0.0)
        rows = rows.reshape(-1, self.head_dim)
        gain = layer.get(name + "_norm")
        return rows if gain is None else normalize(rows, gain, self.epsilon)

    def attend(self, layer, x, keys, values, position, cache):
        query = self.turn(self.project(layer, "q", x), position)
        keys[:, position] = round_to(
            self.turn(self.project(layer, "k", x), position), cache
        )
        values[:, position] = round_to(self.project(layer, "v", x), cache)
        group = len(query) // len(keys)
        heads = []
        for head, row in enumerate(query):
            seen = keys[head // group, : position + 1]
            scores = seen @ row / np.sqrt(self.head_dim)
            weights = np.exp(scores - scores.max())
            heads.append(
                weights / weights.sum() @ values[head // group, : position + 1]
            )
        return layer["wo"] @ np.concatenate(heads)

    def step(self, token, position, keys, values, cache):
        """Logits of one token. `keys` and `values`, [layer][kv_head][capacity]
        [head_dim], get its own, rounded to `cache`."""
        x = self.weights["embed"][token]
        for number, layer in enumerate(self.weights["layers"]):
            normed = normalize(x, layer["attn_norm"], self.epsilon)
            x = x + self.attend(
                layer, normed, keys[number], values[number], position, cache
            )
            if "w1" in layer:
                normed = normalize(x, layer["ffn_norm"], self.epsilon)
                gate = layer["w1"] @ normed
                x = x + layer["w2"] @ (gate / (1 + np.exp(-gate)) * (layer["w3"] @ normed))
        return self.weights["head"] @ normalize(x, self.weights["norm"], self.epsilon)

    def score(self, tokens, cache):
        """Logits after each token of a sequence."""
        kv_heads = len(self.weights["layers"][0]["wk"]) // self.head_dim
        shape = (len(self.weights["layers"]), kv_heads, len(tokens), self.head_dim)
        keys, values = np.zeros(shape), np.zeros(shape)
        return np.array(
            [
                self.step(token, position, keys, values, cache)
                for position, token in enumerate(tokens)
            ]
        )
