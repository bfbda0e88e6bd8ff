#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges decoders that several ranks run together by a float64 reference.

Each shape is compiled for one rank and for several, of the same seed, and as
seeds. Sequences are fed to all of them: the logits of ranks must be near those
of the reference, which reads the weights of the package of one, and their
greedy tokens those of one rank.

    tensor_parallel.py --work /tmp/ranks
"""

import harness
import numpy as np
from synthetic_shapes import TOLERANCE, Reference, Shape, error

# A shape, and the ranks that it is run by. Sizes that ranks do not divide stay
# whole: of 201 columns, 331 tokens or 33 hidden.
CASES = [
    (Shape(kv_heads=4, group=2, ffn=192, vocab=256, mixes=True), (2, 4)),
    (Shape(kv_heads=8, ffn=256, vocab=1024, chunk=7), (2, 4, 8)),
    (Shape(kv_heads=3, group=3, hidden=65, ffn=33, vocab=97, page=32), (3,)),
    (Shape(kv_heads=4, group=3, ffn=201, vocab=331, cache="bf16", chunk=33), (2, 4)),
    (Shape(kv_heads=4, group=2, cache="f8e4m3", page=32), (2,)),
    (Shape(kv_heads=4, group=2, cache="int8", page=32), (2,)),
    (Shape(kv_heads=2, head_dim=128, transport="staged", schedule="split"), (2,)),
]


def sequences_of(shape):
    """Sequences that wait for slots, and how much of each is prompt."""
    random = np.random.default_rng(5)
    lengths = [1, shape.page, shape.page + 1, 40, shape.capacity, 9]
    prompts = [1, shape.page - 1, 1, 37, shape.capacity - 5, 2]
    ids = [random.integers(0, shape.vocab, length).tolist() for length in lengths]
    return ids, prompts


def judge(tools, report, shape, ranks):
    options = [*shape.options(), *shape.paging()]
    one = tools.compile(shape.model(), "one", *options)
    reference = Reference(one, shape)
    sequences, prompts = sequences_of(shape)
    want = [
        reference.logits(ids)[prompt - 1 :]
        for ids, prompt in zip(sequences, prompts, strict=True)
    ]
    starts = [ids[:prompt] for ids, prompt in zip(sequences, prompts, strict=True)]
    room = [min(24, shape.capacity - len(start)) for start in starts]
    alone = tools.generate(one, starts, room, "--ignore-eos")
    for count in ranks:
        parallel = f"--tensor-parallel={count}"
        for seeded in ([], ["--seeded"]):
            label = f"{shape.name()}: {count} ranks {' '.join(seeded)}"
            package = tools.compile(
                shape.model(), "ranks", *options, parallel, *seeded
            )
            logits = tools.path("logits.npy")
            tools.score(package, sequences, prompts, logits)
            off = max(
                error(got, of) for got, of in zip(np.load(logits), want, strict=True)
            )
            report.check(
                off <= TOLERANCE[shape.cache],
                f"{label}: off by {off:.3g} of the largest logit",
            )
            together = tools.generate(package, starts, room, "--ignore-eos")
            for got, of in zip(together["requests"], alone["requests"], strict=True):
                harness.same_tokens(report, label, got["tokens"], of["tokens"])
            print(f"{off:9.2e}  {label}", flush=True)
            harness.remove(package, logits)
    harness.remove(one)


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", help="shapes with this in their name")
    args = parser.parse_args()
    tools = harness.Tools(args)
    report = harness.Report()
    print("to float64, of the largest logit")
    for shape, ranks in CASES:
        if args.only in shape.name():
            judge(tools, report, shape, ranks)
    report.finish()


if __name__ == "__main__":
    main()
