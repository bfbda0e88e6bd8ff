#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Checks that requests do not feel each other.

Twenty requests, with prompts of one token to most of the capacity and ends at
different steps, go through eight slots, so that slots and pages change hands
while others decode. Each must get the tokens that it gets alone. The pool is
run at its full size, and so small that requests have to wait for pages.

    mixed_batch.py --work /tmp/mixed                     a synthetic decoder
    mixed_batch.py --work /tmp/mixed --gguf model.gguf   a real one
"""

import os
import random

import harness

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs")

# Prompt lengths in 1500ths of the longest, and tokens to generate.
REQUESTS = [
    (1, 40), (1500, 6), (17, 23), (250, 1), (16, 31), (700, 12), (15, 9), (64, 48),
    (1, 2), (33, 17), (1000, 5), (2, 33), (65, 3), (400, 26), (31, 14), (128, 1),
    (3, 52), (900, 7), (63, 19), (32, 11),
]  # fmt: skip


def configurations(quick):
    """Transport, page size, whether prompts go with the others' steps, and the
    cache's element."""
    for transport in ("native", "staged"):
        for page in (16, 64) if quick else (16, 32, 64):
            yield transport, page, page != 16, "f16"
    yield "native", 32, True, "f8e4m3"
    yield "staged", 32, True, "int8"


def cut(tokens, longest):
    """A prompt for each request, each from another place."""
    lengths = [max(1, n * longest // 1500) for n, _ in REQUESTS]
    return [
        [tokens[(31 * i + j) % len(tokens)] for j in range(length)]
        for i, length in enumerate(lengths)
    ]


def text_tokens(tools, package):
    """This project's documentation in a real model's tokens: prompts of random
    tokens would leave a model without a preference for what comes next."""
    tokens = []
    for name in ("runtime.md", "package.md"):
        with open(os.path.join(DOCS, name), encoding="utf-8") as file:
            text = file.read()
        pieces = [text[at : at + 3000] for at in range(0, len(text), 3000)]
        told = tools.generate(package, pieces, 1, "--ignore-eos")
        for request in told["requests"]:
            tokens += request["prompt_tokens"]
    return tokens


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--gguf", help="the model; a synthetic one if not given")
    parser.add_argument("--quick", action="store_true", help="two page sizes")
    args = parser.parse_args()
    tools = harness.Tools(args)
    report = harness.Report()

    if args.gguf:
        model, capacity, longest = [args.gguf], 2048, 1500
        prompts = None
    else:
        vocabulary, capacity, longest = 1021, 360, 300
        model = [
            "synth", "--layers=2", "--hidden=192", "--heads=6", "--kv-heads=2",
            "--head-dim=64", "--ffn=320", f"--vocab={vocabulary}", "--seed=3",
        ]  # fmt: skip
        source = random.Random(5)
        tokens = [source.randrange(vocabulary) for _ in range(2 * longest)]
        prompts = cut(tokens, longest)
    counts = [count for _, count in REQUESTS]

    alone = {"f16": [], "f8e4m3": [], "int8": []}
    for transport, page, mixes, element in configurations(args.quick):
        name = f"{transport} {page} {element}"
        package = tools.compile(
            model,
            name.replace(" ", "-"),
            "--slots=8",
            f"--capacity={capacity}",
            f"--transport={transport}",
            f"--page-size={page}",
            f"--cache-type={element}",
            *(["--mixed"] if mixes else []),
        )
        if prompts is None:
            prompts = cut(text_tokens(tools, package), longest)
        if args.gguf and alone[element]:
            # Alone, all of them give the same; once is enough of a large model.
            expected = alone[element][0]
        else:
            expected = [
                tools.generate(package, [prompt], count, "--ignore-eos")["requests"][
                    0
                ]["tokens"]
                for prompt, count in zip(prompts, counts)
            ]
            alone[element].append(expected)
        for i, count in enumerate(counts):
            report.check(
                len(expected[i]) == count,
                f"{name}: request {i} alone got {len(expected[i])} tokens of {count}",
            )
        # The largest request, and one page: nobody else runs beside it.
        least = max(
            -(-(len(prompt) + count - 1) // page)
            for prompt, count in zip(prompts, counts)
        )
        for pool in (0, 2 * least, least + 1):
            told = tools.generate(
                package, prompts, counts, "--ignore-eos", f"--pool-pages={pool}"
            )
            for i, request in enumerate(told["requests"]):
                harness.same_tokens(
                    report,
                    f"{name}, pool of {pool or 'all'} pages: request {i} of "
                    f"{len(prompts[i])} tokens, in the batch and alone",
                    request["tokens"],
                    expected[i],
                )
            report.check(
                (told["timing"]["mixed_tokens"] > 0) == mixes,
                f"{name}, pool of {pool or 'all'} pages: "
                f"{told['timing']['mixed_tokens']} tokens in mixed steps",
            )
            print(
                f"{name:10} pool {pool or 'all':>5}: "
                f"{told['timing']['decode_steps']} steps, "
                f"{told['timing']['decode_tokens']} tokens",
                flush=True,
            )
        if not args.keep:
            harness.remove(package)
    for first, *others in alone.values():
        report.check(
            all(other == first for other in others),
            "packages that differ in pages and transport give the same tokens",
        )
    report.finish()


if __name__ == "__main__":
    main()
