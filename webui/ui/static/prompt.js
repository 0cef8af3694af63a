// Help with the prompts: how many tokens they take, what is wrong with them, and weights by Ctrl+Up and Ctrl+Down.
(() => {
  "use strict";
  const PAUSE_MS = 250;
  const STEP = 0.1;
  const NAMES = ["prompt", "negative", "hires-prompt", "hires-negative"];
  const BOXES = darkroom.PAGES.flatMap((page) => NAMES.map((name) => `#${page}-${name}`)).join(", ");
  const NUMBER = /:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$/;
  const PLAIN = /^\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*$/;
  const OTHERWISE = /@|^\s*(?:te|unet)\s*=/;
  const WORD_END = /[\s,.;:!?()[\]{}<>|\\/"]/;

  // The counter

  const asked = {}; // by box: what was asked last, and what came back
  const fieldOf = (page, name) => document.querySelector(`#${page}-${name} textarea`);

  const countOf = (box) => box?.parentElement.querySelector(":scope > .prompt-count");
  const helpOf = (page, name) => document.querySelector(`.prompt-help[data-page="${page}"][data-field="${name}"]`);

  const show = (page, name) => {
    const help = helpOf(page, name);
    const answer = asked[page + name]?.answer;
    if (!help || !answer) return;
    const { tokens, room, unbalanced, unsupported = [], detail } = answer;
    const brackets = unbalanced ? [`Brackets: ${unbalanced}`] : [];
    help.querySelector(".prompt-trouble").textContent = detail ?? [...brackets, ...unsupported].join(" ");
    const count = countOf(fieldOf(page, name));
    if (count) count.textContent = detail ? "" : `${tokens}/${room}`;
    showDraws(page, name, answer);
  };

  // What it can say: in the next pictures, where the seed is fixed.
  const showDraws = (page, name, { draws = [], seed }) => {
    const place = document.querySelector(`.prompt-draws[data-page="${page}"][data-field="${name}"]`);
    if (!place) return;
    place.hidden = !draws.length;
    place.querySelector("summary").textContent = seed === undefined ? "Three examples" : "What the next pictures say";
    const lines = draws.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
    place.querySelector("ol").replaceChildren(...lines);
  };

  // The steps, and the share of them that is taken from a start picture, where they are numbers.
  const numbersOf = (page) => {
    const found = ["steps", "strength"].map((name) => [name, document.querySelector(`#${page}-${name} input`)?.value]);
    const numbers = found.filter(([, value]) => value && Number.isFinite(Number(value)));
    return Object.fromEntries(numbers.map(([name, value]) => [name, Number(value)]));
  };

  const ask = async (page, name) => {
    const prompt = fieldOf(page, name)?.value;
    const model = window.darkroomModels.chosen(page) || "demo";
    const place = name.endsWith("negative") ? "negative" : "prompt";
    const styles = prompt || !name.startsWith("hires") ? window.darkroomPresets.styles(page) : [];
    const asking = { model, [place]: prompt, ...(styles.length && { styles }), ...(prompt?.includes("[") ? numbersOf(page) : {}) }; // what changes needs the steps
    const seed = Number(document.querySelector(`#${page}-seed input`)?.value || -1);
    if (/__|\{/.test(prompt) && Number.isInteger(seed) && seed >= 0) asking.seed = seed; // it decides the draws
    const key = JSON.stringify(asking);
    const last = asked[page + name];
    const isKnown = !last && !prompt && !styles.length && model === "demo"; // as the page begins; others may have more room
    if (prompt === undefined || last?.key === key || isKnown) return;
    const mine = (asked[page + name] = { key, answer: last?.answer });
    const limit = Number(helpOf(page, name)?.dataset.limit);
    if (prompt.length > limit) {
      mine.answer = { detail: `Longer than ${limit.toLocaleString("en")} characters: it cannot be drawn.` };
      show(page, name);
      return;
    }
    try {
      const answer = await fetch("./api/tokens", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: key,
      });
      mine.answer = { ...(await answer.json()), seed: asking.seed };
    } catch {
      mine.key = null; // asked again with the next change
    }
    if (asked[page + name] === mine) show(page, name); // an old answer is no answer
  };

  const waits = {};
  const count = (page) => {
    window.darkroomVocabulary.show(page);
    window.darkroomLayer.drawPage(page);
    clearTimeout(waits[page]);
    waits[page] = setTimeout(() => NAMES.forEach((name) => ask(page, name)), PAUSE_MS);
  };

  window.darkroomFields.whenFilled(count);
  window.darkroomPanel.whenever(".prompt-help", ({ dataset }) => {
    show(dataset.page, dataset.field);
    count(dataset.page);
  });

  // Weights

  // [opening, closing] places of the round brackets that match, inner ones first; \( is a plain bracket.
  const pairs = (text) => {
    const open = [];
    const found = [];
    for (let place = 0; place < text.length; place++) {
      if (text[place] === "\\") place++;
      else if (text[place] === "(") open.push(place);
      else if (text[place] === ")" && open.length) found.push([open.pop(), place]);
    }
    return found;
  };

  const tagAround = (text, start, end) => {
    for (const tag of text.matchAll(/<\w+:[^<>]*>/g)) {
      if (tag.index < end + (start === end) && tag.index + tag[0].length > start) return [tag.index, tag.index + tag[0].length];
    }
  };

  const wordAround = (text, place) => {
    let [start, end] = [place, place];
    while (start > 0 && !WORD_END.test(text[start - 1])) start--;
    while (end < text.length && !WORD_END.test(text[end])) end++;
    return [start, end];
  };

  const format = (weight) => String(Number(weight.toFixed(2)));

  // What replaces text[from:to], and where the words are in it; undefined where nothing is to be done.
  const reweigh = (text, start, end, change) => {
    const tag = tagAround(text, start, end);
    if (tag) {
      const [kind, name, ...weights] = text.slice(tag[0] + 1, tag[1] - 1).split(":");
      const place = weights.findLastIndex((part) => PLAIN.test(part));
      if (place < 0 && weights.some((part) => OTHERWISE.test(part))) return; // points, or a weight by its name
      const [before, behind] = place < 0 ? [[], weights] : [weights.slice(0, place), weights.slice(place + 1)];
      const changed = Math.max(-10, Math.min(10, (place < 0 ? 1 : Number(weights[place])) + change));
      const after = [format(changed), ...behind].map((part) => `:${part}`).join("");
      return { from: tag[0], to: tag[1], before: "<", words: [kind, name, ...before].join(":"), after: `${after}>` };
    }
    const around = pairs(text);
    const isGroup = ([open, close]) =>
      start === end
        ? open < start && start <= close
        : (open === start && close + 1 === end) ||
          (open + 1 === start && (close === end || (close > end && NUMBER.exec(text.slice(end, close))?.index === 0)));
    const group = around.find(isGroup);
    if (group) {
      const [open, close] = group;
      const body = text.slice(open + 1, close);
      const weight = body.match(NUMBER);
      const words = weight ? body.slice(0, weight.index) : body;
      const changed = format((weight ? Number(weight[1]) : 1.1) + change);
      const plain = changed === "1";
      return { from: open, to: close + 1, before: plain ? "" : "(", words, after: plain ? "" : `:${changed})` };
    }
    const [from, to] = start === end ? wordAround(text, start) : [start, end];
    const words = text.slice(from, to);
    const cuts = around.some(([open, close]) => (from <= open && open < to) !== (from <= close && close < to));
    return words && !cuts ? { from, to, before: "(", words, after: `:${format(1 + change)})` } : undefined;
  };

  const trim = ({ value, selectionStart: start, selectionEnd: end }) => {
    while (start < end && /\s/.test(value[start])) start++;
    while (start < end && /\s/.test(value[end - 1])) end--;
    return [start, end];
  };

  document.addEventListener("keydown", (event) => {
    const box = event.target;
    const up = event.key === "ArrowUp";
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || !(up || event.key === "ArrowDown")) return;
    if (box.tagName !== "TEXTAREA" || !box.closest(BOXES)) return;
    event.preventDefault();
    const edit = reweigh(box.value, ...trim(box), up ? STEP : -STEP);
    if (!edit) return;
    const { from, to, before, words, after } = edit;
    window.darkroomComplete.write(box, from, to, before + words + after);
    box.setSelectionRange(from + before.length, from + before.length + words.length);
  }, true);
})();
