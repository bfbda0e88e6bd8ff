#!/usr/bin/env python3
"""Stands for kvrm-opt in the plugin run: the stock mlir-opt with the plugin.

mlir-opt makes a command-line flag of each pass that it knows when it starts. It
loads plugins after that, so that their passes can be named in --pass-pipeline
alone. This script rewrites `--PASS=OPTIONS` flags to a pipeline.

usage: plugin-opt.py MLIR_OPT PLUGIN ARGS...
"""

import os
import re
import sys

# What mlir-opt itself takes; any other flag is a pass.
OPTIONS = re.compile(
    r"--?(mlir-|emit-bytecode|split-input-file|verify-|allow-|pass-pipeline|"
    r"load-|no-implicit-module|show-dialects|debug|help|version|o$|o=|$)"
)


def main():
    mlir_opt, plugin, *rest = sys.argv[1:]
    args, passes = [], []
    for arg in rest:
        if not arg.startswith("-") or OPTIONS.match(arg):
            args.append(arg)
            continue
        name, _, options = arg.lstrip("-").partition("=")
        passes.append(name + ("{" + options + "}" if options else ""))
    if passes:
        args.append("--pass-pipeline=builtin.module(" + ",".join(passes) + ")")
    os.execv(
        mlir_opt,
        [
            mlir_opt,
            "--load-dialect-plugin=" + plugin,
            "--load-pass-plugin=" + plugin,
            *args,
        ],
    )


main()
