"""Start pictures are kept under the hash of their pixels, and found by nothing else."""

import os

import pytest
from PIL import Image as PilImages

from webui.core.groups.init import Init
from webui.core.request import Request
from webui.workspace.start_pictures import StartPictures


def test_a_kept_start_picture_that_was_changed_is_not_taken(tmp_path):
    init = Init(image=PilImages.new("RGB", (16, 16), (1, 2, 3)))
    kept = StartPictures(tmp_path)
    kept.keep(Request(init=init))
    (path,) = tmp_path.iterdir()
    PilImages.new("RGB", (16, 16), (200, 2, 3)).save(path)
    assert kept.find(path.stem) is None


def test_of_pictures_that_were_only_handed_in_the_newest_are_held(tmp_path):
    kept = StartPictures(tmp_path, held_bytes=300)
    drawn = kept.put(PilImages.new("RGB", (16, 16)))
    held = []
    for level in range(1, 10):
        held.append(kept.hold(PilImages.new("RGB", (16, 16), (level, 0, 0))))
        os.utime(tmp_path / "handed-in" / f"{held[-1]}.png", (level, level))
    assert kept.find(held[-1]) and kept.find(held[-2]) and not kept.find(held[0])
    assert kept.find(drawn)
    assert sum(path.stat().st_size for path in (tmp_path / "handed-in").iterdir()) <= 300


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, "", "\0" * 64])
def test_only_a_hash_reaches_a_path(tmp_path, name):
    assert StartPictures(tmp_path).find(name) is None
