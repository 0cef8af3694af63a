// What the parts of a prompt are: emphasis, changes over the steps, choices, LoRAs, wildcards, and words that a model was
// not trained on. Nothing here knows the page.
(() => {
  "use strict";
  const CLOSES = { "(": ")", "[": "]", "{": "}" };
  const OPENS = { ")": "(", "]": "[", "}": "{" };
  const NUMBER = /:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$/;
  // What is one part, whatever stands in it.
  const WHOLE = [
    ["lora", /<\w+:[^<>]*>/y],
    ["wildcard", /__[^\s_{}<>|,](?:[^\s{}<>|,]*?[^\s_{}<>|,])??__/y],
    ["keyword", /(?:AND|BREAK)(?![\p{L}\p{N}_])/uy],
  ];
  const WORD = /[\p{L}\p{N}](?:[\p{L}\p{N}]|['’-](?=[\p{L}\p{N}]))*/gu;

  const wholeAt = (text, place) => {
    if (!"<_AB".includes(text[place])) return undefined;
    for (const [kind, form] of WHOLE) {
      form.lastIndex = place;
      if (kind === "keyword" && /[\p{L}\p{N}_]/u.test(text[place - 1] ?? "")) continue;
      const found = form.exec(text);
      if (found) return { kind, from: place, to: place + found[0].length, parts: [] };
    }
    return undefined;
  };

  const closed = (text, { open, from, parts, cuts }, to) => {
    const body = text.slice(from + 1, to - 1);
    const number = open !== "{" && body.match(NUMBER);
    const last = number && { kind: "number", from: from + 1 + number.index, to: to - 1, parts: [] };
    const whole = { from, to, parts: last ? [...parts, last] : parts };
    if (open === "(") return { ...whole, kind: number && Number(number[1]) < 1 ? "weaker" : "stronger" };
    if (open === "[") return { ...whole, kind: cuts ? "schedule" : "weaker" };
    return cuts ? { ...whole, kind: "choice" } : null; // single braces are words
  };

  // The parts of a prompt as a tree: {kind, from, to, parts}. What is not in one is plain words.
  const partsOf = (text) => {
    const top = { parts: [] };
    const stack = [top];
    const lift = (frame) => { // a bracket that is never closed
      const bad = frame.open === "{" ? [] : [{ kind: "bad", from: frame.from, to: frame.from + 1, parts: [] }];
      stack.at(-1).parts.push(...bad, ...frame.parts);
    };
    for (let place = 0; place < text.length; place++) {
      const letter = text[place];
      if (letter === "\\") {
        place++;
        continue;
      }
      const whole = wholeAt(text, place);
      if (whole) {
        stack.at(-1).parts.push(whole);
        place = whole.to - 1;
      } else if (CLOSES[letter]) {
        stack.push({ open: letter, from: place, parts: [], cuts: false });
      } else if (OPENS[letter]) {
        if (!stack.some(({ open }) => open === OPENS[letter])) {
          if (letter !== "}") stack.at(-1).parts.push({ kind: "bad", from: place, to: place + 1, parts: [] });
          continue;
        }
        while (stack.at(-1).open !== OPENS[letter]) lift(stack.pop());
        const frame = stack.pop();
        const part = closed(text, frame, place + 1);
        stack.at(-1).parts.push(...(part ? [part] : frame.parts));
      } else if (letter === "|" || (letter === ":" && stack.at(-1).open === "[")) {
        stack.at(-1).cuts = true;
      }
    }
    while (stack.length > 1) lift(stack.pop());
    return top.parts;
  };

  // Words that a model was trained on. `vocabulary` is as the server tells it.
  const learn = ({ things, styles, colours, places, passed_over: others, joints }, more = []) => {
    const phrases = [
      ...Object.values(things).flat(), ...styles, ...styles.map((style) => `${style} style`), ...Object.keys(colours), ...places, ...others, ...joints, ...more,
    ];
    const known = new Map(); // by their first word, the longest first
    for (const phrase of phrases) {
      const words = phrase.toLowerCase().match(WORD) ?? [];
      if (words.length) known.set(words[0], [...(known.get(words[0]) ?? []), words]);
    }
    for (const each of known.values()) each.sort((one, other) => other.length - one.length);
    return known;
  };

  const wordsOf = (text) => {
    const letters = [...text.matchAll(/\\?[\s\S]/g)].map(([one]) => (one.length > 1 ? ` ${one[1]}` : one)).join("");
    const blank = (plain, { kind, from, to, parts }) =>
      ["lora", "wildcard", "keyword", "number"].includes(kind)
        ? plain.slice(0, from) + "\n".repeat(to - from) + plain.slice(to)
        : parts.reduce(blank, plain);
    const plain = partsOf(text).reduce(blank, letters);
    const words = [...plain.matchAll(WORD)].map((found) => ({ word: found[0].toLowerCase(), from: found.index, to: found.index + found[0].length }));
    words.forEach((each, k) => (each.follows = k > 0 && /^[ \t]+$/.test(plain.slice(words[k - 1].to, each.from))));
    return words;
  };

  // The words of a prompt that are in none of the known phrases: {word, from, to}. One that is being typed, to the left
  // of `typing`, may still become one.
  const unknown = (text, known, typing = -1) => {
    const words = wordsOf(text);
    const found = [];
    for (let k = 0; k < words.length; ) {
      const fits = (phrase) => phrase.every((word, n) => words[k + n]?.word === word && (n === 0 || words[k + n].follows));
      const phrase = (known.get(words[k].word) ?? []).find(fits);
      const { word, to } = words[k];
      if (!phrase && !/^\d+$/.test(word) && to !== typing) found.push(words[k]);
      k += phrase?.length ?? 1;
    }
    return found;
  };

  window.darkroomMarks = { partsOf, learn, unknown };
})();
