// The seed in sight: whether it is random or kept, and a word where a picture came out the same as the last.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { put, valueOf, whenFilled } = window.darkroomFields;
  const RANDOM = -1;
  const LIMIT = 2 ** 32; // of seeds that are drawn
  const last = {}; // by page: the job on the page, its pixels and its settings

  const show = (page) => {
    const tools = document.querySelector(`.seed-tools[data-page="${page}"]`);
    if (!tools) return;
    const text = String(valueOf(page, "seed"));
    const kept = text !== "" && Number(text) >= 0;
    tools.dataset.seed = kept ? "kept" : Number(text) === RANDOM ? "random" : "";
    tools.querySelector("[data-act=random]").setAttribute("aria-pressed", String(tools.dataset.seed === "random"));
    const keep = tools.querySelector("[data-act=keep]");
    keep.setAttribute("aria-pressed", String(kept));
    keep.title = kept ? `Seed ${text} is kept. Press for a new one each time` : "Keep this seed";
  };
  const shownSeed = (page) => window.darkroomPicture.chosen(page)?.alt.match(/^Seed (\d+)/)?.[1];
  const acts = {
    random: (page) => put(page, "seed", RANDOM),
    last: (page) => shownSeed(page) && put(page, "seed", shownSeed(page)),
    keep: (page) => {
      const kept = Number(valueOf(page, "seed")) >= 0;
      put(page, "seed", kept ? RANDOM : (shownSeed(page) ?? Math.floor(Math.random() * LIMIT)));
    },
  };

  whenever(".seed-tools", (tools) => {
    const { page } = tools.dataset;
    tools.addEventListener("click", ({ target }) => acts[target.dataset.act]?.(page));
    show(page);
  });
  whenFilled(show);

  whenever(".status[data-pixels]", (status) => {
    const page = status.closest("[id$='-status']")?.id.slice(0, -"-status".length);
    const { job, pixels, settings } = status.dataset;
    const before = last[page];
    last[page] = { job, pixels, settings };
    if (!before || before.job === job || before.pixels !== pixels) return;
    const why = before.settings === settings ? "Same seed and settings, so the same picture." : "The same picture: what was changed makes no difference to it.";
    status.querySelector(".status-text").append(` ${why}`);
    if (Number(valueOf(page, "seed")) < 0) return;
    const anew = make("button", { type: "button", class: "again" }, "New seed");
    anew.addEventListener("click", () => {
      acts.random(page);
      anew.remove();
    });
    status.append(anew);
  });
})();
