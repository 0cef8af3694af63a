"""img2img: 15 steps at strength 0.7."""

from benchmarks.measure import Options, Row
from benchmarks.pictures import compare
from benchmarks.tasks import Task


def run(options: Options) -> list[Row]:
    """Ours beside stock diffusers, and beside its peers with ``--peers``."""
    return compare(Task("img2img", steps=15, strength=0.7, start=True), options)
