// The bar under a page's picture: what can be done with the one that is shown, without the page's functions.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { read, write } = window.darkroom;
  const KEPT_OPEN = "darkroom.info";
  const TITLES = {
    reuse: "Reuse these settings", "reuse-seed": "Reuse with seed", vary: "Vary: draw pictures near this one", verify: "Verify: draw it again and compare",
    "send-img2img": "Send to img2img", "send-inpaint": "Send to inpaint", "send-upscale": "Send to upscale",
  };
  const found = new Map(); // by file name: the history's entry, once it was asked for

  const placeOf = (page) => document.querySelector(`.picture-note[data-page="${page}"]`)?.closest(".picture");
  const chosen = (page) => {
    const gallery = document.getElementById(`${page}-gallery`);
    return gallery?.querySelector("[aria-label='detailed view of selected image'] img") ?? gallery?.querySelector("img");
  };
  const nameOf = (page) => decodeURIComponent(new URL(chosen(page)?.src ?? "about:", location).pathname.split("/").at(-1));
  const say = (page, ...what) => document.querySelector(`.picture-note[data-page="${page}"]`).replaceChildren(...what);

  // What the history has of the picture; it knows files by ids of its own.
  const find = async (name) => {
    if (!found.has(name)) {
      const answer = await fetch(`./api/history?${new URLSearchParams({ query: name, limit: 20 })}`);
      const { pictures } = answer.ok ? await answer.json() : { pictures: [] };
      const same = pictures.filter((picture) => picture.name === name);
      if (same.length !== 1) return null; // not kept, or of two folders: then History says which
      found.set(name, same[0]);
    }
    return found.get(name);
  };
  const ask = async (page, entry, method, what) => {
    const answer = await fetch(`./api/history/${entry.id}${what}`, { method }).catch(() => null);
    if (!answer?.ok) say(page, (await answer?.json().catch(() => null))?.detail ?? "The server does not answer.");
    return answer?.ok;
  };
  const withEntry = async (page, run) => {
    const entry = await find(nameOf(page)).catch(() => null);
    if (entry) await run(entry);
    else say(page, "This picture is not in the history.");
  };

  const showFavourite = (page) => {
    const on = Boolean(found.get(nameOf(page))?.favourite);
    document.querySelector(`[data-act=favourite][data-page="${page}"]`)?.setAttribute("aria-pressed", String(on));
  };
  const showInfo = (page) => {
    const open = read(KEPT_OPEN) === "open";
    placeOf(page)?.toggleAttribute("data-info", open);
    document.querySelector(`[data-act=info][data-page="${page}"]`)?.setAttribute("aria-expanded", String(open));
  };
  const acts = {
    favourite: (page) => withEntry(page, async (entry) => {
      if (!(await ask(page, entry, entry.favourite ? "DELETE" : "PUT", "/favourite"))) return;
      entry.favourite = !entry.favourite;
      showFavourite(page);
    }),
    download: (page) => {
      const picture = chosen(page);
      if (picture) make("a", { href: picture.src, download: nameOf(page) }).click();
    },
    info: (page) => {
      write(KEPT_OPEN, read(KEPT_OPEN) === "open" ? "" : "open");
      window.darkroom.PAGES.forEach(showInfo);
    },
    delete: (page) => withEntry(page, async (entry) => {
      if (!(await ask(page, entry, "DELETE", ""))) return;
      const undo = make("button", { type: "button" }, "Undo");
      undo.addEventListener("click", async () => {
        if (!(await ask(page, entry, "POST", "/restore"))) return;
        placeOf(page).removeAttribute("data-deleted");
        say(page);
      });
      placeOf(page).dataset.deleted = entry.name;
      say(page, "Deleted. ", undo);
    }),
  };

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.(".picture-tools [data-act]");
    if (button) acts[button.dataset.act](button.dataset.page);
  });

  // Another picture is shown.
  const follow = (page) => {
    const place = placeOf(page);
    if (!place || place.dataset.picture === nameOf(page)) return;
    place.dataset.picture = nameOf(page);
    place.toggleAttribute("data-deleted", false);
    say(page);
    showFavourite(page);
  };
  whenever(".picture-tools", (tools) => {
    const { page } = tools.querySelector("[data-page]").dataset;
    new MutationObserver(() => follow(page)).observe(tools.closest(".picture"), { childList: true, subtree: true, attributeFilter: ["src"] });
    const own = page === "upscale" ? { "send-upscale": "Upscale this further" } : {};
    for (const [name, title] of Object.entries({ ...TITLES, ...own })) {
      const button = document.getElementById(`${page}-${name}`);
      if (!button) continue;
      button.title = title;
      button.setAttribute("aria-label", title);
    }
    // Which are favourites is asked for when somebody comes near the button.
    tools.addEventListener("pointerover", () => find(nameOf(page)).then(() => showFavourite(page), () => {}), { once: true });
    showInfo(page);
  });

  window.darkroomPicture = { chosen };
})();
