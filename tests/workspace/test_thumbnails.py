"""Small versions of pictures, kept until the file changes."""

import io
from pathlib import Path

from PIL import Image as PilImages

from webui.workspace.thumbnails import SIDE_PX, Thumbnails


def test_thumbnails_are_small_and_follow_the_file(tmp_path: Path) -> None:
    path, kept = tmp_path / "large.jpg", tmp_path / "thumbnails"
    PilImages.new("RGB", (1600, 800), "red").save(path)
    data = Thumbnails(kept).get(path, 1, 1)
    PilImages.new("RGB", (800, 1600), "blue").save(path)
    assert Thumbnails(kept).get(path, 1, 1) == data and len(list(kept.iterdir())) == 1
    assert _size(data) == (SIDE_PX, SIDE_PX // 2)
    assert _size(Thumbnails(kept).get(path, 2, 1)) == (SIDE_PX // 2, SIDE_PX)
    Thumbnails(kept).forget(path, 2, 1)
    assert len(list(kept.iterdir())) == 1


def _size(data: bytes) -> tuple[int, int]:
    with PilImages.open(io.BytesIO(data)) as image:
        return image.size
