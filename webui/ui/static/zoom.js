// Where an enlarged picture lies in its place: arithmetic alone. A view is {scale, x, y}: how many px of the window each
// of the picture's has, and how far its middle lies from the middle of the place. Sizes are {width, height}.
(() => {
  "use strict";
  const MOST = 32; // px of the screen for each of the picture's
  const STOPS = [0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, MOST];
  const COARSE = 2; // from here on its pixels are to be seen as they are
  const between = (least, value, most) => Math.min(Math.max(value, least), most);

  const fitting = (size, place) => Math.min(place.width / size.width, place.height / size.height);
  const fit = (size, place) => ({ scale: fitting(size, place), x: 0, y: 0 });
  const isFit = (view, size, place) => Math.abs(view.scale / fitting(size, place) - 1) < 1e-6;

  // As near as it goes without gaps beside it: a side that is shorter than the place is in the middle.
  const held = ({ scale, x, y }, size, place) => {
    const free = (side, room) => Math.max(0, (side * scale - room) / 2);
    const [across, down] = [free(size.width, place.width), free(size.height, place.height)];
    return { scale, x: between(-across, x, across), y: between(-down, y, down) };
  };
  // `ratio` is how many px of the screen one of the window is.
  const allowed = (scale, size, place, ratio) => {
    const whole = fitting(size, place);
    return between(Math.min(whole, 1 / ratio), scale, Math.max(whole, MOST / ratio));
  };
  // What lies at `point`, seen from the middle of the place, stays there.
  const about = (view, scale, point, size, place, ratio = 1) => {
    const wanted = allowed(scale, size, place, ratio);
    const grown = wanted / view.scale;
    return held({ scale: wanted, x: point.x - (point.x - view.x) * grown, y: point.y - (point.y - view.y) * grown }, size, place);
  };
  const moved = (view, x, y, size, place) => held({ ...view, x: view.x + x, y: view.y + y }, size, place);
  // Two fingers were at the points `before` and are at `after`.
  const pinched = (view, before, after, size, place, ratio = 1) => {
    const middle = ([one, other]) => ({ x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 });
    const apart = ([one, other]) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
    const [from, to] = [middle(before), middle(after)];
    const nearer = about(view, (view.scale * apart(after)) / apart(before), from, size, place, ratio);
    return moved(nearer, to.x - from.x, to.y - from.y, size, place);
  };
  // The next stop that is larger, or smaller where `step` is negative; the whole picture is one of them.
  const next = (view, step, size, place, ratio = 1) => {
    const stops = [...STOPS.map((stop) => stop / ratio), fitting(size, place)].sort((one, other) => one - other);
    const found = step > 0 ? stops.find((stop) => stop > view.scale * 1.001) : stops.findLast((stop) => stop < view.scale * 0.999);
    return about(view, found ?? view.scale, { x: 0, y: 0 }, size, place, ratio);
  };
  // Between the whole picture and one px of the screen for each of its own.
  const toggled = (view, point, size, place, ratio = 1) =>
    isFit(view, size, place) ? about(view, 1 / ratio, point, size, place, ratio) : fit(size, place);
  const same = (one, other) => Boolean(one && other) && one.width === other.width && one.height === other.height;

  window.darkroomZoom = {
    fit, isFit, held, about, moved, pinched, next, toggled, same,
    isCoarse: (view, ratio = 1) => view.scale * ratio > COARSE,
    percent: (view, ratio = 1) => `${Math.round(view.scale * ratio * 100)} %`,
  };
})();
