#!/usr/bin/env python3
"""Static baseline beside paged KV: one model, one phase-1 graph, mixed lengths.

Histories are spread evenly over the slots up to --longest. Rounds alternate
between the two packages; p50 and p99 of a round's steps are medians over rounds.
"""

import argparse
import json
import os

from common import kvrm_bench, machine, progress, run, summary, work_folder

METRICS = ("p50", "p99", "max")


def compile_packages(args, work):
    kvrmc = os.path.join(args.build, "bin/kvrmc")
    source = [args.model] if args.model else ["synth", *args.synth.split()]
    packages = {}
    for mode in ("paged", "static"):
        progress(f"compiling {mode}")
        packages[mode] = os.path.join(work, f"{mode}.kvrm")
        run(
            kvrmc, *source, "--quiet", "-o", packages[mode],
            f"--slots={args.slots}", f"--capacity={args.capacity}",
            *(["--static"] if mode == "static" else []),
        )  # fmt: skip
    return packages


def measure(args, work):
    packages = compile_packages(args, work)
    steps = {mode: {metric: [] for metric in METRICS} for mode in packages}
    memory = {}
    for turn in range(args.rounds):
        # A B, B A, ...: neither is always first.
        order = list(packages) if turn % 2 == 0 else list(packages)[::-1]
        for mode in order:
            progress(f"round {turn + 1} of {args.rounds}: {mode}")
            bench = kvrm_bench(
                args.build, packages[mode], [args.longest], args.steps,
                "--threads", args.threads, *([] if args.even else ["--ragged"]),
            )  # fmt: skip
            row = bench["results"][0]
            for metric in METRICS:
                steps[mode][metric].append(row["step_ms"][metric])
            memory[mode] = (bench["reserved_kv_bytes"], row["live_kv_bytes"])
    return {
        "machine": machine(),
        "slots": args.slots,
        "capacity": args.capacity,
        "longest": args.longest,
        "ragged": not args.even,
        "threads": args.threads,
        "steps": args.steps,
        "modes": {
            mode: {
                "step_ms": {metric: summary(steps[mode][metric]) for metric in METRICS},
                "reserved_kv_bytes": memory[mode][0],
                "live_kv_bytes": memory[mode][1],
            }
            for mode in packages
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="GGUF model; a synthetic one without")
    parser.add_argument("--synth", default="", help="options of kvrmc synth")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--capacity", type=int, default=2048)
    parser.add_argument("--longest", type=int, default=1900, help="longest history")
    parser.add_argument("--even", action="store_true", help="all histories at --longest")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="folder for the packages, kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with work_folder(args.work) as work:
        out = measure(args, work)
    if args.json:
        print(json.dumps(out, indent=2))
        return
    print(f"{out['machine']['cpu']}, {args.threads} threads, load {out['machine']['load_average']:.1f}")
    print(f"{'':8} {'p50 ms':>9} {'p99 ms':>9} {'max ms':>9} {'reserved MiB':>13} {'live MiB':>9}")
    for mode, row in out["modes"].items():
        print(
            f"{mode:8} "
            + " ".join(f"{row['step_ms'][metric]['median']:9.2f}" for metric in METRICS)
            + f" {row['reserved_kv_bytes'] / 2**20:13.1f} {row['live_kv_bytes'] / 2**20:9.1f}"
        )


main()
