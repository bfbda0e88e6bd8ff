#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Calls the kernels of packages with a cache of bytes on every value that decides.

What append makes of all values of f16, of what lies between neighbours of e4m3
and is over its largest, and of rows of all sizes, what is between two codes of
int8 and what is no number; and what attention reads of all 256 codes of e4m3, and
of those of int8 with all scales: that is compared with a reference of the formats'
definitions, bit by bit.

    cache_elements.py --work /tmp/elements
"""

import compiled_step
import harness
import numpy as np
from elements import decode_f8, decode_int8, encode_f8, encode_int8, scales_of, widen_scales

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
        """The codes of K and of V that these, [head][column], become, and their
        scales, if they have some."""
        self.new[0], self.new[1] = keys, values
        self.describe([0], [0])
        self.written[:] = 1
        at = self.tokens_at
        self.run(descriptors=self.descriptor, tokens=self.descriptor[at : at + 4])
        page = self.pool[0, :, :, self.tables[0, 0]]
        end = self.scales_at
        codes = page[0, :, :end:PAGE], page[1, :, :HEAD_DIM]
        if self.scales is None:
            return codes
        scales = np.ascontiguousarray(page[:, :, end : end + 2]).view(np.uint16)
        return list(zip(codes, scales[..., 0]))


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


def rows_that_decide(rng):
    """Rows of int8, [...][head][column]: of all sizes, with what lies half way
    between two codes and beside it, with what is no number, and zeros."""
    shape = (400, HEADS, HEAD_DIM)
    sizes = np.ldexp(1 + rng.random((*shape[:2], 1)), rng.integers(-149, 128, (*shape[:2], 1)))
    spread = (rng.standard_normal(shape) * sizes / 4).astype(np.float32)
    halves = rng.integers(-254, 255, shape) / 2
    halves[..., 0] = rng.choice([-127, 127], shape[:2])
    scales = widen_scales(rng.integers(0x0080, 0x7B00, shape[:2]))[..., None]
    ties = (halves * scales).astype(np.float32)
    beside = np.nextafter(ties, rng.choice([-np.inf, np.inf], shape).astype(np.float32))
    odd = spread.copy()
    for values in odd.reshape(-1, HEAD_DIM):
        values[rng.integers(HEAD_DIM)] = rng.choice([np.nan, np.inf, -np.inf])
    least = np.float32([127 * 2.0**-126, np.nextafter(np.float32(127 * 2.0**-126), 0)])
    tiny = np.zeros((2, HEADS, HEAD_DIM), np.float32)
    tiny[..., 3] = least[:, None]
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    every = np.where(np.isfinite(halves), halves, 0)
    # Of like size in a row, and of all sizes.
    mixed = rng.permutation(every)
    return np.concatenate(
        [part.reshape(-1, HEADS, HEAD_DIM) for part in (spread, ties, beside, odd, tiny, tiny * 0, every, mixed)]
    )


def check_scaled(report, step, label):
    """Append and attention over a cache of int8."""
    rng = np.random.default_rng(3)
    wrong_codes = wrong_scales = wrong_reads = 0
    for values in rows_that_decide(rng):
        codes, scales = encode_int8(values), scales_of(values)
        for got_codes, got_scales in step.appended(values, values):
            wrong_codes += np.count_nonzero(got_codes != codes)
            wrong_scales += np.count_nonzero(got_scales != scales)
        # Of one token whose key is 0 attention returns the value itself.
        step.appended(0, values)
        want = decode_int8(codes, scales).astype(np.float32)
        same = (step.out == want) | (np.isnan(step.out) & np.isnan(want))
        wrong_reads += np.count_nonzero(~same)
    report.check(wrong_codes == 0, f"{label}: append makes {wrong_codes} other codes")
    report.check(wrong_scales == 0, f"{label}: append makes {wrong_scales} other scales")
    report.check(wrong_reads == 0, f"{label}: attention reads {wrong_reads} otherwise")


def main():
    args = harness.parser(__doc__.split("\n", maxsplit=1)[0]).parse_args()
    tools = harness.Tools(args)
    report = harness.Report()
    for arch in ("native", "x86-64-v3"):
        for element in ("f8e4m3", "int8"):
            label = f"{element}-{arch}"
            package = tools.compile(
                ["synth", "--layers=1", "--hidden=64", "--heads=2", "--ffn=32", "--vocab=16"],
                label,
                "--slots=1",
                f"--capacity={CAPACITY}",
                f"--cache-type={element}",
                f"--arch={arch}",
            )
            step = OneStep(package)
            if element == "int8":
                check_scaled(report, step, label)
            else:
                check_appends(report, step, label)
                check_reads(report, step, label)
            if not args.keep:
                harness.remove(package)
    report.finish()


if __name__ == "__main__":
    main()
