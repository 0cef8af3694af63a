// The keyboard: Ctrl+Enter generates, Esc stops when nothing else is open, and what is typed stays where it is typed. Each
// area of the page says here which keys it has.
(() => {
  "use strict";
  const { pageInSight, isBusy } = window.darkroom;

  const areas = new Map(); // by name: rows of [how it is told, what it does, keys, run(event), whether it holds now]
  const nameOf = ({ key, altKey, ctrlKey, metaKey, shiftKey }) => {
    const isSign = key.length === 1 && key.toLowerCase() === key.toUpperCase() && key !== " "; // made with Shift, or not
    const held = [(ctrlKey || metaKey) && "Ctrl", altKey && "Alt", shiftKey && !isSign && "Shift"];
    return [...held, key.length === 1 ? key.toLowerCase() : key].filter(Boolean).join("+");
  };
  const isTyping = (target) =>
    Boolean(target.closest?.("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=range], [type=button])"));
  // Rows with neither keys nor `run` are bound elsewhere. Gives what to call with a key's event: it runs the first row that
  // the key is of, and says whether there was one.
  const area = (name, rows) => {
    areas.set(name, rows);
    return (event) => {
      if (event.isComposing || event.defaultPrevented || isTyping(event.target)) return false;
      const pressed = nameOf(event);
      const [, , , run] = rows.find(([, , keys, , holds]) => keys?.includes(pressed) && (!holds || holds())) ?? [];
      run?.(event);
      return Boolean(run);
    };
  };
  // What Esc closes: lists, menus, completions, dialogs, a picture that fills the window.
  const CLOSED_BY_ESC = [
    "[aria-expanded=true]:is([role=combobox], [aria-haspopup])", "[role=listbox]", "[role=menu]",
    "dialog[open]", "[role=dialog]", "[role=alertdialog]", "[popover]", ".block.fullscreen", "select:open",
  ].filter((selector) => CSS.supports(`selector(${selector})`)).join(", ");

  const GALLERY = "[id$=-gallery]";
  const press = (id) => {
    const button = document.getElementById(id);
    if (button?.checkVisibility() && !button.disabled) button.click();
  };
  const somethingIsOpen = (target) =>
    document.fullscreenElement || (target.matches?.("input[type=search]") && target.value)
    || [...document.querySelectorAll(CLOSED_BY_ESC)].some((element) => element.checkVisibility());

  let stops = false;
  // On the way down: what the key closes is still open.
  window.addEventListener("keydown", (event) => {
    const page = pageInSight();
    stops = event.key === "Escape" && page && isBusy(page) && !event.repeat && !event.isComposing && event.keyCode !== 229
      && !(event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) && !somethingIsOpen(event.target);
    // Gradio's gallery takes Esc, and crops its picture to the pane: one alone stays as it is.
    const gallery = event.key === "Escape" && event.target.closest?.(GALLERY);
    if (gallery && (stops || !gallery.querySelector(".thumbnails > :nth-child(2)"))) {
      event.stopPropagation();
      if (stops) press(`${page}-stop`);
      stops = false;
    }
    if (!page || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
    press(`${page}-generate`);
  }, true);
  // On the way up: nobody else has taken it.
  window.addEventListener("keydown", (event) => {
    if (stops && !event.defaultPrevented) press(`${pageInSight()}-stop`);
    stops = false;
  });

  window.darkroomKeys = { area, areas };

  // Gradio's gallery moves the focus to its thumbnail whenever it shows other pictures. It may, if the person is there.
  let whereabouts = null;
  const note = (event) => (whereabouts = event.target.closest?.(GALLERY));
  document.addEventListener("focusin", note, true);
  document.addEventListener("pointerdown", note, true);
  const { focus } = HTMLElement.prototype;
  HTMLElement.prototype.focus = function (...options) {
    const gallery = this.closest(GALLERY);
    if (!gallery || gallery === whereabouts) focus.apply(this, options);
  };
  // The preview takes the gallery's place for a while, and with it the focus, which comes back to where it was.
  document.addEventListener("darkroom:state", ({ detail: { page } }) => {
    const gallery = document.getElementById(`${page}-gallery`);
    if (!gallery || isBusy(page) || gallery !== whereabouts || document.activeElement !== document.body) return;
    requestAnimationFrame(() => gallery.querySelector(".thumbnail-item.selected")?.focus());
  });
})();
