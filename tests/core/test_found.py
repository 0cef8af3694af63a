"""Parts of a picture as masks."""

import pytest

from webui.core.found import Part


@pytest.mark.parametrize(
    ("px", "box"),
    [
        (0, (10, 10, 20, 20)),
        (1, (10, 10, 20, 20)),
        (4, (9, 9, 22, 22)),  # as OpenCV's dilate with a square of 4 x 4
        (5, (8, 8, 22, 22)),
        (-4, (12, 12, 19, 19)),
        (-5, (12, 12, 18, 18)),
        (-10, (15, 15, 16, 16)),
        (-11, None),
        (128, (0, 0, 40, 30)),
    ],
)
def test_a_part_is_grown_and_shrunk_by_a_square_as_adetailer_does(px, box):
    mask = Part((10, 10, 20, 20), 1.0).mask_of((40, 30), px)
    assert mask.size == (40, 30) and mask.getbbox() == box and set(mask.tobytes()) <= {0, 255}


def test_the_picture_s_edges_let_nothing_in():
    assert Part((0, 0, 10, 10), 1.0).mask_of((40, 30), -4).getbbox() == (0, 0, 9, 9)
