#!/usr/bin/env python3
"""Elements of the KV cache: what they do to perplexity and logits, KV and step time.

A text is scored teacher-forced, token by token, by one model compiled with a cache
of f16, of bf16 and of f8e4m3. Logits are compared with those of the first.
"""

import argparse
import json
import os
import shutil
import sys

import numpy as np
from common import machine, progress, run, work_folder

ELEMENTS = ("f16", "bf16", "f8e4m3")


def tokenize(args, package):
    """Ids of the text's first tokens, by the package's own tokenizer."""
    with open(args.text, encoding="utf-8") as file:
        text = file.read()
    out = run(
        os.path.join(args.build, "bin/kvrm-run"), "generate", package, "--json",
        "--prompt", text, "--max-tokens", "1",
    )  # fmt: skip
    ids = json.loads(out)["requests"][0]["prompt_tokens"]
    if args.tokens > len(ids):
        sys.exit(f"{args.text} has {len(ids)} tokens, --tokens asks for {args.tokens}")
    return ids[: args.tokens or len(ids)]


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
            ids = tokenize(args, package)
        file = os.path.join(work, "logits.npy")
        scored = json.loads(
            run(
                os.path.join(args.build, "bin/kvrm-run"), "score", package, "--json",
                "--threads", args.threads, "--token-ids", ",".join(map(str, ids)),
                "--prompt-length", args.prompt_length, "--logits", file,
            )
        )  # fmt: skip
        shutil.rmtree(package)
        logits = np.load(file)[0].astype(np.float64)
        first = logits if first is None else first
        rows.append(
            {
                "element": element,
                "perplexity": scored["perplexity"],
                "mean_nll": scored["mean_nll"],
                "scored_tokens": scored["decoded"],
                "peak_live_kv_bytes": scored["kv"]["peak_live_bytes"],
                "mean_step_ms": scored["mean_step_ms"],
                **compare(logits, first),
            }
        )
    return {
        "machine": machine(),
        "model": os.path.basename(args.model),
        "text": os.path.basename(args.text),
        "tokens": len(ids),
        "threads": args.threads,
        "results": rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="GGUF model with a tokenizer")
    parser.add_argument("text", help="file with the text to score")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--elements", nargs="+", default=ELEMENTS, choices=ELEMENTS)
    parser.add_argument("--tokens", type=int, default=0, help="of the text's start; 0: all")
    parser.add_argument("--prompt-length", type=int, default=1, help="tokens not scored")
    parser.add_argument("--capacity", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", help="folder for the packages while they run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with work_folder(args.work) as work:
        out = measure(args, work)
    if args.json:
        print(json.dumps(out, indent=2))
        return
    print(
        f"{out['model']} on {out['tokens']} tokens of {out['text']}; "
        f"{out['machine']['cpu']}, {args.threads} threads, load {out['machine']['load_average']:.1f}"
    )
    print(f"{'element':8} {'perplexity':>10} {'KV MiB':>7} {'step ms':>8} {'of largest':>10} {'of norm':>8} {'other':>6}")
    for row in out["results"]:
        print(
            f"{row['element']:8} {row['perplexity']:10.3f} "
            f"{row['peak_live_kv_bytes'] / 2**20:7.1f} {row['mean_step_ms']:8.2f} "
            f"{row['most_of_largest']:10.2e} {row['mean_of_norm']:8.2e} {row['other_choices']:6}"
        )


main()
