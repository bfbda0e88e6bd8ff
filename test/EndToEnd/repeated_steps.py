#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs the same steps again and again: all logits must be the same, bit by bit.

No step adds in an order that depends on time, so logits that change between runs
are those of a race. The sequences are fed twice: prompts first, and token by
token, which tells a prompt's steps from decode steps. Without --package, small
decoders of the work queue and of splits run on this CPU; a package may be for
another target. On GPUs a library of products may take other ways in each
process: set KVRM_CUBLASLT=none.

    repeated_steps.py --work /tmp/repeated [--package l8.kvrm ...] [--runs 8]
"""

import os
import random

import harness
import numpy as np

DECODERS = {
    "workqueue": ["--schedule=workqueue", "--heads=8", "--kv-heads=2", "--slots=5"],
    "split": ["--schedule=split", "--splits=3", "--heads=3", "--kv-heads=3", "--slots=3"],
    "f8e4m3": ["--cache-type=f8e4m3", "--heads=4", "--kv-heads=1", "--slots=4"],
    "int8": ["--cache-type=int8", "--heads=6", "--kv-heads=2", "--slots=3"],
    "bf16": ["--cache-type=bf16", "--weight-type=bf16", "--slots=8"],
}


def difference(first, other):
    """What is not the same bit by bit, in words; none if all is."""
    unlike = (first.view(np.uint32) != other.view(np.uint32)).any(axis=-1)
    if not unlike.any():
        return None
    sequences, steps = np.nonzero(unlike)
    at = int(np.argmin(steps))
    apart = np.nanmax(np.abs(first - other)) / np.nanmax(np.abs(first))
    return (
        f"{unlike.sum()} of {unlike.size} rows, the first in step {steps[at]} of "
        f"sequence {sequences[at]}, by at most {apart:.1e} of the largest logit"
    )


def repeat(tools, report, package, runs, seed):
    generator = random.Random(seed)
    manifest = harness.manifest(package)
    vocabulary = manifest["model"]["vocabulary"]
    sequences = [
        [generator.randrange(vocabulary) for _ in range(generator.randint(12, 90))]
        for _ in range(manifest["entries"][0]["rows"])
    ]
    prompts = [generator.randint(1, len(ids) - 1) for ids in sequences]
    for what, lengths in (("prompts", prompts), ("tokens", [1] * len(sequences))):
        path = tools.path("logits.npy")
        tools.score(package, sequences, lengths, logits=path)
        first = np.load(path)
        for run in range(2, runs + 1):
            tools.score(package, sequences, lengths, logits=path)
            found = difference(first, np.load(path))
            report.check(
                not found, f"{os.path.basename(package)}, {what} first, run {run}: {found}"
            )


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--package", action="append", default=[], help="that runs these steps")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tools = harness.Tools(args)
    report = harness.Report()
    packages = args.package or [
        tools.compile(["synth", "--capacity=128", "--layers=2"], name, *options)
        for name, options in DECODERS.items()
    ]
    for package in packages:
        repeat(tools, report, package, args.runs, args.seed)
    report.finish()


if __name__ == "__main__":
    main()
