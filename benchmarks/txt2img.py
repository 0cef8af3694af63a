"""txt2img: 20 steps from a prompt alone."""

from benchmarks.measure import Options, Row
from benchmarks.pictures import compare
from benchmarks.tasks import Task


def run(options: Options) -> list[Row]:
    """Ours beside stock diffusers, and beside its peers with ``--peers``."""
    return compare(Task("txt2img"), options)
