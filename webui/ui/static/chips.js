// The LoRAs and styles in use as chips above Generate: LoRAs of the panel, those that the prompt names, styles. A press
// opens the panel or the shelf, or goes to the place in the prompt; the cross takes one off. A LoRA's, held down, shows the
// picture without it (flip.js).
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { put, valueOf, whenFilled } = window.darkroomFields;
  const TAG = /\s*<(?:lora|lyco):([^:<>]+)((?::[^<>]*)?)>/g;

  const openPanel = async (page, name) => {
    const fold = document.getElementById(`${page}-lora-panel`);
    if (!fold.querySelector(".label-wrap.open")) fold.querySelector(".label-wrap").click();
    await new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
    const row = name && [...fold.querySelectorAll(".loras-chosen li")].find((item) => item.dataset.name === name);
    const goal = row ? row.querySelector("input") : fold.querySelector("input[type=search]");
    (row ?? fold).scrollIntoView();
    goal?.focus();
  };
  const select = (page, tag) => {
    const box = document.querySelector(`#${page}-prompt textarea`);
    const start = box.value.indexOf(tag);
    box.focus();
    if (start >= 0) box.setSelectionRange(start, start + tag.length);
  };

  const used = (page) => {
    const { chosen, choose, weightsText } = window.darkroomLoras;
    const panel = chosen(page).map((entry, index) => ({
      name: entry.name,
      weight: weightsText(entry),
      open: () => openPanel(page, entry.name),
      remove: () => choose(page, chosen(page).filter((_, k) => k !== index)),
    }));
    const tags = [...String(valueOf(page, "prompt")).matchAll(TAG)].map(([tag, name, weights]) => ({
      name,
      weight: weights.slice(1) || "1",
      tag: tag.trim(),
      open: () => select(page, tag.trim()),
      remove: () => put(page, "prompt", valueOf(page, "prompt").replace(tag, "")),
    }));
    const styles = window.darkroomPresets.styles(page);
    const laid = styles.map((name) => ({
      name: `Style: ${name}`,
      style: name,
      off: `Take Style: ${name} off`,
      where: `The style ${name} stands around the prompt`,
      open: () => window.darkroomShelf.open(page, name),
      remove: () => window.darkroomPresets.setStyles(page, styles.filter((other) => other !== name)),
    }));
    return [...panel, ...tags, ...laid];
  };
  const short = (weight) => (/^-?[\d.]+$/.test(weight) ? String(Number(weight)) : weight.includes("@") ? "curve" : weight);

  const show = (page) => {
    const list = document.querySelector(`.chips[data-page="${page}"]`);
    if (!list) return;
    const entries = used(page);
    const told = JSON.stringify(entries);
    if (list.dataset.shown === told) return;
    list.dataset.shown = told;
    const focused = list.contains(document.activeElement);
    const chips = entries.map((entry) => {
      const place = entry.tag ? `${entry.tag}: in the prompt` : `${entry.name}, weight ${entry.weight}`;
      const where = entry.where ?? `${place}. Hold: the picture without it`;
      const weight = entry.weight === undefined ? [] : [make("small", {}, ` ${short(entry.weight)}`)];
      const open = make("button", { type: "button", class: "chip-open", title: where }, entry.name, ...weight);
      const off = entry.off ?? `Take ${entry.name} off`;
      const remove = make("button", { type: "button", class: "chip-remove", "aria-label": off, title: off }, "✕");
      open.addEventListener("click", entry.open);
      remove.addEventListener("click", entry.remove);
      return make("li", { class: entry.tag ? "chip in-prompt" : "chip", "data-name": entry.where ? null : entry.name, "data-style": entry.style }, open, remove);
    });
    const add = make("button", { type: "button", class: "chip-add" }, "+ LoRA");
    add.addEventListener("click", () => openPanel(page));
    const shelf = make("button", { type: "button", class: "chip-add", id: `${page}-presets`, "aria-haspopup": "dialog", title: "Presets and styles" }, "Presets");
    shelf.addEventListener("click", () => window.darkroomShelf.open(page));
    list.replaceChildren(...chips, make("li", {}, add), make("li", {}, shelf));
    if (focused) (list.querySelector(".chip-remove") ?? add).focus();
  };

  whenever(".chips", ({ dataset: { page } }) => show(page));
  whenFilled(show);
})();
