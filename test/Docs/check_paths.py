#!/usr/bin/env python3
"""Checks that the files which the pages name are there.

usage: check_paths.py ROOT

Looks at README.md, CONTRIBUTING.md and docs/: links to files, and what stands in
`code` and reads like a source file (`Planner.cpp`, `paging/Planner.h`: the end of
some path) or like a folder of the tree (`lib/Codegen`).
"""

import glob
import os
import re
import sys

FOLDERS = (".ci bench cmake docs examples fuzz include lib runtime scripts test tools").split()
LINK = re.compile(r"\]\(([^)#]+)")
CODE = re.compile(r"`([^`\n]+)`")
SOURCE = re.compile(r"\w[\w.-]*(/[\w.-]+)*\.(h|c|cpp|td|inc|py|cmake|mlir|test)")
# As in fuzz/corpus/NAME: what is to be filled in.
PLACEHOLDER = re.compile(r"(^|/)[A-Z]+(/|$)")
FOLDER = re.compile(r"({})(/[\w.-]+)*/?".format("|".join(map(re.escape, FOLDERS))))


def paths_of(root):
    """All files and folders of the tree, each as "/path"."""
    found = set()
    for top in FOLDERS:
        for folder, _, files in os.walk(os.path.join(root, top)):
            found.add("/" + os.path.relpath(folder, root))
            found.update("/" + os.path.relpath(os.path.join(folder, f), root) for f in files)
    found.update("/" + f for f in os.listdir(root) if os.path.isfile(os.path.join(root, f)))
    return found


def missing(page, text, root, paths):
    """Yields what the page names and the tree does not have."""
    for target in LINK.findall(text):
        if "://" not in target and not os.path.exists(
            os.path.join(os.path.dirname(page), target)
        ):
            yield target
    for code in CODE.findall(text):
        if PLACEHOLDER.search(code):
            continue
        if FOLDER.fullmatch(code):
            if not os.path.exists(os.path.join(root, code)):
                yield code
        elif SOURCE.fullmatch(code) and not any(p.endswith("/" + code) for p in paths):
            yield code


def main():
    root = sys.argv[1]
    paths = paths_of(root)
    pages = [os.path.join(root, name) for name in ("README.md", "CONTRIBUTING.md")]
    pages += sorted(glob.glob(os.path.join(root, "docs/**/*.md"), recursive=True))
    failed = False
    for page in pages:
        with open(page, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                for name in missing(page, line, root, paths):
                    print("{}:{}: error: there is no {}".format(page, number, name))
                    failed = True
    sys.exit(failed)


main()
