#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Calls the kernels of packages with a cache of f8e4m3 on every value that decides.

What append makes of all values of f16, of what lies between neighbours of e4m3,
and of what is over its largest, and what attention reads of all 256 codes, is
compared with a reference of the format's definition, bit by bit.

    cache_elements.py --work /tmp/elements
"""

import compiled_step
import harness
import numpy as np
from elements import decode_f8, encode_f8

PAGE, HEAD_DIM, HEADS, CAPACITY = 16, 64, 2, 2048


class OneStep(compiled_step.PagedStep):
    """A step whose keys, values and outputs are the test's."""

    def __init__(self, package):
        empty = np.zeros((2, 1, 1, HEADS, CAPACITY, HEAD_DIM), np.float32)
        super().__init__(np.random.default_rng(1), package, empty)
        self.new = np.zeros((2, HEADS, HEAD_DIM), np.float32)
        self.out = np.zeros((HEADS, HEAD_DIM), np.float32)

    def append(self, session, batch, layer, kernel, k, v):
        super().append(
            session, batch, layer, kernel, self.new[0].ctypes.data, self.new[1].ctypes.data
        )

    def attend(self, session, batch, layer, kernel, q, out):
        super().attend(session, batch, layer, kernel, q, self.out.ctypes.data)

    def appended(self, keys, values):
        """The codes of K and of V that these, [head][column], become."""
        self.new[0], self.new[1] = keys, values
        self.describe([0], [0])
        self.written[:] = 1
        at = self.tokens_at
        self.run(descriptors=self.descriptor, tokens=self.descriptor[at : at + 4])
        page = self.pool[0, :, :, self.tables[0, 0]]
        return page[0, :, :: PAGE], page[1, :, :HEAD_DIM]


def values_that_decide():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves.astype(np.float32)
    codes = decode_f8(np.arange(127, dtype=np.uint8)).astype(np.float32)
    ties = (codes[1:] + codes[:-1]) / 2
    beside = [codes, ties, np.float32([447, 448, 449, 463, 464, 465, 480, 1e9, np.inf])]
    beside += [np.float32([1e-38, 1e-45, 2.0**-10, 2.0**-11, np.nan, 65504, 65520])]
    near = np.concatenate(beside)
    near = np.concatenate(
        [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    )
    values = np.concatenate([halves, near, -near])
    width = HEADS * HEAD_DIM
    return np.resize(values, (-(-len(values) // width), HEADS, HEAD_DIM))


def check_appends(report, step, label):
    wrong = 0
    for values in values_that_decide():
        want = encode_f8(values)
        for got in step.appended(values, values):
            # All NaN are one, whatever the sign.
            same = (got == want) | (((got & 0x7F) == 0x7F) & ((want & 0x7F) == 0x7F))
            wrong += np.count_nonzero(~same)
    report.check(wrong == 0, f"{label}: append rounds {wrong} values otherwise")


def check_reads(report, step, label):
    """Of one token whose key is 0 attention returns the value itself."""
    wrong = 0
    codes = np.arange(256, dtype=np.uint8).reshape(-1, HEADS, HEAD_DIM)
    with np.errstate(invalid="ignore"):
        for part in codes:
            want = decode_f8(part).astype(np.float32)
            step.appended(0, want)
            wrong += np.count_nonzero(
                ~((step.out == want) | (np.isnan(step.out) & np.isnan(want)))
            )
    report.check(wrong == 0, f"{label}: attention reads {wrong} codes otherwise")


def main():
    args = harness.parser(__doc__.split("\n", maxsplit=1)[0]).parse_args()
    tools = harness.Tools(args)
    report = harness.Report()
    for arch in ("native", "x86-64-v3"):
        package = tools.compile(
            ["synth", "--layers=1", "--hidden=64", "--heads=2", "--ffn=32", "--vocab=16"],
            "f8-" + arch,
            "--slots=1",
            f"--capacity={CAPACITY}",
            "--cache-type=f8e4m3",
            f"--arch={arch}",
        )
        step = OneStep(package)
        check_appends(report, step, arch)
        check_reads(report, step, arch)
        if not args.keep:
            harness.remove(package)
    report.finish()


if __name__ == "__main__":
    main()
