"""``webui upscale``: enlarges pictures, without any model that draws."""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from webui.cli import BadInput
from webui.cli.flags import add_saving, add_settings, read_settings
from webui.cli.progress import print_json, print_progress
from webui.core.errors import RequestError
from webui.core.groups.upscale import DEFAULT_UPSCALER
from webui.core.images import MAX_PIXELS, PICTURE_ENDINGS, ImageError, open_image, opened
from webui.core.request import Request
from webui.jobs.protocols import Executor

FIELDS = ("upscaler", "scale", "width", "height")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is enlarged, with what, by how much, and where it is put."""
    add_settings(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or a folder of pictures")
    text = f"a network, or Lanczos, a filter (default: {DEFAULT_UPSCALER})"
    parser.add_argument("--upscaler", metavar="NAME", help=text)
    parser.add_argument("--scale", metavar="X", help="how many times as wide and high (default: 2)")
    parser.add_argument("--width", metavar="N", help="in px, instead of the scale; the height follows")
    parser.add_argument("--height", metavar="N", help="in px; with both, the picture is cut to their shape")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the pictures (default: data/outputs)")
    add_saving(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a progress bar")


def run(options: argparse.Namespace) -> int:
    """Enlarges one picture after the other, prints paths (or events with ``--json``).

    Raises BadInput before the first one, where any of them cannot be read.
    """
    from webui.app import make_executor

    logging.getLogger("webui").setLevel(logging.ERROR)  # warnings come with the events, and are printed from there
    settings = read_settings(options, out=options.out)
    fields = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    executor = make_executor(settings)
    try:
        paths = list(_paths(options.images))
        for path in paths:
            _check(path)
        status = 0
        for path in paths:
            status = max(status, _enlarge(executor, path, fields, options.json))
        return status
    except RequestError as error:
        if options.json:
            print(json.dumps({"event": "failed", "message": str(error)}))
        raise BadInput(str(error)) from None
    finally:
        executor.close()


def _paths(given: Iterable[Path]) -> Iterator[Path]:
    """Files as they are, and the pictures that lie in folders; raises RequestError for a folder without any."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_ENDINGS)
        if not inside:
            raise RequestError(f"there is no picture in the folder {str(path)!r}")
        yield from inside


def _check(path: Path) -> None:
    try:
        with opened(path, MAX_PIXELS):
            pass
    except ImageError as error:
        raise RequestError(f"{str(path)!r} {error}") from None


def _enlarge(executor: Executor, path: Path, fields: dict[str, Any], as_json: bool) -> int:
    """The exit status of one picture; raises RequestError."""
    try:
        init = {"image": open_image(path)}
    except ImageError as error:
        raise RequestError(f"{str(path)!r} {error}") from None
    try:
        job = executor.submit(Request.parse({"init": init, "upscale": fields | {"only": True}}))
    except RequestError as error:
        raise RequestError(f"{path}: {error}" if error.field.startswith("upscale") else str(error)) from None
    try:
        events = (event for _, event in job.follow())
        status = print_json(events, source=str(path)) if as_json else print_progress(events, doing="Enlarging")
    except KeyboardInterrupt:
        job.cancel()
        raise
    if any(picture.path is None for picture in job.images):
        print(f"webui: {path}: the result could not be saved", file=sys.stderr)
        return 1
    return status
