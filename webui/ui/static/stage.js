// A picture in a place where it is enlarged and moved; two of them under a line, side by side, or in turns.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const zoom = window.darkroomZoom;
  const FLIP_MS = 500; // how long each of two is shown in turns
  const WHEEL = 0.0016;
  const LINE_PX = 16; // of the scroll of one line
  const SWIPE_PX = 48;
  const NEAR_PX = 24; // from the line, where it is taken hold of
  const MOST_COMPARED = 2 ** 24; // px

  // `tell()` is told that the view is another, `step(by)` that somebody wiped with a finger to the next or the last.
  const create = (place, { tell, step }) => {
    const layers = [0, 1].map(() => make("div", { class: "light-layer" }));
    place.append(...layers);
    let pictures = [null, null]; // the images that are shown, in their layers
    let wanted = 0;
    let main = 1; // the layer that the size is of
    let size = null;
    let view = null;
    let fits = true;
    let way = "one";
    let line = 50;
    let turned = false;
    let turning;
    const ratio = () => window.devicePixelRatio || 1;
    const room = () => {
      const { width, height } = layers[main].getBoundingClientRect();
      return { width: Math.max(width, 1), height: Math.max(height, 1) };
    };

    const apply = () => {
      if (!size) return;
      const { scale, x, y } = view;
      for (const image of pictures) {
        if (!image) continue;
        Object.assign(image.style, {
          width: `${size.width}px`, height: `${size.height}px`,
          transform: `translate(${x}px, ${y}px) translate(-50%, -50%) scale(${scale})`,
        });
      }
      place.toggleAttribute("data-coarse", zoom.isCoarse(view, ratio()));
      place.toggleAttribute("data-large", !fits);
      tell();
    };
    const look = (next) => {
      if (!size) return;
      view = next;
      fits = zoom.isFit(view, size, room());
      apply();
    };
    const refit = () => {
      if (size) look(fits || !view ? zoom.fit(size, room()) : zoom.held(view, size, room()));
    };
    const setLine = (percent) => {
      line = Math.min(Math.max(Math.round(percent), 0), 100);
      place.style.setProperty("--wipe", `${line}%`);
      tell();
    };

    // In turns

    const turn = () => {
      turned = !turned;
      place.dataset.turned = turned ? "0" : "1";
      tell();
    };
    const still = () => clearInterval(turning);
    const setWay = (wantedWay) => {
      still();
      way = wantedWay;
      place.dataset.way = way;
      turned = false;
      place.dataset.turned = "1";
      if (way === "blink" && !matchMedia("(prefers-reduced-motion: reduce)").matches) turning = setInterval(turn, FLIP_MS);
      refit();
    };

    // What is shown: one address in the layer of the first or second picture, or one in each. The view stays where the
    // picture is as large as the one before. Gives whether all of them can be shown, or nothing where others are by now.
    const show = async (shown, mainLayer) => {
      const number = ++wanted;
      const fresh = await Promise.all(shown.map(async (one, layer) => {
        if (!one) return null;
        if (pictures[layer]?.getAttribute("src") === one.src) return pictures[layer];
        const image = make("img", { src: one.src, alt: one.alt, draggable: "false" });
        const isThere = await image.decode().then(() => true, () => false);
        return isThere ? image : make("p", {}, "This picture cannot be shown.");
      }));
      if (number !== wanted) return undefined;
      const images = fresh.map((element) => (element?.matches("img") ? element : null));
      fresh.forEach((element, layer) => element !== layers[layer].firstChild && layers[layer].replaceChildren(...(element ? [element] : [])));
      shown.forEach((one, layer) => images[layer]?.setAttribute("alt", one.alt));
      [pictures, main] = [images, mainLayer];
      const image = images[main];
      const next = image && { width: image.naturalWidth, height: image.naturalHeight };
      if (!zoom.same(size, next)) fits = true;
      size = next;
      refit();
      return fresh.every((element, layer) => !shown[layer] || images[layer]);
    };

    // Whether both have the same pixels; nothing where that cannot be told.
    const areSame = () => {
      const [one, other] = pictures;
      if (!one || !other) return undefined;
      const [width, height] = [one.naturalWidth, one.naturalHeight];
      if (width !== other.naturalWidth || height !== other.naturalHeight) return false;
      if (width * height > MOST_COMPARED) return undefined;
      const [first, second] = [one, other].map((image) => {
        const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
      });
      return first.every((pixel, k) => pixel === second[k]);
    };

    // The pointer

    const fingers = new Map(); // by pointer: where it is, from the middle of the layer it came down in
    let held = null; // what one finger does: {act, layer, x, y}
    const pointOf = (event, layer) => {
      const { left, top, width, height } = layer.getBoundingClientRect();
      return { x: event.clientX - left - width / 2, y: event.clientY - top - height / 2 };
    };
    const layerAt = ({ clientX, clientY }) =>
      (way === "side" && layers.find((layer) => {
        const { left, top, right, bottom } = layer.getBoundingClientRect();
        return clientX >= left && clientX < right && clientY >= top && clientY < bottom;
      })) || layers[main];
    const percentOf = ({ clientX }) => {
      const { left, width } = place.getBoundingClientRect();
      return ((clientX - left) / width) * 100;
    };
    const isNearLine = (event) => Math.abs(percentOf(event) - line) * place.clientWidth / 100 <= NEAR_PX;
    place.addEventListener("pointerdown", (event) => {
      if (event.button > 0 || !size) return;
      place.setPointerCapture(event.pointerId);
      const layer = held?.layer ?? layerAt(event);
      fingers.set(event.pointerId, pointOf(event, layer));
      if (fingers.size > 1) return;
      const act = way === "wipe" && (fits || isNearLine(event)) ? "line" : "move";
      held = { act, layer, x: event.clientX, y: event.clientY };
      if (act === "line") setLine(percentOf(event));
      if (way === "blink") {
        still();
        turn();
      }
    });
    place.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before || !size) return;
      const now = pointOf(event, held.layer);
      const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      fingers.set(event.pointerId, now);
      if (others.length) {
        held.act = "pinch";
        look(zoom.pinched(view, [others[0], before], [others[0], now], size, room(), ratio()));
      } else if (held.act === "line") setLine(percentOf(event));
      else if (held.act === "move") look(zoom.moved(view, now.x - before.x, now.y - before.y, size, room()));
    });
    const release = (event) => {
      if (!fingers.delete(event.pointerId) || fingers.size) return;
      const [across, down] = [event.clientX - held.x, event.clientY - held.y];
      const isSwipe = event.type === "pointerup" && event.pointerType !== "mouse" && held.act === "move" && fits && way !== "blink";
      held = null;
      if (way === "blink") turn();
      if (isSwipe && Math.abs(across) > SWIPE_PX && Math.abs(across) > 1.5 * Math.abs(down)) step(across < 0 ? 1 : -1);
    };
    place.addEventListener("pointerup", release);
    place.addEventListener("pointercancel", release);
    place.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!size) return;
      const scale = view.scale * Math.exp(-event.deltaY * (event.deltaMode ? LINE_PX : 1) * WHEEL * (event.ctrlKey ? 5 : 1));
      look(zoom.about(view, scale, pointOf(event, layerAt(event)), size, room(), ratio()));
    }, { passive: false });
    place.addEventListener("dblclick", (event) => {
      if (size && !(way === "wipe" && isNearLine(event))) look(zoom.toggled(view, pointOf(event, layerAt(event)), size, room(), ratio()));
    });
    new ResizeObserver(refit).observe(place);
    setLine(50);
    setWay("one");

    return {
      show,
      setWay,
      setLine,
      areSame,
      turn: () => {
        still();
        turn();
      },
      still,
      moveLine: (by) => setLine(line + by),
      move: (x, y) => size && look(zoom.moved(view, x, y, size, room())),
      nearer: (by) => size && look(zoom.next(view, by, size, room(), ratio())),
      fit: () => size && look(zoom.fit(size, room())),
      oneToOne: () => size && look(zoom.about(view, 1 / ratio(), { x: 0, y: 0 }, size, room(), ratio())),
      get way() {
        return way;
      },
      get line() {
        return line;
      },
      get fits() {
        return fits;
      },
      // Which of the two is to be seen while they are shown in turns.
      get turned() {
        return turned;
      },
      get percent() {
        return size ? zoom.percent(view, ratio()) : "";
      },
    };
  };

  window.darkroomStage = { create };
})();
