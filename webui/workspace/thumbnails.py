"""Small versions of finished pictures, made once each."""

import hashlib
import io
import logging
from collections.abc import Iterable
from pathlib import Path

from webui.core import images
from webui.core.disk import replace_file

log = logging.getLogger(__name__)
SIDE_PX = 320
MEDIA_TYPE = "image/webp"


class Thumbnails:
    """A folder of WebP files, named by a hash of the picture's path, time and size: another picture has another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, picture: Path, mtime_ns: int, size_bytes: int) -> bytes:
        """At most ``SIDE_PX`` a side; raises ImageError. A folder that cannot be written to only costs time."""
        path = self._path(picture, mtime_ns, size_bytes)
        try:
            return path.read_bytes()
        except OSError:
            data = _make(picture)
        try:
            replace_file(path, data)
        except OSError as error:
            log.warning("a thumbnail could not be kept: %s", error)
        return data

    def forget(self, picture: Path, mtime_ns: int, size_bytes: int) -> None:
        """Removes it where it is; does nothing where it cannot."""
        try:
            self._path(picture, mtime_ns, size_bytes).unlink(missing_ok=True)
        except OSError as error:
            log.warning("a thumbnail could not be removed: %s", error)

    def prune(self, kept: Iterable[tuple[Path, int, int]]) -> None:
        """Removes those of all other pictures; ``kept`` are path, time in ns and bytes, as ``get`` is given them."""
        names = {self._path(*identity).name for identity in kept}
        try:
            for path in self._folder.glob("*.webp"):
                if path.name not in names:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("old thumbnails could not be removed: %s", error)

    def _path(self, *identity: object) -> Path:
        return self._folder / f"{hashlib.sha256(repr(identity).encode()).hexdigest()[:40]}.webp"


def _make(picture: Path) -> bytes:
    with images.opened(picture) as image:
        image.draft("RGB", (SIDE_PX, SIDE_PX))  # a JPEG is decoded at a smaller size
        small = images.shrink(images.to_rgb(image), min(SIDE_PX, max(image.size)))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
