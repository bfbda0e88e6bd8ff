#!/usr/bin/env python3
"""Writes a Llama of any shape in one of GGUF's block types, with random weights.

For speed and memory alone: blocks are random bytes under scales that keep values
as large as a decoder's. There is no tokenizer in it. Q4_K_M is Q4_K with some
matrices in Q6_K, as llama.cpp chooses them.

usage: synthetic_gguf.py TYPE OUT.gguf [--layers 16 --hidden 2048 ...]
"""

import argparse
import os

import gguf
import numpy as np

# Where halves are in a block, and what makes values of them about 1 at scale 1.
HALVES = {
    "Q8_0": ((0, 1 / 74),),
    "Q4_0": ((0, 1 / 4.6),),
    "Q4_1": ((0, 1 / 4.6), (2, -1.6)),
    "Q5_0": ((0, 1 / 9.2),),
    "Q5_1": ((0, 1 / 9.2), (2, -1.6)),
    "Q4_K": ((0, 1 / 170), (2, 1 / 23)),
    "Q5_K": ((0, 1 / 340), (2, 1 / 22)),
    "Q6_K": ((208, 1 / 1370),),
}


def blocks(kind, rows, columns, random):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = np.frombuffer(random.bytes(rows * columns // elements * size), np.uint8)
    data = data.reshape(rows, columns // elements, size).copy()
    for at, unit in HALVES[kind]:
        scale = np.float16(unit / np.sqrt(columns))
        data[..., at : at + 2] = np.array([scale]).view(np.uint8)
    return data.reshape(rows, -1)


def kind_of(args, name):
    """The type of a matrix by its name, such as blk.3.ffn_down."""
    if args.type != "Q4_K_M":
        return args.type
    if name == "token_embd":
        return "Q6_K"
    _, layer, part = name.split(".")
    eighth, layer = args.layers // 8, int(layer)
    is_outer = layer < eighth or layer >= 7 * args.layers // 8
    takes_more = is_outer or (layer - eighth) % 3 == 2
    return "Q6_K" if takes_more and part in ("attn_v", "ffn_down") else "Q4_K"


def write(args):
    random = np.random.default_rng(args.seed)
    part = args.output + ".part"
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(f"synthetic {args.type}")
    writer.add_block_count(args.layers)
    writer.add_context_length(args.context)
    writer.add_embedding_length(args.hidden)
    writer.add_feed_forward_length(args.ffn)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_rope_dimension_count(args.head_dim)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(args.vocab)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name, rows, columns):
        kind = kind_of(args, name)
        raw = blocks(kind, rows, columns, random)
        writer.add_tensor(name + ".weight", raw, raw_dtype=gguf.GGMLQuantizationType[kind])

    def vector(name):
        writer.add_tensor(name + ".weight", np.ones(args.hidden, np.float32))

    # Without an output matrix, it is the embedding's.
    matrix("token_embd", args.vocab, args.hidden)
    vector("output_norm")
    kv = args.kv_heads * args.head_dim
    for layer in range(args.layers):
        prefix = f"blk.{layer}."
        vector(prefix + "attn_norm")
        matrix(prefix + "attn_q", args.heads * args.head_dim, args.hidden)
        matrix(prefix + "attn_k", kv, args.hidden)
        matrix(prefix + "attn_v", kv, args.hidden)
        matrix(prefix + "attn_output", args.hidden, args.heads * args.head_dim)
        vector(prefix + "ffn_norm")
        matrix(prefix + "ffn_gate", args.ffn, args.hidden)
        matrix(prefix + "ffn_up", args.ffn, args.hidden)
        matrix(prefix + "ffn_down", args.hidden, args.ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, args.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("type", choices=sorted([*HALVES, "Q4_K_M"]))
    parser.add_argument("output")
    # Llama 3.2 1B.
    for name, value in {
        "layers": 16, "hidden": 2048, "heads": 32, "kv-heads": 8, "head-dim": 64,
        "ffn": 8192, "vocab": 128256, "context": 4096, "seed": 1,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    write(parser.parse_args())


main()
