// What was refused, in the words of the page: which of its fields it is, and what would make it good. Knows no page: `of`
// gives what a field holds.
(() => {
  "use strict";
  const TAG = /\s*<(?:lora|lyco):([^:<>]+)(?::[^<>]*)?>/gi;
  const NAME = /(<\w+:)[^:<>]+/;
  const NONE = { "": "none" };

  const read = (text) => {
    try {
      const entries = JSON.parse(text || "[]");
      return Array.isArray(entries) ? entries : [];
    } catch {
      return [];
    }
  };
  const write = (entries) => (entries.length ? JSON.stringify(entries) : "");
  const tidy = (text) => text.replace(/,(\s*,)+/g, ",").replace(/^[\s,]+|[\s,]+$/g, "");
  const plain = (name) => name.trim().toLowerCase().split(/[\\/]/).at(-1).replace(/\.(safetensors|pt|ckpt|bin)$/, "");
  const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

  // A LoRA's name among those of a list and the tags of a prompt, which come after it: the `other` stands in its place, or it
  // goes; the first stays where `keep` says so.
  const changeLora = (of, list, prompt, name, { keep = false, other } = {}) => {
    const entries = read(of(list));
    const text = of(prompt) ?? "";
    const names = [...entries.map((entry) => entry.name), ...[...text.matchAll(TAG)].map(([, tagged]) => tagged)];
    const isIt = names.includes(name) && !keep ? (one) => one === name : (one) => plain(one) === plain(name);
    const first = names.findIndex(isIt);
    if (first < 0) return null;
    const goes = names.map((one, index) => isIt(one) && !(keep && index === first));
    let index = entries.length;
    const changed = (tag) => (other === undefined ? "" : tag.replace(NAME, (_, before) => before + other));
    const told = text.replace(TAG, (tag) => (goes[index++] ? changed(tag) : tag));
    const left = entries.flatMap((entry, place) => (!goes[place] ? [entry] : other === undefined ? [] : [{ ...entry, name: other }]));
    const at = goes.indexOf(true);
    const to = { ...(at < entries.length && { [list]: write(left) }), ...(told !== text && { [prompt]: other === undefined ? tidy(told) : told }) };
    return { to, ...(at < entries.length ? { field: list, entry: at + 1 } : { field: prompt }) };
  };
  const withoutWildcard = (text, name) => {
    const found = new RegExp(`__(?:[^_\\s]*\\$\\$|[~@!])?${escape(name)}(?:\\([^)]*\\))?__`, "g");
    const told = text.replace(found, "");
    return told === text ? null : tidy(told);
  };

  // `refused` is the request's field, `how` and `value` say what mends it, `instead` which entries of it. Gives {field, entry, name}: the page's field, of a
  // list the number of the entry from 1 and its field; and {label, to} where there is a mend, with values by field; nothing
  // where what was refused is no longer there.
  const describe = ({ refused, how, value, instead }, of) => {
    const path = refused.replace(/^init\./, "");
    const [, list, number, name] = path.match(/^(detail|controls|regions|loras)\.(\d+)(?:\.(.+))?$/) ?? [];
    const entry = Number(number);
    if (how === "remove" || how === "keep" || instead) {
      const label = how === "keep" ? "Keep the first" : instead ? `Use ${value}` : "Remove it";
      if (path === "styles") {
        const names = read(of("styles"));
        const left = names.filter((name) => name !== value);
        return left.length < names.length ? { field: path, name: value, label, to: { styles: write(left) } } : null;
      }
      const isLora = /(^|\.)loras$/.test(path);
      const lora = [instead ?? value, { keep: how === "keep", other: instead && value }];
      if (list && list !== "loras") {
        const entries = read(of(list));
        const own = entries[entry - 1];
        if (!own) return null;
        const text = own[isLora ? "prompt" : name] ?? "";
        const part = (field) => (field === "prompt" ? text : "");
        const told = isLora ? changeLora(part, "loras", "prompt", ...lora)?.to.prompt : withoutWildcard(text, value);
        if (told === undefined || told === null) return null;
        const changed = { ...own, [isLora ? "prompt" : name]: told };
        return { field: list, entry, name: isLora ? "prompt" : name, label, to: { [list]: write(entries.with(entry - 1, changed)) } };
      }
      if (isLora) {
        const prompt = path.replace(/loras$/, "prompt");
        const found = changeLora(of, path, prompt, ...lora);
        return found ? { ...found, label } : { field: prompt }; // it may be a style's
      }
      const told = withoutWildcard(of(path) ?? "", value);
      return { field: path, ...(told !== null && { label, to: { [path]: told } }) };
    }
    const place = list ? { field: list, entry, name } : { field: path };
    if (how !== "use") return place;
    const label = `Use ${NONE[value] ?? value}`;
    if (!list) return String(of(path)) === String(value) ? null : { ...place, label, to: { [path]: value } };
    const entries = read(of(list));
    if (!entries[entry - 1] || !name) return place;
    const typed = typeof entries[entry - 1][name] === "string" ? value : Number(value);
    return { ...place, label, to: { [list]: write(entries.with(entry - 1, { ...entries[entry - 1], [name]: typed })) } };
  };

  window.darkroomMends = { describe };
})();
