// What the kind of the chosen model lacks is not on the page. Its fields hold what means nothing meanwhile, and get back
// what they held with the next model that can do it.
(() => {
  "use strict";
  const { valuesOf, initial, whenFilled } = window.darkroomFields;
  const { chosen, list } = window.darkroomModels;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  const rules = {}; // by page
  const shown = {}; // the model that each page was last made ready for
  const held = {}; // by page and field that is hidden: what it held

  // The server sets them: they may be in a fold that is shut, or chosen from a list.
  const settle = (page, lacks) => {
    const [now, neutral, before] = [valuesOf(page), initial(page), (held[page] ??= new Map())];
    const values = {};
    for (const field of lacks.filter((field) => !before.has(field))) {
      before.set(field, now(field));
      values[field] = neutral(field);
    }
    for (const [field, value] of [...before].filter(([field]) => !lacks.includes(field))) {
      before.delete(field);
      if (now(field) === neutral(field)) values[field] = value;
    }
    const others = Object.entries(values).filter(([field, value]) => value !== now(field));
    if (others.length) window.darkroomFills.ask(page, "set", { values: Object.fromEntries(others) });
  };

  // Options go by what they are called, which another language has changed.
  const isNot = (name) => `:not([aria-label="${CSS.escape(window.darkroomWords?.translate(name) ?? name)}"])`;
  const hide = (page, { lacks, samplers }) => {
    const hidden = lacks.flatMap((field) => [`#${page}-${field}`, `#${page}-${field}-panel`]);
    const schedules = samplers.length ? ["Default"] : []; // where not all samplers go, the model has a schedule of its own
    const others = Object.entries({ sampler: samplers, schedule: schedules })
      .filter(([, names]) => names.length)
      .map(([field, names]) => `#${page}-${field} [role=option]${names.map(isNot).join("")}`);
    rules[page] = [...hidden, ...others];
    const all = Object.values(rules).flat();
    sheet.replaceSync(all.length ? `${all.join(",\n")} { display: none !important; }` : "");
    settle(page, lacks);
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
