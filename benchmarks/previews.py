"""What previews cost: txt2img with previews as on the page, and without."""

from benchmarks.measure import Options, Row
from benchmarks.pictures import compare
from benchmarks.tasks import BASELINE, Task


def run(options: Options) -> list[Row]:
    """Both in float32, beside stock diffusers."""
    programs = ("darkroom fp32", "darkroom fp32, previews off", BASELINE)
    return compare(Task("previews", programs=programs), options)
