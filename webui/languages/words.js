// Puts another language's words in place of the English ones, wherever they come from: Gradio, our scripts or the server.
// A text that is not known stays. What people wrote themselves is left alone.
(() => {
  "use strict";
  const ATTRIBUTES = ["title", "aria-label", "placeholder", "alt", "label"];
  // Where people's own words stand, and names: prompts, files, models. An element can say so itself, as HTML has it.
  const THEIRS = [
    "[translate=no], script, style, textarea, pre, code, [contenteditable]",
    ".gallery-item, .panel-found strong, .loras strong, .complete li, .prompt-layer, .light-infotext, .light-facts dd, .panel-blank",
    "[data-boards], .presets-found strong",
  ].join();
  const MOST_KEPT = 4000;
  const WHOLE = ".queue-words > strong"; // people's words or one of our texts, but none with places
  const FEW_LETTERS = 14; // a pattern with fewer may fit anything, if it does not begin as a sentence: its places are numbers
  const NUMBER = "([\\d.,−–-]+(?: (?:s|min|h|kB|MB|GB))?(?: \\d+ s)?|[A-Z])";
  const PLACE = /\{(\w+)([+?&]?)\}/g;
  let words = new Map();
  let patterns = [];
  const kept = new Map();

  const escape = (text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  const makePattern = ([english, said]) => {
    const names = [];
    const letters = english.replace(PLACE, "").replace(/[^A-Za-z]/g, "").length;
    const isSure = letters >= FEW_LETTERS || /^[A-Z“]/.test(english) || /\{\w+[+?&]\}/.test(said);
    const place = isSure ? "(.*?)" : NUMBER;
    let at = 0;
    let source = "";
    for (const match of english.matchAll(PLACE)) {
      source += escape(english.slice(at, match.index)) + place;
      at = match.index + match[0].length;
      names.push(match[1]);
    }
    return { shape: new RegExp(`^${source}${escape(english.slice(at))}$`, "s"), names, said, letters };
  };
  // {1} is the value as it is; {1+} is one of our texts, without which the pattern does not fit; {1?} may be one, or several;
  // {1&} is a list of names.
  const fill = ({ shape, names, said }, text) => {
    const values = shape.exec(text)?.slice(1);
    if (!values) return null;
    let fits = true;
    const filled = said.replace(PLACE, (whole, name, kind) => {
      if (!names.includes(name)) return whole;
      const value = values[names.indexOf(name)];
      const core = value.replace(/^[\s·,]+|[\s·,]+$/g, "");
      if (kind === "&") {
        const list = value.replace(/ (and|or)(?= [^,]*$)/, (said, word) => ` ${words.get(word) ?? word}`);
        return list.replace(/\d+ more$/, (rest) => find(rest) ?? rest);
      }
      let own = kind ? (find(core) ?? words.get(upper(core)) ?? null) : null; // fields begin small in an error
      if (kind === "?") own ??= inParts(core, ", ", ", ");
      if (kind === "+" && own === null) fits = false;
      return own === null ? value : value.replace(core, () => own);
    });
    return fits ? filled : null;
  };
  const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const lower = (text) => text.charAt(0).toLowerCase() + text.slice(1);
  // Several texts in one: of them those that are known.
  const inParts = (text, between, join, isAll = false) => {
    const parts = text.split(between);
    if (parts.length < 2) return null;
    const found = parts.map((part) => find(part));
    const isKnown = (part, k) => part !== null || (isAll && !/[A-Za-z]{2}/.test(parts[k]));
    return (isAll ? found.every(isKnown) : found.some(isKnown)) ? parts.map((part, k) => found[k] ?? part).join(join) : null;
  };
  const look = (text) => {
    if (words.has(text)) return words.get(text);
    for (const end of [" ...", "."]) {
      const stem = text.endsWith(end) ? text.slice(0, -end.length) : "";
      if (words.has(stem)) return words.get(stem) + end;
    }
    if (words.has(lower(text))) return upper(words.get(lower(text)));
    const [, part, share] = /^(.+) ([\d.,]+ ?%)$/.exec(text) ?? []; // before patterns: "Loading {1}" is of files
    if (part && words.has(part)) return `${words.get(part)} ${share}`;
    const isList = text.includes(" · ");
    for (const pattern of isList ? patterns.filter(({ said }) => said.includes(" · ")) : patterns) {
      const found = fill(pattern, text);
      if (found !== null) return found;
    }
    const [, name, number] = /^(.+) ([\d.,]+ ?%?)$/.exec(text) ?? [];
    const named = name && (words.get(name) ?? words.get(upper(name)));
    if (named) return `${named} ${number}`;
    const [, letter, what] = /^([A-Z]): (.+)$/.exec(text) ?? [];
    if (letter && words.has(what)) return `${letter}: ${words.get(what)}`;
    const [, field, why] = /^([a-z_]+(?:\.[\w.]+)?): (.+)$/s.exec(text) ?? [];
    if (field && find(why) !== null) return `${words.get(upper(field)) ?? field}: ${find(why)}`;
    const [, whatFor, which] = /^([A-Z]\S+|\S+ .*?): (.+)$/s.exec(text) ?? [];
    if (whatFor && words.has(whatFor)) return `${words.get(whatFor)}: ${words.get(which) ?? words.get(upper(which)) ?? which}`;
    const several = inParts(text, " · ", " · ") ?? inParts(text, /(?<=[.!?]) (?=\S)/, " ");
    if (several !== null) return several;
    for (const end of [" ...", "."]) {
      const found = text.endsWith(end) ? find(text.slice(0, -end.length)) : null;
      if (found !== null) return found + end;
    }
    return inParts(text, ", ", ", ", true);
  };
  // What this language says for an English text; null where it is not known.
  const find = (text) => {
    if (!/[A-Za-z]/.test(text)) return null;
    if (!kept.has(text)) {
      if (kept.size > MOST_KEPT) kept.clear();
      kept.set(text, null); // while it is looked for
      kept.set(text, look(text));
    }
    return kept.get(text);
  };
  const translate = (text) => {
    const plain = text.trim();
    const found = find(plain.replace(/\s+/g, " "));
    return found === null ? text : text.replace(plain, () => found);
  };
  const translateIn = (element, text) => {
    if (element.tagName === "KBD" && words.has(`${text} (key)`)) return words.get(`${text} (key)`);
    return element.matches(WHOLE) ? (words.get(text) ?? text) : translate(text);
  };

  const done = new WeakMap(); // what was put into each text
  const putText = (node) => {
    const parent = node.parentElement;
    if (done.get(node) === node.data || !parent || parent.closest(THEIRS)) return;
    const said = translateIn(parent, node.data);
    done.set(node, said);
    if (said !== node.data) node.data = said;
  };
  const putAttributes = (element) => {
    if (element.closest("[translate=no]")) return;
    let own = done.get(element);
    for (const name of ATTRIBUTES) {
      const value = element.getAttribute(name);
      if (!value || own?.[name] === value) continue;
      if (!own) done.set(element, (own = {}));
      own[name] = translate(value);
      if (own[name] !== value) element.setAttribute(name, own[name]);
    }
  };
  const putAll = (root) => {
    if (root.nodeType === Node.TEXT_NODE) return putText(root);
    if (root.nodeType !== Node.ELEMENT_NODE) return;
    putAttributes(root);
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    while (walker.nextNode()) (walker.currentNode.nodeType === Node.TEXT_NODE ? putText : putAttributes)(walker.currentNode);
  };
  const follow = (changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "attributes") putAttributes(target);
      else if (type === "characterData") putText(target);
      else addedNodes.forEach(putAll);
    }
  };
  // What fields show of a list's choice is a value, which no look at the document finds.
  const putChoices = (config) => {
    for (const { props } of config?.components ?? []) {
      if (Array.isArray(props?.choices)) props.choices = props.choices.map(([label, value]) => [translate(String(label)), value]);
    }
  };

  const begin = (said) => {
    words = new Map(Object.entries(said));
    patterns = Object.entries(said).filter(([english]) => english.search(PLACE) >= 0).map(makePattern);
    const open = ({ shape }) => shape.source.startsWith("^("); // may begin with anything
    patterns.sort((one, other) => open(one) - open(other) || other.letters - one.letters);
    if (typeof document === "undefined") return;
    if (words.has("Ctrl (key)")) document.documentElement.style.setProperty("--ctrl", JSON.stringify(words.get("Ctrl (key)")));
    putChoices(window.gradio_config);
    putAll(document.documentElement);
    const watched = { childList: true, subtree: true, characterData: true, attributeFilter: ATTRIBUTES };
    new MutationObserver(follow).observe(document.documentElement, watched);
  };
  window.darkroomWords = { begin, translate };
})();
