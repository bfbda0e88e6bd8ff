# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvrmc, which makes packages of models."""

from __future__ import annotations

import os
import shutil
import subprocess

from .session import Package, PathLike


class CompileError(Exception):
    """What kvrmc said."""


def _kvrmc() -> str:
    """KVRM_KVRMC, the one in the wheel if it was built with the compiler, or the
    one of the PATH."""
    beside = os.path.join(os.path.dirname(__file__), "bin", "kvrmc")
    named = os.environ.get("KVRM_KVRMC")
    found = named or (beside if os.path.exists(beside) else shutil.which("kvrmc"))
    if not found:
        raise CompileError("there is no kvrmc: put it on the PATH, or name it KVRM_KVRMC")
    return found


def compile(model: PathLike, output: PathLike, **options: "str | int | bool") -> Package:
    """Compiles a GGUF file or a folder of Hugging Face to the package `output`.
    `options` are those of kvrmc, with "_" for "-": slots=8, capacity=2048,
    target="nvptx". CompileError has what kvrmc says."""
    arguments = [_kvrmc(), os.fspath(model), "-o", os.fspath(output), "--quiet"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            arguments.append(flag)
        elif value is not False:
            arguments.append(f"{flag}={value}")
    done = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise CompileError(done.stderr.decode("utf-8", "replace").strip())
    return Package(output)
