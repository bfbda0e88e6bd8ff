# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a tokenizer as transformers do, each byte a token of its number, and
256 the end of a text: FOLDER."""

import json
import os
import sys

# GPT-2's alphabet: bytes that print stand for themselves, others for what is
# behind them, in order.
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = iter(range(256, 512))
alphabet = [chr(byte if byte in PRINTED else next(others)) for byte in range(256)]

folder = sys.argv[1]
os.makedirs(folder)
tokenizer = {
    "added_tokens": [{"id": 256, "content": "<end>", "special": True}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "vocab": {character: byte for byte, character in enumerate(alphabet)},
        "merges": [],
    },
}
for name, content in (
    ("tokenizer.json", tokenizer),
    ("config.json", {"eos_token_id": 256}),
):
    with open(os.path.join(folder, name), "w") as file:
        json.dump(content, file)
