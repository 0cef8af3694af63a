"""``webui bench``: measures this product on this machine."""

import argparse
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """None of its own: all are for the program that it starts."""


def run(options: argparse.Namespace) -> int:
    """Hands over to the programs in ``benchmarks/``, which are not part of the installed package."""
    return subprocess.call([sys.executable, "-m", "benchmarks", *options.remaining], cwd=REPOSITORY)
