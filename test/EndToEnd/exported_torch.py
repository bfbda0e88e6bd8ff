#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Exports small models of transformers by kvrm-export-torch, compiles them, and
compares greedy tokens with transformers' own.

    exported_torch.py --work /tmp/torch --exporter tools/export/kvrm-export-torch
    exported_torch.py ... --model FOLDER     # a model that is there already

Needs torch, transformers and torch-mlir.
"""

import os
import subprocess
import sys

import harness
import numpy as np
import torch
import transformers

TOKENS, CAPACITY = 64, 256
# Of a token that is another than transformers' own, the lead that it may have
# over it, as a part of the largest logit: caches and weights are f16 here.
TIE = 2e-3
SHAPE = {
    "vocab_size": 211,
    "hidden_size": 96,
    "intermediate_size": 136,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 2 * CAPACITY,
}


def tiny(kind, **changes):
    """A decoder with random weights that f16 holds exactly."""
    config = transformers.AutoConfig.for_model(kind, **{**SHAPE, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
        mean = 0.0 if parameter.ndim > 1 else 1.0
        values = mean + scale * torch.randn_like(parameter)
        parameter.data.copy_(values.half().float())
    return model


def greedy(model, prompt):
    """Tokens, and by what each leads, as a part of the largest logit."""
    ids, past, told = torch.tensor([prompt]), None, []
    for _ in range(TOKENS):
        with torch.no_grad():
            output = model(ids, past_key_values=past, use_cache=True)
        past, logits = output.past_key_values, output.logits[0, -1]
        told.append(logits)
        ids = logits.argmax().reshape(1, 1)
    return torch.stack(told).numpy()


def compare(report, name, got, logits):
    """Greedy texts part at the first near tie, and not before. Returns where."""
    wanted = logits.argmax(axis=1).tolist()
    pairs = enumerate(zip(got, wanted, strict=True))
    step = next((i for i, (token, want) in pairs if token != want), TOKENS)
    lead = 0.0
    if step < TOKENS:
        row = logits[step]
        lead = (row.max() - row[got[step]]) / np.abs(row).max()
    report.check(lead < TIE, f"{name}: token {step} is behind by {lead:.1e}")
    return step


def check(report, tools, args, name, folder, attention):
    step = tools.path(f"{name}-{attention}")
    command = [sys.executable, args.exporter, folder, "-o", step]
    command += ["--capacity", str(CAPACITY), "--attention", attention]
    subprocess.run(command, check=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vocabulary = model.config.vocab_size
    random = np.random.default_rng(3)
    prompts = [random.integers(0, vocabulary, n).tolist() for n in (1, 5, 33, 150)]
    logits = [greedy(model.eval(), prompt) for prompt in prompts]
    weights = os.path.join(folder, "model.safetensors")
    for form, options in (("paged", ["--slots=4", "--mixed"]), ("static", ["--static"])):
        package = tools.compile(
            [step + ".mlir"], f"{name}-{form}", "--manifest", step + ".json",
            "--weights", weights, *options)
        told = tools.generate(package, prompts, TOKENS, "--ignore-eos")
        equal = [
            compare(report, f"{name} {form}", request["tokens"], rows)
            for request, rows in zip(told["requests"], logits, strict=True)
        ]
        print(f"{name} {attention} {form}: {equal} of {TOKENS} tokens equal", flush=True)
        harness.remove(package)


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--exporter", required=True)
    parser.add_argument("--model", help="a folder instead of small models")
    args = parser.parse_args()
    tools, report = harness.Tools(args), harness.Report()
    if args.model:
        check(report, tools, args, "given", args.model, "eager")
    else:
        torch.manual_seed(5)
        for kind, changes in (
            ("llama", {"tie_word_embeddings": True}),
            ("qwen2", {}),
            ("qwen3", {}),
        ):
            folder = tools.path(kind)
            tiny(kind, **changes).save_pretrained(folder)
            for attention in ("eager", "sdpa"):
                check(report, tools, args, kind, folder, attention)
    report.finish()


if __name__ == "__main__":
    main()
