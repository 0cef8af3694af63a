"""``webui info``: says what pictures, or settings as text, tell of how they were made."""

import argparse
import json
import logging
import sys
from pathlib import Path

from webui.cli.flags import add_settings, read_settings
from webui.core.images import ImageError
from webui.interop.picture_info import PictureInfo, as_text, read_info, read_text

STANDARD_INPUT = Path("-")
MAX_TEXT_BYTES = 10 * 2**20


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is read, and with what."""
    add_settings(parser)
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a picture from Darkroom or another program; - reads text"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Prints the settings inside each picture, and what of them could not be mapped.

    ``-`` stands for settings as text on the standard input. Returns 0, 1 where one has no settings, 2 where one cannot
    be read.
    """
    from webui.app import make_executor

    logging.getLogger("webui").setLevel(logging.ERROR)
    executor = make_executor(read_settings(options))
    status = 0
    try:
        catalog = executor.catalog()
        for path in options.images:
            try:
                info = read_text(_read_input(), catalog) if path == STANDARD_INPUT else read_info(path, catalog)
            except ImageError as error:
                if options.json:
                    print(json.dumps({"name": str(path), "error": str(error)}), flush=True)
                print(f"webui: {path}: {error}", file=sys.stderr)
                status = 2
                continue
            text = json.dumps({"name": str(path)} | info.to_json()) if options.json else _to_text(path, info)
            print(text, flush=True)
            status = max(status, int(not info.values))
    finally:
        executor.close()
    return status


def _read_input() -> str:
    return sys.stdin.buffer.read(MAX_TEXT_BYTES).decode("utf-8", "replace")


def _to_text(path: Path, info: PictureInfo) -> str:
    settings = [f"  {name}: {as_text(value)}" for name, value in info.values.items()]
    notes = [f"  not used: {line}" for line in info.unmapped]
    return "\n".join([f"{path}: {info.program or 'no settings'}", *settings, *notes])
