// Drawing a control's picture by hand, in the place of the page's large picture: white lines on black, which is what
// controls for lines read, whichever paper they are drawn on.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const [WHITE, BLACK] = ["#ffffff", "#000000"];
  const LINE = 1 / 48; // of the longer side: how wide a line is at first
  const ERASER = 2; // times as wide: no edge of a line is left
  const LEAST_PX = 512; // of the longer side
  const SAID = "Draw what the picture should follow. The control gets white lines on black.";
  const open = {}; // by page: what is being drawn there
  const drawn = new Map(); // by the hash of a drawing: its strokes, to go on with

  const tool = (name, text) => make("button", { type: "button", "data-tool": name, "aria-pressed": "false" }, text);
  const act = (name, text, attributes = {}) => make("button", { type: "button", "data-act": name, ...attributes }, text);
  const HELP =
    "Drawing. Arrow keys move the pen, Space draws a dot, Shift with arrows draws a line, [ and ] change the width, B is the pen, E the eraser, Control Z undoes, Control Shift Z does it again, Delete clears, Escape closes.";

  const frame = (page, name) => {
    const width = make("input", { type: "range", min: 1, max: 100, value: 8, "aria-label": "Line width in px" });
    const tools = make(
      "div", { class: "painter-tools", role: "toolbar", "aria-label": "Drawing tools" },
      tool("brush", "Pen"), tool("eraser", "Eraser"), make("label", { class: "painter-size" }, make("span", {}, "Width"), width),
      act("undo", "Undo"), act("redo", "Redo"), act("clear", "Clear"),
      act("paper", "White paper", { "aria-pressed": "false" }),
      act("zoom-out", "−", { "aria-label": "Zoom out" }),
      make("span", { class: "painter-zoom", "aria-live": "polite" }, "100 %"),
      act("zoom-in", "+", { "aria-label": "Zoom in" }),
      act("done", "Done"),
    );
    const canvas = make("canvas", { width: 1, height: 1, tabindex: 0, role: "img", "aria-label": HELP });
    const sheet = make("div", { class: "painter-sheet" }, make("img", { alt: "", hidden: "" }), canvas, make("div", { class: "painter-ring", hidden: "" }));
    const root = make(
      "div", { class: "painter sketch", "data-page": page }, tools, make("p", { class: "painter-note", role: "status" }),
      make("div", { class: "painter-stage" }, sheet),
    );
    return make("section", { class: "painting sketching", "aria-label": `Drawing: ${name}` }, root);
  };

  // What was drawn as a picture: white on black, opaque. The same lines are the same pixels, also after an undo.
  const pictureOf = (painter) => {
    painter.redraw();
    const { canvas } = painter;
    const paper = make("canvas", { width: canvas.width, height: canvas.height });
    const context = paper.getContext("2d");
    context.fillStyle = BLACK;
    context.fillRect(0, 0, paper.width, paper.height);
    context.drawImage(canvas, 0, 0);
    return new Promise((done) => paper.toBlob(done, "image/png"));
  };

  // The server keeps each state that is not gone by the time it could be sent, one after another; the control is told
  // the hash that stands for it, or nothing where all lines are gone.
  const send = async (drawing) => {
    drawing.isNew = true;
    if (drawing.isSending) return;
    drawing.isSending = true;
    window.darkroomFills.begin(drawing.page); // Generate waits for it
    try {
      while (drawing.isNew) {
        drawing.isNew = false;
        const { strokes } = drawing.painter;
        const answer = strokes.length && await fetch("./api/controls/pictures", { method: "POST", body: await pictureOf(drawing.painter) });
        if (answer && !answer.ok) throw new Error(`${answer.status}`);
        const sha256 = answer ? (await answer.json()).sha256 : "";
        if (sha256) drawn.set(sha256, strokes);
        drawing.changed(sha256);
      }
    } catch (error) {
      drawing.painter.say("The server did not take the drawing. Draw on to try again.");
      console.warn("the drawing was not kept", error);
    } finally {
      drawing.isSending = false;
      window.darkroomFills.end(drawing.page);
    }
  };

  const close = (page) => {
    const drawing = open[page];
    if (!drawing) return;
    delete open[page];
    drawing.place.remove();
    drawing.closed();
  };

  const load = (url) =>
    new Promise((done) => {
      const picture = new Image();
      picture.onload = () => done(picture);
      picture.onerror = () => done(null);
      picture.src = url;
    });
  // A picture with few pixels is drawn on a canvas with more, so that lines are as fine as a hand draws them.
  const canvasOf = ([width, height]) => {
    const times = Math.max(1, Math.ceil(LEAST_PX / Math.max(width, height)));
    return [width * times, height * times];
  };

  // Opens the drawing of a control of a page. `size` is the picture's [width, height] in px; `shown` its picture so far,
  // {sha256, url, isMap}: one that was drawn here or is a map is gone on with, any other lies under it to be traced.
  // `changed` is told the hash of each new state, `closed` that nobody draws any more.
  const begin = async (page, { name, size, shown, changed, closed = () => {} }) => {
    close(page);
    const place = frame(page, name);
    const root = place.firstChild;
    const drawing = { page, place, changed, closed };
    open[page] = drawing;
    document.querySelector(`#tab-${page} .picture`).prepend(place);
    drawing.painter = new window.darkroomPainter.Painter(root, { colour: WHITE, eraser: ERASER, keep: () => send(drawing) });
    drawing.painter.begin(canvasOf(size), LINE, drawn.get(shown?.sha256) ?? []);
    drawing.painter.say(SAID);
    root.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button?.dataset.act === "done") close(page);
      if (button?.dataset.act !== "paper") return;
      button.setAttribute("aria-pressed", String(root.classList.toggle("white-paper")));
    });
    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      close(page);
    });
    place.scrollIntoView({ block: "nearest" });
    drawing.painter.canvas.focus({ preventScroll: true });
    if (!shown || drawn.has(shown.sha256)) return;
    if (!shown.isMap) {
      drawing.painter.picture.hidden = false;
      drawing.painter.picture.src = shown.url;
      return;
    }
    const picture = await load(shown.url);
    if (!picture || drawing.painter.strokes.length) return;
    drawing.painter.start([{ image: picture }]);
    drawing.painter.redraw();
  };

  window.darkroomSketch = { begin, close };
})();
