// A page's fields for scripts: what they hold, whether they are on the page at the moment or not, and how they are set.
(() => {
  "use strict";
  const inputOf = (page, field) => document.querySelector(`#${page}-${field.replace(".", "-")} :is(textarea, input)`);

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
  document.addEventListener("darkroom:fields", ({ detail: { page } }) => tell(page));
  document.addEventListener("darkroom:restored", ({ detail: { page } }) => tell(page));

  window.darkroomFields = { put, initial, valuesOf, valueOf, tell, whenFilled: (show) => shows.push(show) };
})();
