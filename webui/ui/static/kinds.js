// What the kind of the chosen model lacks is not on the page. Its fields hold what means nothing meanwhile, and get back
// what they held with the next model that can do it.
(() => {
  "use strict";
  const { put, valueOf, initial, whenFilled } = window.darkroomFields;
  const { chosen, list } = window.darkroomModels;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  const rules = {}; // by page
  const shown = {}; // the model that each page was last made ready for
  const held = new Map(); // by id of a field that is hidden: what it held

  const neutral = (page, field) => initial(page)(field) ?? "";
  const switchOf = (page, field) => document.querySelector(`#${page}-${field}-on input[type=checkbox]`);
  const rest = (page, field) => {
    const id = `${page}-${field}`;
    if (held.has(id)) return;
    const box = switchOf(page, field);
    held.set(id, box ? box.checked : valueOf(page, field));
    if (box?.checked) box.click();
    if (!box) put(page, field, neutral(page, field));
  };
  const wake = (page, field) => {
    const id = `${page}-${field}`;
    const before = held.get(id);
    held.delete(id);
    const box = switchOf(page, field);
    if (box) {
      if (before && !box.checked) box.click();
    } else if (valueOf(page, field) === String(neutral(page, field))) put(page, field, before);
  };

  const isNot = (name) => `:not([aria-label="${CSS.escape(name)}"])`;
  const hide = (page, { lacks, samplers }) => {
    const hidden = lacks.flatMap((field) => [`#${page}-${field}`, `#${page}-${field}-panel`]);
    const schedules = samplers.length ? ["Default"] : []; // where not all samplers go, the model has a schedule of its own
    const others = Object.entries({ sampler: samplers, schedule: schedules })
      .filter(([, names]) => names.length)
      .map(([field, names]) => `#${page}-${field} [role=option]${names.map(isNot).join("")}`);
    rules[page] = [...hidden, ...others];
    const all = Object.values(rules).flat();
    sheet.replaceSync(all.length ? `${all.join(",\n")} { display: none !important; }` : "");
    for (const id of [...held.keys()]) {
      const field = id.slice(page.length + 1);
      if (id.startsWith(`${page}-`) && !lacks.includes(field)) wake(page, field);
    }
    for (const field of lacks) rest(page, field);
  };

  const show = async (page) => {
    const model = chosen(page);
    if (!model || shown[page] === model) return;
    shown[page] = model;
    const info = (await list())?.find(({ name }) => name === model);
    if (info && shown[page] === model && (info.lacks.length || info.samplers.length || rules[page])) hide(page, info);
  };
  whenFilled(show);
})();
