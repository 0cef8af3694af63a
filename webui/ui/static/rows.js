// A group of the request that is a list: a row of controls for each entry, made from the fields that the frame tells. The
// list lives as JSON in a text field that is not shown, so that it travels, is remembered and is reused like every other.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const offered = {}; // names to choose from, by the address that lists them

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

  const choices = (select, names, value) => {
    const all = names.includes(value) ? names : [value, ...names];
    select.replaceChildren(...all.map((name) => make("option", { value: name }, name)));
    select.value = value;
  };

  const control = (frame, info, entry, index) => {
    const id = `${frame.dataset.page}-${frame.dataset.group}-${index ? `${index + 1}-` : ""}${info.name}`;
    const value = entry[info.name] ?? info.default;
    const limits = { min: info.least, max: info.most, step: info.step };
    const input =
      info.kind === "choice" ? make("select", { id, "data-list": "" })
      : info.kind === "text" ? make("textarea", { id, rows: 2, placeholder: info.description })
      : make("input", { id, type: "number", ...limits });
    if (info.kind === "choice") choices(input, offered[frame.dataset.url] ?? [], String(value));
    else input.value = value;
    input.addEventListener("input", () => {
      const entries = read(frame);
      const number = input.value === "" ? info.default : Number(input.value);
      const said = info.kind === "number" ? number : input.value;
      if (!entries[index]) return;
      if (said === info.default && info.kind !== "choice") delete entries[index][info.name];
      else entries[index][info.name] = said;
      write(frame, entries);
    });
    return make("label", { title: info.description, class: `rows-${info.kind}` }, make("span", {}, info.title), input);
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
    return make("li", {}, make("strong", {}, thing), remove, ...controls);
  };

  const fill = (frame) => {
    const entries = read(frame);
    frame.querySelector("ol").replaceChildren(...entries.map((entry, index) => row(frame, entry, index)));
    frame.querySelector("[data-act=add]").disabled = entries.length >= Number(frame.dataset.most);
    frame.dataset.madeOf = fieldOf(frame.dataset)?.value ?? "";
  };
  const show = (page, group) => {
    const frame = frameOf(page, group);
    if (frame && frame.dataset.madeOf !== fieldOf(frame.dataset)?.value) fill(frame);
  };

  const load = async (url) => {
    try {
      const answer = await fetch(url);
      offered[url] = answer.ok ? await answer.json() : [];
    } catch {
      offered[url] = [];
    }
    for (const select of document.querySelectorAll(`.rows[data-url="${url}"] select[data-list]`)) {
      choices(select, offered[url], select.value);
    }
  };

  whenever(".rows", (frame) => {
    const { url } = frame.dataset;
    frame.querySelector("[data-act=add]").addEventListener("click", () => {
      const entries = read(frame);
      const first = Object.fromEntries(fieldsOf(frame).filter(({ kind }) => kind === "choice").map((info) => [info.name, info.default]));
      write(frame, [...entries, first]);
      fill(frame);
      load(url); // files may have come since
      frame.querySelector("li:last-child select, li:last-child textarea")?.focus();
    });
    if (!(url in offered)) {
      offered[url] = [];
      load(url);
    }
    fill(frame);
  });
  window.darkroomFields.whenFilled((page) => {
    for (const { dataset } of document.querySelectorAll(`.rows[data-page="${page}"]`)) show(page, dataset.group);
  });
})();
