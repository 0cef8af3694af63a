// What stands beside Generate besides Stop: Skip, and a menu of ways to draw again and again, each with a line that says
// that it is on.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { PAGES, statusOf } = window.darkroom;
  const SKIPPED = ["loading", "running"];
  const DRAWING = ["txt2img", "img2img", "inpaint"]; // pages that draw one picture after the other
  const ways = []; // of the menu: {name, label, detail, isOn, toggle}
  const meant = {}; // by page: how the press of Generate that is on its way is meant, "" as a person's
  const skipped = new Set(); // jobs
  let pressing = false;

  const buttonOf = (page, name) => document.getElementById(`${page}-${name}`);

  // A press of Generate by a script, which says how it is meant.
  const press = (page, how) => {
    pressing = true;
    meant[page] = how;
    buttonOf(page, "generate").click();
    pressing = false;
  };
  document.addEventListener("click", ({ target }) => {
    const page = !pressing && target.closest?.("[id$='-generate']")?.id.slice(0, -"-generate".length);
    if (page) delete meant[page];
  }, true);

  const skip = async (page) => {
    const job = statusOf(page)?.dataset.job;
    if (!job || !SKIPPED.includes(statusOf(page).dataset.state)) return;
    skipped.add(job);
    const answer = await fetch(`./api/jobs/${job}/skip`, { method: "POST" }).catch(() => null);
    if (answer?.ok) window.darkroomProgress.say("Skipped.");
    else if (answer?.status !== 409) document.dispatchEvent(new CustomEvent("darkroom:trouble")); // 409: it has just ended
  };
  document.addEventListener("keydown", (event) => {
    const page = window.darkroom.pageInSight();
    if (!page || event.key !== "Enter" || !event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    event.preventDefault();
    skip(page);
  });

  // the menu

  const show = (page) => {
    for (const way of ways) {
      document.querySelector(`#${page}-more-menu [data-way="${way.name}"]`)?.setAttribute("aria-checked", String(way.isOn(page)));
    }
    buttonOf(page, "more")?.toggleAttribute("data-on", ways.some((way) => way.isOn(page)));
  };
  const say = (page, ...what) => document.querySelector(`.mode-note[data-page="${page}"]`)?.replaceChildren(...what);
  const makeMenu = (page, button) => {
    const items = ways.map((way) => {
      const item = make(
        "button", { type: "button", role: "menuitemcheckbox", "data-way": way.name, "aria-checked": "false", tabindex: "-1" },
        make("span", {}, way.label), make("small", {}, way.detail),
      );
      item.addEventListener("click", () => {
        menu.hidePopover();
        way.toggle(page);
        show(page);
      });
      return item;
    });
    const menu = make("div", { id: `${page}-more-menu`, class: "more-menu", role: "menu", popover: "auto", "aria-label": "More ways to generate" }, ...items);
    menu.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Tab") menu.hidePopover();
      if (!by) return;
      event.preventDefault();
      items[(items.indexOf(document.activeElement) + by + items.length) % items.length].focus();
    });
    menu.addEventListener("toggle", ({ newState }) => {
      const open = newState === "open";
      button.setAttribute("aria-expanded", String(open));
      if (!open) return;
      const { left, right, top, bottom } = button.getBoundingClientRect();
      const below = bottom + menu.offsetHeight + 8 < innerHeight;
      menu.style.left = `${Math.max(8, Math.min(right - menu.offsetWidth, left))}px`;
      menu.style.top = `${below ? bottom + 4 : Math.max(8, top - menu.offsetHeight - 4)}px`;
      items[0]?.focus();
    });
    (document.querySelector("main") ?? document.body).append(menu);
    button.popoverTargetElement = menu;
    return menu;
  };
  const place = (page, generate) => {
    const skipButton = make("button", { type: "button", id: `${page}-skip`, class: "skip", title: "Leave this picture out and go on with the next (Alt+Enter)" }, "Skip");
    skipButton.addEventListener("click", () => skip(page));
    buttonOf(page, "stop").before(skipButton);
    if (!DRAWING.includes(page)) return;
    const more = make("button", { type: "button", id: `${page}-more`, class: "more", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": "More ways to generate", title: "More ways to generate" });
    generate.after(more);
    const menu = makeMenu(page, more);
    generate.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      menu.showPopover();
    });
    generate.closest(".actions").append(make("p", { class: "mode-note", "data-page": page, role: "status" }));
    show(page);
  };
  whenever(`:is(${PAGES.map((page) => `#${page}-generate`)})`, (generate) => setTimeout(() => place(generate.id.slice(0, -"-generate".length), generate)));

  window.darkroomMore = {
    press,
    say,
    show,
    add: (way) => ways.push(way),
    isPressing: () => pressing,
    wasSkipped: (job) => skipped.has(job),
    how: (page) => meant[page] ?? "",
  };
})();
