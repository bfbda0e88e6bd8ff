#!/usr/bin/env python3
"""Lists the sources that clang-tidy has to see after a change, newest first.

usage: touched.py BUILD [COMMIT]

Takes what the commits since COMMIT touch (all that git has, if it does not have
COMMIT), and before these what is not committed. A header stands for one source
that includes it. Without COMMIT all that BUILD compiles is listed.
"""

import json
import os
import subprocess
import sys

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def git(*arguments):
    command = ["git", "-C", root, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def touched_files(commit):
    """Every file once, at its newest touch."""
    has_commit = git("cat-file", "-e", commit + "^{commit}").returncode == 0
    since = [commit + ".."] if has_commit else []
    files = git("diff", "--name-only", "HEAD").stdout
    files += git("log", "--format=", "--name-only", *since).stdout
    return list(dict.fromkeys(files.split("\n")))


def source_including(header, sources):
    """A source that includes `header` itself, of the same name if there is one."""
    name = "/" + os.path.basename(header) + '"'
    includers = git("grep", "-lF", "-e", name, "-e", '"' + name[1:]).stdout.split()
    stem = os.path.splitext(os.path.basename(header))[0]
    includers = [file for file in includers if file in sources]
    return min(includers, key=lambda file: stem not in file, default=None)


def main():
    build, *rest = sys.argv[1:]
    with open(os.path.join(build, "compile_commands.json")) as commands:
        files = [entry["file"] for entry in json.load(commands)]
    # Not those that the build wrote.
    files = [file for file in files if not file.startswith(os.path.abspath(build))]
    sources = {os.path.relpath(file, root) for file in files}
    if not rest:
        print("\n".join(sorted(sources)))
        return
    listed = []
    for file in touched_files(rest[0]):
        if file.endswith(".h") and os.path.exists(os.path.join(root, file)):
            file = source_including(file, sources)
        if file in sources:
            listed.append(file)
    print("\n".join(dict.fromkeys(listed)))


main()
