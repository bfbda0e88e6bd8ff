#!/usr/bin/env python3
"""Far history: perplexity, KV and step time of windows, sinks and summaries.

A text is scored teacher-forced, token by token, by one model compiled in several
ways: with all of its history, with a window alone (older tokens dropped), with a
window and sinks (the first tokens kept, the rest dropped), and with a window,
sinks and summaries (older tokens collapsed to mean keys and values).
"""

import argparse
import json
import os
import shutil
import sys

from common import machine, progress, run, work_folder


def numbers(text):
    return [int(part) for part in text.split(",")]


def configurations(args):
    """(name, window, entries, sinks), all history first."""
    yield "all", 0, 0, 0
    for window in args.windows:
        yield "window", window, 0, 0
        # A page is the least that entries take.
        yield "sinks", window, args.page, args.page
        for entries in args.entries:
            yield "summaries", window, entries, args.sinks


def compile_package(args, package, window, entries, sinks):
    options = []
    if window:
        options.append(f"--window={window}")
    if entries:
        options += [f"--summaries={entries}", f"--sinks={sinks}"]
    run(
        os.path.join(args.build, "bin/kvrmc"), args.model, "--quiet", "-o", package,
        "--slots=1", f"--capacity={args.capacity}", f"--page-size={args.page}", *options,
    )  # fmt: skip


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


def measure(args, work):
    rows = []
    ids = None
    for name, window, entries, sinks in configurations(args):
        package = os.path.join(work, f"{name}-{window}-{entries}.kvrm")
        progress(f"{name}, window {window}, {entries} entries, {sinks} sinks")
        compile_package(args, package, window, entries, sinks)
        if ids is None:
            ids = tokenize(args, package)
        scored = json.loads(
            run(
                os.path.join(args.build, "bin/kvrm-run"), "score", package, "--json",
                "--threads", args.threads, "--token-ids", ",".join(map(str, ids)),
                "--prompt-length", args.prompt_length,
            )
        )  # fmt: skip
        shutil.rmtree(package)
        progress(f"  perplexity {scored['perplexity']:.3f}, {scored['mean_step_ms']:.2f} ms a step")
        rows.append(
            {
                "history": name,
                "window": window,
                "entries": entries,
                "sinks": sinks,
                "perplexity": scored["perplexity"],
                "mean_nll": scored["mean_nll"],
                "scored_tokens": scored["decoded"],
                "peak_live_kv_bytes": scored["kv"]["peak_live_bytes"],
                "mean_step_ms": scored["mean_step_ms"],
            }
        )
    return {
        "machine": machine(),
        "model": os.path.basename(args.model),
        "text": os.path.basename(args.text),
        "tokens": len(ids),
        "prompt_length": args.prompt_length,
        "threads": args.threads,
        "results": rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="GGUF model with a tokenizer")
    parser.add_argument("text", help="file with the text to score")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--tokens", type=int, default=0, help="of the text's start; 0: all")
    parser.add_argument("--prompt-length", type=int, default=1, help="tokens not scored")
    parser.add_argument("--windows", type=numbers, default=[256, 512, 1024, 2048])
    parser.add_argument("--entries", type=numbers, default=[64], help="summary entries")
    parser.add_argument("--sinks", type=int, default=4, help="of these")
    parser.add_argument("--page", type=int, default=16, help="tokens a page")
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
    print(f"{'history':10} {'window':>6} {'entries':>7} {'sinks':>5} {'perplexity':>10} {'KV MiB':>7} {'step ms':>8}")
    for row in out["results"]:
        print(
            f"{row['history']:10} {row['window'] or '':>6} {row['entries'] or '':>7} "
            f"{row['sinks'] or '':>5} {row['perplexity']:10.3f} "
            f"{row['peak_live_kv_bytes'] / 2**20:7.1f} {row['mean_step_ms']:8.2f}"
        )


main()
