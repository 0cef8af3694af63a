"""``webui test``: lint, types and the test suite."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LINT = (("ruff", "check"), ("ruff", "format", "--check"))
COLLECT = ("pytest", "--collect-only", "-q")
MAX_WORKERS = 4  # each has servers and browsers of its own


def add_flags(parser: argparse.ArgumentParser) -> None:
    """None of its own: all are for pytest."""


def run(options: argparse.Namespace) -> int:
    """Lint, format, then types beside the suite, spread over the cores; with arguments, only pytest with these."""
    if options.remaining:
        return _start("pytest", *options.remaining).wait()
    for check in LINT:
        if status := _start(*check).wait():
            return status
    types = _start("mypy")  # on one core, where the suite has need of all of them only later
    # What pytest makes of each file's asserts is kept beside it: once, and not by each worker anew.
    _start(*COLLECT, stdout=subprocess.DEVNULL, env={"PYTHONDONTWRITEBYTECODE": ""}).wait()
    cores = os.cpu_count() or 1
    workers = min(cores + 1, MAX_WORKERS)  # a test of a page waits for it half of its time
    # A file's tests share what it sets up; tests/conftest.py puts the longest first.
    spread = ("-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder")
    status = _start("pytest", *spread, env={"OMP_NUM_THREADS": str(max(1, cores // workers))}).wait()
    if types.wait():
        print("mypy found errors, above", flush=True)
    return status or types.returncode


def _start(*command: str, env: Mapping[str, str] = {}, stdout: int | None = None) -> subprocess.Popen[bytes]:
    print(f"$ {' '.join(command)}", flush=True)
    return subprocess.Popen([sys.executable, "-m", *command], cwd=REPOSITORY, env={**os.environ, **env}, stdout=stdout)
