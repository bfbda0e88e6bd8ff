# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Damages a copy of a package.

    damage.py FROM TO flip FILE [OFFSET]     one bit of a byte, by default amid
    damage.py FROM TO cut FILE               the last byte goes
    damage.py FROM TO remove FILE
    damage.py FROM TO set KEY[.KEY...] JSON  a field of the manifest
    damage.py FROM TO sweep KVRM-RUN         every byte of the manifest in turn:
                                             kvrm-run must refuse each in a line
"""

import json
import os
import shutil
import subprocess
import sys


def flip(path, offset=None):
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        offset = size // 2 if offset is None else offset
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def sweep(package, tool):
    path = os.path.join(package, "manifest.json")
    size = os.path.getsize(path)
    for offset in range(size):
        flip(path, offset)
        done = subprocess.run(
            [tool, "inspect", package], capture_output=True, check=False
        )
        flip(path, offset)
        error = done.stderr.decode()
        if (
            done.returncode != 1
            or not error.startswith("kvrm-run: error: ")
            or error.count("\n") != 1
        ):
            sys.exit(f"byte {offset}: status {done.returncode}: {error}")
    print(f"{size} bytes")


def main():
    source, target, what, *rest = sys.argv[1:]
    if os.path.exists(target):
        shutil.rmtree(target)
    shutil.copytree(source, target)
    if what == "sweep":
        sweep(target, rest[0])
    elif what == "set":
        path = os.path.join(target, "manifest.json")
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        *keys, last = rest[0].split(".")
        place = manifest
        for key in keys:
            place = place[key]
        place[last] = json.loads(rest[1])
        with open(path, "w", encoding="utf-8") as file:
            json.dump(manifest, file)
    else:
        path = os.path.join(target, rest[0])
        if what == "flip":
            flip(path, int(rest[1]) if len(rest) > 1 else None)
        elif what == "cut":
            os.truncate(path, os.path.getsize(path) - 1)
        elif what == "remove":
            os.remove(path)
        else:
            sys.exit(f"damage: error: nothing is called '{what}'")


main()
