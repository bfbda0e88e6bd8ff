#!/usr/bin/env python3
"""A trace served by kvrm and by static baselines, under one KV budget.

Compiles one model three ways: paged with --slots, static with as many slots as
the budget has room for at full capacity, and static buckets of the same slots.
Replays the trace saturated, then open loop at --load of what kvrm served then.
"""

import argparse
import json
import os
import sys

from common import machine, progress, run, work_folder


def compile_packages(args, work):
    kvrmc = os.path.join(args.build, "bin/kvrmc")
    source = [args.model] if args.model else ["synth", *args.synth.split()]

    def package(name, slots, capacity, *flags):
        progress(f"compiling {name}")
        path = os.path.join(work, f"{name}.kvrm")
        run(
            kvrmc, *source, "--quiet", "-o", path, f"--slots={slots}", f"--capacity={capacity}",
            f"--prefill-chunk={args.prefill_chunk}", *flags,
        )  # fmt: skip
        return path

    # Work items of one row: a request's numbers do not depend on its neighbours,
    # so that --verify can compare tokens.
    packages = {"kvrm": package("paged", args.slots, args.capacity, "--schedule=rows")}
    if "max" in args.modes or "bucketed" in args.modes:
        packages["max"] = package("static", args.budget_slots, args.capacity, "--static")
    if "bucketed" in args.modes:
        capacities = [512 << i for i in range(20) if 512 << i < args.capacity]
        packages["bucketed"] = [
            package(f"bucket-{capacity}", args.budget_slots, capacity, "--static") for capacity in capacities
        ] + [packages["max"]]
    return packages


def replay(args, packages, output, *flags):
    command = [
        os.path.join(args.build, "bin/kvrm-run"), "replay", packages["kvrm"], "--modes", ",".join(args.modes),
        "--trace", args.trace, "--duration", args.duration, "--requests", args.requests, "--threads", args.threads,
        "--length-scale", args.length_scale, "--limit-seconds", args.limit_seconds, "--queue-limit", args.queue_limit,
        "--output", output, *flags, *args.flags.split(),
    ]  # fmt: skip
    if "max" in args.modes:
        command += ["--static", packages["max"]]
    for bucket in packages.get("bucketed", []):
        command += ["--bucket", bucket]
    print(run(*command), flush=True)
    with open(output) as file:
        return json.load(file)


def measure(args, work):
    packages = compile_packages(args, work)
    os.makedirs(args.output, exist_ok=True)
    files = [os.path.join(args.output, "saturation.json")]
    progress("replaying, saturated")
    saturated = replay(args, packages, files[0], "--saturation")
    outputs = [saturated]
    if args.load > 0:
        base = next(mode for mode in saturated["modes"] if mode["mode"] == "kvrm")
        trace = saturated["trace"]
        tokens = trace["prompt_tokens"] + trace["output_tokens"]
        # At load 1 the slice lasts as long as kvrm took for it.
        scale = tokens / base["tokens"]["all_per_s"] / args.load / max(trace["seconds"], 1e-9)
        files.append(os.path.join(args.output, "load.json"))
        progress(f"replaying, load {args.load:g}")
        verify = ["--verify", args.verify] if args.verify else []
        loaded = replay(args, packages, files[1], "--time-scale", f"{scale:.9g}", *verify)
        loaded["load"] = args.load
        outputs.append(loaded)
    for path, data in zip(files, outputs):
        data["machine"] = machine()
        data["packages"] = {"budget_slots": args.budget_slots, "slots": args.slots, "synth": args.synth or None}
        with open(path, "w") as file:
            json.dump(data, file, indent=1)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="GGUF model; a synthetic one without")
    parser.add_argument("--synth", default="", help="options of kvrmc synth")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--trace", required=True, help="file, or synthetic:...")
    parser.add_argument("--modes", default="kvrm,max,bucketed")
    parser.add_argument("--budget-slots", type=int, default=2, help="static slots at full capacity: the KV budget")
    parser.add_argument("--slots", type=int, default=16, help="slots of kvrm")
    parser.add_argument("--capacity", type=int, default=8192, help="tokens a request can have")
    parser.add_argument("--prefill-chunk", type=int, default=64)
    parser.add_argument("--duration", type=float, default=60, help="seconds of the trace, 0 = all")
    parser.add_argument("--requests", type=int, default=0, help="most requests, 0 = all")
    parser.add_argument("--length-scale", type=float, default=1)
    parser.add_argument("--load", type=float, default=0.7, help="0 = saturated only")
    parser.add_argument("--limit-seconds", type=float, default=0, help="of a mode, 0 = none")
    parser.add_argument("--queue-limit", type=int, default=65536)
    parser.add_argument("--threads", type=int, default=0, help="0 = one a CPU")
    parser.add_argument("--verify", default="", help="requests to run again alone, or all")
    parser.add_argument("--flags", default="", help="more options of kvrm-run replay")
    parser.add_argument("--output", default="replay", help="folder for JSON and report")
    parser.add_argument("--work", help="folder for the packages, kept")
    args = parser.parse_args()
    args.modes = args.modes.split(",")
    if "kvrm" not in args.modes:
        sys.exit("--modes: kvrm is what the others are compared with")
    with work_folder(args.work) as work:
        files = measure(args, work)
    try:
        from replay_report import load, report
    except ImportError as error:
        sys.exit(f"no report: {error} (pip install -r bench/requirements.txt)")
    path = os.path.join(args.output, "report.html")
    with open(path, "w") as file:
        file.write(report([load(name) for name in files]))
    progress(f"wrote {', '.join(files)} and {path}")


main()
