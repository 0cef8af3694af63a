"""Boxes on a picture: none leaves it, none turns over, and what they leave is counted."""

from tests.ui.scripts import evaluate

SCRIPT = """() => {
  const { read, write, moved, resized, drawn, another, rest, covering } = darkroomBoxes;
  const left = [0, 0, 0.5, 1];
  const right = [0.5, 0, 1, 1];
  const shares = (...boxes) => rest(boxes.map(([box, weight]) => ({ weight, covers: covering(box) })));
  return {
    read: ["0:0:0.5:1", left, "0:0:1.1:1", "0.5:0:0.5:1", "0::1:1", [0, 0, 1], null, "a:b:c:d"].map(read),
    written: [write(left), write([1 / 3, 0, 1, 0.123456])],
    moved: [moved(left, 0.2, 0.3), moved(left, 9, -9), moved([0.2, 0.2, 0.5, 0.4], -0.1, 0.05)],
    resized: [
      resized(left, "right bottom", 0.1, -0.25), resized(left, "right bottom", -9, -9),
      resized(left, "left top", 9, 0.1), resized([0.2, 0.2, 0.5, 0.4], "left bottom", -9, 9),
    ],
    drawn: [drawn({ x: 0.8, y: 1.4 }, { x: 0.204, y: -1 }), drawn({ x: 0.5, y: 0.5 }, { x: 0.51, y: 0.9 })],
    another: [0, 1, 2, 7].map(another),
    rest: [shares(), shares([left, 1]), shares([left, 0.5], [[0, 0, 1, 1], 0.25]), shares([left, 1], [right, 1])],
  };
}"""


def test_boxes_stay_on_the_picture_and_what_they_leave_is_counted():
    told = evaluate(["boxes.js"], SCRIPT)
    assert told["read"] == [[0, 0, 0.5, 1]] * 2 + [None] * 6
    assert told["written"] == ["0:0:0.5:1", "0.3333:0:1:0.1235"]
    assert told["moved"] == [[0.2, 0, 0.7, 1], [0.5, 0, 1, 1], [0.1, 0.25, 0.4, 0.45]]
    assert told["resized"] == [[0, 0, 0.6, 0.75], [0, 0, 0.02, 0.02], [0.48, 0.1, 0.5, 1], [0, 0.2, 0.5, 1]]
    assert told["drawn"] == [[0.2, 0, 0.8, 1], None]
    assert told["another"] == [[0, 0, 0.5, 1], [0.5, 0, 1, 1], *[[0.25, 0.25, 0.75, 0.75]] * 2]
    assert [round(share, 3) for share in told["rest"]] == [1, 0.5, 0.5, 0]
