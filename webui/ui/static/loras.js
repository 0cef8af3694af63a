// The LoRA panel: search, cards, a row with a weight for each chosen LoRA. The choice lives as JSON in a text field that
// is not shown, so that it travels, is remembered and is reused like every other field.
(() => {
  "use strict";
  const MOST_SHOWN = 60;
  const lists = {}; // what each panel shows is filtered from this
  let known = null;
  let loading = null;

  const panelOf = (page) => document.querySelector(`.loras[data-page="${page}"]`);
  const field = (page, name) => document.querySelector(`#${page}-${name} textarea`);
  const put = (element, value) => {
    element.value = value;
    element.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children); // text is always text here, never markup
    return element;
  };

  const chosen = (page) => {
    try {
      const entries = JSON.parse(field(page, "loras")?.value || "[]");
      return Array.isArray(entries) ? entries.filter((entry) => typeof entry?.name === "string") : [];
    } catch {
      return [];
    }
  };
  const choose = (page, entries) => {
    put(field(page, "loras"), entries.length ? JSON.stringify(entries) : "");
    show(page);
  };
  const insert = (page, text) => {
    const prompt = field(page, "prompt");
    const before = prompt.value.trimEnd();
    const joint = !before ? "" : text.startsWith("<") || before.endsWith(",") ? " " : ", ";
    put(prompt, before + joint + text);
  };

  const row = (page, entry, index) => {
    const weight = Number(entry.weight ?? 1);
    const wide = weight < 0 || weight > 2;
    const info = known?.find((one) => one.name === entry.name);
    const slider = make("input", {
      type: "range", min: wide ? -10 : 0, max: wide ? 10 : 2, step: 0.05, value: weight, "aria-label": `Weight of ${entry.name}`,
    });
    const number = make("input", {
      type: "number", min: -10, max: 10, step: 0.05, value: weight, "aria-label": `Weight of ${entry.name} as a number`,
    });
    const change = (value, final) => {
      const entries = chosen(page);
      if (!entries[index] || value === "" || !Number.isFinite(Number(value))) return;
      entries[index].weight = Number(value);
      delete entries[index].text_weight;
      put(field(page, "loras"), JSON.stringify(entries));
      slider.value = number.value = value;
      if (final) show(page);
    };
    slider.addEventListener("input", () => change(slider.value, false));
    number.addEventListener("change", () => change(number.value, true));
    const act = (label, name, run) => {
      const button = make("button", { type: "button", "aria-label": name, title: name }, label);
      button.addEventListener("click", run);
      return button;
    };
    const without = () => chosen(page).filter((_, k) => k !== index);
    const words = (info?.trigger_words ?? []).map((word) => act(word, `Add "${word}" to the prompt`, () => insert(page, word)));
    const remove = act("×", `Remove ${entry.name}`, () => choose(page, without()));
    remove.className = "loras-remove";
    const item = make(
      "li", { "data-name": entry.name },
      make("strong", {}, entry.name), slider, number,
      act("To prompt", `Write ${entry.name} into the prompt`, () => {
        insert(page, `<lora:${entry.name}:${entry.weight ?? 1}>`);
        choose(page, without());
      }),
      remove,
    );
    if (words.length) item.append(make("div", { class: "loras-words" }, "Trigger words: ", ...words));
    return item;
  };

  const card = (page, info) => {
    const button = make("button", { type: "button", "data-name": info.name, disabled: info.problem ? "" : null });
    const picture = info.preview
      ? make("img", { src: `./${info.preview}`, alt: "", loading: "lazy" })
      : make("span", { class: "loras-blank", "aria-hidden": "true" }, [...info.name][0] ?? "");
    const detail = info.problem || [info.trigger_words.slice(0, 3).join(", "), info.made_for].filter(Boolean).join(" · ");
    button.append(picture, make("strong", {}, info.name), make("small", {}, detail));
    button.title = info.problem || info.description || `Use ${info.name}`;
    button.addEventListener("click", () => {
      const entries = chosen(page);
      if (!entries.some((entry) => entry.name === info.name)) choose(page, [...entries, { name: info.name, weight: info.weight }]);
    });
    return make("li", {}, button);
  };

  const show = (page) => {
    const panel = panelOf(page);
    if (!panel) return;
    const entries = chosen(page);
    panel.querySelector(".loras-chosen").replaceChildren(...entries.map((entry, index) => row(page, entry, index)));
    const sought = panel.querySelector("input[type=search]").value.trim().toLowerCase();
    const text = (info) => [info.name, info.title, ...info.trigger_words].join(" ").toLowerCase();
    const found = (known ?? []).filter((info) => text(info).includes(sought));
    const names = found.map((info) => info.name).join("\n");
    if (lists[page] !== names || !panel.dataset.filled) {
      lists[page] = names;
      panel.dataset.filled = "1";
      panel.querySelector(".loras-found").replaceChildren(...found.slice(0, MOST_SHOWN).map((info) => card(page, info)));
    }
    for (const button of panel.querySelectorAll(".loras-found button")) {
      button.setAttribute("aria-pressed", String(entries.some((entry) => entry.name === button.dataset.name)));
    }
    const note = panel.querySelector(".loras-note");
    if (known === null) note.textContent = "Looking for LoRAs ...";
    else if (!known.length) note.textContent = "No LoRAs yet: put .safetensors files into models/Lora of the data folder.";
    else if (!found.length) note.textContent = `None of ${known.length} LoRAs is called like that.`;
    else note.textContent = found.length > MOST_SHOWN ? `${MOST_SHOWN} of ${found.length}; search for the others.` : "";
  };

  const load = async () => {
    try {
      const answer = await fetch("./api/loras");
      known = answer.ok ? await answer.json() : [];
    } catch {
      known = [];
    }
    for (const panel of document.querySelectorAll(".loras")) {
      delete panel.dataset.filled;
      show(panel.dataset.page);
    }
  };

  const begin = (panel) => {
    const page = panel.dataset.page;
    panel.dataset.ready = "1";
    panel.querySelector("input[type=search]").addEventListener("input", () => show(page));
    panel.querySelector("[data-act=refresh]").addEventListener("click", load);
    show(page);
    if (known === null) loading ??= load(); // one list serves the panels of all pages
  };

  window.darkroomLoras = { show };
  const start = () => {
    const look = () => document.querySelectorAll(".loras:not([data-ready])").forEach(begin);
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
    look();
  };
  document.body ? start() : document.addEventListener("DOMContentLoaded", start);
})();
