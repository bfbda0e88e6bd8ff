#!/usr/bin/env python3
"""Sums up test results: JUnit files of ctest, JSON files of lit.

usage: totals.py FOLDER...      (folders that are not there count nothing)
"""

import json
import os
import sys
import xml.etree.ElementTree as xml


def ctest_outcomes(path):
    outcomes = {"run": "passed", "fail": "failed"}
    for case in xml.parse(path).getroot().iter("testcase"):
        yield outcomes.get(case.get("status"), "skipped")


def lit_outcomes(path):
    outcomes = {"PASS": "passed", "FLAKYPASS": "passed", "XFAIL": "passed"}
    outcomes |= {"UNSUPPORTED": "skipped", "SKIPPED": "skipped"}
    with open(path) as file:
        for test in json.load(file)["tests"]:
            yield outcomes.get(test["code"], "failed")


def main():
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    print(f"{'':28}" + "".join(f"{column:>9}" for column in totals))
    for folder in filter(os.path.isdir, sys.argv[1:]):
        for file in sorted(os.listdir(folder)):
            name, extension = os.path.splitext(file)
            read = {".xml": ctest_outcomes, ".json": lit_outcomes}.get(extension)
            if not read:
                continue
            counts = dict.fromkeys(totals, 0)
            for outcome in read(os.path.join(folder, file)):
                counts[outcome] += 1
                totals[outcome] += 1
            of = os.path.basename(os.path.dirname(os.path.abspath(folder)))
            print(f"{of + ' ' + name:28}" + "".join(f"{n:9}" for n in counts.values()))
    print(", ".join(f"{count} {outcome}" for outcome, count in totals.items()))
    return 1 if totals["failed"] or not totals["passed"] else 0


sys.exit(main())
