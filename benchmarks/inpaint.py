"""Inpainting: 20 steps at full strength, half of the picture masked."""

from benchmarks.measure import Options, Row
from benchmarks.pictures import compare
from benchmarks.tasks import Task


def run(options: Options) -> list[Row]:
    """Ours beside stock diffusers, and beside its peers with ``--peers``."""
    return compare(Task("inpaint", start=True, masked=True), options)
