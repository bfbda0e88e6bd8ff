#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges packages of every architecture by Hugging Face's transformers.

Small models with seeded weights are made and saved by transformers itself, in
f16 and bf16, and run by it in f32. Four prompts are continued greedily for 64
tokens by a paged and by a static package of the folder. Then transformers'
tokens are fed, and each choice and all logits are compared. A choice may differ
where the two best logits are closer than the error of the logits: a package has
K and V in 16 bits. The float64 reference of test/reference, which reads the same
folder without rounding, is held to transformers too.

Not part of CI: it needs torch and transformers (written for 5.24).

    compare_with_transformers.py --work /tmp/transformers [--only qwen]
"""

import os
import sys

import harness

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference")
)
import numpy as np  # noqa: E402
import reference  # noqa: E402
import tiny_models  # noqa: E402
import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

torch.set_num_threads(1)

STEPS, CAPACITY = 64, 128
PROMPTS = (3, 11, 24, 40)
# Of a step's largest logit. In 16 bits a K or V is off by 2^-11 or 2^-8 of it.
TOLERANCE = {"f16": 2e-3, "bf16": 2e-2}
REFERENCE_TOLERANCE = 2e-5


def make(path, kind, changes, dtype):
    """Saves a model of such a config; returns it as it is read again, in f32."""
    config = tiny_models.config_of(kind, **changes)
    config = {k: v for k, v in config.items() if v is not None and k != "model_type"}
    config["pad_token_id"] = 0  # some classes' own is past a small vocabulary
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    with torch.no_grad():
        for name, values in model.named_parameters():
            noise = torch.randn_like(values)
            if name.endswith("bias"):
                values.copy_(0.2 * noise)
            elif values.ndim == 1:
                values.copy_(1 + 0.2 * noise)
            else:
                scale = 1.0 if "embed" in name else values.shape[1] ** -0.5
                values.copy_(scale * noise)
    model.to(dtype).save_pretrained(path, max_shard_size="200KB")
    read = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    return read.eval()


def variants():
    """Those of tiny_models. transformers take the factors of LongRoPE by the
    length of a text, a package by its capacity: they agree where all texts are
    as long as the first training's, or none is."""
    for name, (kind, changes) in tiny_models.VARIANTS.items():
        if "original_max_position_embeddings" not in changes:
            yield name, kind, changes
            continue
        for length, original in (("short", CAPACITY), ("long", min(PROMPTS) - 1)):
            # By itself it would make scores of so short a training very large.
            scaling = changes["rope_scaling"] | {"attention_factor": 1.2}
            changed = {
                "original_max_position_embeddings": original,
                "rope_scaling": scaling,
            }
            yield f"{name}-{length}", kind, changes | changed


@torch.no_grad()
def continue_greedily(model, prompt):
    """Tokens, and the logits that each was chosen by."""
    ids, rows = list(prompt), []
    for _ in range(STEPS):
        rows.append(model(torch.tensor([ids])).logits[0, -1].numpy())
        ids.append(int(rows[-1].argmax()))
    return ids[len(prompt) :], np.asarray(rows)


def lead(row, token):
    return float(row.max() - row[token])


def check_reference(report, name, path, prompts, tokens, logits):
    model = reference.open_model(path, "f32", CAPACITY)
    _, _, kept = reference.generate(model, prompts, STEPS, forced=tokens, keep=True)
    error = np.abs(kept - logits).max(-1) / np.abs(logits).max(-1)
    report.check(
        error.max() <= REFERENCE_TOLERANCE,
        f"{name}: the reference is off by {error.max():.3g} of the largest logit",
    )
    return error.max()


def judge(tools, report, name, path, kind, mode, prompts, tokens, logits):
    package = tools.compile(
        [path],
        "package",
        "--slots=4",
        f"--capacity={CAPACITY}",
        f"--cache-type={kind}",
        f"--weight-type={kind}",
        *(["--static"] if mode == "static" else []),
    )
    told = tools.generate(package, prompts, STEPS, "--ignore-eos")
    file = tools.path("logits.npy")
    forced = [p + t[:-1] for p, t in zip(prompts, tokens, strict=True)]
    tools.score(package, forced, [len(p) for p in prompts], file)
    got = np.load(file).reshape(logits.shape)
    harness.remove(file, package)
    error = np.abs(got - logits).max(-1) / np.abs(logits).max(-1)
    equal, widest = 0, 0.0
    for request, want, rows in zip(told["requests"], tokens, logits, strict=True):
        same = [a == b for a, b in zip(request["tokens"], want)]
        at = same.index(False) if False in same else STEPS
        equal += at
        if at < STEPS:
            gap = lead(rows[at], request["tokens"][at]) / np.abs(rows[at]).max()
            widest = max(widest, gap)
    report.check(
        error.max() <= TOLERANCE[kind],
        f"{name} {kind} {mode}: logits are off by {error.max():.3g} of the largest",
    )
    report.check(
        widest <= 2 * error.max(),
        f"{name} {kind} {mode}: a token differs where the lead is {widest:.3g}",
    )
    return equal, widest, error.max(), error.mean()


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", help="models with this in their name")
    args = parser.parse_args()
    tools, report = harness.Tools(args), harness.Report()
    random = np.random.default_rng(3)
    types = {"f16": torch.float16, "bf16": torch.bfloat16}
    print(
        f"{'model':16} {'type':5} {'mode':7} {'equal':>9} {'tie':>9} "
        f"{'max|d|/max':>10} {'mean':>9} {'reference':>9}"
    )
    for name, kind, changes in variants():
        if args.only not in name:
            continue
        for type_name, dtype in types.items():
            path = tools.path(f"{name}-{type_name}")
            model = make(path, kind, changes, dtype)
            vocabulary = model.config.vocab_size
            prompts = [random.integers(0, vocabulary, n).tolist() for n in PROMPTS]
            pairs = [continue_greedily(model, prompt) for prompt in prompts]
            tokens = [pair[0] for pair in pairs]
            logits = np.asarray([pair[1] for pair in pairs])
            near = check_reference(report, name, path, prompts, tokens, logits)
            for mode in ("paged", "static"):
                equal, tie, most, mean = judge(
                    tools, report, name, path, type_name, mode, prompts, tokens, logits
                )
                print(
                    f"{name:16} {type_name:5} {mode:7} {equal:4}/{STEPS * len(PROMPTS)} "
                    f"{tie:9.2e} {most:10.2e} {mean:9.2e} {near:9.2e}",
                    flush=True,
                )
            harness.remove(path)
    report.finish()


if __name__ == "__main__":
    main()
