// A page's fields for scripts: what they hold, whether they are on the page at the moment or not, and how they are set.
(() => {
  "use strict";
  const SOON_MS = 50;
  const inputOf = (page, field) => document.querySelector(`#${page}-${field.replace(".", "-")} :is(textarea, input)`);

  // Gradio opens a list at any key, a moment later: after Tab it would stay open behind whoever has left it. And Tab leads
  // to the next field, not into the list, which goes.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && event.target.matches?.("[role=combobox]")) event.stopPropagation();
  }, true);
  window.darkroomPanel.whenever(".options [role=listbox]", (list) => (list.tabIndex = -1));

  // As a person would type it: Gradio and whatever follows the field are told.
  const put = (page, field, value) => {
    const input = inputOf(page, field);
    if (!input || input.value === String(value)) return;
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // The fields as the page was made, by page and field; folds that are shut have no inputs to ask.
  let made;
  const initial = (page) => {
    made ??= new Map((window.gradio_config?.components ?? []).map(({ props }) => [props?.elem_id, props?.value]));
    return (field) => made.get(`${page}-${field.replace(".", "-")}`) ?? made.get(`${page}-${field}-on`);
  };
  const kept = (page) => JSON.parse(window.darkroom.recall(page) || "{}");
  const valuesOf = (page) => {
    const [before, now] = [initial(page), kept(page)];
    return (field) => now[field] ?? before(field);
  };
  const valueOf = (page, field) => inputOf(page, field)?.value ?? valuesOf(page)(field) ?? "";

  // Runs `show(page)` soon after fields of a page have changed, whoever changed them: once for all that change together.
  const shows = [];
  const waiting = new Set();
  const tell = (page) => {
    if (waiting.has(page)) return;
    waiting.add(page);
    setTimeout(() => {
      waiting.delete(page);
      for (const show of shows) show(page);
    });
  };
  // Whatever a person or a script does to fields is noticed here, and what they hold then is remembered: soon, and at once
  // where the page is left. What the server fills is told by the script that asked for it.
  const notes = new Map();
  const noteNow = (page) => {
    clearTimeout(notes.get(page));
    notes.delete(page);
    document.getElementById(`${page}-remember`)?.click();
  };
  const note = (page) => {
    clearTimeout(notes.get(page));
    notes.set(page, setTimeout(noteNow, SOON_MS, page));
  };
  for (const name of ["input", "change", "click", "keyup", "focusout", "drop"]) {
    document.addEventListener(name, ({ target }) => {
      const page = target.closest?.("[id^=tab-]")?.id.slice("tab-".length);
      if (window.darkroom.PAGES.includes(page) && !target.closest(`#${page}-remember`)) note(page);
    }, true);
  }
  addEventListener("pagehide", () => [...notes.keys()].forEach(noteNow));

  document.addEventListener("darkroom:fields", ({ detail: { page } }) => tell(page));
  document.addEventListener("darkroom:restored", ({ detail: { page } }) => tell(page));

  // The values of some fields, where they are others than last time; ends the event that they are for where they are not.
  const lastTold = {}; // by page and fields
  const ifOther = (page, fields, values) => {
    const key = `${page} ${fields}`;
    const now = JSON.stringify(values);
    const before = lastTold[key] ?? JSON.stringify(fields.map(initial(page)));
    lastTold[key] = now;
    return window.darkroom.need(now !== before && values);
  };

  window.darkroomFields = { put, ifOther, initial, valuesOf, valueOf, tell, note, whenFilled: (show) => shows.push(show) };
})();
