"""Job events -> what the page shows: a status line, a live preview, a gallery."""

import asyncio
import base64
import hashlib
import html
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from webui.core.events import Cancelled, Done, Event, Failed, Image, Loading, LoraSwitch, Queued, Step
from webui.core.grid import Grid
from webui.core.ledger import shares
from webui.jobs.protocols import ENDED, Job, State, in_sight
from webui.workspace.served import served_dir

MIN_INTERVAL_S = 0.1  # between two updates of one page

COUNTS = re.compile(r"\d of \d")
PARTS = {
    "queue": "Waiting",
    "load": "Loading",
    "lora": "LoRAs",
    "encode": "Encoding",
    "prepare": "Preparing",
    "steps": "Steps",
    "previews": "Previews",
    "decode": "Decoding",
    "find": "Finding",
    "upscale": "Enlarging",
    "hash": "Hashing",
    "save": "Saving",
    "other": "Other",
}

STAGES = {"refiner": "Refiner", "hires": "Drawing again", "detail": "Detail", "upscale": "Enlarging"}
"""What is said of steps of a picture that has several stages, beside their number."""

GalleryItem = tuple[str, str]
Cell = tuple[int, int, str]
"""The number of a grid's picture, its place, and the path of its file."""
SENT_AGAIN = 20  # cells


@dataclass(frozen=True)
class View:
    """What one page shows of one job: HTML for status and preview, (path, caption) pairs for the gallery.

    None leaves what is shown; ``error`` is why the job failed.
    """

    status: str | None
    preview: str | None = None
    gallery: list[GalleryItem] | None = None
    infotext: str | None = None
    error: str = ""


async def watch(job: Job, cache_dir: Path) -> AsyncIterator[View]:
    """Views of the job until it ends, at most one every ``MIN_INTERVAL_S``; the last one is complete.

    The gallery of a job of several requests fills on the way, and of a grid the table of its cells.
    """
    if isinstance(job.work, Grid):
        async for view in _watch_grid(job, job.work, cache_dir):
            yield view
        return
    preview: str | None = None
    gallery: list[GalleryItem] = []
    async for _, event in job.follow_async():
        if isinstance(event, Step) and event.preview:
            preview = preview_html(event, job)
        if isinstance(event, Image):
            several = job.state not in ENDED and len(job.requests) > 1
            if several and (item := await asyncio.to_thread(gallery_item, job, event, cache_dir)):
                gallery.append(item)
                yield View(None, gallery=list(gallery))
            continue
        if isinstance(event, Done | Failed | Cancelled):
            yield await asyncio.to_thread(_last_view, job, event, preview, cache_dir)
            return
        yield View(status_html(event, job), preview)
        await asyncio.sleep(MIN_INTERVAL_S)


async def _watch_grid(job: Job, grid: Grid, cache_dir: Path) -> AsyncIterator[View]:
    """The same of a grid; a view has the cells that are new, some of those before, which the page may have missed, and
    the last one all."""
    cells: list[Cell] = []
    told, live, told_at = 0, "", 0.0
    async for _, event in job.follow_async():
        if isinstance(event, Image):
            if not event.is_sheet and (item := await asyncio.to_thread(gallery_item, job, event, cache_dir)):
                cells.append((event.index, grid.place_of(event.index), item[0]))
            if time.monotonic() - told_at < MIN_INTERVAL_S:  # of a job that is looked at late, many come at once
                continue
        if isinstance(event, Done | Failed | Cancelled):
            view = await asyncio.to_thread(_last_view, job, event, None, cache_dir)
            yield replace(view, preview=cells_html(job, grid, cells, ""))
            return
        preview = None
        if isinstance(event, Step) and event.preview:
            live = preview_html(event, job)
        if told < len(cells) or isinstance(event, Step) and event.preview:
            fresh = cells[max(told - SENT_AGAIN, 0) :] if told < len(cells) else ()
            told, told_at, preview = len(cells), time.monotonic(), cells_html(job, grid, fresh, live)
        yield View(None if isinstance(event, Image) else status_html(event, job), preview)
        if not isinstance(event, Image):
            await asyncio.sleep(MIN_INTERVAL_S)


def cells_html(job: Job, grid: Grid, cells: Sequence[Cell], live: str) -> str:
    """What ``static/grid.js`` makes its table of, around the newest preview."""
    if not cells:
        return f'<div class="grid-cells">{live}</div>'
    labels = [[axis.label(k) for k in range(len(axis.values))] if axis else [] for axis in grid.axes]
    told = json.dumps({"job": job.id, "labels": labels, "cells": cells})
    return f'<div class="grid-cells" data-cells="{html.escape(told)}">{live}</div>'


def yes_html(question: str) -> str:
    """Asks before very many pictures are drawn."""
    text = html.escape(f"{question[:1].upper()}{question[1:]}.")
    return (
        f'<div class="status" data-state="idle" data-job=""><span class="status-text">{text}</span>'
        '<button type="button" class="again" data-yes>Yes, draw them</button></div>'
    )


def _last_view(job: Job, event: Done | Failed | Cancelled, preview: str | None, cache_dir: Path) -> View:
    images = in_sight(job)
    gallery = [item for picture in images if (item := gallery_item(job, picture, cache_dir))]
    if len(gallery) < len(images):  # no disk takes them: show them from memory
        preview = "".join(_inline_html(picture) for picture in images)
    elif isinstance(event, Done):
        preview = ""
    return View(
        status_html(event, job),
        preview,
        gallery if isinstance(event, Done) or gallery else None,
        images[0].recipe.infotext() if images else None,
        event.message if isinstance(event, Failed) else "",
    )


def status_html(event: Event | None, job: Job | None, text: str = "") -> str:
    """The one element with ``data-state`` and ``data-job``, and after a job its ledger; every text is escaped."""
    state: State | str = "idle"
    fraction: float | None = None
    ledger, marks = "", ""
    match event:
        case Queued(position):
            ahead = position - 1
            state, text = "queued", f"Waiting: {ahead} ahead" if ahead else "Queued: next in line"
        case Loading(what, part):
            is_whole = COUNTS.search(what) or what.endswith(".")
            state, fraction, text = "loading", part or None, what if is_whole else f"{what} ..."
        case Step(stage=stage):
            at = STAGES.get(stage[0], "") if stage else ""
            state, fraction, text = "running", event.done, _step_text(event, at)
        case Done(seconds, parts_s, warnings, loras):
            ledger = ledger_html(parts_s)
            marks = _result_marks(job.images) if job else ""
            switched = [_switch_text(loras)] if loras else []
            state, text = "done", " ".join([f"Done in {seconds:.1f} s.", *switched, *warnings])
        case Failed(message):
            ledger, marks = ledger_html(event.parts_s), _refusal_marks(event)
            state, text = "failed", message
        case Cancelled(index, total):
            ledger = ledger_html(event.parts_s)
            state, text = "cancelled", f"Stopped at step {index} of {total}." if index else "Stopped."
    again = ""
    if job and isinstance(event, Failed) and not event.bad_input:
        again = f'<button type="button" class="again" data-again="{html.escape(job.id)}">Try again</button>'
    bar = f'<progress max="1" value="{fraction:.4f}" aria-label="Progress"></progress>' if fraction is not None else ""
    job_id = job.id if job else ""
    return (
        f'<div class="status" data-state="{state}" data-job="{html.escape(job_id)}"{marks}>'
        f'<span class="status-text">{html.escape(text)}</span>{bar}{again}</div>{ledger}'
    )


def _refusal_marks(event: Failed) -> str:
    """By these the page finds the field that was refused, and what mends it; each is one of its own, so that it is
    found again where the same is refused twice."""
    if not event.place:
        return ""
    told: dict[str, str | int | float] = {"refused": event.place, "refusal": secrets.token_hex(4)}
    if event.mend:
        value = event.mend.value
        told |= {"how": event.mend.how, "value": f"{value:.12g}" if isinstance(value, float) else value}
        told |= {"instead": event.mend.instead_of} if event.mend.instead_of else {}
    return "".join(f' data-{name}="{html.escape(str(value))}"' for name, value in told.items())


def _result_marks(images: Sequence[Image]) -> str:
    """By these the page knows that a result is the same as the last."""
    pixels = " ".join(picture.pixels_sha256 for picture in images)
    settings = "\n".join(picture.recipe.infotext() for picture in images)
    digests = {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in (("pixels", pixels), ("settings", settings))
    }
    return "".join(f' data-{name}="{digest}"' for name, digest in digests.items())


def ledger_html(parts_s: Mapping[str, float]) -> str:
    """Where the seconds went, largest first: a bar that opens into a list; nothing where they are not known."""
    found = shares(parts_s)
    whole_s = sum(spent_s for _, spent_s in found)
    bar, rows, heard = "", "", []
    for part, spent_s in found:
        name, share = PARTS.get(part, part), spent_s / whole_s
        mark = f'data-part="{html.escape(part)}"'
        bar += f'<span {mark} style="flex-grow:{share:.4f}"></span>'
        rows += f"<li {mark}>{html.escape(name)} <b>{_brief(spent_s)}</b> <small>{share:.0%}</small></li>"
        heard.append(f"{name} {share:.0%}")
    label = html.escape(" · ".join(heard))
    return (
        '<details class="ledger"><summary><span>Where the time went</span>'
        f'<span class="ledger-bar" role="img" aria-label="{label}" title="{label}">{bar}</span></summary>'
        f"<ul>{rows}</ul></details>"
        if found
        else ""
    )


def _brief(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else _duration(seconds)


def _switch_text(switch: LoraSwitch) -> str:
    """What is applied and what it cost: "LoRA blueprint:0.8, merged in 12 ms."."""
    names = ", ".join(switch.applied)
    how = {
        "unchanged": "in place already",
        "cached": f"switched in {switch.seconds * 1e3:.1f} ms",
        "merged": f"merged in {switch.seconds * 1e3:.0f} ms",
    }
    return f"LoRA{'s' if len(switch.applied) > 1 else ''} {names}: {how[switch.how]}."


def _step_text(step: Step, at: str = "") -> str:
    rate = step.index / step.seconds if step.seconds > 0 else 0.0
    speed = f"{rate:.1f} it/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s/it"
    parts = (f"Step {step.index} of {step.total}", at, speed, f"{_duration(step.left_s)} left")
    return " · ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def preview_html(step: Step, job: Job) -> str:
    """The newest preview as an image that fills the picture's place."""
    data = base64.b64encode(step.preview or b"").decode("ascii")
    return (
        f'<div class="preview-live"><img alt="Preview after step {step.index} of {step.total}" '
        f'src="data:image/jpeg;base64,{data}"></div>'
    )


def _inline_html(picture: Image) -> str:
    data = base64.b64encode(picture.encode()).decode("ascii")
    image = f'<img alt="Picture with seed {picture.seed}" src="data:image/png;base64,{data}">'
    return f'<div class="preview-live">{image}</div>'


def gallery_item(job: Job, picture: Image, cache_dir: Path) -> GalleryItem | None:
    """The PNG under a path that holds the job's secret id, a link to the saved file where the disk allows it."""
    name = picture.path.name if picture.path else f"{picture.index:05d}-{picture.seed}.png"
    served = served_dir(cache_dir, job.visitor) / job.id / name
    try:
        served.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not served.exists():
            _link_or_write(picture, served)
    except OSError:
        return None
    if picture.is_sheet:
        return str(served), "Sheet of all"
    if picture.recipe.request.only_enlarges:  # no seed has a part in it
        return str(served), "{} × {} px".format(*picture.image.size)
    varied = picture.recipe.request.varied
    return str(served), f"Seed {picture.seed}" + (f", variation seed {varied.seed}" if varied else "")


def _link_or_write(picture: Image, served: Path) -> None:
    if picture.path:
        try:
            os.link(picture.path, served)
            return
        except OSError:  # another file system, or the picture was moved away
            pass
    temporary = served.with_suffix(f".{time.monotonic_ns()}.tmp")
    temporary.write_bytes(picture.encode())
    os.replace(temporary, served)
