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
  // What the rows were made of: they stay, and with them the focus, while people change them.
  const madeOf = (page) => field(page, "loras")?.value + chosen(page).map(({ name }) => Boolean(find(name)));
  const change = (page, index, edit) => {
    const entries = chosen(page);
    if (!entries[index]) return;
    edit(entries[index]);
    const rows = rowsOf(page);
    say(rows.children[index].querySelector(".loras-also"), entries[index]);
    field(page, "loras").value = JSON.stringify(entries);
    rows.dataset.madeOf = madeOf(page);
    put(field(page, "loras"), JSON.stringify(entries));
  };
  const rowsOf = (page) => document.querySelector(`.loras[data-page="${page}"] .loras-chosen`);
  const insert = (page, text) => {
    const prompt = field(page, "prompt");
    const before = prompt.value.trimEnd();
    const joint = !before ? "" : text.startsWith("<") || before.endsWith(",") ? " " : ", ";
    put(prompt, before + joint + text);
  };

  // A weight that changes over the steps is a list of [place, weight], as text "1@0;0.5@0.5".
  const curves = window.darkroomCurve;
  const isCurve = (weight) => Array.isArray(weight) || String(weight).includes("@");
  const weightText = (weight) => (Array.isArray(weight) ? curves.format(weight) : `${weight}`);
  const extras = ({ hires_weight: hires, block_weights: blocks, block_elements: elements }) =>
    Object.entries({ hr: hires == null ? "" : weightText(hires), lbw: blocks, lbwe: elements }).flatMap(([key, text]) => (text ? `${key}=${text}` : []));
  const weightsText = (entry) =>
    [...(entry.text_weight == null ? [] : [entry.text_weight]), entry.weight ?? 1].map(weightText).concat(extras(entry)).join(":");

  const curve = (page, entry, index) => {
    const input = make("input", { type: "text", value: weightText(entry.weight), "aria-label": `Weights of ${entry.name} over the steps` });
    const steps = () => Number(document.querySelector(`#${page}-steps input`)?.value) || 1;
    const commit = (points) => {
      input.value = curves.format(points);
      input.removeAttribute("aria-invalid");
      change(page, index, (own) => (own.weight = points.map((point) => [...point])));
    };
    const editor = curves.create({ name: entry.name, steps, commit });
    const points = Array.isArray(entry.weight) ? entry.weight : curves.parse(String(entry.weight));
    if (points) editor.show(points);
    else {
      editor.element.hidden = true;
      input.setAttribute("aria-invalid", "true"); // the server says why
    }
    input.addEventListener("change", () => {
      const text = input.value.trim();
      const read = curves.parse(text);
      if (!read || editor.element.hidden) {
        const entries = chosen(page);
        if (!entries[index] || !text) return;
        entries[index].weight = read ?? text;
        choose(page, entries);
      } else {
        editor.show(read);
        commit(read);
      }
    });
    return [input, editor.element];
  };
  // What the row does not edit, so that nobody takes the weight for all.
  const say = (note, entry) => {
    const [weight, text] = [entry.weight ?? 1, entry.text_weight ?? entry.weight ?? 1].map(weightText);
    const said = [...(text === weight ? [] : [`text encoder ${text}`]), ...extras(entry)];
    note.textContent = said.length ? `Also: ${said.join(", ")}` : "";
    return note;
  };
  const toggle = (page, entry, index) => {
    const on = isCurve(entry.weight);
    const button = make(
      "button",
      { type: "button", class: "loras-curve", "aria-pressed": String(on), "aria-label": `Curve: the weight of ${entry.name} over the steps`, title: "A weight that changes over the steps" },
      "Curve",
    );
    button.addEventListener("click", () => {
      const entries = chosen(page);
      if (!entries[index]) return;
      const weight = entries[index].weight ?? 1;
      const points = Array.isArray(weight) ? weight : curves.parse(String(weight));
      entries[index].weight = on ? (points?.[0][1] ?? 1) : [[0, Number(weight)], [1, Number(weight)]];
      choose(page, entries);
      rowsOf(page).children[index]?.querySelector(".loras-curve").focus();
    });
    return button;
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
      insert(page, `<lora:${info?.tag ?? entry.name}:${weightsText(chosen(page)[index] ?? entry)}>`);
      choose(page, without());
    });
    toPrompt.disabled = info?.tag === "";
    const item = make(
      "li", { "data-name": entry.name },
      make("strong", {}, entry.name), ...controls, say(make("small", { class: "loras-also" }), entry), make("span", { class: "loras-acts" }, toggle(page, entry, index), toPrompt), remove,
    );
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
    const weigh = (value) => {
      if (value === "" || !Number.isFinite(Number(value))) return;
      change(page, index, (own) => {
        own.weight = Number(value);
        delete own.text_weight;
      });
      const wide = value < 0 || value > 2;
      slider.min = wide ? -10 : Math.min(0, slider.min);
      slider.max = wide ? 10 : Math.max(2, slider.max);
      slider.value = number.value = value;
    };
    slider.addEventListener("input", () => weigh(slider.value));
    number.addEventListener("change", () => weigh(number.value));
    return [slider, number];
  };

  // A tag cannot hold "<", ">", ":" or blanks around a name.
  const tagNote = ({ name, tag }) => {
    if (tag === name) return "";
    return tag ? `In a prompt: <lora:${tag}>` : "No tag can hold this name";
  };

  const noiseNote = ({ noise }) => {
    if (!noise) return "";
    const [least, most] = noise;
    if (most === 1000) return `Trained for the first steps only (noise from ${least} of 1000)`;
    return least ? `Trained for steps in the middle only (noise ${least} to ${most} of 1000)` : `Trained for the last steps only (noise up to ${most} of 1000)`;
  };

  const makeCard = (page, info) => {
    const detail = [info.trigger_words.slice(0, 3).join(", "), info.made_for, noiseNote(info), info.place, tagNote(info)].filter(Boolean).join(" · ");
    const use = () => {
      const entries = chosen(page);
      if (!entries.some((entry) => entry.name === info.name)) choose(page, [...entries, { name: info.name, weight: info.weight }]);
    };
    return make("li", {}, makeButton(info, detail, info.description || `Use ${info.name}`, use));
  };

  const { show, find, list, refresh } = create({
    kind: "loras",
    things: "LoRAs",
    url: "./api/loras",
    words: (info) => [info.name, info.title, ...info.trigger_words],
    makeCard,
    isChosen: (page, name) => chosen(page).some((entry) => entry.name === name),
    hint: (known) => (known.length ? "" : "No LoRAs yet: put .safetensors files into models/Lora of the data folder."),
    showMore: (page) => {
      const rows = rowsOf(page);
      if (rows.dataset.madeOf === madeOf(page)) return;
      rows.dataset.madeOf = madeOf(page);
      rows.replaceChildren(...chosen(page).map((entry, index) => row(page, entry, index)));
    },
  });
  window.darkroomFields.whenFilled(show);
  window.darkroomLoras = { show, refresh, list, chosen, choose, weightsText };
})();
