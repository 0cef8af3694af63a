"""Start pictures, masks and pictures of controls, kept once each under the hash of their pixels, so that a recipe can
be drawn again."""

import io
import re
from contextlib import suppress
from pathlib import Path

from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.disk import replace_file
from webui.core.recipe import start_pictures, without_palette
from webui.core.request import Request

HELD_BYTES = 128 * 2**20


class StartPictures:
    """A folder of PNG files named by their content. What was only handed in is held in one within, as long as it is
    among the newest, up to ``held_bytes``: a page hands in each line of a drawing."""

    def __init__(self, folder: Path, held_bytes: int = HELD_BYTES) -> None:
        self._folder, self._held_bytes = folder, held_bytes
        self._held = folder / "handed-in"

    def keep(self, request: Request) -> None:
        """Writes what is not there yet of a request's pictures, each file whole or not at all; raises OSError."""
        started = start_pictures(request.init).values() if request.init else ()
        for picture in (*started, *request.pictures.values()):
            self.put(picture)

    def put(self, picture: PilImage) -> str:
        """Writes the picture where it is not there yet, and returns the hash it is found by; raises OSError."""
        return _write(self._folder, picture)

    def hold(self, picture: PilImage) -> str:
        """The same for one that nothing is drawn from yet."""
        sha256 = _write(self._held, picture)
        with suppress(OSError):  # another call removes the same
            (self._held / f"{sha256}.png").touch()
            kept_bytes = 0
            for path in sorted(self._held.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True):
                kept_bytes += path.stat().st_size
                if kept_bytes > self._held_bytes and path.stem != sha256:
                    path.unlink()
        return sha256

    def find(self, sha256: str) -> PilImage | None:
        """The picture of this hash; None where it is not here or is another one by now."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        for folder in (self._folder, self._held):
            with suppress(images.ImageError):
                picture = images.open_image(folder / f"{sha256}.png")
                if images.pixels_sha256(picture) == sha256:
                    return picture
        return None


def _write(folder: Path, picture: PilImage) -> str:
    picture = without_palette(picture)
    sha256 = images.pixels_sha256(picture)
    path = folder / f"{sha256}.png"
    if not path.exists():
        data = io.BytesIO()
        picture.save(data, "PNG", compress_level=1)
        replace_file(path, data.getvalue())
    return sha256
