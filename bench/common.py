"""What the benchmarks share: running the tools, medians, the machine."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile


def run(*command):
    """Runs a command and returns what it printed; any failure ends the run."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {result.stderr.strip()}")
    return result.stdout


def progress(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def work_folder(path):
    """The folder at `path`, which is kept, or a temporary one without a path."""
    if path:
        os.makedirs(path, exist_ok=True)
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="kvrm-bench-") as work:
            yield work


def kvrm_bench(build, package, contexts, steps, *flags):
    """Result rows of `kvrm-run bench`, and what it says of the package."""
    out = run(
        os.path.join(build, "bin/kvrm-run"), "bench", package, "--json",
        "--contexts", ",".join(map(str, contexts)), "--steps", steps, *flags,
    )  # fmt: skip
    return json.loads(out)


def summary(values):
    """Median and range of what the rounds measured."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
    }


def machine():
    """CPU and load, without which a figure means little."""
    cpu = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }
