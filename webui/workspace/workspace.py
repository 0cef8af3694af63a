"""What belongs to one visitor, in a folder of their own: finished pictures, start pictures, presets, history.

The owner's is the data folder itself, a guest's ``visitors/<id>`` in it. A guest's is dropped after a week unused.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

from cachetools import LRUCache

from webui.core.visitor import Visitor, asking
from webui.workspace.history import History
from webui.workspace.preferences import PreferenceStore
from webui.workspace.presets import PresetStore
from webui.workspace.served import served_dir
from webui.workspace.start_pictures import StartPictures
from webui.workspace.thumbnails import Thumbnails

UNUSED_S = 7 * 24 * 3600.0
MARK_S = 3600.0  # so seldom it is written down that a workspace is used
MEASURE_S = 30.0
OPEN = 1000  # workspaces that are kept ready
MARK = "last-used"


class Workspace:
    """The folder ``root``, made when something is kept. ``out`` takes all pictures instead of ``root/outputs``.

    A guest's presets are their own and those of ``host``; in one that is not ``writable`` none can be kept.
    """

    def __init__(
        self, root: Path, out: Path | None = None, host: PresetStore | None = None, writable: bool = True
    ) -> None:
        self.root, self._out = root, out
        self.presets = PresetStore(root / "presets", host, writable)
        self.start_pictures = StartPictures(root / "start-pictures")
        self.history = History(root / "outputs", root / "cache")
        self.thumbnails = Thumbnails(root / "cache" / "thumbnails")
        self.tidied = threading.Lock()
        """Held once thumbnails of pictures that are gone were removed."""

    def output_dir(self, task: str) -> Path:
        """Where the task's finished pictures go today."""
        return self._out or self.root / "outputs" / task / date.today().isoformat()

    def files(self) -> Iterator[tuple[Path, str]]:
        """All that its visitor has made, with names to hand it out under: pictures, start pictures, presets."""
        for top in ("outputs", "start-pictures", "presets"):
            for folder, below, names in os.walk(self.root / top):
                below[:] = [name for name in below if name != ".trash"]
                for name in sorted(names):
                    path = Path(folder, name)
                    yield path, path.relative_to(self.root).as_posix()


class Workspaces:
    """Those of all visitors, and the owner's ``preferences`` of a server.

    ``guest_presets`` are the names of the host's presets that guests see; None for all. ``served`` is the folder of
    uploads and of what pages show; ``clock`` gives the seconds of the time of day.
    """

    def __init__(
        self,
        data_dir: Path,
        out: Path | None = None,
        guest_presets: Iterable[str] | None = None,
        served: Path | None = None,
        clock: Callable[[], float] = time.time,
        preferences: PreferenceStore | None = None,
    ) -> None:
        self.preferences = preferences
        self._folder, self._served, self._clock = data_dir / "visitors", served, clock
        self._owners = Workspace(data_dir, out)
        self._shown = self._owners.presets.only(guest_presets)
        self._open: LRUCache[str, Workspace] = LRUCache(OPEN)
        self._lock, self._measuring = threading.Lock(), threading.Lock()
        self._sizes: Mapping[str, int] = {}
        self._measured_s = -MEASURE_S

    def of(self, visitor: Visitor) -> Workspace:
        """The visitor's; asking for it uses it."""
        if visitor.is_owner:
            return self._owners
        with self._lock:
            found = None if visitor.is_new else self._open.get(visitor.id)
            if found is None:
                found = Workspace(self._folder / visitor.id, host=self._shown, writable=not visitor.is_new)
                if not visitor.is_new:
                    self._open[visitor.id] = found
        self._note_use(found.root)
        return found

    def here(self) -> Workspace:
        """That of the visitor who asks."""
        return self.of(asking())

    def delete(self, visitor_id: str) -> None:
        """Drops a guest's workspace with all that is in it, what they uploaded and what is shown to them."""
        with self._lock:
            self._open.pop(visitor_id, None)
        guest = Visitor(visitor_id)
        shutil.rmtree(self._folder / guest.id, ignore_errors=True)
        if self._served:
            shutil.rmtree(served_dir(self._served, guest), ignore_errors=True)

    def sizes(self) -> Mapping[str, int]:
        """The bytes that each guest keeps, by their ids, as they were half a minute ago at most."""
        with self._measuring:
            now_s = time.monotonic()
            if now_s - self._measured_s >= MEASURE_S:
                self._sizes = {root.name: _bytes_below(root) for root in self._roots()}
                self._measured_s = now_s
            return self._sizes

    def drop_unused(self) -> list[str]:
        """Deletes those of guests that were not used for a week, and returns whose they were."""
        unused = [path.name for path in self._roots() if self._clock() - self._used_at(path) >= UNUSED_S]
        for visitor_id in unused:
            self.delete(visitor_id)
        return unused

    def _roots(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from [path for path in self._folder.iterdir() if path.is_dir()]

    def _used_at(self, root: Path) -> float:
        with suppress(OSError):
            return (root / MARK).stat().st_mtime
        self._note_use(root)  # one that was just made: its time begins now
        return self._clock()

    def _note_use(self, root: Path) -> None:
        now_s = self._clock()
        with suppress(OSError):  # it is not there yet, or its disk takes nothing
            mark = root / MARK
            if root.is_dir() and not (mark.exists() and 0 <= now_s - mark.stat().st_mtime < MARK_S):
                mark.touch()
                os.utime(mark, (now_s, now_s))


def _bytes_below(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):  # it went meanwhile
                total += os.stat(os.path.join(folder, name), follow_symlinks=False).st_size
    return total
