// Completion in the prompt boxes: a list below the box of what is being typed, by keyboard and pointer. What there is to
// offer is asked for when somebody first types.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { makeIndex, grow, typedAt, suggest, taken, ofTrigger, fold } = window.darkroomSuggest;
  const NAMES = ["prompt", "negative", "hires-prompt", "hires-negative"];
  const BOXES = darkroom.PAGES.flatMap((page) => NAMES.map((name) => `#${page}-${name} textarea`)).join(", ");
  const TYPED = ["insertText", "insertCompositionText", "deleteContentBackward"];
  const STALE_MS = 60_000;
  const SLICE = 200_000; // characters of a list that are taken in at once

  const known = { loras: [], embeddings: [], wildcards: [], tags: [] };
  let open = null; // {box, items, chosen, place}
  let typing = null; // the box that is typed into

  const idOf = (box) => box.closest("[id$='prompt'], [id$='negative']").id;

  // What there is

  const indexes = new Map(); // by name: {version, index}
  let askedAt = -Infinity;
  const fetchList = async ({ name, version }) => {
    if (indexes.get(name)?.version === version) return;
    const answer = await fetch(`./api/words/tags?${new URLSearchParams({ name })}`);
    if (!answer.ok) return;
    const index = makeIndex(name, await answer.text());
    while (!grow(index, SLICE)) await new Promise((go) => setTimeout(go));
    indexes.set(name, { version, index });
  };
  const load = async () => {
    if (performance.now() - askedAt < STALE_MS) return;
    askedAt = performance.now();
    try {
      const asked = fetch("./api/words");
      known.loras = await window.darkroomLoras.list();
      again();
      const answer = await asked;
      if (!answer.ok) return;
      const { embeddings, wildcards, tags } = await answer.json();
      Object.assign(known, { wildcards, embeddings: embeddings.map((name) => ({ name })) });
      again();
      const lists = tags.filter(({ problem }) => !problem);
      await Promise.all(lists.map(fetchList));
      known.tags = lists.flatMap(({ name }) => indexes.get(name)?.index ?? []);
      again();
    } catch {
      askedAt = -Infinity; // asked again with the next letter
    }
  };
  const again = () => {
    if (typing && typing === document.activeElement && (!open || (open.typed && open.chosen === 0))) look(typing);
  };

  // The list

  const place = ({ box, list }) => {
    const around = box.getBoundingClientRect();
    const room = innerHeight - around.bottom;
    const above = room < list.offsetHeight && around.top > room;
    Object.assign(list.style, {
      left: `${around.left}px`,
      width: `${around.width}px`,
      top: above ? "" : `${around.bottom + 2}px`,
      bottom: above ? `${innerHeight - around.top + 2}px` : "",
    });
  };
  const close = () => {
    if (!open) return;
    for (const name of ["aria-controls", "aria-activedescendant"]) open.box.removeAttribute(name);
    open.list.remove();
    open = null;
  };
  const choose = (number) => {
    const { box, list, items } = open;
    open.chosen = (number + items.length) % items.length;
    const options = list.querySelectorAll("[role=option]");
    options.forEach((option, k) => option.setAttribute("aria-selected", String(k === open.chosen)));
    box.setAttribute("aria-activedescendant", options[open.chosen].id);
    options[open.chosen].scrollIntoView({ block: "nearest" });
  };
  const marked = (label, query) => {
    const needle = fold(query).replaceAll("\\", "");
    const start = fold(label).indexOf(needle);
    const end = start + needle.length;
    return start < 0 || !needle ? [label] : [label.slice(0, start), make("b", {}, label.slice(start, end)), label.slice(end)];
  };
  const option = (id, item, number) => {
    const picture = item.preview ? make("img", { src: `./${item.preview}`, alt: "" }) : make("span", { "aria-hidden": "true" });
    const element = make(
      "li", { role: "option", id: `${id}-${number}`, "data-kind": item.kind, "aria-selected": "false" },
      picture, make("span", {}, ...marked(item.label, item.query ?? ""), " ", make("small", {}, item.detail)), " ", make("small", {}, item.kind),
    );
    element.addEventListener("click", () => take(number));
    return element;
  };
  const show = (box, items, { heading = "Suggestions", typed = true } = {}) => {
    close();
    if (!items.length) return;
    const id = `${idOf(box)}-complete`;
    const list = make(
      "div", { class: "complete" },
      make("ul", { role: "listbox", id, "aria-label": heading }, ...items.map((item, number) => option(id, item, number))),
      make("p", { "aria-hidden": "true" }, "↑ ↓ choose · Tab take it · Esc close"),
    );
    list.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the box
    document.body.append(list);
    open = { box, list, items, typed, chosen: 0, place: box.selectionStart };
    box.setAttribute("aria-autocomplete", "list");
    box.setAttribute("aria-haspopup", "listbox");
    box.setAttribute("aria-controls", id);
    place(open);
    choose(0);
  };
  const suggestions = (box, text, place = text.length) => {
    const words = window.darkroomVocabulary.entries(box);
    const loras = idOf(box).endsWith("negative") ? [] : known.loras; // no LoRA acts from there
    return suggest(typedAt(text, place), { ...known, words, loras });
  };
  const look = (box) => {
    const { value, selectionStart: start, selectionEnd: end } = box;
    if (!value) show(box, window.darkroomLast.items(box), { heading: "Last prompts" });
    else show(box, start === end ? suggestions(box, value, start) : []);
  };

  let writes = false; // it is not a person who types
  const write = (box, from, to, text) => {
    box.setSelectionRange(from, to);
    writes = true;
    // Unlike a new value, this can be undone; it also tells Gradio.
    if (!document.execCommand("insertText", false, text)) {
      box.setRangeText(text, from, to, "end");
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    writes = false;
  };
  const take = (number) => {
    const { box, items } = open;
    const item = items[number];
    close();
    write(box, item.from, item.to, taken(box.value, item));
    if (item.triggers) offerTriggers(box, item);
    if (item.more) offerTriggers(box, item.more);
  };
  // The words that a LoRA was trained on and that the text does not have yet, one after the other.
  const offerTriggers = (box, lora) => {
    const text = box.value.replace(/<[^>]*>/g, "").toLowerCase();
    const left = lora.triggers.filter((word) => !text.includes(word.toLowerCase()));
    const at = box.selectionStart;
    const items = left.map((word) => ({ ...ofTrigger(word, lora.label), from: at, to: at, more: lora }));
    show(box, items, { heading: `Trigger words of ${lora.label}`, typed: false });
  };

  // Events

  const boxOf = (target) => (target?.matches?.(BOXES) ? target : null);

  document.addEventListener("input", (event) => {
    const box = boxOf(event.target);
    if (!box || !event.isTrusted || writes) return;
    close();
    if (event.isComposing || !TYPED.includes(event.inputType)) return;
    typing = box;
    load();
    look(box);
  }, true);
  document.addEventListener("compositionend", ({ target }) => {
    if (boxOf(target)) look(target);
  }, true);
  document.addEventListener("focusout", ({ target }) => {
    if (target === typing) typing = null;
    if (target === open?.box) close();
  }, true);
  document.addEventListener("selectionchange", () => {
    if (open && open.box.selectionStart !== open.place) close();
  });
  for (const name of ["scroll", "resize"]) {
    window.addEventListener(name, ({ target }) => open && target !== open.list.firstChild && place(open), true);
  }

  const KEYS = {
    ArrowDown: () => choose(open.chosen + 1),
    ArrowUp: () => choose(open.chosen - 1),
    Tab: () => take(open.chosen),
    Enter: () => take(open.chosen),
    Escape: () => {
      typing = null;
      close();
    },
  };
  document.addEventListener("keydown", (event) => {
    if (!open || event.target !== open.box || event.isComposing || event.keyCode === 229) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) {
      if (event.key === "Enter") close();
      return;
    }
    const act = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    act();
  }, true);

  const offer = (box, items, heading) => show(box, items, { heading, typed: false });
  window.darkroomComplete = { suggestions, offer, write, boxOf };
})();
