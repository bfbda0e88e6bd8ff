#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compiles Inputs/step.mlir with random weights, and judges what its packages
compute by a float64 reference.

    exported_step.py --work /tmp/step [--seed N]
"""

import json
import os

import harness
import numpy as np
from llama import Llama, round_to, write_safetensors

GRAPH = os.path.join(os.path.dirname(__file__), "Inputs", "step.mlir")
CAPACITY, VOCABULARY = 32, 48
# Sums are f32, and a last bit may decide how a key is rounded.
TOLERANCE = {"f16": 1e-3, "bf16": 8e-3, "f8e4m3": 2e-2, "int8": 8e-3}


def random_tensors(rng):
    """The tensors of the graph's arguments, in f32."""

    def matrix(*shape):
        return rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)

    def gain():
        return (1 + 0.1 * rng.normal(size=32)).astype(np.float32)

    return {
        "embed": rng.normal(size=(VOCABULARY, 32)).astype(np.float32),
        "norm1": gain(),
        "wq": matrix(32, 32),
        "wk": matrix(16, 32),
        "wv": matrix(32, 16),
        "wo": matrix(32, 32),
        "norm2": gain(),
        "head": matrix(VOCABULARY, 32),
    }


def reference(tensors, kind):
    """The decoder, with matrices rounded as packages hold them."""
    rounded = {name: round_to(values, kind) for name, values in tensors.items()}
    return Llama(
        {
            "embed": rounded["embed"],
            "norm": tensors["norm2"].astype(np.float64),
            "head": rounded["head"],
            "layers": [
                {
                    "attn_norm": tensors["norm1"].astype(np.float64),
                    "wq": rounded["wq"],
                    "wk": rounded["wk"],
                    "wv": rounded["wv"].T,
                    "wo": rounded["wo"].T,
                }
            ],
        },
        head_dim=16,
    )


def check(report, tools, model, package, cache, rng):
    sequences = [
        rng.integers(0, VOCABULARY, length).tolist()
        for length in (CAPACITY, 1, 7, 17, 16, 2)
    ]
    prompts = [20, 1, 3, 16, 15, 1]
    logits = tools.path("logits.npy")
    tools.score(package, sequences, prompts, logits)
    got = np.load(logits)
    worst, differ = 0.0, 0
    for tokens, prompt, rows in zip(sequences, prompts, got):
        for row, want in zip(rows, model.score(tokens, cache)[prompt - 1 :]):
            if np.isnan(row).any():
                continue
            worst = max(worst, np.abs(row - want).max())
            differ += int(row.argmax() != want.argmax())
    name = os.path.basename(package)
    print(f"{name}: largest difference {worst:.1e}, {differ} greedy tokens differ")
    report.check(worst < TOLERANCE[cache], f"{name}: {worst} is too far")
    report.check(differ == 0, f"{name}: {differ} greedy tokens differ")


def with_several_positions(tools):
    """The step with a position of its own for values, angles and mask, and the
    manifest that says that they are one."""
    with open(GRAPH) as file:
        text = file.read()
    for old, new in (
        (
            "%position: tensor<1xi64>)\n",
            "%position: tensor<1xi64>, %of_values: tensor<1xi64>, %of_angle: tensor<i32>, %of_mask: tensor<2xi64>)\n",
        ),
        ("@write(%position, %v,", "@write(%of_values, %v,"),
        ("[affine_map<(e) -> (0)>, affine_map<(e)", "[affine_map<(e) -> ()>, affine_map<(e)"),
        ("(%position, %frequencies : tensor<1xi64>", "(%of_angle, %frequencies : tensor<i32>"),
        ("^bb0(%p: i64, %frequency", "^bb0(%p: i32, %frequency"),
        ("%number = arith.sitofp %p : i64", "%number = arith.sitofp %p : i32"),
        (
            "#one4, #all4], iterator_types = [\"parallel\", \"parallel\", \"parallel\", \"parallel\"]}\n"
            "      ins(%position : tensor<1xi64>) outs(%mask_init",
            "affine_map<(b, h, t, e) -> (b)>, #all4], iterator_types = [\"parallel\", \"parallel\", \"parallel\", \"parallel\"]}\n"
            "      ins(%of_mask : tensor<2xi64>) outs(%mask_init",
        ),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    graph, manifest = tools.path("positions.mlir"), tools.path("positions.json")
    with open(graph, "w") as file:
        file.write(text)
    roles = [{}] * 11 + [{"role": "position"}] * 4
    with open(manifest, "w") as file:
        json.dump({"arguments": roles}, file)
    return graph, ["--manifest", manifest]


def main():
    arguments = harness.parser(__doc__)
    arguments.add_argument("--seed", type=int, default=1)
    args = arguments.parse_args()
    rng = np.random.default_rng(args.seed)
    tools, report = harness.Tools(args), harness.Report()
    tensors = random_tensors(rng)
    weights = tools.path("weights.safetensors")
    write_safetensors(weights, tensors)
    for name, cache, kind, options in [
        ("paged", "f16", "f16", ["--prefill-chunk=8"]),
        ("more-slots", "bf16", "f32", ["--slots=5", "--cache-type=bf16", "--weight-type=f32"]),
        ("bytes", "f8e4m3", "f32", ["--slots=2", "--cache-type=f8e4m3", "--weight-type=f32"]),
        ("scaled", "int8", "f32", ["--slots=2", "--cache-type=int8", "--weight-type=f32"]),
        ("one-slot", "f16", "bf16", ["--slots=1", "--weight-type=bf16", "--prefill-chunk=1"]),
        ("static", "f16", "f16", ["--static", "--prefill-chunk=5"]),
        ("mixed", "f16", "f16", ["--mixed", "--slots=3", "--prefill-chunk=6"]),
        ("several-positions", "f16", "f16", ["--slots=3", "--prefill-chunk=7"]),
    ]:
        graph = GRAPH
        if name == "several-positions":
            graph, more = with_several_positions(tools)
            options = options + more
        package = tools.compile([graph], name, "--weights", weights, *options)
        check(report, tools, reference(tensors, kind), package, cache, rng)
        if not args.keep:
            harness.remove(package)
    report.finish()


if __name__ == "__main__":
    main()
