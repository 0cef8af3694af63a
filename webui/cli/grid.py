"""``webui grid``: each combination of the values of up to three axes, and one labelled sheet of all."""

import argparse
from pathlib import Path

from webui.cli import BadInput, generate
from webui.core.axes import read_axis, split
from webui.core.errors import RequestError
from webui.core.grid import FREE_PICTURES, PLACES, Grid, make_grid
from webui.core.request import Request
from webui.jobs.protocols import NeedsYes
from webui.workspace.presets import PresetStore

HELP = {
    "x": "what goes across, and its values: steps=10,20 or guidance=3-9 (+2) or sampler=Euler,DDIM or"
    " lora:NAME=0,0.5,1 or prompt:WORD=one,other or preset=A,B or hires.strength=0.3-0.7 [3]",
    "y": "the same for what goes down",
    "z": "the same for several such tables",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The axes, and all that ``generate`` takes."""
    for place in PLACES:
        parser.add_argument(f"--{place}", metavar="FIELD=VALUES", help=HELP[place])
    parser.add_argument("--yes", action="store_true", help=f"allow more than {FREE_PICTURES} pictures")
    generate.add_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Draws, saves, prints paths, the sheet's last (or events with ``--json``); raises BadInput."""

    def work_of(request: Request, presets_dir: Path) -> Grid:
        axes = {}
        for place in PLACES:
            if (text := getattr(options, place)) is not None:
                try:
                    field, values = split(text)
                except RequestError as error:
                    raise RequestError(f"--{place} {error}") from None
                axes[place] = read_axis(place, field, values)
        return make_grid(request, axes, PresetStore(presets_dir).over, options.yes)

    try:
        return generate.draw(options, work_of)
    except NeedsYes as error:
        raise BadInput(f"{error}: add --yes") from None
