"""Start pictures, masks and pictures of controls, kept once each under the hash of their pixels, so that a recipe can
be drawn again."""

import io
import re
from pathlib import Path

from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.disk import replace_file
from webui.core.recipe import start_pictures, without_palette
from webui.core.request import Request


class StartPictures:
    """A folder of PNG files named by their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, request: Request) -> None:
        """Writes what is not there yet of a request's pictures, each file whole or not at all; raises OSError."""
        started = start_pictures(request.init).values() if request.init else ()
        for picture in (*started, *request.pictures.values()):
            self.put(picture)

    def put(self, picture: PilImage) -> str:
        """Writes the picture where it is not there yet, and returns the hash it is found by; raises OSError."""
        picture = without_palette(picture)
        sha256 = images.pixels_sha256(picture)
        path = self._folder / f"{sha256}.png"
        if not path.exists():
            data = io.BytesIO()
            picture.save(data, "PNG", compress_level=1)
            replace_file(path, data.getvalue())
        return sha256

    def find(self, sha256: str) -> PilImage | None:
        """The picture of this hash; None where it is not here or is another one by now."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        try:
            picture = images.open_image(self._folder / f"{sha256}.png")
        except images.ImageError:
            return None
        return picture if images.pixels_sha256(picture) == sha256 else None
