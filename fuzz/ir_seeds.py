#!/usr/bin/env python3
"""Writes seeds for the fuzz target `ir` from the lit tests of the compiler.

A test becomes a seed for each of its parts (// -----), and one more for each list
of passes that its RUN lines have. The whole decoder of the corpus becomes one for
each way through the compiler.

usage: ir_seeds.py TEST-FOLDER DECODER SEED-FOLDER
"""

import hashlib
import pathlib
import re
import sys

# kvrm-opt's options that are passes: --name, --name=value, --name="a=b c=d".
PASS = re.compile(r'--?((?:convert-)?kvrm-[a-z-]+)(?:="([^"]*)"|=(\S+))?')


DECODER_PASSES = [
    "kvrm-to-host{lanes=8 transport=staged schedule=split splits=2}",
    "kvrm-to-host{lanes=4 page=8 schedule=rows}",
    "kvrm-to-host{lanes=8 static=true}",
    "kvrm-static-baseline{lanes=8},kvrm-pack-weights{panel=16},kvrm-bufferize-step",
    "kvrm-page-cache,kvrm-select-schedule,kvrm-generate-kernels",
]


def passes(text):
    for line in re.findall(r"RUN:(?: not)? kvrm-opt %s ([^|]*)", text):
        found = [
            name + ("{%s}" % (quoted or plain) if quoted or plain else "")
            for name, quoted, plain in PASS.findall(line)
        ]
        if found:
            yield ",".join(found)


def main():
    tests, decoder, seeds = map(pathlib.Path, sys.argv[1:])
    seeds.mkdir(parents=True, exist_ok=True)
    _, body = decoder.read_text().split("\n", 1)
    for index, each in enumerate(DECODER_PASSES):
        (seeds / f"decoder-{index}").write_text(f"// PASSES: {each}\n{body}")
    for path in sorted(tests.rglob("*.mlir")):
        text = path.read_text()
        # Comments cost mutations and say nothing to the parser.
        lists = dict.fromkeys(passes(text))
        for part in re.split(r"^// -----.*$", text, flags=re.M):
            part = re.sub(r"^\s*//.*\n", "", part, flags=re.M).strip() + "\n"
            for first in ["", *(f"// PASSES: {each}\n" for each in lists)]:
                seed = (first + part).encode()
                name = f"{path.stem}-{hashlib.sha1(seed).hexdigest()[:8]}"
                (seeds / name).write_bytes(seed)


main()
