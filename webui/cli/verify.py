"""``webui verify``: makes pictures again from their own recipes, and says whether they are the same."""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image as PilImage

from webui.cli import BadInput
from webui.cli.flags import add_settings, add_workers, read_settings
from webui.core.errors import RequestError
from webui.core.events import Failed, Image
from webui.core.images import MAX_RESULT_PIXELS, ImageError, open_image
from webui.core.recipe import Recipe, RecipeError, read_picture
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.sheet_verdict import draw_again
from webui.core.verdict import Verdict, judge_hash
from webui.core.work import Work
from webui.jobs.protocols import Executor, Job, QueueFull
from webui.workspace.preset import Preset, compare_pins
from webui.workspace.presets import PresetStore
from webui.workspace.start_pictures import StartPictures

MOST_AHEAD = 16
"""Pictures that are drawn or wait at a time, where nobody knows how many workers there are."""
PRESET_ENVIRONMENT = {"device": "cpu", "dtype": "float32"}  # what a preset's expected hash was made with


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is verified, and with what."""
    add_settings(parser)
    add_workers(parser)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="a picture with its recipe inside")
    text = "check a preset's pinned files and the picture it is expected to give; can be repeated"
    parser.add_argument("--preset", action="append", default=[], dest="presets", metavar="NAME", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Prints a verdict a line; returns 0, 1 where something differs, 2 where something cannot be verified.

    Raises BadInput where there is nothing to verify.
    """
    if not options.images and not options.presets:
        raise BadInput("verify needs an IMAGE, or --preset NAME")
    logging.getLogger("webui").setLevel(logging.ERROR)
    settings = read_settings(options)
    verifier = Verifier(settings)
    checks: list[tuple[str, Callable[[], Pending]]] = [
        *((str(path), partial(verifier.begin_picture, path)) for path in options.images),
        *((name, partial(verifier.begin_preset, name)) for name in options.presets),
    ]
    workers = len(settings.devices) or settings.workers
    ahead = MOST_AHEAD if settings.ray else 2 * workers if workers > 1 else 1
    status, begun = 0, deque[tuple[str, Pending]]()
    try:
        for name, check in checks:
            begun.append((name, _begin(check)))
            if len(begun) >= ahead:
                status = max(status, _settle(*begun.popleft(), options.json))
        for name, pending in begun:
            status = max(status, _settle(name, pending, options.json))
    finally:
        verifier.close()
    return status


def _begin(check: "Callable[[], Pending]") -> "Pending":
    try:
        return check()
    except CannotVerify as error:
        told = error  # in its turn

        def fail() -> Line:
            raise told

        return fail


def _settle(name: str, pending: "Pending", as_json: bool) -> int:
    """Says what came of it; its exit status."""
    try:
        line = pending()
    except CannotVerify as error:
        if as_json:
            print(json.dumps({"name": name, "outcome": "failed", "message": str(error)}), flush=True)
        print(f"webui: {error}", file=sys.stderr)
        return 2
    _print(line, as_json)
    return int(line.verdict.outcome == "different")


class CannotVerify(Exception):
    """Nothing was compared; the message says why."""


@dataclass(frozen=True)
class Line:
    """What is said of one picture or preset."""

    name: str
    verdict: Verdict
    comparison: Path | None = None


Pending = Callable[[], Line]
"""Waits for what was begun; raises CannotVerify."""


class Verifier:
    """Draws again, several at a time where there are workers for it. An executor serves as long as pictures ask for the
    same device and number format."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executor: Executor | None = None
        self._made_for: Settings | None = None
        self._jobs: list[Job] = []

    def picture(self, path: Path) -> Line:
        """The verdict on a picture file; raises CannotVerify."""
        return self.begin_picture(path)()

    def begin_picture(self, path: Path) -> Pending:
        """The same, begun; raises CannotVerify."""
        try:
            recipe = read_picture(path)
            if recipe is None:
                raise RecipeError("has no recipe of Darkroom inside")
            picture = open_image(path, MAX_RESULT_PIXELS)
            executor = self._executor_like(recipe)
            again = draw_again(recipe, executor.catalog(), StartPictures(self._settings.start_dir).find)
        except (ImageError, RecipeError) as error:
            raise CannotVerify(f"{path}: {error}") from None
        drawn = self._draw(str(path), executor, again.work)

        def finish() -> Line:
            verdict, comparison = again.judge(picture, drawn()), None
            if verdict.outcome == "different" and verdict.comparison:
                comparison = _save(verdict.comparison, self._settings.output_dir("verify"), path.stem)
            return Line(str(path), verdict, comparison)

        return finish

    def begin_preset(self, name: str) -> Pending:
        """The verdict on a preset's pins and the picture that it is expected to give; raises CannotVerify."""
        try:
            file = PresetStore(self._settings.presets_dir).choose(name)
            preset: Any = file.preset
            executor = self._executor_for(PRESET_ENVIRONMENT)
            job_request = self._preset_request(preset)
        except RequestError as error:
            raise CannotVerify(f"preset {name!r}: {error}") from None
        catalog = executor.catalog()
        changed = compare_pins(preset.pins, job_request, catalog.models, catalog.loras)
        if preset.expected is None:
            known = Line(f"preset {file.name}", Verdict("different" if changed else "unknown", reasons=changed))
            return lambda: known
        drawn, shown = self._draw(f"preset {file.name}", executor, job_request), file.path.with_suffix(".png")

        def finish() -> Line:
            kept = open_image(shown) if shown.is_file() else None
            return Line(f"preset {file.name}", judge_hash(preset.expected, kept, drawn()[0], changed))

        return finish

    def close(self) -> None:
        """Frees the device."""
        if self._executor:
            self._executor.close()

    def _preset_request(self, preset: Preset) -> Request:
        request = preset.request()
        seeds = {"seed": request.seed} | ({"variation seed": request.varied.seed} if request.varied else {})
        missing = [name for name, seed in seeds.items() if seed < 0]
        if missing and preset.expected:
            raise RequestError(f"it expects a picture but has no {missing[0]}")
        return request

    def _executor_like(self, recipe: Recipe) -> Executor:
        """In the number format of the picture, and on the CPU if it was made there, unless asked otherwise."""
        environment = {"dtype": recipe.environment.get("dtype")}
        if str(recipe.environment.get("device")).startswith("cpu"):
            environment["device"] = "cpu"
        return self._executor_for(environment)

    def _executor_for(self, environment: dict[str, Any]) -> Executor:
        """One with these settings where none were asked for."""
        known = {"dtype": ("float32", "bfloat16", "float16"), "device": ("cpu",)}
        wanted = {
            name: value
            for name, value in environment.items()
            if value in known[name] and getattr(self._settings, name) == "auto"
        }
        settings = self._settings.model_copy(update=wanted)
        if self._executor is None or settings != self._made_for:
            from webui.app import make_executor

            for job in self._jobs:  # of the executor that ends now
                for _ in job.follow():
                    pass
            self._jobs.clear()
            self.close()
            self._executor, self._made_for = make_executor(settings), settings
        return self._executor

    def _draw(self, name: str, executor: Executor, work: Work) -> Callable[[], Sequence[Image]]:
        try:
            job = executor.submit(work, keep=False)
        except (RequestError, QueueFull) as error:
            raise CannotVerify(f"{name}: {error}") from None
        self._jobs.append(job)

        def wait() -> Sequence[Image]:
            for _, event in job.follow():
                if isinstance(event, Failed):
                    raise CannotVerify(f"{name}: {event.message}")
            self._jobs = [other for other in self._jobs if other is not job]
            return job.images

        return wait


def _print(line: Line, as_json: bool) -> None:
    verdict, comparison = line.verdict, str(line.comparison) if line.comparison else None
    if as_json:
        body = {
            "name": line.name,
            "outcome": verdict.outcome,
            "max_difference": verdict.max_difference,
            "tolerance": verdict.tolerance,
            "reasons": list(verdict.reasons),
            "comparison": comparison,
        }
        print(json.dumps(body, ensure_ascii=False), flush=True)
        return
    print(f"{line.name}: {verdict}{f'; see {comparison}' if comparison else ''}", flush=True)


def _save(comparison: PilImage, folder: Path, stem: str) -> Path | None:
    """Side by side, in a file of its own; a disk that takes none is told, the verdict stands."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{stem[:80]}-difference-", suffix=".png", dir=folder)
        with os.fdopen(handle, "wb") as file:
            comparison.save(file, "PNG")
    except OSError as error:
        print(f"webui: the comparison could not be saved in {folder}: {error.strerror}", file=sys.stderr)
        return None
    return Path(name)
