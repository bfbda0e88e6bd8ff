#!/usr/bin/env python3
"""Runs the commands of a page and compares what they print with the page.

usage: check_tutorial.py PAGE ROOT

A block marked ```console holds commands (`$ ...`, run in ROOT by a shell) and
what they print. A line `...` stands for any lines, `...` within a line for
anything; indentation does not count.
"""

import re
import subprocess
import sys


def fail(page, number, message):
    sys.exit("{}:{}: error: {}".format(page, number, message))


def commands(page):
    """Yields (line number, command, [(line number, expected line)])."""
    inside, current = False, None
    for number, line in enumerate(open(page, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        if line.startswith("```"):
            if current:
                yield current
            inside, current = line == "```console", None
        elif inside and line.startswith("$ "):
            if current:
                yield current
            current = (number, line[2:], [])
        elif inside and current[1].endswith("\\"):
            current = (current[0], current[1][:-1] + line, current[2])
        elif inside:
            current[2].append((number, line))


def pattern(line):
    parts = [re.escape(part) for part in line.strip().split("...")]
    return re.compile(".*".join(parts))


def main():
    page, root = sys.argv[1:]
    count = 0
    for number, command, expected in commands(page):
        count += 1
        done = subprocess.run(
            command, shell=True, cwd=root, capture_output=True, text=True
        )
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        fails = any("error: " in line for _, line in expected)
        if (done.returncode != 0) != fails:
            fail(page, number, "exit status {}: {}".format(done.returncode, done.stderr))
        at, skip = 0, False
        for line_number, line in expected:
            if line.strip() == "...":
                skip = True
                continue
            regex = pattern(line)
            rest = range(at, len(lines) if skip else min(at + 1, len(lines)))
            found = next((i for i in rest if regex.fullmatch(lines[i])), None)
            if found is None:
                got = lines[at] if at < len(lines) else "the end"
                fail(page, line_number, "not printed here, but: " + got)
            at, skip = found + 1, False
        if expected and not skip and at < len([l for l in lines if l]):
            fail(page, number, "prints more: " + lines[at])
    if not count:
        fail(page, 1, "has no commands")


main()
