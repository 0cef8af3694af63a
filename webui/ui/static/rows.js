// A group of the request that is a list: a row of controls for each entry, made from the fields that the frame tells. The
// list lives as JSON in a text field that is not shown, so that it travels, is remembered and is reused like every other.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { valueOf } = window.darkroomFields;
  const offered = {}; // what can be chosen, by the address that lists it: names, or {name, about, problem, misfit}
  const more = {}; // by group: what its rows have besides

  const frameOf = (page, group) => document.querySelector(`.rows[data-page="${page}"][data-group="${group}"]`);
  const fieldOf = ({ page, group }) => document.querySelector(`#${page}-${group} textarea`);
  const read = (frame) => {
    try {
      const entries = JSON.parse(fieldOf(frame.dataset)?.value || "[]");
      return Array.isArray(entries) ? entries.filter((entry) => entry && typeof entry === "object") : [];
    } catch {
      return [];
    }
  };
  const write = (frame, entries) => {
    const field = fieldOf(frame.dataset);
    if (!field) return;
    field.value = entries.length ? JSON.stringify(entries) : "";
    frame.dataset.madeOf = field.value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const fieldsOf = (frame) => JSON.parse(frame.dataset.fields);

  // An address that asks for a page's model lists what fits that.
  const addressOf = (frame, { url, of_model: ofModel }) =>
    ofModel ? `${url}?model=${encodeURIComponent(valueOf(frame.dataset.page, "model"))}` : url;
  const plain = (entry) => (typeof entry === "string" ? { name: entry } : entry);
  const usable = ({ problem, misfit }) => !problem && !misfit;
  const choices = (select, listed, value) => {
    const known = listed.map(plain).sort((one, other) => usable(other) - usable(one));
    const all = known.some(({ name }) => name === value) || !value ? known : [{ name: value }, ...known];
    const optionOf = (entry) => {
      const why = entry.problem || entry.misfit;
      const text = entry.title ?? (why && entry.about ? `${entry.name} (${entry.about})` : entry.name);
      return make("option", { value: entry.name, disabled: why ? "" : null, title: why || null, translate: entry.title ? null : "no" }, text);
    };
    select.replaceChildren(...all.map(optionOf));
    select.value = value;
  };

  const control = (frame, info, entry, index) => {
    const id = `${frame.dataset.page}-${frame.dataset.group}-${index ? `${index + 1}-` : ""}${info.name}`;
    const value = entry[info.name] ?? info.default;
    const limits = { min: info.least, max: info.most, step: info.step };
    const input =
      info.kind === "choice" ? make("select", { id, "data-list": info.url && addressOf(frame, info) })
      : info.kind === "text" ? make("textarea", { id, rows: 2, placeholder: info.description })
      : make("input", { id, type: "number", ...limits });
    if (info.kind === "choice") choices(input, info.choices?.map((name) => ({ name, title: name })) ?? offered[input.dataset.list] ?? [], String(value ?? ""));
    else input.value = value;
    input.addEventListener("input", () => {
      const entries = read(frame);
      const number = input.value === "" ? info.default : Number(input.value);
      const said = info.kind === "number" ? number : input.value;
      if (!entries[index]) return;
      if (said === info.default && !info.always) delete entries[index][info.name];
      else entries[index][info.name] = said;
      write(frame, entries);
      more[frame.dataset.group]?.changed?.(frame, index, info.name);
    });
    return make("label", { title: info.description, class: `rows-${info.kind}`, "data-field": info.name, "data-wide": info.always || info.url ? "" : null }, make("span", {}, info.title), input);
  };

  const row = (frame, entry, index) => {
    const thing = `${frame.dataset.thing} ${index + 1}`;
    const remove = make("button", { type: "button", class: "rows-remove", "aria-label": `Remove ${thing}`, title: `Remove ${thing}` }, "×");
    remove.addEventListener("click", () => {
      write(frame, read(frame).filter((_, k) => k !== index));
      fill(frame);
      frame.querySelector("[data-act=add]").focus();
    });
    const controls = fieldsOf(frame).map((info) => control(frame, info, entry, index));
    const item = make("li", {}, make("strong", {}, thing), remove, ...controls);
    more[frame.dataset.group]?.build(frame, index, item);
    return item;
  };

  const fill = (frame) => {
    const entries = read(frame);
    frame.querySelector("ol").replaceChildren(...entries.map((entry, index) => row(frame, entry, index)));
    frame.querySelector("[data-act=add]").disabled = entries.length >= Number(frame.dataset.most);
    frame.dataset.madeOf = fieldOf(frame.dataset)?.value ?? "";
    listsOf(frame).forEach(([info, address]) => address in offered || load(address, info));
  };
  const listsOf = (frame) => fieldsOf(frame).filter(({ url }) => url).map((info) => [info, addressOf(frame, info)]);
  const show = (page, group) => {
    const frame = frameOf(page, group);
    if (!frame) return;
    const others = listsOf(frame).some(([{ name }, address]) =>
      [...frame.querySelectorAll(`[data-field="${name}"] select`)].some((select) => select.dataset.list !== address));
    if (others || frame.dataset.madeOf !== fieldOf(frame.dataset)?.value) fill(frame);
  };

  const load = async (url) => {
    offered[url] ??= [];
    try {
      const answer = await fetch(url);
      offered[url] = answer.ok ? await answer.json() : [];
    } catch {
      offered[url] = [];
    }
    for (const select of document.querySelectorAll(".rows select[data-list]")) {
      if (select.dataset.list === url) choices(select, offered[url], select.value);
    }
    for (const frame of document.querySelectorAll(".rows")) more[frame.dataset.group]?.listed?.(frame, url, offered[url]);
  };

  whenever(".rows", (frame) => {
    frame.querySelector("[data-act=add]").addEventListener("click", async () => {
      for (const [, address] of listsOf(frame)) {
        const asked = load(address); // files may have come since
        if (!offered[address].length) await asked;
      }
      const first = (info) => info.default ?? plain((offered[addressOf(frame, info)] ?? []).find((entry) => usable(plain(entry))) ?? "").name ?? "";
      const always = fieldsOf(frame).filter((info) => info.always);
      write(frame, [...read(frame), Object.fromEntries(always.map((info) => [info.name, first(info)]))]);
      fill(frame);
      frame.querySelector("li:last-child select, li:last-child textarea")?.focus();
    });
    fill(frame);
  });
  window.darkroomFields.whenFilled((page) => {
    for (const { dataset } of document.querySelectorAll(`.rows[data-page="${page}"]`)) show(page, dataset.group);
  });
  // `tools` has `build(frame, index, item)` for a row that was just made, `changed(frame, index, field)` and
  // `listed(frame, url, entries)`; they read and write the list with these.
  window.darkroomRows = { add: (group, tools) => void (more[group] = tools), read, write, offered };
})();
