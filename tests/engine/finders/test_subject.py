"""The embedded finder: what stands out from a plain ground, in made pictures and in those that the model draws."""

import numpy as np
import pytest
from PIL import Image as PilImages
from PIL import ImageDraw

from webui.core.events import Image
from webui.core.found import in_order
from webui.engine.finders.subject import find_subject


def scene(size=(128, 128), ground=(70, 110, 200), things=((20, 30, 70, 90),), unevenness=2.0):
    """A ground that gets lighter to the right, uneven as the model's are, with round things in it."""
    rng = np.random.default_rng(3)
    levels = (
        np.array(ground) + np.linspace(-6, 6, size[0])[None, :, None] + rng.normal(0, unevenness, (size[1], size[0], 1))
    )
    picture = PilImages.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    for box in things:
        ImageDraw.Draw(picture).ellipse(box, fill=(220, 60, 40))
    return picture


def boxes(picture, at_most=4):
    return [part.box for part in in_order(find_subject(picture), 0.3, at_most)]


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (512, 384)])
def test_the_box_holds_the_thing_and_little_else(size):
    scale = max(size) / 128
    thing = tuple(round(side * scale) for side in (20, 30, 70, 90))
    (box,) = boxes(scene(size, things=(thing,)))
    room = 6 * scale
    assert all(
        0 <= (inner - outer) * sign <= room for inner, outer, sign in zip(thing, box, (1, 1, -1, -1), strict=True)
    )


def test_two_things_are_two_parts_and_a_plain_picture_has_none():
    assert len(boxes(scene(things=((8, 40, 50, 82), (84, 44, 116, 76))))) == 2
    assert boxes(scene(things=())) == []
    assert boxes(PilImages.new("RGB", (64, 64), (255, 255, 255))) == []
    assert boxes(PilImages.new("RGB", (8, 8))) == []


def test_a_thing_at_the_edge_is_found_too():
    (box,) = boxes(scene(things=((-30, 40, 40, 90),)))
    assert box[0] == 0 and 40 <= box[2] <= 46


def test_it_finds_what_the_embedded_model_draws(run):
    (picture,) = [event.image for event in run(width=128, height=128, steps=10) if isinstance(event, Image)]
    ((left, top, right, bottom),) = boxes(picture)
    assert 0.2 < (right - left) * (bottom - top) / 128**2 < 0.75
    levels = np.asarray(picture, float)
    ground = np.median(np.concatenate([levels[:3].reshape(-1, 3), levels[-3:].reshape(-1, 3)]), axis=0)
    levels[top:bottom, left:right] = ground
    assert (np.abs(levels - ground).max(axis=-1) > 48).mean() < 0.01
