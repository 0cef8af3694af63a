"""What a job's events are on a terminal: a progress bar and paths, or one JSON object a line."""

import json
import sys
from collections.abc import Iterator

from tqdm import tqdm

from webui.core.events import Cancelled, Done, Event, Failed, Image, Loading, Step, to_json
from webui.core.ledger import shares

STAGES = {"upscale": "Enlarging", "hires": "Drawing again", "detail": "Drawing details"}


def print_json(events: Iterator[Event], **more: str) -> int:
    """Prints every event but the previews, pictures with ``more``; returns the exit status."""
    status = 1
    for event in events:
        body = to_json(event)
        body.pop("preview", None)
        body |= more if isinstance(event, Image) else {}
        print(json.dumps(body, ensure_ascii=False), flush=True)
        status = _exit_status(event)
        if isinstance(event, Failed):
            print(f"webui: {event.message}", file=sys.stderr)
    return status


def print_progress(events: Iterator[Event], doing: str = "Drawing") -> int:
    """Shows a bar on the standard error, prints where the pictures are; returns the exit status.

    ``doing`` is what steps are told under; those of a stage called upscale enlarge.
    """
    status, said = 1, set[str]()
    with tqdm(unit="step", disable=None, leave=False, file=sys.stderr) as bar:
        for event in events:
            match event:
                case Loading(what, _) if what.endswith("."):  # a sentence, which nobody should miss
                    said.add(what)
                    bar.clear()
                    print(f"webui: {what}", file=sys.stderr)
                case Loading(what, _):
                    bar.set_description(what)
                case Step(index, total, stage=stage):
                    bar.set_description(STAGES.get(stage[0], doing) if stage else doing)
                    bar.total = total
                    bar.update(index - bar.n)
                case Image(path=path) if path:
                    bar.clear()
                    print(path, flush=True)
                case Done(seconds, parts_s, warnings):
                    spent = ", ".join(f"{part} {spent_s:.2f} s" for part, spent_s in shares(parts_s))
                    lines = [f"webui: {text}" for text in warnings if text not in said] + [
                        f"Done in {seconds:.1f} s: {spent}"
                    ]
                    bar.clear()
                    print("\n".join(lines), file=sys.stderr)
                case Failed(message):
                    bar.clear()
                    print(f"webui: {message}", file=sys.stderr)
                case Cancelled():
                    bar.clear()
                    print("webui: stopped", file=sys.stderr)
            status = _exit_status(event)
    return status


def _exit_status(event: Event) -> int:
    if isinstance(event, Failed) and event.bad_input:
        return 2
    return 0 if isinstance(event, Done) else 1
