#!/usr/bin/env python3
"""Elements of the KV cache: what they do to perplexity and logits, KV and step time.

A text is scored teacher-forced, token by token, by one model compiled with a cache
of f16, of bf16, of f8e4m3 and of int8. Logits are compared with those of the first.
"""

import argparse
import os
import shutil

import numpy as np
import scoring
from common import progress, run

ELEMENTS = ("f16", "bf16", "f8e4m3", "int8")


def compare(logits, first):
    """Of each step, the largest difference to the largest logit, and that of norms;
    and how often another token is the best."""
    apart = np.abs(logits - first).max(-1) / np.abs(first).max(-1)
    norms = np.linalg.norm(logits - first, axis=-1) / np.linalg.norm(first, axis=-1)
    other = logits.argmax(-1) != first.argmax(-1)
    return {
        "most_of_largest": float(apart.max()),
        "mean_of_norm": float(norms.mean()),
        "other_choices": int(other.sum()),
    }


def measure(args, work):
    rows, ids, first = [], None, None
    for element in args.elements:
        package = os.path.join(work, element + ".kvrm")
        progress(f"a cache of {element}")
        run(
            os.path.join(args.build, "bin/kvrmc"), args.model, "--quiet", "-o", package,
            "--slots=1", f"--capacity={args.capacity}", f"--cache-type={element}",
        )  # fmt: skip
        if ids is None:
            ids = scoring.tokenize(args, package)
        file = os.path.join(work, "logits.npy")
        scored = scoring.score(args, package, ids, "--logits", file)
        shutil.rmtree(package)
        logits = np.load(file)[0].astype(np.float64)
        first = logits if first is None else first
        rows.append({"element": element, **scored, **compare(logits, first)})
    return scoring.results(args, ids, rows)


def print_rows(rows):
    print(f"{'element':8} {'perplexity':>10} {'KV MiB':>7} {'step ms':>8} {'of largest':>10} {'of norm':>8} {'other':>6}")
    for row in rows:
        print(
            f"{row['element']:8} {row['perplexity']:10.3f} "
            f"{row['peak_live_kv_bytes'] / 2**20:7.1f} {row['mean_step_ms']:8.2f} "
            f"{row['most_of_largest']:10.2e} {row['mean_of_norm']:8.2e} {row['other_choices']:6}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scoring.add_arguments(parser)
    parser.add_argument("--elements", nargs="+", default=ELEMENTS, choices=ELEMENTS)
    args = parser.parse_args()
    scoring.report(args, measure, print_rows)


main()
