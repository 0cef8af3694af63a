// A way back from what fills a page's fields at once: a note with Undo, for a while or until it is closed.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const SHOWN_MS = 15000;
  let hiding;

  const hide = () => document.querySelector(".undo-note")?.remove();
  // `before` is what the browser remembered of the page's fields.
  const offer = (page, what, before) => {
    hide();
    const undo = make("button", { type: "button" }, "Undo");
    const close = make("button", { type: "button", "aria-label": "Close" }, "✕");
    undo.addEventListener("click", () => {
      hide();
      window.darkroomFills.ask(page, "memory", { text: before });
    });
    close.addEventListener("click", hide);
    const root = document.querySelector(".gradio-container") ?? document.body;
    root.append(make("div", { class: "undo-note", role: "status" }, make("span", {}, what), undo, close));
    clearTimeout(hiding);
    hiding = setTimeout(hide, SHOWN_MS);
  };

  window.darkroomUndo = { offer };
})();
