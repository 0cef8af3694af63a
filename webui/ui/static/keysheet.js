// The sheet of keys: "?" or the button in the header opens it. What each part of the page binds it has told `keys.js`; here
// are the keys of the whole page, and those of parts that have no list of their own.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { area, areas } = window.darkroomKeys;
  const WHOLE = "Everywhere";
  const OFF = "darkroom.singleKeys";
  const areOff = () => localStorage.getItem(OFF) === "off";

  const tabs = () => [...document.querySelectorAll("#darkroom-tabs [role=tab][data-tab-id]")].filter((tab) => tab.checkVisibility());
  const goTo = (number) => () => {
    const tab = tabs()[number - 1];
    tab?.click();
    tab?.focus();
  };
  const toPrompt = () => {
    const page = window.darkroom.pageInSight();
    const field = document.querySelector(page ? `#${page}-prompt textarea` : ".history input[type=search]");
    field?.focus();
    field?.scrollIntoView({ block: "nearest" });
  };
  const press = area(WHOLE, [
    ["Ctrl+Enter", "Generate, or one more for the queue"],
    ["Alt+Enter", "Skip the current picture"],
    ["Esc", "Close what is open; with nothing open, stop"],
    ["?", "This sheet", ["?"], () => open()],
    ["/", "To the prompt", ["/"], toPrompt],
    ["Q", "The queue", ["q"], () => document.getElementById("darkroom-queue")?.click()],
    ["1 to 7", "To a page", ["1"], goTo(1)],
    ...[2, 3, 4, 5, 6, 7].map((number) => ["", "", [String(number)], goTo(number)]),
    ["Tab, Shift+Tab", "To the next field or button, to the last one"],
    ["← →", "On the row of pages: the next, the last"],
  ]);
  area("In a prompt", [
    ["Ctrl+↑, Ctrl+↓", "More or less weight for the words at the cursor"],
    ["Alt+↑, Alt+↓", "The prompts before"],
    ["↓", "In an empty box: the last prompts"],
    ["↑ ↓, Enter or Tab, Esc", "In the list of suggestions: choose, take, close"],
  ]);
  area("Presets, and a LoRA's chip", [
    ["Arrows", "From preset to preset"],
    ["Space or Enter, held", "On a chip: the picture without the LoRA, with the same seed"],
  ]);
  area("Painting a mask", [
    ["B, E, L, P", "Brush, eraser, lasso, pick a thing"],
    ["N", "Another thing"],
    ["Arrows", "Move the brush; with Shift it paints"],
    ["Space", "Paint where it is"],
    ["[ ]", "A smaller, a larger brush"],
    ["Ctrl+Z, Ctrl+Shift+Z", "Undo, redo"],
    ["Delete", "Remove the mask"],
  ]);
  area("A point of a LoRA's curve", [
    ["Arrows", "Move it; with Shift in small steps"],
    ["Enter, Delete", "Add a point beside it, remove it"],
  ]);

  let sheet = null;
  const build = () => {
    const inOrder = [...areas].sort(([one], [other]) => (other === WHOLE) - (one === WHOLE));
    const parts = inOrder.map(([name, rows]) => {
      const told = rows.filter(([keys]) => keys).map(([keys, does]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, keys)), make("td", {}, does)));
      return make("section", {}, make("h3", {}, name), make("table", {}, make("tbody", {}, ...told)));
    });
    const close = make("button", { type: "button", "aria-label": "Close" }, "✕");
    const single = make("input", { type: "checkbox" });
    single.checked = !areOff();
    single.addEventListener("change", () => localStorage.setItem(OFF, single.checked ? "on" : "off"));
    close.addEventListener("click", () => sheet.close());
    sheet = make("dialog", { id: "darkroom-keys", class: "keysheet panel", "aria-label": "Keys" },
      make("div", { class: "keysheet-head" }, make("h2", {}, "Keys"), close),
      make("div", { class: "keysheet-areas", tabindex: "0", role: "group", "aria-label": "All keys" }, ...parts),
      make("label", {}, single, " Single-letter keys work everywhere on the page (?, /, Q, 1 to 7)"));
    document.body.append(sheet);
  };
  const open = () => {
    if (!sheet) build();
    if (!sheet.open) sheet.showModal();
  };
  document.addEventListener("click", ({ target }) => {
    if (target.id === "darkroom-keys-open") open();
    else if (target === sheet) sheet.close(); // beside it
  });
  window.addEventListener("keydown", (event) => {
    const isElsewhere = areOff() || (event.key !== "?" && document.querySelector("dialog:modal"));
    if (!isElsewhere && press(event)) event.preventDefault();
  });

  window.darkroomKeySheet = { open };
})();
