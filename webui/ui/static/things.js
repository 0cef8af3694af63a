// Things found by a segmenter at the server, where there is one: more clicks refine a thing, and what comes of them is one
// stroke of the painter. The server gets the picture once, no larger than a segmenter sees it.
(() => {
  "use strict";
  const COLOUR = "colour";
  const CHOSEN = "darkroom.pick"; // what was chosen is remembered
  const SENT_PX = 1024; // of the longer side
  const MOST_POINTS = 64;
  const JSON_TYPE = { "content-type": "application/json" };
  const MORE = "Click on more of it, or with Shift on what is not part of it. N begins another thing.";
  const { read, write } = window.darkroom;

  const ask = async (address, options) => {
    const answer = await fetch(`./api/controls/${address}`, options).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The server does not answer.");
    });
    if (!answer.ok) throw Object.assign(new Error((await answer.json().catch(() => null))?.detail ?? answer.statusText), { status: answer.status });
    return answer;
  };

  const handed = new WeakMap(); // by the place of a picture: {src, kept}
  const handIn = async (picture) => {
    const scale = Math.min(1, SENT_PX / Math.max(picture.naturalWidth, picture.naturalHeight));
    const [width, height] = [picture.naturalWidth, picture.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
    const sheet = new OffscreenCanvas(width, height);
    sheet.getContext("2d").drawImage(picture, 0, 0, width, height);
    return (await ask("pictures", { method: "POST", body: await sheet.convertToBlob() })).json();
  };
  const kept = (picture, again) => {
    if (again || handed.get(picture)?.src !== picture.src) {
      const entry = { src: picture.src, kept: handIn(picture) };
      entry.kept.catch(() => handed.get(picture) === entry && handed.delete(picture));
      handed.set(picture, entry);
    }
    return handed.get(picture).kept;
  };

  // 1 where the thing is, for each pixel of a mask of these sides.
  const find = async (picture, { width, height }, points, segmenter, signal, again = false) => {
    const isNew = again || handed.get(picture)?.src !== picture.src;
    const shown = await kept(picture, again);
    const inPicture = ({ x, y }) => [(x * shown.width) / width, (y * shown.height) / height];
    const asked = { image: { sha256: shown.sha256 }, points: points.map(inPicture), labels: points.map(({ out }) => (out ? 0 : 1)), segmenter };
    let answer;
    try {
      answer = await ask("segment", { method: "POST", body: JSON.stringify(asked), headers: JSON_TYPE, signal });
    } catch (error) {
      if (isNew || error.status !== 422) throw error;
      return find(picture, { width, height }, points, segmenter, signal, true); // the server keeps pictures for a while
    }
    const mask = await createImageBitmap(await answer.blob());
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(mask, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    return Uint8Array.from({ length: width * height }, (_, at) => (data[at * 4] > 127 ? 1 : 0));
  };

  // How long it is off and on in turn: a region that is kept takes little room.
  const runsOf = (region) => {
    const runs = [];
    let [from, value] = [0, 0];
    for (let at = 0; at <= region.length; at++) {
      if (region[at] === value) continue;
      runs.push(at - from);
      [from, value] = [at, 1 - value];
    }
    return Uint32Array.from(runs);
  };
  const regionOf = ({ runs, width, height }) => {
    const region = new Uint8Array(width * height);
    let at = 0;
    runs.forEach((length, k) => {
      if (k % 2) region.fill(1, at, at + length);
      at += length;
    });
    return region;
  };

  class Things {
    constructor(painter) {
      this.painter = painter;
      this.place = painter.root.querySelector(".painter-finds");
      this.choice = this.place.querySelector("select");
      [this.after, this.out] = ["next", "out"].map((act) => painter.root.querySelector(`[data-act=${act}]`));
      this.page = painter.root.dataset.page.split("-")[0];
      this.problem = "";
      this.choice.addEventListener("change", () => {
        if (this.choice.value) write(CHOSEN, this.choice.value);
        else {
          this.choice.value = COLOUR;
          this.painter.say(this.problem);
        }
        this.next();
        this.reveal();
      });
    }

    get isOn() {
      return this.painter.tool === "pick" && this.choice.value !== COLOUR;
    }

    // The tool has changed.
    show() {
      this.stop();
      if (this.painter.tool === "pick") this.list();
      else this.next();
      this.reveal();
    }

    reveal() {
      const isPick = this.painter.tool === "pick";
      this.place.hidden = !isPick;
      this.out.hidden = !isPick;
      this.after.hidden = !this.isOn;
      this.painter.tolerance.parentNode.hidden = !isPick || this.isOn;
      this.showPoints();
    }

    async list() {
      const { names, problem } = await ask("segmenters").then((answer) => answer.json(), () => ({ names: [], problem: "The server does not answer." }));
      this.problem = problem;
      const known = JSON.stringify(names);
      if (known === this.known) return;
      this.known = known;
      const option = (value, text, attributes = {}) => window.darkroomPanel.make("option", { value, ...attributes }, text);
      this.choice.replaceChildren(
        ...names.map((name) => option(name, name, { translate: "no" })), option(COLOUR, "colour"), ...(names.length ? [] : [option("", "whole things")]),
      );
      const chosen = read(CHOSEN);
      this.choice.value = [...names, COLOUR].includes(chosen) ? chosen : names[0] ?? COLOUR;
      this.reveal();
    }

    // The thing that more clicks refine, if any: the one that is looked for, or that was found last.
    get open() {
      const last = this.painter.strokes.at(-1);
      return this.wanted ?? (last?.runs && !this.isClosed ? { ...last, before: this.painter.strokes.slice(0, -1) } : null);
    }

    // Clicks take out without Shift, which fingers have not; with it they add then.
    get takesOut() {
      return this.out.getAttribute("aria-pressed") === "true";
    }
    toggle() {
      this.out.setAttribute("aria-pressed", String(!this.takesOut));
    }

    next() {
      this.isClosed = true;
      this.showPoints();
    }

    add(point, withShift) {
      const { open } = this;
      const erase = open?.erase ?? withShift;
      const points = [...(open?.points ?? []), { ...point, out: erase !== withShift }];
      if (points.length > MOST_POINTS) return this.painter.say("These are as many clicks as one thing can have. N begins another.");
      this.isClosed = false;
      return this.look({ erase, points, before: open?.before ?? this.painter.strokes });
    }

    // The newest clicks win; Generate waits for what comes of them.
    async look(wanted) {
      const { painter } = this;
      const { width, height } = painter.canvas;
      this.canceller?.abort();
      this.canceller = new AbortController();
      this.wanted = wanted;
      painter.canvas.setAttribute("aria-busy", "true");
      painter.say("Looking at the picture ...");
      this.showPoints();
      window.darkroomFills.begin(this.page);
      try {
        const region = await find(painter.picture, { width, height }, wanted.points, this.choice.value, this.canceller.signal);
        if (this.wanted !== wanted) return;
        const { erase, points, before } = wanted;
        this.rest(region.includes(1) ? MORE : "Nothing was found there.");
        painter.change([...before, { erase, points, runs: runsOf(region), width, height }]);
        painter.redraw();
        painter.keep();
      } catch (error) {
        if (this.wanted === wanted) this.rest(error.message);
      } finally {
        window.darkroomFills.end(this.page);
      }
    }

    rest(text) {
      this.wanted = null;
      this.painter.canvas.removeAttribute("aria-busy");
      this.painter.say(text);
      this.showPoints();
    }

    // Whether something was looked for, which is forgotten.
    stop() {
      if (!this.wanted) return false;
      this.canceller.abort();
      this.rest("");
      return true;
    }

    showPoints() {
      const { sheet, canvas } = this.painter;
      sheet.querySelectorAll(".painter-point").forEach((dot) => dot.remove());
      for (const { x, y, out } of (this.isOn && this.open?.points) || []) {
        const dot = window.darkroomPanel.make("span", { class: "painter-point", "data-out": out ? "" : null, "aria-hidden": "true" });
        Object.assign(dot.style, { left: `${(x / canvas.width) * 100}%`, top: `${(y / canvas.height) * 100}%` });
        sheet.append(dot);
      }
    }
  }

  window.darkroomThings = { Things, regionOf, runsOf };
})();
