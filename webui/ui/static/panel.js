// What panels of cards share: a search box over what one address lists, the cards, a note, and how elements are made.
(() => {
  "use strict";
  const MOST_SHOWN = 60;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children); // text is always text here, never markup
    return element;
  };

  const makeButton = (info, detail, title, run) => {
    const picture = info.preview
      ? make("img", { src: `./${info.preview}`, alt: "", loading: "lazy" })
      : make("span", { class: "panel-blank", "aria-hidden": "true" }, [...info.name][0] ?? "");
    const button = make(
      "button",
      { type: "button", "data-name": info.name, disabled: info.problem ? "" : null, title: info.problem || title },
      picture, make("strong", {}, info.name), make("small", {}, info.problem || detail),
    );
    button.addEventListener("click", run);
    return button;
  };

  // Runs `begin` on every element that fits `selector`, now or later; Gradio may make them anew.
  const looks = [];
  const whenever = (selector, begin) => {
    const look = () => {
      for (const element of document.querySelectorAll(`${selector}:not([data-ready])`)) {
        element.dataset.ready = "1";
        begin(element);
      }
    };
    looks.push(look);
    if (document.body) look();
  };
  const start = () => {
    const lookForAll = () => looks.forEach((look) => look());
    new MutationObserver(lookForAll).observe(document.body, { childList: true, subtree: true });
    lookForAll();
  };
  document.body ? start() : document.addEventListener("DOMContentLoaded", start);

  // The panels of one `kind`, one on each page, over one list from `url`. `words` is the text of an entry to search in,
  // `makeCard` its <li>, `isChosen` whether its button is pressed, `hint` what to say of the whole list, `showMore` shows
  // what a panel has besides its cards, `reload` runs before the list is fetched again.
  const create = ({ kind, things, url, words, makeCard, isChosen, hint, showMore, reload = () => {} }) => {
    const shown = {}; // what each page's cards are
    let known = null;
    let loading = null;

    const say = (found) => {
      if (known === null) return `Looking for ${things} ...`;
      if (!known.length) return hint(known);
      if (!found.length) return `None of ${known.length} ${things} matches.`;
      return found.length > MOST_SHOWN ? `${MOST_SHOWN} of ${found.length}; search for the others.` : hint(known);
    };
    const show = (page) => {
      const panel = document.querySelector(`.${kind}[data-page="${page}"]`);
      if (!panel) return;
      const sought = panel.querySelector("input[type=search]").value.trim().toLowerCase();
      const found = (known ?? []).filter((info) => words(info).join(" ").toLowerCase().includes(sought));
      found.sort((one, other) => Boolean(one.problem) - Boolean(other.problem)); // what can be used comes first
      const names = found.map((info) => info.name).join("\n");
      if (shown[page] !== names || !panel.dataset.filled) {
        shown[page] = names;
        panel.dataset.filled = "1";
        const cards = found.slice(0, MOST_SHOWN).map((info) => makeCard(page, info));
        panel.querySelector(".panel-found").replaceChildren(...cards);
      }
      for (const button of panel.querySelectorAll(".panel-found button")) {
        button.setAttribute("aria-pressed", String(isChosen(page, button.dataset.name)));
      }
      showMore(page, panel);
      panel.querySelector(".panel-note").textContent = say(found);
    };
    const panels = () => [...document.querySelectorAll(`.${kind}`)];
    let newest = 0;
    const load = async (address = url) => {
      const number = ++newest;
      let found = [];
      try {
        const answer = await fetch(address);
        found = answer.ok ? await answer.json() : [];
      } catch { /* the note says that there are none */ }
      if (number !== newest) return; // asked again meanwhile: that answer counts
      known = found;
      for (const panel of panels()) {
        delete panel.dataset.filled;
        show(panel.dataset.page);
      }
    };
    whenever(`.${kind}`, (panel) => {
      const { page } = panel.dataset;
      panel.querySelector("input[type=search]").addEventListener("input", () => show(page));
      panel.querySelector("[data-act=reload]").addEventListener("click", () => {
        reload(page);
        loading = load(`${url}?reload=true`);
      });
      show(page);
      if (known === null) loading ??= load(); // one list serves the panels of all pages
    });
    return {
      show,
      showAll: () => panels().forEach((panel) => show(panel.dataset.page)),
      refresh: () => known && (loading = load(`${url}?reload=true`)),
      find: (name) => known?.find((info) => info.name === name),
      list: async () => {
        while (known === null) await (loading ??= load());
        return known;
      },
    };
  };

  window.darkroomPanel = { make, makeButton, whenever, create };
})();
