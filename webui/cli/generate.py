"""``webui generate``: makes pictures from the command line."""

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from webui.cli import BadInput
from webui.cli.flags import add_saving, add_settings, add_workers, read_settings
from webui.cli.progress import print_json, print_progress
from webui.cli.request_flags import add_request, read_request
from webui.core.errors import RequestError
from webui.core.images import pixels_sha256
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.visitor import OWNER
from webui.core.work import Work, to_text
from webui.process import importing, load_torch_ahead
from webui.workspace.preset import compare_pins


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is drawn and with what, and where it is put."""
    add_settings(parser)
    add_workers(parser)
    add_request(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the pictures (default: data/outputs)")
    add_saving(parser)
    text = "continue the same command after an interruption, and let this one be continued: finished pictures are kept"
    parser.add_argument("--resume", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a progress bar")


def run(options: argparse.Namespace) -> int:
    """Draws, saves, prints paths (or events with ``--json``); raises BadInput."""
    return draw(options, lambda request, _: request)


def draw(options: argparse.Namespace, work_of: Callable[[Request, Path], Work]) -> int:
    """The same for what ``work_of`` makes of the request that the flags say, and the folder of presets."""
    load_torch_ahead()
    with importing():
        from webui.app import make_executor

    logging.getLogger("webui").setLevel(logging.ERROR)  # warnings come with the events, and are printed from there
    settings = read_settings(options, out=options.out)
    executor = kept_in = None
    try:
        request, preset = read_request(options, settings.presets_dir)
        work = work_of(request, settings.presets_dir)
        kept_in = unfinished_path(settings, work) if options.resume else None
        executor = make_executor(settings, kept_in)
        job = next(iter(executor.under_way(OWNER)), None) if kept_in else None
        if job:
            print(f"webui: continuing, {len(job.images)} pictures are finished", file=sys.stderr)
        job = job or executor.submit(work)
        if kept_in and (warning := executor.status().get("warning")):
            print(f"webui: {warning}", file=sys.stderr)
    except RequestError as error:
        if executor:
            executor.close()
        if options.json:
            print(json.dumps({"event": "failed", "message": str(error)}))
        raise BadInput(str(error)) from None
    if preset:
        catalog = executor.catalog()
        for line in preset.notices + compare_pins(preset.pins, job.request, catalog.models, catalog.loras):
            print(f"webui: preset {preset.name!r}: {line}", file=sys.stderr)
    try:
        events = (event for _, event in job.follow())
        status = print_json(events) if options.json else print_progress(events)
        if kept_in and job.state == "done":
            executor.close()
            kept_in.unlink(missing_ok=True)
        return status or int(any(picture.path is None for picture in job.images))  # the files are the work here
    except KeyboardInterrupt:
        if not kept_in:
            job.cancel()
        executor.close()  # which waits for the last file
        if not options.json and job.images and job.images[-1].is_sheet:
            print(job.images[-1].path, flush=True)
        raise
    finally:
        executor.close()


def unfinished_path(settings: Settings, work: Work) -> Path:
    """Where the job of a command with ``--resume`` is kept until it is done: the same for the same command."""
    asked = [to_text(work, pixels_sha256), str(settings.out), settings.filename, settings.format]
    return settings.data_dir / "unfinished" / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]}.sqlite3"
