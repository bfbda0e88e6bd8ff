"""Raises and pages every graph of the folder KVRM_GRAPHS: raise_graphs.py COMMAND..."""

import os
import pathlib
import re
import subprocess
import sys

folder, command = pathlib.Path(os.environ["KVRM_GRAPHS"]), sys.argv[1:]
counts = {"raised": 0, "refused": 0, "wrong": 0}
for path in sorted(folder.glob("*.mlir")):
    run = subprocess.run(
        [
            *command,
            str(path),
            "--kvrm-import-graph",
            "--kvrm-raise-static-cache=narrow=f16",
            "--kvrm-page-cache",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    reason = re.search("remark: not raised: (.*)", run.stderr)
    outcome = "raised" if "kvrm.attend" in run.stdout else "refused"
    if run.returncode or (outcome == "raised" and "_neg_" in path.name):
        outcome = "wrong"
    counts[outcome] += 1
    print(path.stem, outcome, reason[1] if reason else "")
    if run.returncode:
        print(run.stderr)
print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
sys.exit(counts["wrong"] != 0)
