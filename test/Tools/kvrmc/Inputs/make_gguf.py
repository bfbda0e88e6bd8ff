# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a tiny Llama decoder as a GGUF file, whole or with one thing wrong.

    make_gguf.py KIND FILE

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
import sys

UINT32, FLOAT32, STRING = 4, 6, 8
F32 = 0
ALIGNMENT = 32
HIDDEN, FFN, VOCABULARY = 32, 48, 40


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    form = {UINT32: "<I", FLOAT32: "<f"}.get(kind)
    payload = struct.pack(form, value) if form else text(value)
    return text(key) + struct.pack("<I", kind) + payload


def padded(data):
    return data + b"\0" * (-len(data) % ALIGNMENT)


def build(kind):
    metadata = {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "tiny"),
        "llama.block_count": (UINT32, 1),
        "llama.context_length": (UINT32, 64),
        "llama.embedding_length": (UINT32, HIDDEN),
        "llama.feed_forward_length": (UINT32, FFN),
        "llama.attention.head_count": (UINT32, 1),
        "llama.attention.head_count_kv": (UINT32, 1),
        "llama.attention.key_length": (UINT32, 64),
        "llama.attention.value_length": (UINT32, 64),
        "llama.rope.dimension_count": (UINT32, 64),
        "llama.attention.layer_norm_rms_epsilon": (FLOAT32, 1e-5),
    }
    # name: dimensions, the contiguous one first
    tensors = {
        "token_embd.weight": [HIDDEN, VOCABULARY],
        "output_norm.weight": [HIDDEN],
        "blk.0.attn_norm.weight": [HIDDEN],
        "blk.0.attn_q.weight": [HIDDEN, 64],
        "blk.0.attn_k.weight": [HIDDEN, 64],
        "blk.0.attn_v.weight": [HIDDEN, 64],
        "blk.0.attn_output.weight": [64, HIDDEN],
        "blk.0.ffn_norm.weight": [HIDDEN],
        "blk.0.ffn_gate.weight": [HIDDEN, FFN],
        "blk.0.ffn_up.weight": [HIDDEN, FFN],
        "blk.0.ffn_down.weight": [FFN, HIDDEN],
    }
    kinds = dict.fromkeys(tensors, F32)
    magic, version = b"GGUF", 3
    shift = value = 0
    if kind == "magic":
        magic = b"GGML"
    elif kind == "version":
        version = 99
    elif kind == "architecture":
        metadata["general.architecture"] = (STRING, "mamba")
    elif kind == "key":
        del metadata["llama.block_count"]
    elif kind == "value-type":
        metadata["llama.block_count"] = (STRING, "1")
    elif kind == "zero":
        metadata["llama.attention.head_count"] = (UINT32, 0)
    elif kind == "layers":
        metadata["llama.block_count"] = (UINT32, 2**31 - 1)
    elif kind == "tensor":
        del tensors["blk.0.ffn_up.weight"]
    elif kind == "extra":
        tensors["blk.0.attn_q.bias"] = [64]
        kinds["blk.0.attn_q.bias"] = F32
    elif kind == "shape":
        tensors["blk.0.ffn_up.weight"] = [FFN, HIDDEN]
    elif kind == "tensor-type":
        kinds["blk.0.ffn_up.weight"] = 999
    elif kind == "overflow":
        tensors["blk.0.ffn_up.weight"] = [2**40, 2**40]
    elif kind == "huge":
        tensors["blk.0.ffn_up.weight"] = [2**30, 2**30]
    elif kind == "offset":
        shift = 2**32
    elif kind == "nan":
        value = 0x7FC00000
    elif kind not in ("whole", "truncated", "short", "count", "string"):
        sys.exit(f"make_gguf: error: no kind '{kind}'")

    out = magic + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, (kind_of_value, content) in metadata.items():
        out += pair(key, kind_of_value, content)
    offset = 0
    data = b""
    for name, dims in tensors.items():
        out += text(name) + struct.pack("<I", len(dims))
        out += struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", kinds[name], offset + shift)
        count = 1
        for dim in dims:
            count *= dim
        if count > 1 << 20:
            continue
        # Norms are 1; matrices small and not all equal.
        values = [1.0 if len(dims) == 1 else (i % 7 - 3) / 16 for i in range(count)]
        block = bytearray(struct.pack(f"<{count}f", *values))
        if name == "blk.0.ffn_up.weight" and value:
            struct.pack_into("<I", block, 40, value)
        data += padded(bytes(block))
        offset = len(data)
    out = padded(out) + data
    if kind == "truncated":
        out = out[:-100]
    elif kind == "short":
        out = out[:40]
    elif kind == "count":
        out = out[:8] + struct.pack("<Q", 2**60) + out[16:]
    elif kind == "string":
        out = out[:24] + struct.pack("<Q", 2**63) + out[32:]
    return out


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data = build(sys.argv[1])
    with open(sys.argv[2], "wb") as file:
        file.write(data)


main()
