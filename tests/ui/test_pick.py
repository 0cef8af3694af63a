"""A click on a thing finds the thing: by overlap with what is known to be there."""

import numpy as np
import pytest
from PIL import Image as PilImages
from PIL import ImageDraw

from tests.ui.scripts import STATIC, evaluate

SIDE = 96
SCRIPT = """({ data, width, height, clicks }) => clicks.map(([x, y, tolerance]) =>
  Array.from(darkroomPick.pick({ data, width, height }, x, y, tolerance)))"""
PRESETS = STATIC.parents[2] / "presets"


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A shaded ball with a highlight on a background that fades, both noisy, and where the ball is."""
    down, across = np.mgrid[:SIDE, :SIDE]
    ball = (across - 44) ** 2 + (down - 50) ** 2 <= 28**2
    levels = np.stack([90 + 40 * down / SIDE, 150 + 40 * down / SIDE, np.full((SIDE, SIDE), 225.0)], axis=-1)
    shade = 1 - 0.35 * np.hypot(across - 38, down - 42)[..., None] / 40
    levels = np.where(ball[..., None], np.array([235, 70, 50]) * shade, levels)
    levels[(across - 36) ** 2 + (down - 40) ** 2 <= 4**2] = 255
    levels += np.random.default_rng(3).normal(0, 5, levels.shape)
    return np.clip(levels, 0, 255).astype(np.uint8), ball


def overlap(found: list[int], known: np.ndarray) -> float:
    picked = np.array(found, bool).reshape(known.shape)
    return float((picked & known).sum() / (picked | known).sum())


def pick(levels: np.ndarray, *clicks: tuple[int, int, int]) -> list[list[int]]:
    height, width, _ = levels.shape
    data = np.dstack([levels, np.full((height, width), 255, np.uint8)]).flatten().tolist()
    return evaluate(["pick.js"], SCRIPT, {"data": data, "width": width, "height": height, "clicks": clicks})


def test_a_click_on_the_apple_of_a_demo_picture_finds_what_is_red():
    levels = np.asarray(PilImages.open(PRESETS / "flat-sticker.png").convert("RGB"))
    height, width, _ = levels.shape
    red = (levels[..., 0] > 150) & (levels[..., 2] < 110) & (levels[..., 1] < 120)
    assert overlap(pick(levels, (width // 2, height // 2, 25))[0], red) > 0.93


def test_a_click_finds_the_ball_with_its_highlight_or_what_is_around_it():
    levels, ball = scene()
    on_ball, beside, little = pick(levels, (50, 60, 25), (5, 5, 25), (50, 60, 1))
    assert overlap(on_ball, ball) > 0.93
    assert overlap(beside, ~ball) > 0.9
    assert sum(little) < 0.2 * ball.sum()  # a tolerance below the noise


@pytest.mark.parametrize(("x", "y"), [(0, 0), (95, 95), (500, -3)])
def test_an_even_picture_is_one_thing_from_anywhere(x, y):
    assert sum(pick(np.full((SIDE, SIDE, 3), 90, np.uint8), (x, y, 10))[0]) == SIDE**2


def test_what_is_seen_through_a_ring_is_no_part_of_it():
    image = PilImages.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).ellipse((8, 8, 88, 88), outline="navy", width=8)
    found = np.array(pick(np.asarray(image), (12, 48, 20))[0]).reshape(SIDE, SIDE)
    assert found[48, 12] and not found[48, 48] and not found[2, 2]
