#!/usr/bin/env python3
"""Prompts, cold starts and peak memory of kvrm beside llama.cpp, on one GGUF file.

Each run is a process of its own, which reads a prompt and makes one token; rounds
alternate between the two. A cold run starts with the model's files out of the page
cache. Of kvrm, whose packages are made ahead of time, time counts from the start of
the process; of llama.cpp from the call that loads the model, as its process is a
Python interpreter, and memory less what that held before. Prompt tokens/s leave
out loading; llama.cpp maps the file, and what it has not touched by then is in its
prompt's time. Both keep KV in f16.

Needs the packages of bench/requirements.txt and a build of kvrm.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time

from common import machine, progress, run, work_folder


def forget(path):
    """Drops a file, or a folder's files, from the page cache."""
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(path, name) for name in os.listdir(path)]
    for name in files:
        with open(name, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def llama_run(args):
    """The work of the process that llama.cpp runs in."""
    import llama

    llama.start()
    ids = list(map(int, args.ids.split(",")))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    context = llama.Context(llama.load(args.model), 1, args.capacity, args.threads)
    loaded = time.perf_counter()
    for first in range(0, len(ids), llama.BATCH):
        places = range(first, min(first + llama.BATCH, len(ids)))
        context.decode([(ids[p], p, 0, p + 1 == len(ids)) for p in places])
    context.logits(-1)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "first_token_s": done - start,
                "prompt_tokens_per_s": len(ids) / (done - loaded),
                "peak_mib": (peak - held) / 1024,
            }
        )
    )


def measured(*command):
    """What a command prints, its seconds, and its peak memory in MiB."""
    start = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as child:
        out = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}: ended with {child.returncode}")
    return out, time.perf_counter() - start, usage.ru_maxrss / 1024


def run_llama(args, ids):
    out, _, _ = measured(
        sys.executable, __file__, args.model, "--ids", ",".join(map(str, ids)),
        "--threads", args.threads, "--capacity", args.capacity,
    )  # fmt: skip
    return json.loads(out)


def run_kvrm(args, package, ids):
    out, seconds, peak = measured(
        os.path.join(args.build, "bin/kvrm-run"), "generate", package, "--json",
        "--ignore-eos", "--max-tokens", 1, "--threads", args.threads,
        "--token-ids", ",".join(map(str, ids)),
    )  # fmt: skip
    request = json.loads(out)["requests"][0]
    return {
        "first_token_s": seconds,
        "prompt_tokens_per_s": len(ids) * 1e3 / request["prefill_ms"],
        "peak_mib": peak,
    }


def measure(args, work):
    package = os.path.join(work, "model.kvrm")
    progress("compiling")
    run(
        os.path.join(args.build, "bin/kvrmc"), "--quiet", args.model, "-o", package,
        "--slots=1", f"--capacity={args.capacity}", *args.kvrmc.split(),
    )  # fmt: skip
    generator = random.Random(1)
    ids = [generator.randrange(args.vocabulary) for _ in range(args.prompt)]
    rows = {}
    for temperature in ("cold", "warm"):
        for turn in range(args.rounds + (temperature == "warm")):
            progress(f"{temperature}, round {turn + 1}")
            for name, run_one, files in (
                ("kvrm", lambda: run_kvrm(args, package, ids), package),
                ("llama.cpp", lambda: run_llama(args, ids), args.model),
            ):
                if temperature == "cold":
                    forget(files)
                row = run_one()
                # The first warm run fills the page cache.
                if temperature == "cold" or turn > 0:
                    for key, value in row.items():
                        rows.setdefault((name, temperature, key), []).append(value)
    size = os.path.getsize(args.model) / 2**20
    results = [
        {"name": name, "run": temperature, "what": key, "median": statistics.median(values)}
        for (name, temperature, key), values in rows.items()
    ]
    return {"machine": machine(), "threads": args.threads, "file_mib": size, "results": results}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="GGUF model, of any type")
    parser.add_argument("--kvrmc", default="", help="further options of kvrmc")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--vocabulary", type=int, default=32000, help="ids are below it")
    parser.add_argument("--capacity", type=int, default=2304)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="folder for the package, kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--ids", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ids:
        llama_run(args)
        return
    if args.prompt >= args.capacity:
        parser.error("--capacity is too small for the prompt and a token")
    with work_folder(args.work) as work:
        out = measure(args, work)
    if args.json:
        print(json.dumps(out, indent=2))
        return
    print(
        f"{out['machine']['cpu']}, {args.threads} threads, load "
        f"{out['machine']['load_average']:.1f}, a file of {out['file_mib']:.0f} MiB"
    )
    medians = {(r["name"], r["run"], r["what"]): r["median"] for r in out["results"]}
    for temperature in ("cold", "warm"):
        for what in ("first_token_s", "prompt_tokens_per_s", "peak_mib"):
            ours, theirs = (medians[name, temperature, what] for name in ("kvrm", "llama.cpp"))
            print(f"{temperature:5} {what:20} {ours:10.2f} {theirs:10.2f} {ours / theirs:6.2f}")


main()
