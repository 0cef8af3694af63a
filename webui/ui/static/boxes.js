// Boxes on a picture: arithmetic alone. A box is [left, top, right, bottom] in shares of the picture, in whole per cents.
(() => {
  "use strict";
  const LEAST = 0.02; // of a side
  const between = (least, value, most) => Math.min(Math.max(value, least), most);
  const round = (share) => Math.round(share * 100) / 100;

  // A list of four, or `0:0:0.5:1`; null where it is no box.
  const read = (value) => {
    const shares = typeof value === "string" ? value.split(":").map((part) => (part.trim() ? Number(part) : NaN)) : value;
    const isBox = Array.isArray(shares) && shares.length === 4 && shares.every((share) => share >= 0 && share <= 1);
    return isBox && shares[0] < shares[2] && shares[1] < shares[3] ? shares : null;
  };
  const write = (box) => box.map((share) => Number(share.toFixed(4))).join(":");

  // By shares of the picture, as far as it goes; the size stays.
  const moved = ([left, top, right, bottom], across, down) => {
    const [x, y] = [between(0, round(left + across), 1 - (right - left)), between(0, round(top + down), 1 - (bottom - top))];
    return [x, y, x + right - left, y + bottom - top].map((share) => Number(share.toFixed(4)));
  };
  // One corner is drawn along, named by its sides, such as "right bottom"; the other one stays.
  const resized = ([left, top, right, bottom], corner, across, down) => [
    corner.includes("left") ? between(0, round(left + across), right - LEAST) : left,
    corner.includes("top") ? between(0, round(top + down), bottom - LEAST) : top,
    corner.includes("right") ? between(left + LEAST, round(right + across), 1) : right,
    corner.includes("bottom") ? between(top + LEAST, round(bottom + down), 1) : bottom,
  ];
  // Between two points; null where that is too small to be meant.
  const drawn = (one, other) => {
    const [xs, ys] = ["x", "y"].map((side) => [one[side], other[side]].map((share) => round(between(0, share, 1))).sort((a, b) => a - b));
    return xs[1] - xs[0] < LEAST || ys[1] - ys[0] < LEAST ? null : [xs[0], ys[0], xs[1], ys[1]];
  };
  const FIRST = [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.25, 0.25, 0.75, 0.75]];
  // Where one more begins.
  const another = (count) => FIRST[Math.min(count, FIRST.length - 1)];

  // The share of the picture that is left to its own prompt. Each of `areas` is {weight, covers(x, y)}, which is 0..1.
  const rest = (areas, places = 50) => {
    let left = 0;
    for (let k = 0; k < places * places; k += 1) {
      const [x, y] = [((k % places) + 0.5) / places, (Math.floor(k / places) + 0.5) / places];
      left += Math.max(0, 1 - areas.reduce((sum, { weight, covers }) => sum + weight * covers(x, y), 0));
    }
    return left / places ** 2;
  };
  const covering = ([left, top, right, bottom]) => (x, y) => Number(left <= x && x <= right && top <= y && y <= bottom);

  window.darkroomBoxes = { read, write, moved, resized, drawn, another, rest, covering };
})();
