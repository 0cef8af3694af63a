// The seed in sight: a line beside Generate while it is fixed, and a word where a picture came out the same as the last.
(() => {
  "use strict";
  const { whenever } = window.darkroomPanel;
  const last = {}; // by page: the job on the page, its pixels and its settings

  const show = (page) => {
    const note = document.querySelector(`.seed-note[data-page="${page}"]`);
    const { seed } = JSON.parse(window.darkroom.recall(page) || "{}");
    if (!note) return;
    note.hidden = !(seed >= 0);
    note.querySelector("span").textContent = note.hidden ? "" : `Seed ${seed} is fixed.`;
  };

  whenever(".seed-note", (note) => {
    const { page } = note.dataset;
    note.querySelector("button").addEventListener("click", () => document.getElementById(`${page}-seed-new`).click());
    show(page);
  });

  whenever(".status[data-pixels]", (status) => {
    const page = status.closest("[id$='-status']")?.id.slice(0, -"-status".length);
    const { job, pixels, settings } = status.dataset;
    const before = last[page];
    last[page] = { job, pixels, settings };
    if (!before || before.job === job || before.pixels !== pixels) return;
    const why = before.settings === settings ? "Same seed and settings, so the same picture." : "The same picture: what was changed makes no difference to it.";
    status.querySelector(".status-text").append(` ${why}`);
  });

  window.darkroomSeed = { show };
})();
