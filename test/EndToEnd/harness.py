# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the end-to-end tests share: running the tools, reading packages."""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time


class ToolError(Exception):
    pass


def run(arguments):
    """Runs a tool; returns its standard output. Nothing may be said on standard
    error."""
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False
    )
    error = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode != 0 or error:
        raise ToolError(
            f"{os.path.basename(arguments[0])} ended with {done.returncode}: {error}"
            f"\n  {' '.join(arguments)[:2000]}"
        )
    return done.stdout


def manifest(package):
    """What a package says of itself."""
    with open(os.path.join(package, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)


def joined(ids):
    return ",".join(map(str, ids))


class Tools:
    """kvrmc and kvrm-run, with a folder to work in."""

    def __init__(self, args):
        self.kvrmc = args.kvrmc
        self.kvrm_run = args.kvrm_run
        self.work = args.work
        self.threads = args.threads
        os.makedirs(self.work, exist_ok=True)

    def path(self, name):
        return os.path.join(self.work, name)

    def compile(self, model, name, *options):
        """Compiles to a package in the work folder. `model` is a list: a GGUF
        file, or "synth" with its shape."""
        package = self.path(name + ".kvrm")
        run([self.kvrmc, *model, "-o", package, "--quiet", *map(str, options)])
        return package

    def _threads(self):
        return ["--threads", str(self.threads)] if self.threads else []

    def generate(self, package, prompts, tokens, *options):
        """Continues prompts, each a list of token ids or a text, greedily by
        `tokens` tokens, a number or one a prompt."""
        counts = tokens if isinstance(tokens, list) else [tokens]
        inputs = []
        for count in counts:
            inputs += ["-n", str(count)]
        for prompt in prompts:
            if isinstance(prompt, str):
                inputs += ["--prompt", prompt]
            else:
                inputs += ["--token-ids", joined(prompt)]
        out = run(
            [self.kvrm_run, "generate", package, "--json"]
            + self._threads()
            + [*map(str, options), *inputs]
        )
        return json.loads(out)

    def score(self, package, sequences, prompt_lengths, logits=None):
        """Feeds sequences of token ids; the logits go to the file `logits`."""
        command = [self.kvrm_run, "score", package, "--json"] + self._threads()
        for ids, length in zip(sequences, prompt_lengths, strict=True):
            command += ["--token-ids", joined(ids), "--prompt-length", str(length)]
        if logits:
            command += ["--logits", logits]
        return json.loads(run(command))


def remove(*paths):
    for path in paths:
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)


def parser(description):
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--kvrmc", default=shutil.which("kvrmc") or "kvrmc")
    result.add_argument("--kvrm-run", default=shutil.which("kvrm-run") or "kvrm-run")
    result.add_argument("--work", required=True, help="folder for what is made")
    result.add_argument("--threads", type=int, default=0, help="0: one a CPU")
    result.add_argument("--keep", action="store_true", help="keep the packages")
    return result


def add_model(arguments):
    arguments.add_argument(
        "--gguf",
        default=os.environ.get("KVRM_SMOLLM2_GGUF"),
        help="the model; default: the environment's KVRM_SMOLLM2_GGUF",
    )


def seed_of(args):
    """That of --seed, else one of the time, printed to repeat a run with."""
    seed = time.time_ns() % 2**32 if args.seed is None else args.seed
    print(f"seed {seed}")
    return seed


def safetensors(path):
    """The tensors of a safetensors file as (type, shape, bytes) by name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: (
            tensor["dtype"],
            tensor["shape"],
            data[tensor["data_offsets"][0] : tensor["data_offsets"][1]],
        )
        for name, tensor in header.items()
    }


class Report:
    """Collects failures; the exit status of a test."""

    def __init__(self):
        self.checks = 0
        self.failures = []

    def check(self, condition, message):
        self.checks += 1
        if not condition:
            self.failures.append(message)
            print(f"FAILED: {message}", flush=True)
        return condition

    def finish(self):
        print(f"{self.checks} checks, {len(self.failures)} failed")
        sys.exit(1 if self.failures else 0)


def same_tokens(report, what, got, want):
    """Checks that two lists of tokens are equal; names the first difference."""
    if got == want:
        return report.check(True, what)
    at = next(
        (i for i, pair in enumerate(zip(got, want)) if pair[0] != pair[1]),
        min(len(got), len(want)),
    )
    return report.check(
        False,
        f"{what}: {len(got)} and {len(want)} tokens, different from {at} on: "
        f"{got[at : at + 4]} and {want[at : at + 4]}",
    )
