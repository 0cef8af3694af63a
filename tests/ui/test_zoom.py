"""Where an enlarged picture lies: what is under the pointer stays there, and nothing leaves its place."""

from typing import Any

import pytest

from tests.ui.scripts import evaluate

SIZE, PLACE = {"width": 512, "height": 256}, {"width": 1000, "height": 800}
SCRIPT = """({ size, place }) => {
  const zoom = darkroomZoom;
  const fit = zoom.fit(size, place);
  const under = (view, { x, y }) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
  const point = { x: 200, y: -100 };
  const near = zoom.about(fit, 6, point, size, place);
  const walked = [fit];
  for (let k = 0; k < 30; k++) walked.push(zoom.next(walked.at(-1), 1, size, place, 2));
  const back = [walked.at(-1)];
  for (let k = 0; k < 30; k++) back.push(zoom.next(back.at(-1), -1, size, place, 2));
  const fingers = [{ x: -100, y: 0 }, { x: 100, y: 0 }];
  const apart = [{ x: -150, y: 40 }, { x: 250, y: 40 }];
  const pinched = zoom.pinched(near, fingers, apart, size, place);
  return {
    fit,
    stays: [under(fit, point), under(near, point)],
    pinched: [near.scale, pinched.scale, under(near, { x: 0, y: 0 }), under(pinched, { x: 50, y: 40 })],
    farthest: zoom.moved(near, 1e6, 1e6, size, place),
    whole: zoom.moved(fit, 500, 500, size, place),
    walked: walked.map(({ scale }) => scale),
    back: back.map(({ scale }) => scale),
    toggled: [zoom.toggled(fit, point, size, place, 2).scale, zoom.toggled(near, point, size, place).scale],
    largest: zoom.about(fit, 1000, point, size, place).scale,
    smallest: zoom.about(fit, 0.001, point, { width: 4000, height: 4000 }, place).scale,
    same: [zoom.same(size, { ...size }), zoom.same(size, place), zoom.same(null, size)],
    coarse: [1, 2, 2.01].map((scale) => zoom.isCoarse({ scale })),
    percent: zoom.percent({ scale: 0.75 }, 2),
  };
}"""


@pytest.fixture(scope="module")
def told() -> Any:
    return evaluate(["zoom.js"], SCRIPT, {"size": SIZE, "place": PLACE})


def test_the_whole_picture_fits_and_stays_in_the_middle(told):
    assert told["fit"] == told["whole"] == {"scale": 1000 / 512, "x": 0, "y": 0}


def test_what_is_under_the_pointer_or_the_fingers_stays_there(told):
    before, after = told["stays"]
    assert after == pytest.approx(before)
    near, pinched, before, after = told["pinched"]
    assert pinched == pytest.approx(2 * near) and after == pytest.approx(before)


def test_no_side_leaves_a_gap(told):
    assert told["farthest"] == {"scale": 6, "x": (512 * 6 - 1000) / 2, "y": (256 * 6 - 800) / 2}
    assert told["largest"] == 32 and told["smallest"] == 800 / 4000


def test_steps_meet_the_whole_picture_and_each_pixel_on_the_way(told):
    assert told["walked"] == sorted(told["walked"]) and told["walked"][-1] == 16, "32 px of a screen with 2 for each"
    assert told["back"] == sorted(told["back"], reverse=True)
    assert {0.5, 1, 1000 / 512} <= {*told["back"]} and told["back"][-1] == 0.5
    assert told["toggled"] == [0.5, 1000 / 512]


def test_how_it_is_told(told):
    assert told["same"] == [True, False, False]
    assert told["coarse"] == [False, False, True]
    assert told["percent"] == "150 %"
