#!/usr/bin/env python3
"""Far history: perplexity, KV and step time of windows, sinks and summaries.

A text is scored teacher-forced, token by token, by one model compiled in several
ways: with all of its history, with a window alone (older tokens dropped), with a
window and sinks (the first tokens kept, the rest dropped), and with a window,
sinks and summaries (older tokens collapsed to mean keys and values).
"""

import argparse
import os
import shutil

import scoring
from common import progress, run


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


def measure(args, work):
    rows = []
    ids = None
    for name, window, entries, sinks in configurations(args):
        package = os.path.join(work, f"{name}-{window}-{entries}.kvrm")
        progress(f"{name}, window {window}, {entries} entries, {sinks} sinks")
        compile_package(args, package, window, entries, sinks)
        if ids is None:
            ids = scoring.tokenize(args, package)
        scored = scoring.score(args, package, ids)
        shutil.rmtree(package)
        progress(f"  perplexity {scored['perplexity']:.3f}, {scored['mean_step_ms']:.2f} ms a step")
        how = {"history": name, "window": window, "entries": entries, "sinks": sinks}
        rows.append({**how, **scored})
    return scoring.results(args, ids, rows)


def print_rows(rows):
    print(f"{'history':10} {'window':>6} {'entries':>7} {'sinks':>5} {'perplexity':>10} {'KV MiB':>7} {'step ms':>8}")
    for row in rows:
        print(
            f"{row['history']:10} {row['window'] or '':>6} {row['entries'] or '':>7} "
            f"{row['sinks'] or '':>5} {row['perplexity']:10.3f} "
            f"{row['peak_live_kv_bytes'] / 2**20:7.1f} {row['mean_step_ms']:8.2f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scoring.add_arguments(parser)
    parser.add_argument("--windows", type=numbers, default=[256, 512, 1024, 2048])
    parser.add_argument("--entries", type=numbers, default=[64], help="summary entries")
    parser.add_argument("--sinks", type=int, default=4, help="of these")
    parser.add_argument("--page", type=int, default=16, help="tokens a page")
    args = parser.parse_args()
    scoring.report(args, measure, print_rows)


main()
