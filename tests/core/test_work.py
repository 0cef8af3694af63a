"""What a click asks for, as text and back."""

import errno

import pytest
from PIL import Image as PilImages

from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.work import Batch, from_text, to_text


def test_pictures_stay_outside_the_text():
    red, kept = PilImages.new("RGB", (64, 64), "red"), {}

    def keep(picture):
        kept["red"] = picture
        return "red"

    text = to_text(Batch((Request(prompt="a", seed=1, init=Init(image=red)),)), keep)
    assert '"sha256": "red"' in text and len(text) < 2000
    (again,) = from_text(text, kept.get).requests
    assert again.init.image.tobytes() == red.tobytes()


def test_a_disk_that_takes_no_picture_says_so_itself():
    def keep(picture):
        raise OSError(errno.ENOSPC, "No space left on device")

    work = Batch((Request(init=Init(image=PilImages.new("RGB", (64, 64)))),))
    with pytest.raises(OSError, match="No space left on device"):
        to_text(work, keep)
