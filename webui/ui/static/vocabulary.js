// The embedded model's words: a line below the prompt that says what it draws and opens to words to click, a prompt at
// random where nothing is typed, and a line that names words it was not trained on.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { learn, unknown } = window.darkroomMarks;
  const MODEL = "demo";
  const MOST_NAMED = 4;
  const PAUSE_MS = 400; // before words are called unknown while somebody types

  let told = null; // what the server says of the model
  let learned = new Map();
  let asked = false;
  const boxOf = (page, field) => document.querySelector(`#${page}-${field} textarea`);
  const isOn = (page) =>
    told !== null && window.darkroom.restored.includes(page) && window.darkroomModels.chosen(page) === MODEL;

  const ask = async () => {
    if (asked) return;
    asked = true;
    try {
      const answer = await fetch(`./api/models/vocabulary?name=${MODEL}`);
      told = answer.ok ? await answer.json() : null;
    } catch {
      asked = false; // asked again with the next change
    }
    if (told) know();
  };
  const know = (more = []) => {
    learned = learn(told, more);
    window.darkroom.PAGES.forEach(show);
    window.darkroomLayer.drawAll();
  };
  // Trigger words of LoRAs mean something, too: asked for once there is a word to look up.
  let askedMore = false;
  const askMore = async () => {
    if (askedMore) return;
    askedMore = true;
    know((await window.darkroomLoras.list()).flatMap((info) => info.trigger_words));
  };

  // Words into the prompt

  const put = (box, text) => {
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const either = (words) => words.map((word) => word.replace(/[^\w ]/g, "\\$&")).join("|");
  const article = (word) => (/^[aeiou]/.test(word) ? "an" : "a");
  const onColour = (colour) => `on ${article(colour)} ${colour} background`;
  const styled = (style) => `${style} style`;
  const isSize = (place) => !place.startsWith("on ") && !place.startsWith("at ");
  // A style, a background and a place take the place of another one; a size stands before the thing.
  const added = (text, kind, word) => {
    const others = {
      styles: new RegExp(`\\b(?:${either(told.styles)}) style\\b`, "i"),
      colours: new RegExp(`\\bon an? (?:${either(Object.keys(told.colours))}) background\\b`, "i"),
      places: new RegExp(`\\b(?:${either(told.places.filter((place) => isSize(place) === isSize(word)))})\\b`, "i"),
    }[kind];
    const phrase = { styles: styled, colours: onColour }[kind]?.(word) ?? word;
    if (others?.test(text)) return text.replace(others, phrase);
    if (kind === "places" && isSize(word) && text.trim()) return /\ban? /i.test(text) ? text.replace(/\ban? /i, `a ${word} `) : `${word} ${text}`;
    const before = text.trimEnd();
    return before ? `${before}${before.endsWith(",") ? " " : ", "}${phrase}` : phrase;
  };
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const atRandom = () =>
    `${pick(Object.keys(told.things))}, ${styled(pick(told.styles))}, ${onColour(pick(Object.keys(told.colours)))}`;

  // The line and what it opens to

  const chip = (page, kind, word, ...inside) => {
    const button = make("button", { type: "button", "data-word": word, translate: "no" }, ...(inside.length ? inside : [word]));
    button.addEventListener("click", () => {
      const box = boxOf(page, "prompt");
      put(box, added(box.value, kind, word));
    });
    return button;
  };
  const group = (title, chips) => {
    const element = make("div", { role: "group", "aria-label": title }, ...chips);
    return [make("h4", {}, title), element];
  };
  const fill = (page, details) => {
    if (details.querySelector("div")) return;
    const swatch = (name) => [make("i", { style: `background: ${told.colours[name]}`, "aria-hidden": "true" }), name];
    const things = group("Thing", Object.entries(told.things).map(([phrase, [name]]) => chip(page, "things", phrase, name)));
    const find = make("input", { type: "search", "aria-label": "Find a thing", placeholder: `Find among ${things[1].children.length}` });
    find.addEventListener("input", () => {
      const sought = find.value.trim().toLowerCase();
      for (const button of things[1].children) {
        button.hidden = ![button.dataset.word, ...told.things[button.dataset.word]].some((word) => word.includes(sought));
      }
    });
    details.append(
      make("p", {}, "Click words to build a prompt."),
      ...group("Style", told.styles.map((style) => chip(page, "styles", style, styled(style)))),
      ...group("Background", Object.keys(told.colours).map((name) => chip(page, "colours", name, ...swatch(name)))),
      ...group("Size and place", told.places.map((place) => chip(page, "places", place))),
      things[0], find, things[1],
    );
  };
  const count = (words) => (Array.isArray(words) ? words : Object.keys(words)).length;
  const build = (page, place) => {
    const { things, styles, colours } = told;
    const draws = page === "txt2img";
    const random = make("button", { type: "button" }, draws ? "draw something at random" : "write something at random");
    random.addEventListener("click", () => {
      put(boxOf(page, "prompt"), atRandom());
      if (draws) setTimeout(() => document.getElementById(`${page}-generate`)?.click()); // once Gradio has the text
    });
    const line = `The demo model is built in and small: ${count(things)} things, ${count(styles)} styles, ${count(colours)} colours.`;
    const details = make("details", {}, make("summary", {}, line));
    details.addEventListener("toggle", () => details.open && fill(page, details));
    const more = make("span", { class: "prompt-more" }, " · ", make("button", { type: "button", class: "add-model-open" }, "Add a model")); // for the owner
    place.replaceChildren(make("p", { class: "prompt-empty" }, "Nothing typed yet: ", random, more), details);
  };
  const showLine = (page) => {
    const place = document.querySelector(`.prompt-words[data-page="${page}"]`);
    if (!place) return;
    place.hidden = !isOn(page);
    if (place.hidden) return;
    if (!place.firstChild) build(page, place);
    place.querySelector(".prompt-empty").hidden = Boolean(boxOf(page, "prompt")?.value.trim());
  };

  // Words it does not know

  const unknownIn = (box, page) => {
    if (!isOn(page) || box.value.length > 8000) return [];
    const typing = document.activeElement === box && box.selectionStart === box.selectionEnd ? box.selectionStart : -1;
    const found = unknown(box.value, learned, typing);
    if (found.length) askMore();
    return found;
  };
  const list = (words, more) => {
    const named = [...words.map((word) => make("b", {}, word)), ...(more ? [`${more} more`] : [])];
    return named.flatMap((word, k) => [k === 0 ? "" : k === named.length - 1 ? " and " : ", ", word]);
  };
  const showUnknown = (page) => {
    for (const line of document.querySelectorAll(`.prompt-unknown[data-page="${page}"]`)) {
      const box = boxOf(page, line.dataset.field);
      const words = box ? [...new Set(unknownIn(box, page).map(({ word }) => word))] : [];
      const said = words.join();
      line.hidden = !words.length;
      if (line.dataset.said === said) continue;
      line.dataset.said = said;
      const more = words.length > MOST_NAMED + 1 ? words.length - MOST_NAMED : 0;
      const named = list(more ? words.slice(0, MOST_NAMED) : words, more);
      const so = words.length > 1 ? ", so it will ignore or misread them." : ", so it will ignore or misread it.";
      line.replaceChildren("The demo model does not know ", ...named, so);
    }
  };
  const waits = {};
  const show = (page) => {
    if (!told && window.darkroom.restored.includes(page) && window.darkroomModels.chosen(page) === MODEL) ask();
    showLine(page);
    clearTimeout(waits[page]);
    waits[page] = setTimeout(() => showUnknown(page), PAUSE_MS);
  };

  whenever(".prompt-words", ({ dataset }) => show(dataset.page)); // made anew
  document.addEventListener("darkroom:restored", ({ detail: { page } }) => {
    show(page);
    window.darkroomLayer.drawPage(page);
  });
  // For completion.
  let entries = null;
  const makeEntries = () => [
    ...Object.values(told.things).map(([name, ...others]) => ({ name, title: others.join("\n"), detail: "a thing that the demo model draws" })),
    ...told.styles.map((style) => ({ name: styled(style), detail: "a style of the demo model" })),
    ...Object.keys(told.colours).map((name) => ({ name: `${name} background`, detail: "a colour of the demo model" })),
    ...told.places.map((name) => ({ name, detail: `a ${isSize(name) ? "size" : "place"} of the demo model` })),
  ];
  const entriesOf = (box) => (isOn(box.closest("[id$='prompt'], [id$='negative']").id.split("-")[0]) ? (entries ??= makeEntries()) : []);

  window.darkroomVocabulary = { show, unknownIn, entries: entriesOf };
})();
