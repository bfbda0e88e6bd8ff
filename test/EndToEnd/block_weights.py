#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges packages that keep the blocks of GGUF files by a float64 reference.

Matrices are random bytes, drawn anew for each run, with scales that make their
values as large as a decoder's; some scales are zero or subnormal. What they are
worth says the package gguf. With exact activations the logits must be those of
the reference but for f32's rounding and the cache's; with activations in eight
bits they must be near, and no nearer than that can be.

    block_weights.py --work /tmp/blocks [--only q4_k] [--seed 1] [--quick] [--gpu]
"""

import os
import sys

import harness

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference")
)
import architectures  # noqa: E402
import gguf  # noqa: E402
import numpy as np  # noqa: E402
import reference  # noqa: E402
import tiny_models  # noqa: E402

# Of a step's largest logit. Rounding activations to eight bits is a relative
# error of about 1/250 of the largest of 32; these decoders add up some ten of
# such.
# A GPU's are of 16 bits, which the large minima of random K formats make the
# most of.
TOLERANCE = {"exact": 5e-4, "int8": 5e-2, "f16": 3e-3}
CAPACITY = architectures.CAPACITY
FORMATS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
# Where the halves of a block are, and how large a code is, as a root mean square
# with its offset taken off; the scales of K formats times sub-scales.
HALVES = {
    "Q8_0": ((0, 74.0),),
    "Q4_0": ((0, 4.6),),
    "Q4_1": ((0, 4.6), (2, -4.6 * 1.6)),
    "Q5_0": ((0, 9.2),),
    "Q5_1": ((0, 9.2), (2, -9.2 * 1.6)),
    "Q4_K": ((0, 4.6 * 37), (2, 4.6 * 37 / 7.5)),
    "Q5_K": ((0, 9.2 * 37), (2, 9.2 * 37 / 15.5)),
    "Q6_K": ((208, 18.5 * 74),),
}


def random_blocks(name, shape, spread, random):
    """Bytes of a matrix whose values have a root mean square of about `spread`."""
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = shape
    blocks = random.integers(0, 256, (rows, columns // elements, size), np.uint8)
    count = blocks.shape[:2]
    scales = random.uniform(0.7, 1.3, count)
    scales[random.random(count) < 0.02] = 0.0
    for at, unit in HALVES[name]:
        # A minimum goes with the scale that it belongs to.
        size_of = abs(unit) if unit > 0 else HALVES[name][0][1]
        factor = 1.0 if unit > 0 else unit
        halves = (scales * spread / size_of * factor).astype(np.float16)
        halves[random.random(count) < 0.02] = np.float16(6e-8)  # the least
        blocks[..., at : at + 2] = halves[..., None].view(np.uint8)
    return blocks.reshape(rows, -1), kind


def formats_of(name):
    """The format of a matrix by its name, in a model called `name`."""
    if name != "mixed":
        return lambda tensor: name
    # As llama.cpp mixes them, and gate unlike up.
    kinds = {
        "attn_v": "Q6_K",
        "ffn_down": "Q6_K",
        "ffn_up": "Q5_K",
        "attn_output": "Q8_0",
        "output": "Q6_K",
        "token_embd": "Q4_0",
        "attn_k": None,
    }
    return lambda tensor: kinds.get(tensor.split(".")[-2], "Q4_K")


def wide_model(tied, random):
    """A configuration whose rows are whole blocks of every format, and tensors."""
    config = tiny_models.config_of(
        "llama",
        hidden_size=256,
        intermediate_size=512,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return config, tiny_models.folder_tensors(config, random.integers(2**32))


def write_model(path, name, tied, random):
    config, tensors = wide_model(tied, random)
    choose = formats_of(name)

    def encode(tensor, values):
        kind = choose(tensor)
        if kind is None:
            return values.astype(np.float16), gguf.GGMLQuantizationType.F16
        # Smaller: attention of what it has not learnt is sharp, and then shows
        # the rounding of each K to the cache more than anything that is tested
        # here. Random minima of groups make keys, and so scores, larger still.
        shrink = 4 if kind in ("Q4_K", "Q5_K") else 2
        return random_blocks(kind, values.shape, values.std() / shrink, random)

    tiny_models.write_gguf(path, config, tensors, encode)
    return config


def error_of(tools, model, rounding, sequences, want, *flags):
    """How far logits of `model`, compiled for `rounding`, are from `want`."""
    # A GPU's prompts are long enough for unpacked weights.
    options = {
        "f16": ["--target=nvptx", "--prefill-chunk=96"],
        "int8": ["--prefill-chunk=16", "--quantized-activations=int8"],
        "exact": ["--prefill-chunk=16", "--quantized-activations=exact"],
    }[rounding]
    package = tools.compile(
        [model], "package", "--slots=3", f"--capacity={CAPACITY}", *options, *flags
    )
    error = architectures.worst_error(tools, package, sequences, want)
    harness.remove(package)
    return error


def judge(tools, report, path, name, sequences, combinations):
    want = logits_of(path, sequences)
    for mode, rounding, arch in combinations:
        flags = [f"--arch={arch}", *(["--static"] if mode == "static" else [])]
        error = error_of(tools, path, rounding, sequences, want, *flags)
        print(f"{name:12} {mode:7} {rounding:6} {arch:10} {error:9.2e}", flush=True)
        report.check(
            error <= TOLERANCE[rounding],
            f"{name} {mode} {rounding} {arch}: logits are off by {error:.3g} of "
            "the largest",
        )


def logits_of(path, sequences):
    model = reference.open_model(path, "f32", CAPACITY)
    rows = []
    for ids, (prompt, _) in zip(sequences, architectures.LENGTHS, strict=True):
        cache = reference.Sequence(model, "f16")
        chunks = [ids[:prompt]] + [[token] for token in ids[prompt:]]
        rows += [reference.forward(model, [(cache, chunk)])[0] for chunk in chunks]
    return np.asarray(rows)


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", help="models with this in their name")
    parser.add_argument("--quick", action="store_true", help="fewer combinations")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    parser.add_argument("--archs", default="native,x86-64-v3", help="CPUs, by commas")
    parser.add_argument("--gpu", action="store_true", help="on a GPU, by --archs sm_90")
    args = parser.parse_args()
    tools, report = harness.Tools(args), harness.Report()
    random = np.random.default_rng(harness.seed_of(args))
    archs = args.archs.split(",")
    every = [
        (mode, rounding, arch)
        for arch in archs
        for mode in ("paged", "static")
        for rounding in (("f16",) if args.gpu else ("exact", "int8"))
    ]
    for turn, name in enumerate((*FORMATS, "mixed")):
        if args.only.lower() not in name.lower():
            continue
        path = tools.path(name + ".gguf")
        # Every second has a table that the logits are made with, too.
        config = write_model(path, name, turn % 2 == 1, random)
        sequences = architectures.sequences_of(config["vocab_size"], random)
        chosen = every
        if args.quick and not args.gpu:
            chosen = [every[turn % 4], every[-1 - (turn + 2) % 4]]
        judge(tools, report, path, name, sequences, chosen)
        harness.remove(path)
    report.finish()


if __name__ == "__main__":
    main()
