#!/usr/bin/env python3
"""What blocks of each type cost a model, by kvrm and by llama.cpp, on one text.

llama.cpp makes a file of each type from the given model. For each: the perplexity
of the text's first tokens by llama.cpp, by kvrm with activations in eight bits, and
by kvrm with exact ones; and of the first steps the logits' worst distance from
those of a float64 reference on the values of the file's blocks, as a part of a
step's largest logit. All keep KV in f16.

Needs the packages of bench/requirements.txt and a build of kvrm.
"""

import argparse
import ctypes
import os
import shutil
import sys

import llama_cpp as ll
import numpy as np

import llama
import scoring
from common import progress, run

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "reference")
)
import reference  # noqa: E402

TYPES = {
    "F16": ll.LLAMA_FTYPE_MOSTLY_F16,
    "Q8_0": ll.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": ll.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q5_1": ll.LLAMA_FTYPE_MOSTLY_Q5_1,
    "Q5_0": ll.LLAMA_FTYPE_MOSTLY_Q5_0,
    "Q5_K_M": ll.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q4_K_M": ll.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q4_1": ll.LLAMA_FTYPE_MOSTLY_Q4_1,
    "Q4_0": ll.LLAMA_FTYPE_MOSTLY_Q4_0,
}


def quantize(source, target, kind, threads):
    params = ll.llama_model_quantize_default_params()
    params.ftype = TYPES[kind]
    params.nthread = threads
    params.allow_requantize = True
    if ll.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        sys.exit(f"llama.cpp: cannot make {kind} of {source}")


def llama_logits(args, path, ids):
    """Of each token of a text, [tokens][vocabulary]."""
    model = llama.load(path)
    context = llama.Context(model, 1, len(ids), args.threads)
    rows = []
    for first in range(0, len(ids), llama.BATCH):
        part = ids[first : first + llama.BATCH]
        context.decode([(token, first + i, 0, True) for i, token in enumerate(part)])
        rows += [context.logits(i).copy() for i in range(len(part))]
    context.close()
    ll.llama_model_free(model)
    return np.asarray(rows)


def perplexity(logits, ids):
    """Of the tokens behind the first, each from the logits of the one before."""
    rows = logits[:-1].astype(np.float64)
    largest = rows.max(axis=-1, keepdims=True)
    total = np.log(np.exp(rows - largest).sum(axis=-1)) + largest[:, 0]
    return float(np.exp((total - rows[np.arange(len(rows)), ids[1:]]).mean()))


def reference_logits(path, ids):
    model = reference.open_model(path, "f32", len(ids))
    sequence = reference.Sequence(model, "f16")
    return np.asarray([reference.forward(model, [(sequence, [token])])[0] for token in ids])


def worst(got, want):
    return float((np.abs(got - want).max(axis=-1) / np.abs(want).max(axis=-1)).max())


def kvrm_row(args, work, path, ids, want, *flags):
    package = os.path.join(work, "model.kvrm")
    file = os.path.join(work, "logits.npy")
    shutil.rmtree(package, ignore_errors=True)
    run(
        os.path.join(args.build, "bin/kvrmc"), "--quiet", path, "-o", package,
        "--slots=1", f"--capacity={len(ids) + 1}", *flags,
    )  # fmt: skip
    scored = scoring.score(args, package, ids)
    scoring.score(args, package, ids[: args.checked], "--logits", file)
    return {"perplexity": scored["perplexity"], "error": worst(np.load(file)[0], want)}


def measure(args, work):
    path, rows = os.path.join(work, "model.gguf"), []
    ids = None
    for kind in args.types:
        progress(kind)
        quantize(args.model, path, kind, args.threads)
        if ids is None:
            package = os.path.join(work, "tokens.kvrm")
            run(
                os.path.join(args.build, "bin/kvrmc"), "--quiet", path, "-o", package,
                "--slots=1", f"--capacity={args.capacity}",
            )  # fmt: skip
            ids = scoring.tokenize(args, package)
        # kvrm has logits from the prompt's end on.
        skipped = args.prompt_length - 1
        want = reference_logits(path, ids[: args.checked])[skipped:]
        theirs = llama_logits(args, path, ids)[skipped:]
        row = {
            "type": kind,
            "file_mib": os.path.getsize(path) / 2**20,
            "llama.cpp": {
                "perplexity": perplexity(theirs, ids[skipped:]),
                "error": worst(theirs[: len(want)], want),
            },
        }
        if kind == "F16":  # in no blocks: there is nothing to choose
            row["exact"] = kvrm_row(args, work, path, ids, want)
        else:
            for rounding in ("int8", "exact"):
                flag = f"--quantized-activations={rounding}"
                row[rounding] = kvrm_row(args, work, path, ids, want, flag)
        rows.append(row)
    return scoring.results(args, ids, rows)


def print_rows(rows):
    print(f"{'':8} {'MiB':>6} {'perplexity, and worst error: llama.cpp':>38} {'int8':>18} {'exact':>18}")
    for row in rows:
        cells = [
            f"{row[name]['perplexity']:9.3f} {row[name]['error']:8.1e}" if name in row else " " * 18
            for name in ("llama.cpp", "int8", "exact")
        ]
        print(f"{row['type']:8} {row['file_mib']:6.1f} {cells[0]:>38} {cells[1]} {cells[2]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scoring.add_arguments(parser)
    parser.add_argument("--checked", type=int, default=48, help="steps beside the reference")
    parser.add_argument(
        "--types", type=lambda text: text.split(","), default=list(TYPES), help="by commas"
    )
    args = parser.parse_args()
    if args.checked <= args.prompt_length:
        parser.error("--checked is too small for the prompt and a step")
    llama.start()
    scoring.report(args, measure, print_rows)


main()
