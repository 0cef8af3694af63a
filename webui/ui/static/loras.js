// The LoRA panel: search, cards, a row with a weight for each chosen LoRA. The choice lives as JSON in a text field that
// is not shown, so that it travels, is remembered and is reused like every other field.
(() => {
  "use strict";
  const { make, makeButton, create } = window.darkroomPanel;

  const field = (page, name) => document.querySelector(`#${page}-${name} textarea`);
  const put = (element, value) => {
    element.value = value;
    element.dispatchEvent(new Event("input", { bubbles: true }));
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

  // A weight that changes over the steps is a list of [place, weight], as text "1@0;0.5@0.5".
  const isCurve = (weight) => Array.isArray(weight) || String(weight).includes("@");
  const weightText = (weight) => (Array.isArray(weight) ? weight.map(([place, value]) => `${value}@${place}`).join(";") : `${weight}`);
  const weightsText = ({ weight = 1, text_weight: text, hires_weight: hires }) =>
    [...(text == null ? [] : [text]), weight].map(weightText).concat(hires == null ? [] : `hr=${weightText(hires)}`).join(":");

  const curve = (page, entry, index) => {
    const input = make("input", { type: "text", value: weightText(entry.weight), "aria-label": `Weights of ${entry.name} over the steps` });
    input.addEventListener("change", () => {
      const entries = chosen(page);
      if (!entries[index] || !input.value.trim()) return;
      entries[index].weight = input.value.trim();
      choose(page, entries);
    });
    return [input];
  };

  const row = (page, entry, index) => {
    const controls = isCurve(entry.weight) ? curve(page, entry, index) : sliders(page, entry, index);
    const info = find(entry.name);
    const act = (label, name, run) => {
      const button = make("button", { type: "button", "aria-label": name, title: name }, label);
      button.addEventListener("click", run);
      return button;
    };
    const without = () => chosen(page).filter((_, k) => k !== index);
    const words = (info?.trigger_words ?? []).map((word) => act(word, `Add "${word}" to the prompt`, () => insert(page, word)));
    const remove = act("×", `Remove ${entry.name}`, () => choose(page, without()));
    remove.className = "loras-remove";
    const toPrompt = act("To prompt", `Write ${entry.name} into the prompt`, () => {
      insert(page, `<lora:${info?.tag ?? entry.name}:${weightsText(entry)}>`);
      choose(page, without());
    });
    toPrompt.disabled = info?.tag === "";
    const item = make("li", { "data-name": entry.name }, make("strong", {}, entry.name), ...controls, toPrompt, remove);
    if (words.length) item.append(make("div", { class: "loras-words" }, "Trigger words: ", ...words));
    return item;
  };

  const sliders = (page, entry, index) => {
    const weight = Number(entry.weight ?? 1);
    const wide = weight < 0 || weight > 2;
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
    return [slider, number];
  };

  // A tag cannot hold "<", ">", ":" or blanks around a name.
  const tagNote = ({ name, tag }) => {
    if (tag === name) return "";
    return tag ? `In a prompt: <lora:${tag}>` : "No tag can hold this name";
  };

  const makeCard = (page, info) => {
    const detail = [info.trigger_words.slice(0, 3).join(", "), info.made_for, info.place, tagNote(info)].filter(Boolean).join(" · ");
    const use = () => {
      const entries = chosen(page);
      if (!entries.some((entry) => entry.name === info.name)) choose(page, [...entries, { name: info.name, weight: info.weight }]);
    };
    return make("li", {}, makeButton(info, detail, info.description || `Use ${info.name}`, use));
  };

  const { show, find } = create({
    kind: "loras",
    things: "LoRAs",
    url: "./api/loras",
    words: (info) => [info.name, info.title, ...info.trigger_words],
    makeCard,
    isChosen: (page, name) => chosen(page).some((entry) => entry.name === name),
    hint: (known) => (known.length ? "" : "No LoRAs yet: put .safetensors files into models/Lora of the data folder."),
    showMore: (page, panel) => panel.querySelector(".loras-chosen").replaceChildren(...chosen(page).map((entry, index) => row(page, entry, index))),
  });
  window.darkroomLoras = { show };
})();
