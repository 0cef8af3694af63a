"""``webui test``: lint, types and the test suite."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
)
MAX_WORKERS = 4  # each has servers and browsers of its own


def add_flags(parser: argparse.ArgumentParser) -> None:
    """None of its own: all are for pytest."""


def run(options: argparse.Namespace) -> int:
    """Lint, format, types, then the suite, spread over the cores; with arguments, only pytest with these."""
    for check in () if options.remaining else CHECKS:
        print(f"$ {' '.join(check)}", flush=True)
        if status := subprocess.call([sys.executable, "-m", *check], cwd=REPOSITORY):
            return status
    command, more = [sys.executable, "-m", "pytest", *options.remaining], {}
    if not options.remaining:
        cores = os.cpu_count() or 1
        workers = min(cores + 1, MAX_WORKERS)  # a test of a page waits for it half of its time
        # A file's tests share what it sets up; in the files' own order the browser's, which take longest, come early.
        command += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"]
        more = {"OMP_NUM_THREADS": str(max(1, cores // workers))}
    return subprocess.call(command, cwd=REPOSITORY, env=os.environ | more)
