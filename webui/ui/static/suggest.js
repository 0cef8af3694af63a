// What prompts can be completed with: what is being typed at a place in a text, what fits it, and what taking that
// writes. Nothing here knows the page.
(() => {
  "use strict";
  const LEAST = 2; // letters of a word before words are offered for it
  const TRIES = 4; // words that can be the beginning of one suggestion
  const MOST = 12;
  const MANY = 50; // where one kind alone is asked for
  const EACH = 4; // of files of one kind, beside others
  const NEAR = 300; // characters around the cursor that are looked at
  const FIRST = 64; // words kept by their first letter alone
  const IN_WORD = /[\p{L}\p{N}_]/u;
  // One sign, "_", one sign: o_o, ^_^, (>_<). What has blanks elsewhere is drawn as a face.
  const FACE = /^[^\p{L}\p{N}]*[\p{L}\p{N}]?[^\p{L}\p{N}]*_[^\p{L}\p{N}]*[\p{L}\p{N}]?[^\p{L}\p{N}]*$/u;
  // What the numbers of categories mean to the sites that lists are of.
  const DANBOORU = { 1: "artist", 3: "copyright", 4: "character", 5: "meta" };
  const CATEGORIES = { e621: { 1: "artist", 3: "copyright", 4: "character", 5: "species", 7: "meta", 8: "lore" } };

  // The index of a list of tags. Its text has a line for each tag, those that are used most first: category, note, name
  // and aliases, with tabs between. `places` says where words begin in names and aliases, by their first letter and by
  // their first two. So the first that fit are the best, and only those with the same two letters are looked at.

  const lower = (text) => {
    const low = text.toLowerCase();
    return low.length === text.length ? low : text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
  };
  const fold = (text) => lower(text).replaceAll("_", " ");
  const isLetter = (code) => (code > 96 && code < 123) || code > 127;
  const isDigit = (code) => code > 47 && code < 58;

  const makeIndex = (name, text) => ({ name, text, low: fold(text), places: new Map(), done: 0 });

  // Takes in the lines of about so many characters more; true once all are in. A long list is taken in bit by bit, so
  // that no key waits for it.
  const grow = (index, characters = Infinity) => {
    const { low, places } = index;
    const note = (key, place, most) => {
      const known = places.get(key);
      if (!known) places.set(key, [place]);
      else if (known.length < most) known.push(place);
    };
    const until = index.done + characters;
    while (index.done < low.length && index.done < until) {
      const end = low.indexOf("\n", index.done);
      const last = end < 0 ? low.length : end;
      const first = low.indexOf("\t", low.indexOf("\t", index.done) + 1) + 1;
      let before = 9; // a tab
      for (let place = first; place < last; place++) {
        const code = low.charCodeAt(place);
        const begins = before === 9 || (isLetter(code) ? !isLetter(before) : isDigit(code) && !isLetter(before) && !isDigit(before));
        if (begins) {
          note(code, place, FIRST);
          if (place + 1 < last) note(code * 65536 + low.charCodeAt(place + 1), place, Infinity);
        }
        before = code;
      }
      index.done = last + 1;
    }
    return index.done >= low.length;
  };

  const tagAt = ({ name: list, text }, place) => {
    const start = text.lastIndexOf("\n", place) + 1;
    const end = text.indexOf("\n", place);
    const [category, note, name, ...aliases] = text.slice(start, end < 0 ? text.length : end).split("\t");
    const before = text.slice(start, place).split("\t").length - 1; // fields
    const site = Object.keys(CATEGORIES).find((key) => list.toLowerCase().startsWith(key));
    return { name, note, alias: aliases[before - 3], category: (CATEGORIES[site] ?? DANBOORU)[category] ?? "tag" };
  };

  // Whether the tag in this line is called so.
  const isWhole = (low, line, place, needle) =>
    "\t\n".includes(low[place + needle.length] ?? "\n") && low.slice(line + 1, place).match(/^[^\t]*\t[^\t]*\t$/) !== null;

  // The tags in which a word begins like this, the one that is called so first; or those that begin so themselves, or an
  // alias. `looked` is how many were looked at.
  const find = (index, text, themselves = false, most = MOST) => {
    const needle = fold(text);
    const { low, places } = index;
    const among = places.get(needle.length > 1 ? needle.charCodeAt(0) * 65536 + needle.charCodeAt(1) : needle.charCodeAt(0)) ?? [];
    const found = new Map(); // by the tag's line
    let exact = null;
    let looked = 0;
    for (const place of among) {
      looked++;
      if (!low.startsWith(needle, place) || (themselves && low[place - 1] !== "\t")) continue;
      const line = low.lastIndexOf("\n", place);
      if (exact === null && isWhole(low, line, place, needle)) exact = [line, place];
      if (found.size < most && !found.has(line)) found.set(line, place);
      else if (found.size >= most && exact) break;
    }
    const all = exact ? [exact[1], ...[...found].filter(([line]) => line !== exact[0]).map(([, place]) => place)] : [...found.values()];
    return { looked, tags: all.slice(0, most).map((place) => tagAt(index, place)) };
  };

  // What is being typed

  const ENDS = ",\\n()\\[\\]{}|<>:;.!?\"";
  const GLUED = /[^\s,|<>:()[\]{}]+_\([^\s,|<>:()[\]{}]*$/; // fate_(ser
  const PHRASE = new RegExp(`(?:\\\\[\\s\\S]|[^\\\\${ENDS}])*$`);

  const typedInTag = (before, after, place) => {
    const open = before.match(/<([^<>\n]*)$/);
    if (!open) return null;
    const [, kind = "", named] = open[1].match(/^(?:(l|lora|e):)?([^:]*)$/i) ?? [];
    if (named === undefined) return { kind: "nothing" };
    const query = !kind && "lora".startsWith(named.toLowerCase()) ? "" : named; // the tag's own beginning
    const rest = after.match(/^[^<>,\n]*>/)?.[0] ?? "";
    return { kind: kind.toLowerCase() === "e" ? "embedding" : "lora", query, from: place - open[0].length, to: place + rest.length, rest };
  };

  // {kind, from, to, ...}: what stands at the place, and the part of the text that a suggestion for it replaces.
  const typedAt = (text, place) => {
    const before = text.slice(Math.max(place - NEAR, 0), place);
    const after = text.slice(place, place + NEAR);
    const tag = typedInTag(before, after, place);
    if (tag) return tag.kind === "nothing" ? null : tag;
    const chunk = before.match(/[^\s,()[\]{}|<>]*$/)[0];
    const parts = chunk.split("__");
    if (parts.length > 1) {
      if (parts.length % 2) return null;
      const rest = after.match(/^[^\s,()[\]{}|<>]*?__/)?.[0] ?? "";
      return { kind: "wildcard", query: parts.at(-1), from: place - parts.at(-1).length - 2, to: place + rest.length };
    }
    const phrase = (before.match(GLUED) ?? before.match(PHRASE))[0];
    if (!phrase || /\s$/.test(phrase) || /^[\d.+-]*$/.test(phrase.trim()) || IN_WORD.test([...after][0] ?? "")) return null;
    const starts = [...phrase.matchAll(/\S+/g)].slice(-TRIES).map((word) => word.index);
    const tries = starts.map((start) => ({ from: place - phrase.length + start, query: phrase.slice(start) }));
    const long = tries.filter(({ query }) => query.length >= LEAST || query.charCodeAt(0) > 127);
    return long.length ? { kind: "words", to: place, tries: long } : null;
  };

  // What fits

  const kept = new WeakMap(); // entries as they are searched
  const searched = (entry) => {
    if (!kept.has(entry)) kept.set(entry, fold([entry.name, entry.title ?? "", ...(entry.trigger_words ?? [])].join("\n")));
    return kept.get(entry);
  };
  // 0: it begins like that, 1: a word in it does, 2: it is somewhere in it, 3: nowhere.
  const distance = (text, needle) => {
    const first = text.indexOf(needle);
    if (first <= 0) return first ? 3 : 0;
    for (let place = first; place > 0; place = text.indexOf(needle, place + 1)) {
      if (!/[\p{L}\p{N}]/u.test(text[place - 1])) return 1;
    }
    return 2;
  };
  const best = (entries, query, most, farthest = 1) => {
    const needle = fold(query).replaceAll("\\", "");
    const far = entries.map((entry) => [distance(searched(entry), needle), entry]).filter(([away]) => away <= farthest);
    return far.sort(([one], [other]) => one - other).slice(0, most).map(([, entry]) => entry);
  };

  const ofLora = (info) => ({
    kind: "LoRA",
    label: info.name,
    detail: [info.trigger_words.slice(0, 2).join(", "), info.made_for].filter(Boolean).join(" · "),
    preview: info.preview,
    write: `<lora:${info.tag}:${Number((info.weight ?? 1).toFixed(2))}>`,
    triggers: info.trigger_words,
  });
  const ofEmbedding = ({ name }) => ({ kind: "embedding", label: name, detail: "", write: name, joins: true });
  const ofWildcard = ({ name, texts, some }) => ({
    kind: "wildcard",
    label: `__${name}__`,
    detail: some.join(", ") + (texts > some.length ? ` and ${texts - some.length} more` : ""),
    write: `__${name}__`,
  });
  const ofTrigger = (word, name) => ({ kind: "trigger word", label: word, detail: `of ${name}`, write: word, joins: true });
  const number = new Intl.NumberFormat("en", { notation: "compact" });
  const ofTag = ({ name, note, alias, category }) => ({
    kind: category,
    label: written(name),
    detail: [alias && `${alias.replaceAll("_", " ")} →`, /^\d+$/.test(note) ? number.format(Number(note)) : note].filter(Boolean).join(" "),
    write: written(name).replace(/[()[\]]/g, "\\$&"),
    joins: true,
  });
  const written = (name) => (name.length < 9 && FACE.test(name) ? name : name.replaceAll("_", " "));

  const usable = ({ loras = [] }) => loras.filter((info) => !info.problem && info.tag);
  const ofWord = (entry) => ({ kind: "word", label: entry.name, detail: entry.detail, write: entry.name, joins: true });
  const isBackground = ({ name }) => name.endsWith(" background");
  const ofWords = (words, query, before) => {
    const fitting = best(words, query, MANY);
    const first = /\bon an? $/i.test(before) ? fitting.filter(isBackground) : [];
    return [...new Set([...first, ...fitting])].slice(0, EACH).map(ofWord);
  };
  const byName = (known, query, before) => [
    ...ofWords(known.words ?? [], query, before),
    ...best(usable(known), query, EACH).map(ofLora),
    ...best(known.embeddings ?? [], query, EACH).map(ofEmbedding),
    ...best(known.wildcards ?? [], query, EACH).map(ofWildcard),
  ];
  const byTags = ({ tags = [] }, query) => {
    const needle = query.replaceAll("\\", "");
    const found = tags.flatMap((index) => find(index, needle, needle.includes(" ")).tags); // of several words the first begins it
    const weigh = ({ name, note }) => (fold(name) === fold(needle) ? Infinity : Number(note) || 0);
    return (tags.length > 1 ? found.sort((one, other) => weigh(other) - weigh(one)) : found).map(ofTag);
  };

  // What can be taken for what is typed: {kind, label, detail, write, from, to}. `known` has words (the
  // embedded model's), loras, embeddings, wildcards and tags, the indexes of lists.
  const suggest = (typed, known) => {
    if (!typed) return [];
    const { kind, query, to } = typed;
    let found = [];
    if (kind === "lora") {
      found = best(usable(known), query, MANY, 2).map(ofLora);
      const weight = typed.rest.match(/:[^>]*/)?.[0]; // of a tag that is whole already, which keeps it
      if (weight) found = found.map((item) => ({ ...item, write: item.write.replace(/:[^:]*>$/, `${weight}>`) }));
    }
    if (kind === "embedding") found = best(known.embeddings ?? [], query, MANY, 2).map(ofEmbedding);
    if (kind === "wildcard") found = best(known.wildcards ?? [], query, MANY, 2).map(ofWildcard);
    if (kind !== "words") return found.map((item) => ({ ...item, from: typed.from, to, query }));
    for (const { from, query } of typed.tries) {
      const before = typed.tries[0].query.slice(0, from - typed.tries[0].from);
      const fitting = [...byName(known, query, before), ...byTags(known, query)];
      found.push(...fitting.map((item) => ({ ...item, from, to, query })));
    }
    const seen = new Set();
    const once = found.filter(({ write }) => !seen.has(write) && seen.add(write)).slice(0, MOST);
    const isThere = ({ write, query }) => write === query;
    return once.every(isThere) ? [] : once; // nothing but what is typed already
  };

  // What replaces text[from:to] when it is taken: a comma and a blank behind words, unless something stands there.
  const taken = (text, { from, to, write, joins, triggers }) => {
    const after = text.slice(to);
    if (joins && !/^\s*[,:)\]}|>]/.test(after)) return `${write}${/^[^\S\n]/.test(after) ? "," : ", "}`;
    return triggers && !/^\s/.test(after) ? `${write} ` : write;
  };

  window.darkroomSuggest = { makeIndex, grow, find, typedAt, suggest, taken, ofTrigger, fold };
})();
