#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges packages whose matrices kvrmc has rounded to blocks, by a float64 reference.

A model in f32 is compiled with --weight-type. The reference reads another file,
whose matrices are the same values rounded here, as CodedWeights.h says it.

    coded_weights.py --work /tmp/coded [--only fp8] [--seed 1] [--gpu]
"""

import os
import sys

import harness

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference")
)
import architectures  # noqa: E402
import block_weights  # noqa: E402
import gguf  # noqa: E402
import numpy as np  # noqa: E402
import tiny_models  # noqa: E402

# Neighbours that share a scale, bits of a code, and whether there is a minimum.
INTEGERS = {
    "q8_0": (32, 8, False),
    "q4_0": (32, 4, False),
    "q4_1": (32, 4, True),
    "q5_0": (32, 5, False),
    "q5_1": (32, 5, True),
    "int4_g128": (128, 4, False),
    "int4_g128_min": (128, 4, True),
}
FORMATS = (*INTEGERS, "fp8_g128")


def half(values):
    return values.astype(np.float16).astype(np.float32)


def divided(values, scale):
    return np.where(scale == 0, 0, values / np.where(scale == 0, 1, scale))


def e4m3_values():
    """All numbers of E4M3 that are not negative, in order."""
    codes = np.arange(0x7F)
    exponent, mantissa = codes >> 3, codes & 7
    return np.where(
        exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0)
    ).astype(np.float32)


def to_e4m3(values):
    """The nearest numbers of E4M3, of two that are as near the one of even code."""
    numbers = e4m3_values()
    magnitude = np.minimum(np.abs(values), numbers[-1])
    above = np.minimum(np.searchsorted(numbers, magnitude), len(numbers) - 1)
    below = np.maximum(above - 1, 0)
    up, down = numbers[above] - magnitude, magnitude - numbers[below]
    takes_above = (up < down) | ((up == down) & (above % 2 == 0))
    return np.copysign(numbers[np.where(takes_above, above, below)], values)


def rounded(name, values):
    """`values` as a package of this --weight-type has them."""
    if name == "fp8_g128":
        groups = values.astype(np.float32).reshape(-1, 128)
        scale = half(np.abs(groups).max(axis=1, keepdims=True) / np.float32(448))
        result = to_e4m3(divided(groups, scale)) * scale
        return result.reshape(values.shape).astype(np.float32)
    group, bits, has_minimum = INTEGERS[name]
    groups = values.astype(np.float32).reshape(-1, group)
    least, most = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    last, offset = 2**bits - 1, 0
    if has_minimum:
        scale, base = half((most - least) / np.float32(last)), half(least)
    else:
        offset = 2 ** (bits - 1)
        largest = np.where(-least > most, least, most)
        scale, base = half(largest / np.float32(-offset)), np.float32(0)
    codes = np.clip(np.rint(divided(groups - base, scale)) + offset, 0, last)
    return (codes - offset).astype(np.float32).reshape(values.shape) * np.repeat(
        scale, group, axis=1
    ).reshape(values.shape) + np.repeat(
        np.broadcast_to(base, scale.shape), group, axis=1
    ).reshape(values.shape)


def write_models(tools, name, random):
    """The model, and the one of the rounded values; its configuration."""
    config, tensors = block_weights.wide_model(name in ("q4_1", "fp8_g128"), random)
    plain, coded = tools.path("plain.gguf"), tools.path("coded.gguf")
    kind = gguf.GGMLQuantizationType.F32
    # Half as large, as in block_weights.py.
    tiny_models.write_gguf(plain, config, tensors, lambda _, v: (v / 2, kind))
    tiny_models.write_gguf(
        coded, config, tensors, lambda _, v: (rounded(name, v / 2), kind)
    )
    return config, plain, coded


def judge(tools, report, name, random, roundings):
    config, plain, coded = write_models(tools, name, random)
    sequences = architectures.sequences_of(config["vocab_size"], random)
    want = block_weights.logits_of(coded, sequences)
    for mode in roundings:
        error = block_weights.error_of(
            tools, plain, mode, sequences, want, f"--weight-type={name}"
        )
        print(f"{name:14} {mode:6} {error:9.2e}", flush=True)
        # Floats are multiplied as they are.
        is_exact = mode == "int8" and name == "fp8_g128"
        limit = block_weights.TOLERANCE["exact" if is_exact else mode]
        report.check(error <= limit, f"{name} {mode}: logits are off by {error:.3g}")


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", help="formats with this in their name")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    parser.add_argument("--gpu", action="store_true", help="compile for a GPU, sm_90")
    args = parser.parse_args()
    tools, report = harness.Tools(args), harness.Report()
    random = np.random.default_rng(harness.seed_of(args))
    for name in FORMATS:
        if args.only in name:
            judge(tools, report, name, random, ["f16"] if args.gpu else ["exact", "int8"])
    report.finish()


if __name__ == "__main__":
    main()
