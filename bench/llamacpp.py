#!/usr/bin/env python3
"""Decode tokens/s of kvrm beside llama.cpp: same weights, threads and lengths.

Both read one GGUF file, F16 and made from the given model, or with --as-is that
model itself, in whatever blocks it is, and keep KV in F16. Histories
of each length are prefilled, then only decode steps are timed; every step makes
one token and its logits for every slot. Rounds alternate between the two, and
medians over rounds are reported. Of llama.cpp every variant of flash attention
and of KV layout runs, and its best one counts, for each line apart.

Needs the packages of bench/requirements.txt and a build of kvrm.
"""

import argparse
import json
import os
import random
import statistics
import time

import llama_cpp as ll

import llama
from common import kvrm_bench, machine, progress, run, summary, work_folder
from f16_gguf import convert


class Histories(llama.Context):
    """A context whose slots all have random tokens, as many each."""

    def __init__(self, *settings, **more):
        super().__init__(*settings, **more)
        self.length = 0
        self.random = random.Random(1)

    def token(self):
        return self.random.randrange(self.vocabulary)

    def grow_to(self, length):
        """All histories to `length` random tokens, by cutting or prefilling."""
        if self.length > length:
            for slot in range(self.slots):
                ll.llama_memory_seq_rm(self.memory, slot, length, -1)
        for slot in range(self.slots):
            for start in range(self.length, length, llama.BATCH):
                end = min(start + llama.BATCH, length)
                self.decode([(self.token(), p, slot, p + 1 == end) for p in range(start, end)])
        self.length = length

    def step(self):
        """Seconds of one decode step of all slots."""
        entries = [(self.token(), self.length, slot, True) for slot in range(self.slots)]
        start = time.perf_counter()
        self.decode(entries)
        spent = time.perf_counter() - start
        self.length += 1
        return spent

    def rate(self, context, steps, warmup=4):
        """Decode tokens/s from the median step after `context` tokens."""
        self.grow_to(context)
        for _ in range(warmup):
            self.step()
        return self.slots / statistics.median(self.step() for _ in range(steps))

    def greedy(self, prompt, count):
        """`count` likeliest tokens after `prompt`, in sequence 0."""
        self.decode([(t, i, 0, i + 1 == len(prompt)) for i, t in enumerate(prompt)])
        out, position, last = [], len(prompt), len(prompt) - 1
        while True:
            out.append(int(self.logits(last).argmax()))
            if len(out) == count:
                break
            self.decode([(out[-1], position, 0, True)])
            position, last = position + 1, 0
        ll.llama_memory_seq_rm(self.memory, 0, 0, -1)
        return out


def variants(slots):
    """Names and settings of llama.cpp's variants; one sequence has one layout."""
    for flash in (True, False):
        for unified in (False, True) if slots > 1 else (False,):
            name = f"fa={'on' if flash else 'off'}"
            yield name + (f" unified={'yes' if unified else 'no'}" if slots > 1 else ""), {
                "flash": flash,
                "unified": unified,
            }


def same_tokens(args, package, model, threads):
    """How many of 16 greedy tokens agree, before any timing is believed."""
    prompt = [504, 3575, 282, 4649, 314]  # "The capital of France is"
    count = 16
    context = Histories(model, 1, args.capacity, threads, True, False)
    theirs = context.greedy(prompt, count)
    context.close()
    ours = json.loads(
        run(
            os.path.join(args.build, "bin/kvrm-run"), "generate", package, "--json",
            "--ignore-eos", "--threads", threads, "--max-tokens", count,
            "--token-ids", ",".join(map(str, prompt)),
        )  # fmt: skip
    )["requests"][0]["tokens"]
    agreed = 0
    while agreed < count and ours[agreed] == theirs[agreed]:
        agreed += 1
    return {"agreed": agreed, "of": count, "kvrm": ours, "llama.cpp": theirs}


def measure(args, work):
    gguf_path = args.model if args.as_is else os.path.join(work, "f16.gguf")
    if not args.as_is:
        progress("writing the F16 model")
        convert(args.model, gguf_path)
    model = llama.load(gguf_path)
    results, check = [], None
    for slots in args.slots:
        progress(f"{slots} slots: compiling, then prefilling")
        package = os.path.join(work, f"slots{slots}.kvrm")
        run(
            os.path.join(args.build, "bin/kvrmc"), "--quiet", gguf_path, "-o", package,
            f"--slots={slots}", f"--capacity={args.capacity}", *args.kvrmc.split(),
        )  # fmt: skip
        if check is None:
            check = same_tokens(args, package, model, args.threads)
        theirs = {
            name: Histories(model, slots, args.capacity, args.threads, **settings)
            for name, settings in variants(slots)
        }
        rates = {}
        for turn in range(args.rounds):
            progress(f"{slots} slots: round {turn + 1} of {args.rounds}")
            # kvrm goes through all contexts in one run, so does each variant.
            bench = kvrm_bench(
                args.build, package, args.contexts, args.steps, "--warmup", 4,
                "--threads", args.threads,
            )  # fmt: skip
            for row in bench["results"]:
                key = (row["context"], "kvrm")
                rates.setdefault(key, []).append(slots * 1e3 / row["step_ms"]["p50"])
            # From the shortest context up, so that round after round only the
            # difference is prefilled.
            for name, context in theirs.items():
                for length in args.contexts:
                    rate = context.rate(length, args.steps)
                    rates.setdefault((length, name), []).append(rate)
        for context in theirs.values():
            context.close()
        for length in args.contexts:
            ours = summary(rates[length, "kvrm"])
            all_theirs = {name: summary(rates[length, name]) for name in theirs}
            best = max(all_theirs, key=lambda name: all_theirs[name]["median"])
            results.append(
                {
                    "slots": slots,
                    "context": length,
                    "kvrm": ours,
                    "llama.cpp": all_theirs[best],
                    "variant": best,
                    "ratio": ours["median"] / all_theirs[best]["median"],
                    "variants": all_theirs,
                }
            )
    return {
        "machine": machine(),
        "threads": args.threads,
        "steps": args.steps,
        "llama_cpp_python": ll.__version__,
        "system": ll.llama_print_system_info().decode().strip(),
        "greedy_tokens": check,
        "results": results,
    }


def main():
    number_list = lambda text: sorted(int(part) for part in text.split(","))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="GGUF model, of any type")
    parser.add_argument("--as-is", action="store_true", help="in the file's own types")
    parser.add_argument("--kvrmc", default="", help="further options of kvrmc")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--slots", type=number_list, default=[1, 8])
    parser.add_argument("--contexts", type=number_list, default=[128, 2048])
    parser.add_argument("--capacity", type=int, default=2304)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="folder for model and packages, kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.contexts[-1] + args.steps + 4 > args.capacity:
        parser.error("--capacity is too small for the longest context and the steps")

    llama.start()
    with work_folder(args.work) as work:
        out = measure(args, work)
    if args.json:
        print(json.dumps(out, indent=2))
        return
    check = out["greedy_tokens"]
    print(f"{out['machine']['cpu']}, {args.threads} threads, load {out['machine']['load_average']:.1f}")
    print(f"{check['agreed']} of {check['of']} greedy tokens are the same")
    print(f"{'slots':>5} {'context':>8} {'kvrm':>9} {'llama.cpp':>10} {'ratio':>6}  variant")
    for row in out["results"]:
        print(
            f"{row['slots']:5} {row['context']:8} {row['kvrm']['median']:9.1f} "
            f"{row['llama.cpp']['median']:10.1f} {row['ratio']:6.2f}  {row['variant']}"
        )


main()
