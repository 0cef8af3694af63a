// The last prompts of this browser: Alt+Up and Alt+Down in a prompt box go through them, and an empty box offers them. A
// prompt is kept when a picture is asked for.
(() => {
  "use strict";
  const KEY = "darkroom.lastPrompts";
  const KEPT = 50;
  const SHOWN = 10;
  const kindOf = (box) => (box.closest("[id$='negative']") ? "negative" : "prompt");

  const read = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) || "{}");
      const list = (texts) => (Array.isArray(texts) ? texts.filter((text) => typeof text === "string") : []);
      return { prompt: list(kept.prompt), negative: list(kept.negative) };
    } catch {
      return { prompt: [], negative: [] };
    }
  };
  const keep = (page) => {
    const kept = read();
    for (const kind of ["prompt", "negative"]) {
      const text = document.querySelector(`#${page}-${kind} textarea`)?.value.trim();
      if (text) kept[kind] = [text, ...kept[kind].filter((other) => other !== text)].slice(0, KEPT);
    }
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch (error) {
      console.warn("the browser keeps no more prompts", error);
    }
  };
  document.addEventListener("click", ({ target }) => {
    const id = target.closest?.("[id$='-generate']")?.id;
    if (id && !window.darkroomMore.isPressing()) keep(id.slice(0, -"-generate".length));
  }, true);

  // Where somebody is among them: {box, texts, at}, -1 for what they were typing.
  let walk = null;
  const step = (box, by) => {
    if (walk?.box !== box || walk.texts[walk.at + 1] !== box.value) {
      const draft = box.value;
      walk = { box, texts: [draft, ...read()[kindOf(box)].filter((text) => text !== draft.trim())], at: -1 };
    }
    const next = walk.at + by;
    const text = walk.texts[next + 1];
    if (text === undefined) return;
    walk.at = next;
    window.darkroomComplete.write(box, 0, box.value.length, text);
  };

  document.addEventListener("keydown", (event) => {
    const { target, key, altKey, ctrlKey, metaKey, shiftKey, isComposing } = event;
    if (ctrlKey || metaKey || shiftKey || isComposing || !window.darkroomComplete.boxOf(target)) return;
    if (altKey && (key === "ArrowUp" || key === "ArrowDown")) {
      event.preventDefault();
      step(target, key === "ArrowUp" ? 1 : -1);
    } else if (!altKey && key === "ArrowDown" && !target.value) {
      event.preventDefault();
      window.darkroomComplete.offer(target, items(target), "Last prompts");
    }
  }, true);

  const items = (box) =>
    read()[kindOf(box)].slice(0, SHOWN).map((text) => ({ kind: "last prompt", label: text, detail: "", write: text, from: 0, to: 0 }));
  window.darkroomLast = { items };
})();
