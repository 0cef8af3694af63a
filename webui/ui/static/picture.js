// The bar under a page's picture: what can be done with the one that is shown, without the page's functions.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { read, write } = window.darkroom;
  const { request, describe, address, favour, trouble } = window.darkroomArchive;
  const { open } = window.darkroomSession;
  const KEPT_OPEN = "darkroom.info";
  const TITLES = {
    "reuse-settings": "Reuse these settings", "reuse-seed": "Reuse with seed", vary: "Vary: draw pictures near this one", verify: "Verify: draw it again and compare",
    "send-img2img": "Send to img2img", "send-inpaint": "Send to inpaint", "send-upscale": "Send to upscale",
  };
  const shown = {}; // by page: what the history has of the picture in sight, once it was asked for

  const placeOf = (page) => document.querySelector(`.picture-note[data-page="${page}"]`)?.closest(".picture");
  const chosen = (page) => {
    const gallery = document.getElementById(`${page}-gallery`);
    return gallery?.querySelector("[aria-label='detailed view of selected image'] img") ?? gallery?.querySelector("img");
  };
  const pathOf = (page) => new URL(chosen(page)?.src ?? "about:", location).pathname;
  const nameOf = (page) => decodeURIComponent(pathOf(page).split("/").at(-1));
  const say = (page, ...what) => document.querySelector(`.picture-note[data-page="${page}"]`).replaceChildren(...what);

  const find = async (page) => {
    const path = pathOf(page);
    const picture = await window.darkroomSession.chosen(page);
    if (picture) await describe(picture);
    if (path !== pathOf(page)) return null; // meanwhile another one is shown
    shown[page] = picture;
    showState(page);
    return picture;
  };
  // Runs what was asked for on what the history has of the picture, and says what goes wrong.
  const withPicture = async (page, run) => {
    try {
      const picture = await find(page);
      if (picture?.id) await run(picture);
      else if (picture !== null) say(page, "This picture is not in the history.");
    } catch (error) {
      say(page, trouble(error));
    }
  };
  const showState = (page) => {
    const picture = shown[page];
    document.querySelector(`[data-act=favourite][data-page="${page}"]`)?.setAttribute("aria-pressed", String(Boolean(picture?.favourite)));
    placeOf(page)?.toggleAttribute("data-deleted", Boolean(picture?.deleted));
  };
  const tellDeleted = (page, picture) => {
    if (!picture.deleted) return say(page);
    const undo = make("button", { type: "button" }, "Undo");
    undo.addEventListener("click", () => setDeleted(page, picture, false).catch((error) => say(page, trouble(error))));
    return say(page, "Deleted. ", undo);
  };
  const setDeleted = async (page, picture, deleted) => {
    await (deleted ? request(address(picture), "DELETE") : request(address(picture, "/restore"), "POST"));
    picture.deleted = deleted;
    if (shown[page] !== picture) return;
    showState(page);
    tellDeleted(page, picture);
  };
  const showInfo = (page) => {
    const isOpen = read(KEPT_OPEN) === "open";
    placeOf(page)?.toggleAttribute("data-info", isOpen);
    document.querySelector(`[data-act=info][data-page="${page}"]`)?.setAttribute("aria-expanded", String(isOpen));
  };
  const press = (page, name) => document.getElementById(`${page}-${name}`)?.click();
  const acts = {
    large: (page) => open(page),
    compare: (page) => open(page, true),
    favourite: (page) => withPicture(page, async (picture) => {
      await favour(picture);
      showState(page);
    }),
    download: (page) => {
      const picture = chosen(page);
      if (picture) make("a", { href: picture.src, download: nameOf(page) }).click();
    },
    info: (page) => {
      write(KEPT_OPEN, read(KEPT_OPEN) === "open" ? "" : "open");
      window.darkroom.PAGES.forEach(showInfo);
    },
    delete: (page) => withPicture(page, (picture) => picture.deleted || setDeleted(page, picture, true)),
  };

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.(".picture-tools [data-act]");
    if (button) acts[button.dataset.act](button.dataset.page);
  });
  const pageOf = ({ target }) => target.closest("[id$='-gallery'], .sending")?.closest(".picture")?.querySelector("[data-page]")?.dataset.page;
  const on = (act) => (event) => acts[act](pageOf(event));
  const pressKey = window.darkroomKeys.area("The picture of a page, with the focus on it or its buttons", [
    ["Enter, F", "Large view", ["f"], on("large")],
    ["C", "Compare with the one before", ["c"], on("compare")],
    ["S", "Favourite", ["s"], on("favourite")],
    ["I", "Information", ["i"], on("info")],
    ["R", "Reuse the settings, with Shift the seed too", ["r"], (event) => press(pageOf(event), "reuse-settings")],
    ["", "", ["Shift+r"], (event) => press(pageOf(event), "reuse-seed")],
    ["Delete", "Delete", ["Delete"], on("delete")],
    ["← →", "Another one of the same run"],
  ]);
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.("[id$='-gallery'], .sending") && window.darkroom.PAGES.includes(pageOf(event)) && pressKey(event)) event.preventDefault();
  });

  // Another picture is shown.
  const follow = (page) => {
    const place = placeOf(page);
    if (!place || place.dataset.picture === pathOf(page)) return;
    place.dataset.picture = pathOf(page);
    shown[page] = null;
    say(page);
    showState(page);
  };
  // The large view has done something with one.
  document.addEventListener("darkroom:picture", ({ detail: { page, picture } }) => {
    if (window.darkroom.chosenPicture(page) !== picture.picture) return;
    shown[page] = picture;
    showState(page);
    tellDeleted(page, picture);
  });
  whenever(".picture-tools:has([data-act=large])", (tools) => {
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
    tools.addEventListener("pointerover", () => find(page).catch(() => {}), { once: true });
    showInfo(page);
  });

  window.darkroomPicture = { chosen };
})();
