// Colours behind the text of the prompt boxes: what is emphasis, what changes over the steps, what is a LoRA. The text
// itself stays the box's own.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { partsOf } = window.darkroomMarks;
  const NAMES = ["prompt", "negative", "hires-prompt", "hires-negative"];
  const LONGEST = 8000; // characters; what is longer cannot be drawn
  const AS_IN_BOX = [
    ...["font-family", "font-size", "font-weight", "font-style", "line-height", "letter-spacing", "text-align", "tab-size"],
    ...["padding-top", "padding-right", "padding-bottom", "padding-left", "direction"],
  ];

  const boxesOf = (page) => NAMES.map((name) => document.querySelector(`#${page}-${name} textarea`)).filter(Boolean);
  const layerOf = (box) => (box.previousElementSibling?.classList.contains("prompt-layer") ? box.previousElementSibling : null);
  const pageOf = (box) => box.closest("[id$='prompt'], [id$='negative']").id.split("-")[0];

  const plain = (text, from, to, strange) => {
    const nodes = [];
    let place = from;
    for (const word of strange) {
      if (word.to <= place || word.from >= to) continue;
      nodes.push(text.slice(place, word.from), make("mark", { "data-kind": "unknown" }, text.slice(word.from, word.to)));
      place = word.to;
    }
    return [...nodes, text.slice(place, to)];
  };
  const nodesOf = (text, parts, from, to, strange) => {
    const nodes = [];
    let place = from;
    for (const part of parts) {
      const inside = nodesOf(text, part.parts, part.from, part.to, strange);
      nodes.push(...plain(text, place, part.from, strange), make("mark", { "data-kind": part.kind }, ...inside));
      place = part.to;
    }
    return [...nodes, ...plain(text, place, to, strange)];
  };
  const draw = (box) => {
    const layer = layerOf(box);
    if (!layer) return;
    const text = box.value.length > LONGEST ? "" : box.value;
    const strange = window.darkroomVocabulary.unknownIn(box, pageOf(box));
    const said = JSON.stringify([text, strange.map(({ from }) => from)]);
    if (layer.dataset.said === said) return;
    layer.dataset.said = said;
    layer.replaceChildren(...nodesOf(text, partsOf(text), 0, text.length, strange), "\u200b"); // a last line that is empty counts
    layer.scrollTop = box.scrollTop;
  };
  const fit = (box) => {
    const layer = layerOf(box);
    if (!layer) return;
    const style = getComputedStyle(box);
    for (const name of AS_IN_BOX) layer.style.setProperty(name, style.getPropertyValue(name));
    Object.assign(layer.style, {
      left: `${box.offsetLeft + box.clientLeft}px`,
      top: `${box.offsetTop + box.clientTop}px`,
      width: `${box.clientWidth}px`,
      height: `${box.clientHeight}px`,
    });
    layer.scrollTop = box.scrollTop;
  };
  const drawAll = () => window.darkroom.PAGES.flatMap(boxesOf).forEach(draw);

  const boxes = window.darkroom.PAGES.flatMap((page) => NAMES.map((name) => `#${page}-${name} textarea`)).join(", ");
  whenever(`:is(${boxes})`, (box) => {
    box.before(make("div", { class: "prompt-layer", "aria-hidden": "true" }));
    box.after(make("span", { class: "prompt-count", title: "Tokens that the model reads" }, "0/75")); // for prompt.js
    box.parentElement.classList.add("prompt-layered");
    new ResizeObserver(() => fit(box)).observe(box);
    box.addEventListener("scroll", () => (layerOf(box).scrollTop = box.scrollTop));
    for (const name of ["input", "focus", "blur"]) box.addEventListener(name, () => draw(box));
    fit(box);
    draw(box);
  });
  window.darkroomLayer = { drawAll, drawPage: (page) => boxesOf(page).forEach(draw) };
})();
