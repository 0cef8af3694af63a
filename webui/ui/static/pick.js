// What is meant by a click on a picture: a region that grows from there by colour, up to edges. It knows no page.
(() => {
  "use strict";
  const HOLE = 0.35; // of what was found: a highlight within a thing is a part of it, the view through a ring is not
  const FRINGE_PX = 1; // the blurred edge of a thing belongs to it
  const EDGE = 0.75; // of the tolerance: so much from one pixel to the next is an edge

  // The eight pixels around the place, and itself, as one colour: noise is no edge.
  const smooth = ({ data, width, height }) => {
    const found = new Float32Array(width * height * 3);
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const [left, right] = [Math.max(x - 1, 0), Math.min(x + 1, width - 1)];
        const [top, bottom] = [Math.max(y - 1, 0), Math.min(y + 1, height - 1)];
        let [red, green, blue, count] = [0, 0, 0, 0];
        for (let v = top; v <= bottom; v++) {
          for (let u = left; u <= right; u++) {
            const from = (v * width + u) * 4;
            red += data[from];
            green += data[from + 1];
            blue += data[from + 2];
            count += 1;
          }
        }
        found.set([red / count, green / count, blue / count], at * 3);
      }
    }
    return found;
  };

  // How far apart two colours look, about 0..255: the eye sees green best, and blue better where there is little red.
  const distance = (red, green, blue, otherRed, otherGreen, otherBlue) => {
    const mean = (red + otherRed) / 2 / 255;
    const [r, g, b] = [red - otherRed, green - otherGreen, blue - otherBlue];
    return Math.sqrt(((2 + mean) * r * r + 4 * g * g + (3 - mean) * b * b) / 9);
  };

  const around = (at, width, height, visit) => {
    const x = at % width;
    if (x > 0) visit(at - 1);
    if (x < width - 1) visit(at + 1);
    if (at >= width) visit(at - width);
    if (at < width * (height - 1)) visit(at + width);
  };

  // Pixels that may be walked to from the first one, each once, and none that is found already; they are found then.
  const flood = (start, width, height, found, queue, may = () => true) => {
    let [head, tail] = [0, 0];
    const add = (at) => {
      found[at] = 1;
      queue[tail++] = at;
    };
    if (!found[start] && may(start, start)) add(start);
    while (head < tail) {
      const from = queue[head++];
      around(from, width, height, (at) => !found[at] && may(at, from) && add(at));
    }
    return queue.subarray(0, tail);
  };

  const filled = (region, width, height, queue) => {
    const size = region.reduce((sum, one) => sum + one, 0);
    const known = region.slice();
    const whole = region.slice();
    for (let start = 0; start < known.length; start++) {
      if (known[start]) continue;
      const hole = flood(start, width, height, known, queue);
      let open = false;
      for (const at of hole) {
        const x = at % width;
        open ||= x === 0 || x === width - 1 || at < width || at >= width * (height - 1);
      }
      if (!open && hole.length <= HOLE * size) for (const at of hole) whole[at] = 1;
    }
    return whole;
  };

  const grown = (region, width, height) => {
    const found = region.slice();
    region.forEach((one, at) => one && around(at, width, height, (beside) => (found[beside] = 1)));
    return found;
  };

  // 1 where the thing at (x, y) is, for each pixel of ``ImageData``. ``tolerance`` is 1..100, as colours differ.
  const pick = (picture, x, y, tolerance) => {
    const { width, height } = picture;
    const colours = smooth(picture);
    const start = Math.min(Math.max(Math.floor(y), 0), height - 1) * width + Math.min(Math.max(Math.floor(x), 0), width - 1);
    const colour = (at) => [colours[at * 3], colours[at * 3 + 1], colours[at * 3 + 2]];
    const mean = colour(start);
    let count = 1;
    const [found, queue] = [new Uint8Array(width * height), new Int32Array(width * height)];
    flood(start, width, height, found, queue, (at, from) => {
      const [red, green, blue] = colour(at);
      if (distance(red, green, blue, ...mean) > tolerance || distance(red, green, blue, ...colour(from)) > EDGE * tolerance) return false;
      count = Math.min(count + 1, 4096); // of so many the mean is: a shade that changes slowly is followed
      mean[0] += (red - mean[0]) / count;
      mean[1] += (green - mean[1]) / count;
      mean[2] += (blue - mean[2]) / count;
      return true;
    });
    let region = filled(found, width, height, queue);
    for (let k = 0; k < FRINGE_PX; k++) region = grown(region, width, height);
    return region;
  };

  window.darkroomPick = { pick };
})();
