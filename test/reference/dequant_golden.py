#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes test/unit/DequantGolden.inc: blocks of random bytes in every format
that kvrm reads, and what the `gguf` package makes of them."""

import sys

import gguf
import numpy as np

# Format and where its half-precision scales are.
FORMATS = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def lines(items, per_line):
    for i in range(0, len(items), per_line):
        yield "    " + " ".join(f"{item}," for item in items[i : i + per_line])


def main(path):
    random = np.random.default_rng(1)
    with open(path, "w", encoding="ascii") as out:
        print("// Written by test/reference/dequant_golden.py.", file=out)
        for name, scales in FORMATS.items():
            kind = gguf.GGMLQuantizationType[name]
            count, size = gguf.GGML_QUANT_SIZES[kind]
            blocks = max(64 // count, 1)
            data = random.integers(0, 256, (blocks, size), np.uint8)
            for block in data:
                for at in scales:
                    value = np.float16(random.uniform(-0.1, 0.1))
                    block[at : at + 2] = np.array([value]).view(np.uint8)
            floats = gguf.quants.dequantize(data.reshape(-1), kind).reshape(-1)
            print(f"static const uint8_t bytes{name}[] = {{", file=out)
            print("\n".join(lines(list(data.reshape(-1)), 16)), file=out)
            print(f"}};\nstatic const float floats{name}[] = {{", file=out)
            text = [f"{float(f).hex()}f" for f in floats]
            print("\n".join(lines(text, 3)), file=out)
            print("};", file=out)


if __name__ == "__main__":
    main(sys.argv[1])
