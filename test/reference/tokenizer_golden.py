#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes the ids that Hugging Face's `tokenizers` gives to a range of texts with
the tokenizer of a SmolLM2 GGUF file. The pre-tokenizer "smollm" is, by
llama.cpp's src/llama-vocab.cpp, single digits and then GPT-2's expression.

    tokenizer_golden.py model.gguf runtime/text/test/smollm2.golden.json
"""

import json
import random
import sys

import gguf
import tokenizers
from tokenizers import models, pre_tokenizers

TEXTS = [
    "",
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog's back.",
    "  leading and   multiple    spaces   ",
    "tabs\t\tand\nnewlines\n\n\nend\r\n",
    "don't can't I'll we're they've I'm he'd 'Tis 'S",
    "1234567890 12.5% \u00bd \u00b2 \u2167 \u0663\u0664",
    "def f(x):\n    return x**2 + 1  # comment\n\n\tif (a && b) { c->d(); }",
    "na\u00efve caf\u00e9 \u00dcn\u00efc\u00f6d\u00e9 \u00dftra\u00dfe",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u4e2d\u6587 \ud55c\uad6d\uc5b4",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \U0001f916\U0001f3fd",
    "\u00a0\u2003\u3000spaces\u200b zero",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|> <|im_sta <file_sep>x<filename>",
    "\u0645\u0631\u062d\u0628\u0627 \u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "a" * 300,
    " " * 200 + "x",
    "\n" * 100,
    "=-" * 100,
    "0x1F3a_e9, 3.14e-10",
    "\x00\x01\x7f control",
    "e\u0301 combining",
]


def main(model, path):
    reader = gguf.GGUFReader(model)
    contents = lambda key: reader.get_field(f"tokenizer.ggml.{key}").contents()
    tokens, types = contents("tokens"), contents("token_type")
    merges = [tuple(merge.split(" ")) for merge in contents("merges")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    control = [t for t, kind in zip(tokens, types) if kind == 3]
    tokenizer.add_special_tokens(control)

    draw = random.Random(5)
    alphabet = "ab '  \n\t19\u00bd\u00e9\u00df\u65e5\ud55c\U0001f916<|>.,-_\u00a0\u0301Zs\r"
    texts = TEXTS + [
        "".join(draw.choice(alphabet) for _ in range(draw.randint(1, 60)))
        for _ in range(60)
    ]
    rows = [
        json.dumps(
            {"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids}
        )
        for t in texts
    ]
    with open(path, "w", encoding="ascii") as out:
        out.write("[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
