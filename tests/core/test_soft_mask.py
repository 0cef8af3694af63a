"""Masks that grow into what is masked, by the geometry of simple parts."""

import numpy as np
from PIL import Image as PilImages

from webui.core.canvas import make_canvas
from webui.core.groups.init import Init
from webui.core.soft_mask import soften


def bar(width: int = 40, left: int = 10, right: int = 30) -> PilImages.Image:
    levels = np.zeros((64, width), np.uint8)
    levels[:, left:right] = 255
    return PilImages.fromarray(levels)


def row(mask) -> list[int]:
    return np.asarray(mask)[32].tolist()


def test_a_bar_rises_from_both_edges_to_its_middle():
    soft = row(soften(bar(), 1.0))
    assert soft[:10] == soft[30:] == [0] * 10
    assert soft[10:20] == [26, 51, 76, 102, 128, 153, 178, 204, 230, 255] and soft[20:30] == soft[19:9:-1]
    half = row(soften(bar(), 0.5))
    assert half[10:15] == [51, 102, 153, 204, 255] and half[15:25] == [255] * 10


def test_each_part_has_a_middle_of_its_own():
    both = np.maximum(np.asarray(bar(80, 4, 8)), np.asarray(bar(80, 20, 60)))
    soft = row(soften(PilImages.fromarray(both), 1.0))
    assert max(soft[4:8]) == max(soft[20:60]) == 255


def test_greys_become_no_lighter_and_masked_places_stay_masked():
    mask = PilImages.fromarray((np.asarray(bar()) // 255 * 40).astype(np.uint8))
    soft = np.asarray(soften(mask, 1.0))
    assert (soft <= np.asarray(mask)).all() and ((soft > 16) == (np.asarray(mask) > 16)).all()


def test_without_softness_or_an_edge_it_is_the_very_mask():
    mask, white, black = bar(), PilImages.new("L", (8, 8), 255), PilImages.new("L", (8, 8))
    assert soften(mask, 0.0) is mask and soften(white, 1.0) is white and soften(black, 1.0) is black


def test_the_picture_s_own_border_is_no_edge():
    soft = row(soften(bar(40, 0, 20), 1.0))
    assert soft[0] == 255 and soft[19] < 30


def test_a_canvas_shows_what_was_drawn_by_how_much_it_may_change():
    image = PilImages.new("RGB", (64, 64), "white")
    mask = PilImages.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
    canvas = make_canvas(Init(image=image, mask=mask, mask_blur=0, softness=1.0), (64, 64))
    assert canvas.greys
    shown = np.asarray(canvas.finish(PilImages.new("RGB", (64, 64), "black")))[32, :, 0].astype(int)
    assert shown[15] == 255 and shown[31] == 0 and (np.diff(shown[15:32]) <= 0).all() and 100 < shown[18] < 220
    hard = make_canvas(Init(image=image, mask=mask, mask_blur=0), (64, 64))
    assert not hard.greys and hard.mask.tobytes() == mask.tobytes()
