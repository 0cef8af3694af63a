// Prompts by area: boxes that are drawn, moved and resized on a picture's shape, masks that are painted, and a row for each
// in the same colour. The list lives as JSON in a text field that is not shown, as that of every list of rows.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { valueOf, whenFilled } = window.darkroomFields;
  const boxes = window.darkroomBoxes;
  const COLOURS = ["#b91c1c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207", "#0e7490", "#be185d", "#4d7c0f"];
  const CORNERS = ["left top", "right top", "left bottom", "right bottom"];
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const STEP = 0.02; // of a key
  const LONGEST_MASK_PX = 256; // as it is kept
  const [CORNER_PX, CORNER_SHARE] = [24, 0.4]; // how much of a box, at most, its corners are
  const SHEET_PX = 512; // that a mask is painted on
  const EDGE = 0.01; // what of a picture is left is none below that
  const masks = new Map(); // by text: {width, height, levels}, once they are read

  const fieldOf = (page) => document.querySelector(`#${page}-regions textarea`);
  const read = (page) => {
    try {
      const entries = JSON.parse(fieldOf(page)?.value || "[]");
      return Array.isArray(entries) ? entries.filter((entry) => entry && typeof entry === "object") : [];
    } catch {
      return [];
    }
  };
  const write = (frame, entries) => {
    const field = fieldOf(frame.dataset.page);
    if (!field) return;
    field.value = entries.length ? JSON.stringify(entries) : "";
    frame.dataset.madeOf = field.value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const fieldsOf = (frame) => Object.fromEntries(JSON.parse(frame.dataset.fields).map((info) => [info.name, info]));
  const shapeOf = (page) => {
    const start = document.querySelector(`#${page}-image img`);
    if (start?.naturalWidth && document.querySelector(`#${page}-keep_size input`)?.checked) {
      const added = (one, other) => [one, other].reduce((sum, side) => sum + Number(valueOf(page, `outpaint_${side}`) || 0), 0);
      return [start.naturalWidth + added("left", "right"), start.naturalHeight + added("top", "bottom")];
    }
    const [width, height] = ["width", "height"].map((side) => Number(valueOf(page, side)));
    return width && height ? [width, height] : [1, 1];
  };

  // ---- masks ----

  const readMask = async (text) => {
    if (!masks.has(text)) {
      const image = new Image();
      image.src = `data:image/png;base64,${text}`;
      await image.decode();
      const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
      canvas.getContext("2d").drawImage(image, 0, 0);
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      masks.set(text, { width: canvas.width, height: canvas.height, levels: data.filter((_, place) => place % 4 === 0) });
    }
    return masks.get(text);
  };
  const covered = ({ width, height, levels }) => (x, y) => levels[Math.floor(y * height) * width + Math.floor(x * width)] / 255;
  const tinted = ({ width, height, levels }, colour) => {
    const canvas = make("canvas", { width, height });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    const parts = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
    for (let place = 0; place < levels.length; place += 1) pixels.data.set([...parts, levels[place]], 4 * place);
    context.putImageData(pixels, 0, 0);
    return canvas;
  };
  // Base64 of what is painted, white on black; empty where nothing is.
  const painted = (sheet) => {
    const scale = Math.min(1, LONGEST_MASK_PX / Math.max(sheet.width, sheet.height));
    const [width, height] = [sheet.width, sheet.height].map((side) => Math.max(8, Math.round(side * scale)));
    const canvas = make("canvas", { width, height });
    const context = canvas.getContext("2d");
    context.drawImage(sheet, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    let isEmpty = true;
    for (let place = 0; place < pixels.data.length; place += 4) {
      const level = pixels.data[place + 3];
      isEmpty &&= level === 0;
      pixels.data.set([level, level, level, 255], place);
    }
    context.putImageData(pixels, 0, 0);
    return isEmpty ? "" : canvas.toDataURL("image/png").split(",")[1];
  };
  const blank = ([width, height]) => {
    const scale = SHEET_PX / Math.max(width, height);
    const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    return canvas;
  };
  // The painter in place of the rows, for a region by its place, or one more.
  const paint = async (frame, index) => {
    const { page } = frame.dataset;
    const entry = read(page)[index];
    const sheet = blank(shapeOf(page));
    const start = document.querySelector(`#${page}-image img`);
    if (start?.naturalWidth) sheet.getContext("2d").drawImage(start, 0, 0, sheet.width, sheet.height);
    const before = entry?.mask ? [{ image: tinted(await readMask(entry.mask), "#ff2d95"), points: [] }] : [];
    window.darkroomPainter.recall(`${page}-regions`, before);
    window.darkroomPainter.show(`${page}-regions`, "");
    window.darkroomPainter.show(`${page}-regions`, sheet.toDataURL());
    frame.classList.add("painting");
    frame.dataset.painted = index;
    frame.querySelector(".painter canvas").focus();
  };
  const leave = (frame) => {
    frame.classList.remove("painting");
    window.darkroomPainter.show(`${frame.dataset.page}-regions`, "");
  };
  const take = (frame) => {
    const mask = painted(frame.querySelector(".painter canvas"));
    if (!mask) {
      frame.querySelector(".painter-note").textContent = "Nothing is painted yet.";
      return;
    }
    const entries = read(frame.dataset.page);
    const index = Math.min(Number(frame.dataset.painted), entries.length);
    const { box, ...others } = entries[index] ?? { prompt: "" };
    entries[index] = { mask, ...others };
    write(frame, entries);
    leave(frame);
    fill(frame);
    inputOf(frame, index, "prompt").focus();
  };

  // ---- boxes ----

  const percent = (share) => Math.round(share * 100);
  const place = (button, box, index) => {
    const [left, top, right, bottom] = box.map(percent);
    Object.assign(button.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    const said = `Region ${index + 1}: left ${left} %, top ${top} %, right ${right} %, bottom ${bottom} %.`;
    button.setAttribute("aria-label", `${said} Arrow keys move it, Shift with arrows changes its size, Delete removes it.`);
  };
  const inputOf = (frame, index, name) =>
    document.getElementById(`${frame.dataset.page}-regions-${index ? `${index + 1}-` : ""}${name}`);
  const boxOf = (frame, index) => frame.querySelector(`.regions-box[data-index="${index}"]`);
  // A box that is on its way is shown; it is written where it has come to.
  const put = (frame, index, box, isDone) => {
    place(boxOf(frame, index), box, index);
    inputOf(frame, index, "box").value = boxes.write(box);
    if (!isDone) return;
    const entries = read(frame.dataset.page);
    entries[index].box = box;
    write(frame, entries);
    tellRest(frame, entries);
  };
  const add = (frame, box) => {
    const entries = read(frame.dataset.page);
    write(frame, [...entries, { box: box ?? boxes.another(entries.length), prompt: "" }]);
    fill(frame);
    inputOf(frame, entries.length, "prompt").focus();
  };
  const remove = (frame, index) => {
    write(frame, read(frame.dataset.page).filter((_, k) => k !== index));
    fill(frame);
    frame.querySelector("[data-act=add]").focus();
  };

  // A browser may say that the button was pressed, and not what is in it.
  const cornerAt = ({ left, top, right, bottom }, { clientX: x, clientY: y }) => {
    const [across, down] = [(right - left) * CORNER_SHARE, (bottom - top) * CORNER_SHARE].map((most) => Math.min(CORNER_PX, most));
    const [side, end] = [x < left + across ? "left" : x > right - across && "right", y < top + down ? "top" : y > bottom - down && "bottom"];
    return side && end && `${side} ${end}`;
  };
  const onDown = (frame, event) => {
    const canvas = event.currentTarget;
    if (event.button > 0) return;
    const around = canvas.getBoundingClientRect();
    const at = ({ clientX, clientY }) => ({ x: (clientX - around.left) / around.width, y: (clientY - around.top) / around.height });
    const begin = at(event);
    const button = event.target.closest(".regions-box");
    const corner = button && cornerAt(button.getBoundingClientRect(), event);
    const index = Number(button?.dataset.index);
    const before = button && boxes.read(read(frame.dataset.page)[index].box);
    if (!button && read(frame.dataset.page).length >= Number(frame.dataset.most)) return;
    event.preventDefault();
    button?.focus({ preventScroll: true });
    const ghost = canvas.querySelector(".regions-ghost");
    let box = before;
    const follow = (moving) => {
      const now = at(moving);
      const [across, down] = [now.x - begin.x, now.y - begin.y];
      if (!button) {
        box = boxes.drawn(begin, now);
        ghost.hidden = !box;
        if (box) place(ghost, box, 0);
        return;
      }
      box = corner ? boxes.resized(before, corner, across, down) : boxes.moved(before, across, down);
      put(frame, index, box, false);
    };
    const stop = (ending) => {
      canvas.removeEventListener("pointermove", follow);
      canvas.removeEventListener("pointerup", stop);
      canvas.removeEventListener("pointercancel", stop);
      ghost.hidden = true;
      if (ending.type === "pointercancel") box = before;
      if (button && box) put(frame, index, box, true);
      else if (box) add(frame, box);
    };
    canvas.setPointerCapture(event.pointerId);
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener("pointerup", stop);
    canvas.addEventListener("pointercancel", stop);
  };
  const onKey = (frame, event) => {
    const index = Number(event.target.closest(".regions-box")?.dataset.index);
    if (Number.isNaN(index)) return;
    if (event.key === "Delete" || event.key === "Backspace") remove(frame, index);
    else if (event.key in MOVES) {
      const [across, down] = MOVES[event.key].map((way) => way * STEP);
      const before = boxes.read(read(frame.dataset.page)[index].box);
      put(frame, index, event.shiftKey ? boxes.resized(before, "right bottom", across, down) : boxes.moved(before, across, down), true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  // ---- what is shown ----

  const tellRest = async (frame, entries) => {
    const areas = [];
    for (const { box, mask, weight } of entries) {
      const own = boxes.read(box);
      const covers = own ? boxes.covering(own) : mask ? covered(await readMask(mask).catch(() => ({ width: 1, height: 1, levels: [0] }))) : () => 0;
      areas.push({ weight: weight ?? 1, covers });
    }
    const left = boxes.rest(areas);
    const hasOwn = entries.some(({ prompt }) => prompt?.includes("[PROMPT]"));
    frame.querySelector(".regions-rest").textContent =
      !entries.length ? ""
      : left >= EDGE ? `The prompt above has the other ${percent(left)} % of the picture.`
      : hasOwn ? "The regions cover the whole picture."
      : "The regions cover the whole picture: the prompt above counts nowhere. [PROMPT] in a region's prompt puts it there.";
  };

  const control = (frame, entry, index, info) => {
    const id = `${frame.dataset.page}-regions-${index ? `${index + 1}-` : ""}${info.name}`;
    const isNumber = info.kind === "number";
    const input =
      info.name === "prompt" ? make("textarea", { id, rows: 2, placeholder: info.description })
      : isNumber ? make("input", { id, type: "number", min: info.least, max: info.most, step: info.step })
      : make("input", { id, type: "text", spellcheck: "false" });
    const own = boxes.read(entry.box);
    input.value = info.name === "box" ? (own ? boxes.write(own) : entry.box ?? "") : entry[info.name] ?? info.default;
    input.addEventListener("input", () => {
      const entries = read(frame.dataset.page);
      if (!entries[index]) return;
      const said = isNumber ? (input.value === "" ? info.default : Number(input.value)) : input.value;
      if (isNumber && said === info.default) delete entries[index][info.name];
      else entries[index][info.name] = said;
      const box = info.name === "box" && boxes.read(said);
      if (box) {
        entries[index].box = box;
        const button = boxOf(frame, index);
        if (button) place(button, box, index);
      }
      write(frame, entries);
      tellRest(frame, entries);
    });
    const kind = info.name === "prompt" ? "rows-text" : `rows-${info.kind}`;
    return make("label", { title: info.description, class: kind }, make("span", {}, info.title), input);
  };
  const badge = (index) => {
    const number = make("span", { class: "regions-number", translate: "no" }, String(index + 1));
    number.style.background = COLOURS[index % COLOURS.length];
    return number;
  };
  const row = (frame, entry, index) => {
    const fields = fieldsOf(frame);
    const name = `Remove Region ${index + 1}`;
    const gone = make("button", { type: "button", class: "rows-remove", "aria-label": name, title: name }, "×");
    gone.addEventListener("click", () => remove(frame, index));
    const id = entry.mask ? `${frame.dataset.page}-regions-${index ? `${index + 1}-` : ""}mask` : null;
    const again = make("button", { type: "button", class: "regions-paint", id }, entry.mask ? "Change the mask" : "Paint a mask instead");
    again.addEventListener("click", () => paint(frame, index));
    const shown = ["prompt", ...(entry.mask ? [] : ["box"]), "weight", "feather"];
    const controls = shown.map((field) => control(frame, entry, index, fields[field]));
    return make("li", {}, make("strong", {}, badge(index), ` Region ${index + 1}`), gone, ...controls, again);
  };
  const drawMask = async (frame, sheet, { mask }, index) => {
    try {
      sheet.append(tinted(await readMask(mask), COLOURS[index % COLOURS.length]));
    } catch {
      sheet.title = "This mask cannot be shown.";
    }
  };
  const onCanvas = (frame, entry, index) => {
    const own = boxes.read(entry.box);
    if (!own && !entry.mask) return null;
    const colour = `--region: ${COLOURS[index % COLOURS.length]}`;
    if (!own) {
      const sheet = make("div", { class: "regions-mask", style: colour }, badge(index));
      drawMask(frame, sheet, entry, index);
      return sheet;
    }
    const corners = CORNERS.map((corner) => make("span", { class: "regions-corner", "data-corner": corner, "aria-hidden": "true" }));
    const button = make("button", { type: "button", class: "regions-box", "data-index": index, style: colour }, badge(index), ...corners);
    place(button, own, index);
    return button;
  };
  const fit = (frame) => {
    const { page } = frame.dataset;
    const [width, height] = shapeOf(page);
    const canvas = frame.querySelector(".regions-canvas");
    canvas.style.aspectRatio = `${width} / ${height}`;
    canvas.style.width = `min(100%, ${(15 * width) / height}rem)`;
    const start = document.querySelector(`#${page}-image img`)?.src ?? "";
    const picture = canvas.querySelector("img");
    picture.hidden = !start;
    if (picture.getAttribute("src") !== start) start ? (picture.src = start) : picture.removeAttribute("src");
  };
  const fill = (frame) => {
    const entries = read(frame.dataset.page);
    frame.querySelector("ol").replaceChildren(...entries.map((entry, index) => row(frame, entry, index)));
    const canvas = frame.querySelector(".regions-canvas");
    canvas.querySelectorAll(".regions-box, .regions-mask").forEach((shown) => shown.remove());
    canvas.append(...entries.map((entry, index) => onCanvas(frame, entry, index)).filter(Boolean));
    for (const button of frame.querySelectorAll("[data-act=add], [data-act=paint]")) {
      button.disabled = entries.length >= Number(frame.dataset.most);
    }
    frame.dataset.madeOf = fieldOf(frame.dataset.page)?.value ?? "";
    fit(frame);
    tellRest(frame, entries);
  };

  whenever(".regions", (frame) => {
    const acts = {
      add: () => add(frame),
      paint: () => paint(frame, read(frame.dataset.page).length),
      done: () => take(frame),
      leave: () => leave(frame),
    };
    frame.addEventListener("click", ({ target }) => acts[target.closest("[data-act]")?.dataset.act]?.());
    const canvas = frame.querySelector(".regions-canvas");
    canvas.addEventListener("pointerdown", (event) => onDown(frame, event));
    canvas.addEventListener("keydown", (event) => onKey(frame, event));
    fill(frame);
  });
  whenFilled((page) => {
    const frame = document.querySelector(`.regions[data-page="${page}"]`);
    if (!frame) return;
    if (frame.dataset.madeOf !== fieldOf(page)?.value) fill(frame);
    else fit(frame);
  });
})();
