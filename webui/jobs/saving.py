"""Pictures become files, one after the other, while the device draws the next."""

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from webui.core.events import Image, SavedImage
from webui.core.settings import Settings
from webui.core.sheet import make_sheet
from webui.jobs.job import LocalJob
from webui.workspace.outputs import save_picture
from webui.workspace.preferences import PreferenceStore
from webui.workspace.workspace import Workspaces

log = logging.getLogger(__name__)

Claim = Callable[[LocalJob, Image, Path], None]


class Saver:
    """A thread of its own; what it is given is done in that order. ``claim`` is told each name that a picture gets."""

    def __init__(self, settings: Settings, workspaces: Workspaces, claim: Claim = lambda *_: None) -> None:
        self._workspaces, self._claim = workspaces, claim
        self._preferences = workspaces.preferences or PreferenceStore(settings)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")

    def save(self, job: LocalJob, picture: Image) -> None:
        """The picture is published with its path when it is saved, and with a warning where it cannot be."""
        self.afterwards(partial(self._save, job, picture))

    def afterwards(self, act: Callable[[], None]) -> None:
        """Calls ``act`` when all that came before is saved; never, if that is after ``close``."""
        with contextlib.suppress(RuntimeError):
            self._thread.submit(act)

    def close(self) -> None:
        """Waits for the last file."""
        self._thread.shutdown()

    def _save(self, job: LocalJob, picture: Image) -> None:
        workspace = self._workspaces.of(job.visitor)
        folder = workspace.output_dir("grid" if picture.is_sheet else job.request.task)
        chosen = self._preferences.now
        file_format = "png" if picture.is_sheet else chosen.format
        with_recipe = chosen.metadata or not job.visitor.is_owner
        try:
            workspace.start_pictures.keep(picture.recipe.request)
            claim = partial(self._claim, job, picture)
            how = (chosen.filename, claim, chosen.quality, with_recipe)
            path = save_picture(picture, folder, file_format, *how)
        except Exception as error:  # whatever it is, the picture must reach people
            reason = getattr(error, "strerror", None) or error
            log.warning("a picture could not be saved in %s: %s", folder, reason)
            where = f" in {folder}" if job.visitor.is_owner else ""
            job.publish(replace(picture, warning=f"This picture could not be saved{where}: {reason}."))
        else:
            light = job.grid and not picture.is_sheet and path.suffix == ".png"
            job.publish(_let_go(picture, path) if light else replace(picture, path=path))

    def save_sheet(self, job: LocalJob) -> tuple[str, ...]:
        """Puts together what was drawn of a grid, on the thread that saves; gives lines for people.

        Whatever goes wrong, the pictures are there.
        """
        if job.grid is None or job.has_left or not job.images or job.images[-1].is_sheet:
            return ()
        try:
            sheet, said = make_sheet(job.grid, job.images, job.grid.image_count)
        except Exception as error:
            log.exception("job %s: the sheet could not be made", job.id)
            return (f"The sheet could not be made: {error}. Its pictures are there.",)
        if job.keep:
            self._save(job, sheet)
        else:
            job.publish(sheet)
        return said


def _let_go(picture: Image, path: Path) -> SavedImage:
    """The same without its pixels, which are in the file."""
    return SavedImage(picture.index, picture.recipe, path, picture.pixels_sha256, picture.size)
