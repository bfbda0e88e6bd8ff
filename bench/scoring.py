"""What benchmarks share that score a text by a model compiled in several ways."""

import json
import os
import sys

from common import machine, run, work_folder


def tokenize(args, package):
    """Ids of the text's first tokens, by the package's own tokenizer."""
    with open(args.text, encoding="utf-8") as file:
        text = file.read()
    out = run(
        os.path.join(args.build, "bin/kvrm-run"), "generate", package, "--json",
        "--prompt", text, "--max-tokens", "1",
    )  # fmt: skip
    ids = json.loads(out)["requests"][0]["prompt_tokens"]
    if args.tokens > len(ids):
        sys.exit(f"{args.text} has {len(ids)} tokens, --tokens asks for {args.tokens}")
    return ids[: args.tokens or len(ids)]


def score(args, package, ids, *flags):
    """What `kvrm-run score` says of a text, as a row of results."""
    out = run(
        os.path.join(args.build, "bin/kvrm-run"), "score", package, "--json",
        "--threads", args.threads, "--token-ids", ",".join(map(str, ids)),
        "--prompt-length", args.prompt_length, *flags,
    )  # fmt: skip
    scored = json.loads(out)
    return {
        "perplexity": scored["perplexity"],
        "mean_nll": scored["mean_nll"],
        "scored_tokens": scored["decoded"],
        "peak_live_kv_bytes": scored["kv"]["peak_live_bytes"],
        "mean_step_ms": scored["mean_step_ms"],
    }


def add_arguments(parser):
    parser.add_argument("model", help="GGUF model with a tokenizer")
    parser.add_argument("text", help="file with the text to score")
    parser.add_argument("--build", default="build", help="build folder of kvrm")
    parser.add_argument("--tokens", type=int, default=0, help="of the text's start; 0: all")
    parser.add_argument("--prompt-length", type=int, default=1, help="tokens not scored")
    parser.add_argument("--capacity", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", help="folder for the packages while they run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def results(args, ids, rows):
    """Result rows and what they are of."""
    return {
        "machine": machine(),
        "model": os.path.basename(args.model),
        "text": os.path.basename(args.text),
        "tokens": len(ids),
        "prompt_length": args.prompt_length,
        "threads": args.threads,
        "results": rows,
    }


def report(args, measure, print_rows):
    """Prints what `measure(args, work)` makes: as JSON, or its rows below a heading."""
    with work_folder(args.work) as work:
        out = measure(args, work)
    if args.json:
        print(json.dumps(out, indent=2))
        return
    print(
        f"{out['model']} on {out['tokens']} tokens of {out['text']}; "
        f"{out['machine']['cpu']}, {out['threads']} threads, load {out['machine']['load_average']:.1f}"
    )
    print_rows(out["results"])
