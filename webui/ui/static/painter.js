// A painter: brush, eraser, lasso, a click on a thing (`pick.js`, `things.js`), undo, redo, clear and zoom over a picture, by mouse, pen, finger or
// keyboard. Masks are painted with it, and `sketch.js` draws with it. A mask exists only here until it is asked for;
// nothing is uploaded while somebody paints.
(() => {
  "use strict";
  const LONGEST_PX = 2048; // of the mask; the server scales it to a larger picture
  const COLOUR = "#ff2d95"; // how the mask is shown; the server reads its opacity alone
  const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
  const TOOLS = { b: "brush", e: "eraser", l: "lasso", p: "pick" }; // by key
  const pending = {}; // pictures for pages whose painter is not built yet
  const recalled = {}; // strokes that belong to the next picture of a page
  const painters = {};

  class Painter {
    // `eraser` is how many times as wide as a line it is. `keep()` is told after each change; without it a page's mask is kept, as the picture's that it is painted on.
    constructor(root, { colour = COLOUR, eraser = 1, keep } = {}) {
      this.root = root;
      this.colour = colour;
      this.eraser = eraser;
      this.keeps = keep ?? (() => window.darkroomPictures.keepStrokes(root.dataset.page, this.strokes));
      this.canvas = root.querySelector("canvas");
      this.picture = root.querySelector("img");
      this.sheet = root.querySelector(".painter-sheet");
      this.stage = root.querySelector(".painter-stage");
      new ResizeObserver(() => this.fit()).observe(this.stage);
      this.size = root.querySelector(".painter-size input");
      this.tolerance = root.querySelector(".painter-tolerance input");
      this.ring = root.querySelector(".painter-ring");
      this.things = root.querySelector(".painter-finds") && new window.darkroomThings.Things(this);
      this.start([]);
      this.zoom = 0;
      this.cursor = null;
      root.addEventListener("click", (event) => this.onButton(event.target.closest("button")));
      this.canvas.addEventListener("pointerdown", (event) => this.onDown(event));
      this.canvas.addEventListener("pointermove", (event) => this.onMove(event));
      for (const end of ["pointerup", "pointercancel"]) {
        this.canvas.addEventListener(end, () => {
          if (!this.stroke) return;
          this.stroke = null;
          this.keep();
        });
      }
      this.canvas.addEventListener("pointerleave", () => (this.ring.hidden = true));
      this.canvas.addEventListener("keydown", (event) => this.onKey(event));
      if (!keep) this.followPicture();
      this.use("brush");
    }

    followPicture() {
      this.picture.addEventListener("load", () => this.onPicture());
      this.picture.addEventListener("error", () => this.say("This kind of picture cannot be shown here. Use a mask picture or rectangles."));
    }

    show(url) {
      if (url === this.url) return;
      this.url = url;
      this.things?.stop();
      this.start([]);
      this.root.classList.toggle("empty", !url);
      this.say("");
      if (url) this.picture.src = url;
      else this.picture.removeAttribute("src");
    }

    onPicture() {
      const { naturalWidth: width, naturalHeight: height } = this.picture;
      const scale = Math.min(1, LONGEST_PX / Math.max(width, height));
      const strokes = recalled[this.root.dataset.page] ?? [];
      delete recalled[this.root.dataset.page];
      this.begin([width, height].map((side) => Math.round(side * scale)), 1 / 10, strokes);
    }

    // A canvas of these sides with these strokes, and a line as wide as that share of the longer side.
    begin([width, height], share, strokes) {
      Object.assign(this.canvas, { width, height });
      const longer = Math.max(width, height);
      this.size.max = Math.round(longer / 3);
      this.size.value = Math.max(Number(this.size.min), Math.round(longer * share));
      this.cursor = { x: width / 2, y: height / 2 };
      this.start(strokes);
      this.setZoom(0);
      this.redraw();
    }

    // White where painted, as a PNG data URL; empty without a stroke.
    mask() {
      return this.strokes.some((stroke) => !stroke.erase) ? this.canvas.toDataURL("image/png") : "";
    }

    keep() {
      this.changes = (this.changes ?? 0) + 1;
      if ("own" in this.root.dataset) return; // no start picture is painted on
      this.keeps();
      window.darkroomFields.tell(this.root.dataset.page);
    }

    say(text) {
      this.root.querySelector(".painter-note").textContent = text;
    }

    use(tool) {
      this.tool = tool;
      for (const button of this.root.querySelectorAll("[data-tool]")) {
        button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
      }
      this.size.parentNode.hidden = tool === "pick";
      this.things?.show();
    }

    setZoom(level) {
      this.zoom = Math.max(0, Math.min(ZOOMS.length - 1, level));
      this.fit();
      this.root.querySelector(".painter-zoom").textContent = `${ZOOMS[this.zoom] * 100} %`;
    }

    // At 100 % the whole picture is in sight.
    fit() {
      const { clientWidth: across, clientHeight } = this.stage;
      const down = clientHeight - parseFloat(getComputedStyle(this.stage).paddingBottom);
      const whole = Math.floor(Math.min(across, (down * this.canvas.width) / this.canvas.height));
      this.sheet.style.width = `${whole * ZOOMS[this.zoom]}px`;
    }

    onButton(button) {
      const act = button?.dataset.tool ?? button?.dataset.act;
      if (button?.dataset.tool) this.use(act);
      if (act in this.edits) this.edit(act);
      if (act === "next") this.things.next();
      if (act === "out") this.things.toggle();
      if (act === "zoom-in") this.setZoom(this.zoom + 1);
      if (act === "zoom-out") this.setZoom(this.zoom - 1);
      this.redraw();
    }

    // What was painted before and undone after, as lists of strokes.
    start(strokes) {
      this.strokes = strokes;
      this.past = strokes.map((_, count) => strokes.slice(0, count));
      this.future = [];
    }
    change(strokes) {
      this.past.push(this.strokes);
      this.future = [];
      this.strokes = strokes;
    }
    regions = new WeakMap(); // by stroke
    edits = {
      undo: () => this.step(this.past, this.future),
      redo: () => this.step(this.future, this.past),
      clear: () => this.strokes.length && this.change([]),
    };
    step(from, to) {
      if (!from.length) return;
      to.push(this.strokes);
      this.strokes = from.pop();
    }
    edit(act) {
      if (this.things?.stop() && act === "undo") return; // of the click that was on its way
      this.edits[act]();
      this.redraw();
      this.keep();
    }

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      return {
        x: ((event.clientX - box.left) / box.width) * this.canvas.width,
        y: ((event.clientY - box.top) / box.height) * this.canvas.height,
      };
    }

    widthOf(tool) {
      return Number(this.size.value) * (tool === "eraser" ? this.eraser : 1);
    }

    put(point, tool = this.tool, takenOut = false) {
      if (tool === "pick") takenOut = takenOut !== this.things.takesOut;
      if (tool === "pick" && this.things.isOn) return void this.things.add(point, takenOut);
      this.things?.stop();
      if (tool === "pick") this.stroke = { erase: takenOut, tolerance: Number(this.tolerance.value), points: [point] };
      else this.stroke = { erase: tool === "eraser", fill: tool === "lasso", size: this.widthOf(tool), points: [point] };
      this.change([...this.strokes, this.stroke]);
      this.draw(this.stroke, 0);
    }

    onDown(event) {
      if (event.button > 0) return;
      event.preventDefault();
      this.canvas.focus({ preventScroll: true });
      this.canvas.setPointerCapture(event.pointerId);
      this.put(this.at(event), this.tool, event.shiftKey);
    }

    onMove(event) {
      this.cursor = this.at(event);
      this.showRing();
      if (!this.stroke || this.stroke.tolerance) return;
      this.stroke.points.push(this.cursor);
      if (this.stroke.fill) this.redraw();
      else this.draw(this.stroke, this.stroke.points.length - 2);
    }

    onKey(event) {
      const before = this.strokes.length;
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const step = Math.max(1, Number(this.size.value) / 4);
      if (event.key in moves && this.cursor) {
        const [x, y] = moves[event.key];
        this.cursor = {
          x: Math.max(0, Math.min(this.canvas.width, this.cursor.x + x * step)),
          y: Math.max(0, Math.min(this.canvas.height, this.cursor.y + y * step)),
        };
        if (event.shiftKey) this.put(this.cursor, this.erase ? "eraser" : "brush");
        this.stroke = null;
      } else if (event.key === " " && this.cursor) {
        this.put(this.cursor, this.tool === "lasso" ? "brush" : this.tool, event.shiftKey);
        this.stroke = null;
      } else if (event.key === "n" && this.things?.isOn) {
        this.things.next();
      } else if (event.key === "[" || event.key === "]") {
        this.size.value = Number(this.size.value) * (event.key === "]" ? 1.25 : 0.8);
      } else if (this.root.querySelector(`[data-tool=${TOOLS[event.key]}]`) && !(event.ctrlKey || event.metaKey || event.altKey)) {
        this.use(TOOLS[event.key]);
      } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
        this.edit(event.shiftKey ? "redo" : "undo");
      } else if (event.key === "Delete") {
        this.edit("clear");
      } else {
        return;
      }
      event.preventDefault();
      if (this.strokes.length !== before) this.keep();
      this.showRing();
    }

    get erase() {
      return this.tool === "eraser";
    }

    showRing() {
      const across = ((this.tool === "pick" ? 1 : this.widthOf(this.tool)) / this.canvas.width) * 100;
      Object.assign(this.ring.style, {
        left: `${(this.cursor.x / this.canvas.width) * 100}%`,
        top: `${(this.cursor.y / this.canvas.height) * 100}%`,
        width: `${across}%`,
      });
      this.ring.hidden = false;
    }

    // The region of a click, as a picture in the mask's colour; it is found once.
    picked(stroke) {
      const { width, height } = this.canvas;
      const known = this.regions.get(stroke);
      if (known?.width === width && known.height === height) return known;
      const sheet = Object.assign(document.createElement("canvas"), { width, height });
      const context = sheet.getContext("2d", { willReadFrequently: true });
      context.drawImage(this.picture, 0, 0, width, height);
      const [{ x, y }] = stroke.points;
      const region = stroke.runs
        ? window.darkroomThings.regionOf(stroke)
        : window.darkroomPick.pick(context.getImageData(0, 0, width, height), x, y, stroke.tolerance);
      const shown = context.createImageData(width, height);
      const colour = Number.parseInt(COLOUR.slice(1), 16);
      region.forEach((one, at) => one && shown.data.set([colour >> 16, (colour >> 8) & 255, colour & 255, 255], at * 4));
      context.putImageData(shown, 0, 0);
      this.regions.set(stroke, sheet);
      return sheet;
    }

    redraw() {
      this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
      for (const stroke of this.strokes) this.draw(stroke, 0);
      this.things?.showPoints();
    }

    draw(stroke, from) {
      const context = this.canvas.getContext("2d");
      if (stroke.image) {
        context.globalCompositeOperation = "source-over";
        context.drawImage(stroke.image, 0, 0, this.canvas.width, this.canvas.height);
        return;
      }
      context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
      if (stroke.tolerance || stroke.runs) return context.drawImage(this.picked(stroke), 0, 0);
      context.strokeStyle = this.colour;
      context.lineWidth = stroke.size;
      context.lineCap = context.lineJoin = "round";
      context.beginPath();
      const points = stroke.points.slice(from);
      context.moveTo(points[0].x, points[0].y);
      context.lineTo(points[0].x + 0.01, points[0].y); // a single point would leave no dot
      for (const { x, y } of points) context.lineTo(x, y);
      if (stroke.fill) {
        context.fillStyle = this.colour;
        context.fill();
      } else context.stroke();
    }
  }

  const build = () => {
    for (const root of document.querySelectorAll(".painter:not(.sketch, [data-ready])")) {
      root.dataset.ready = "1";
      const { page } = root.dataset;
      painters[page] = new Painter(root);
      painters[page].show(pending[page] ?? "");
    }
  };
  const start = () => {
    new MutationObserver(build).observe(document.body, { childList: true, subtree: true });
    build();
  };
  document.body ? start() : document.addEventListener("DOMContentLoaded", start);

  window.darkroomPainter = {
    Painter,
    show: (page, url) => {
      pending[page] = url ?? "";
      painters[page]?.show(pending[page]);
    },
    recall: (page, strokes) => (recalled[page] = strokes),
    mask: (page) => painters[page]?.mask() ?? "",
    changes: (page) => painters[page]?.changes ?? 0,
  };
})();
