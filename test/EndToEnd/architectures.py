#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges small decoders of every architecture by a float64 reference.

Each is written as a Hugging Face folder, and as a GGUF file where that format
has it, with weights that are drawn anew for each run. Packages, paged and
static, in f16 and bf16, are fed prompts and their continuations; all logits
must be near those of test/reference, which reads the same files and rounds
matrices, K and V as the package does.

    architectures.py --work /tmp/architectures [--only qwen3] [--seed 1]
"""

import json
import os
import sys

import harness

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference")
)
import numpy as np  # noqa: E402
import reference  # noqa: E402
import tiny_models  # noqa: E402

# Of a step's largest logit. A last bit of f32 can decide which way a K or V is
# rounded, and small decoders without training feel it.
TOLERANCE = {"f16": 5e-4, "bf16": 4e-3}
CAPACITY, PAGE, CHUNK = 128, 16, 16
LENGTHS = ((5, 12), (1, 20), (40, 8), (17, 30), (85, 25))  # prompt, and what follows


def sequences_of(vocabulary, random):
    return [
        random.integers(0, vocabulary, prompt + more).tolist()
        for prompt, more in LENGTHS
    ]


def logits_of(path, kind, sequences):
    """Of the end of each prompt and of all that follows, [n][vocabulary]."""
    model = reference.open_model(path, kind, CAPACITY)
    rows = []
    for ids, (prompt, _) in zip(sequences, LENGTHS, strict=True):
        cache = reference.Sequence(model, kind)
        chunks = [ids[:prompt]] + [[token] for token in ids[prompt:]]
        rows += [reference.forward(model, [(cache, chunk)])[0] for chunk in chunks]
    return np.asarray(rows)


def worst_error(tools, package, sequences, want):
    file = tools.path("logits.npy")
    tools.score(package, sequences, [prompt for prompt, _ in LENGTHS], file)
    # Sequences that end before others have rows of nothing behind them.
    padded = np.load(file)
    got = np.concatenate([p[: more + 1] for p, (_, more) in zip(padded, LENGTHS)])
    harness.remove(file)
    error = np.abs(got - want).max(axis=-1) / np.abs(want).max(axis=-1)
    return float(error.max())


def kept_tokens(config):
    """What a slot keeps if every layer has a window: enough for the longest when
    whole pages are dropped; None if it keeps all."""
    window = config.get("sliding_window")
    if config["model_type"] not in ("mistral", "phi3") or not window:
        return None
    if "full_attention" in config.get("layer_types", []):
        return None
    kept = -(-(window + PAGE - 1) // PAGE) * PAGE
    return kept if kept + CHUNK < CAPACITY else None


def check_kept(tools, report, name, package, config):
    told = json.loads(harness.run([tools.kvrm_run, "inspect", package, "--json"]))
    kept = told["cache"].get("far_history", {}).get("window")
    want = kept_tokens(config)
    report.check(kept == want, f"{name}: a slot keeps {kept} tokens, not {want}")


def judge(tools, report, path, name, config, sequences, combinations):
    for kind, modes in combinations:
        want = logits_of(path, kind, sequences)
        for mode in modes:
            package = tools.compile(
                [path],
                "package",
                "--slots=3",
                f"--capacity={CAPACITY}",
                f"--page-size={PAGE}",
                f"--prefill-chunk={CHUNK}",
                f"--cache-type={kind}",
                f"--weight-type={kind}",
                *(["--static"] if mode == "static" else []),
            )
            if mode == "paged":
                check_kept(tools, report, name, package, config)
            error = worst_error(tools, package, sequences, want)
            harness.remove(package)
            print(f"{name:24} {kind:5} {mode:7} {error:9.2e}", flush=True)
            report.check(
                error <= TOLERANCE[kind],
                f"{name} {kind} {mode}: logits are off by {error:.3g} of the largest",
            )


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", help="models with this in their name")
    parser.add_argument("--quick", action="store_true", help="fewer combinations")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    args = parser.parse_args()
    tools, report = harness.Tools(args), harness.Report()
    random = np.random.default_rng(harness.seed_of(args))
    both = ("paged", "static")
    folder = [("f16", both), ("bf16", both)]
    if args.quick:
        folder = [("f16", both[:1]), ("bf16", both[1:])]
    for turn, (name, (kind, changes)) in enumerate(tiny_models.VARIANTS.items()):
        if args.only not in name:
            continue
        config = tiny_models.config_of(kind, **changes)
        tensors = tiny_models.folder_tensors(config, random.integers(2**32))
        sequences = sequences_of(config["vocab_size"], random)
        path = tools.path(name)
        tiny_models.write_folder(path, config, tensors, shards=1 + turn % 3)
        judge(tools, report, path, name, config, sequences, folder)
        harness.remove(path)
        if name in tiny_models.GGUF_VARIANTS:
            tiny_models.write_gguf(path + ".gguf", config, tensors)
            file = path + ".gguf"
            judge(
                tools, report, file, name + ".gguf", config, sequences, [("f16", both[:1])]
            )
            harness.remove(path + ".gguf")
    report.finish()


if __name__ == "__main__":
    main()
