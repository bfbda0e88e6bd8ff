#!/usr/bin/env python3
# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Judges compiled packages of a real model by a float64 reference.

Eight prompts are continued greedily for 64 tokens, together in the slots of one
package, and every token must be the one that test/reference/reference.py
chooses. Then the reference's tokens are fed, and the choice and the logits of
every step are compared. A choice may differ only where the reference's two best
logits are a tie, less than 1e-3 apart; every such place is printed, and with
--strict it is a failure too.

Matrices have the values of the file's blocks, in the package as in the
reference, and the package multiplies them with activations that are not
rounded. The reference rounds K and V to f16, as the package's cache does. That is what
the errors measured here come from: a last bit of f32 decides which way a value
is rounded, and SmolLM2 feels it. In float64 throughout, rounding K and V to f16
moves the logits by up to 1.8e-3 in the norm; NumPy in float32 is up to 2.0e-3
from float64 with that rounding, and 1.2e-6 without. test/EndToEnd/
synthetic_shapes.py holds decoders that are less sensitive to tighter limits.

    compare_with_reference.py --gguf model.gguf --work /tmp/compare [--quick]
"""

import hashlib
import os
import sys

import harness

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference")
)
import gguf  # noqa: E402
import models  # noqa: E402
import numpy as np  # noqa: E402
import reference  # noqa: E402

# Of a step's largest logit, of its logits' norm, and of the norm on average.
MOST_OF_LARGEST = 2e-3
MOST_OF_NORM = 5e-3
MEAN_OF_NORM = 1e-3
# Logits closer than this are a tie. Rounding K and V moves them by 20 times it.
TIE = 1e-3

PROMPTS = [
    "Gravity",
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village at the foot of a mountain, there lived a girl "
    "who could talk to the wind. Every morning she",
    "Q: What is 17 + 25?\nA: 42\nQ: What is the boiling point of water at sea "
    "level in degrees Celsius?\nA:",
    "Les oiseaux migrateurs traversent l'Europe à l'automne, car",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
    "Hugging Face<|im_end|>\n<|im_start|>user\nName three things that a tree needs "
    "to grow, and say in one sentence why.<|im_end|>\n<|im_start|>assistant\n",
    "The history of the lighthouse is a history of light kept over water. The "
    "first were hilltop fires, tended by priests or by the wives of fishermen; "
    "later came towers of stone, and on them braziers of wood and then of coal, "
    "which ate a ton of fuel on a winter night and smoked so badly that sailors "
    "complained they could not see the flame for the soot. In the eighteenth "
    "century a Swiss named Argand built an oil lamp with a hollow wick and a "
    "glass chimney, which burned bright and clean, and mirrors were set behind "
    "it to gather the light. But it was Augustin Fresnel, a French engineer of "
    "roads and bridges with poor health and little patience, who in 1822 ground "
    "a ring of prisms around a lens and threw a beam to the horizon. Within a "
    "generation his lenses stood on every coast of the trading world. Each "
    "lighthouse was given a rhythm of its own, so that a captain who counted the "
    "seconds between two flashes knew, without a chart, which rock he was about "
    "to miss. Keepers wound the clockwork that turned the lens every few hours, "
    "trimmed the wicks, polished the brass, and wrote in the log the passing of "
    "every ship and the changing of the wind. The work was lonely, and it was "
    "also exact; a lamp that went out for ten minutes could cost a hundred "
    "lives. Electricity ended it slowly. First the lamps were changed, then the "
    "clockwork, and at last the keepers themselves, until by the end of the "
    "twentieth century most lights",
]


def configurations(quick):
    """Name and options of kvrmc for each."""
    if quick:
        shapes = [("native", "workqueue", 16), ("staged", "split", 64)]
    else:
        shapes = [
            (transport, schedule, page)
            for transport in ("native", "staged")
            for schedule in ("rows", "split", "workqueue")
            for page in (16, 32, 64)
        ]
    yield "static", ["--static"]
    for transport, schedule, page in shapes:
        yield f"{transport} {schedule} {page}", [
            f"--transport={transport}",
            f"--schedule={schedule}",
            f"--page-size={page}",
        ]


def reference_of(args, prompts):
    """Tokens, margins and float32 logits [prompt][step][vocabulary], kept in the
    work folder for the next run."""
    info = os.stat(args.gguf)
    text = b""
    for module in (reference, models):
        with open(module.__file__, "rb") as source:
            text += source.read()
    key = hashlib.sha256(
        repr((info.st_size, info.st_mtime_ns, prompts, args.tokens, args.kv)).encode()
        + text
    ).hexdigest()[:16]
    path = os.path.join(args.work, f"reference-{key}.npz")
    if not os.path.exists(path):
        model = reference.open_model(args.gguf, "f32")
        chosen, margins, logits = reference.generate(
            model, prompts, args.tokens, kv_type=args.kv, keep=True
        )
        partial = f"{path}.{os.getpid()}.npz"
        np.savez(partial, tokens=chosen, margins=margins, logits=logits)
        os.replace(partial, path)
    with np.load(path) as data:
        return data["tokens"].tolist(), data["margins"], data["logits"]


def lead(row, token):
    """By how much the best logit leads that of a token."""
    return float(row.max()) - float(row[token])


def logit_errors(got, want):
    """Of every step: max|d| / max|logit| and |d| / |logits|."""
    steps = want.shape[0] * want.shape[1]
    got, want = got.reshape(steps, -1), want.reshape(steps, -1)
    largest, norm = np.empty(steps), np.empty(steps)
    for i in range(steps):
        row = want[i].astype(np.float64)
        delta = got[i].astype(np.float64) - row
        largest[i] = np.abs(delta).max() / np.abs(row).max()
        norm[i] = np.linalg.norm(delta) / np.linalg.norm(row)
    return largest, norm


def rounding_options(path):
    """Exact activations, of which only a model with blocks has others."""
    floats = ("F32", "F16", "BF16")
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    return ["--quantized-activations=exact"] if kinds.difference(floats) else []


def main():
    parser = harness.parser(__doc__.split("\n", maxsplit=1)[0])
    harness.add_model(parser)
    parser.add_argument("--quick", action="store_true", help="3 configurations")
    parser.add_argument("--strict", action="store_true", help="no ties")
    parser.add_argument("--only", default="", help="configurations with this name")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--arch", default="native")
    parser.add_argument(
        "--kv", choices=["f64", "f16"], default="f16",
        help="type that the reference rounds its KV to",
    )
    args = parser.parse_args()
    if not args.gguf:
        parser.error("no model: give --gguf or set KVRM_SMOLLM2_GGUF")
    tools = harness.Tools(args)
    report = harness.Report()

    prompts = tokens = None
    print(
        f"{'configuration':22} {'equal':>5} {'forced':>7} {'max|d|/max':>11} {'|d|/|ref|':>10} "
        f"{'mean':>9} {'perplexity':>10} {'tok/s':>7}"
    )
    for name, options in configurations(args.quick):
        if args.only not in name:
            continue
        package = tools.compile(
            [args.gguf],
            name.replace(" ", "-"),
            f"--arch={args.arch}",
            *rounding_options(args.gguf),
            *options,
        )
        if prompts is None:
            # The ids come from the package's own tokenizer.
            told = tools.generate(package, PROMPTS, 1, "--ignore-eos")
            prompts = [request["prompt_tokens"] for request in told["requests"]]
            tokens, margins, logits = reference_of(args, prompts)
        told = tools.generate(package, prompts, args.tokens, "--ignore-eos")
        tie = 0.0 if args.strict else TIE
        equal = 0
        for i, request in enumerate(told["requests"]):
            got, want = request["tokens"], tokens[i]
            at = next(
                (s for s in range(len(want)) if got[s : s + 1] != want[s : s + 1]),
                len(want),
            )
            equal += at
            if at < len(want):
                gap = lead(logits[i][at], got[at]) if at < len(got) else np.inf
                what = (
                    f"{name}: prompt {i}: token {at} is {got[at : at + 1]}, the "
                    f"reference's {want[at]} leads it by {gap:.3g}"
                )
                if report.check(gap < tie, what):
                    print(f"tie: {what}")
        file = tools.path("logits.npy")
        forced = [p + t[:-1] for p, t in zip(prompts, tokens)]
        scored = tools.score(package, forced, [len(p) for p in prompts], file)
        agreed = 0
        for i, sequence in enumerate(scored["sequences"]):
            for at, choice in enumerate(sequence["choices"]):
                agreed += choice == tokens[i][at]
                gap = lead(logits[i][at], choice)
                report.check(
                    choice == tokens[i][at] or gap < tie,
                    f"{name}: prompt {i}: token {at}, after the reference's, is "
                    f"{choice}, the reference's {tokens[i][at]} leads it by {gap:.3g}",
                )
        largest, norm = logit_errors(np.load(file, mmap_mode="r"), logits)
        report.check(
            largest.max() <= MOST_OF_LARGEST
            and norm.max() <= MOST_OF_NORM
            and norm.mean() <= MEAN_OF_NORM,
            f"{name}: logits are off by {largest.max():.3g} of the largest, "
            f"{norm.max():.3g} in the norm, {norm.mean():.3g} on average",
        )
        print(
            f"{name:22} {equal:5} {agreed:7} "
            f"{largest.max():11.3e} {norm.max():10.3e} {norm.mean():9.2e} "
            f"{scored['perplexity']:10.4f} "
            f"{told['timing']['decode_tokens_per_s']:7.1f}",
            flush=True,
        )
        harness.remove(file)
        if not args.keep:
            harness.remove(package)
    if prompts is None:
        parser.error(f"--only: no configuration has '{args.only}' in its name")
    lengths = ", ".join(str(len(p)) for p in prompts)
    flat = np.sort(np.asarray(margins).ravel())
    print(
        f"of {args.tokens * len(prompts)} tokens for prompts of {lengths}; the "
        f"reference's best logit leads by {flat[0]:.4f} at least ({', '.join(f'{m:.4f}' for m in flat[1:4])} next), "
        f"largest logit {np.abs(logits).max():.1f}"
    )
    report.finish()


if __name__ == "__main__":
    main()
