// A refusal at its field: the fold that holds it opens, the field is marked and has the focus, the reason stands beside it,
// and a button mends it where there is one plain way (mends.js). The mark goes as soon as the field changes.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { PAGES, statusOf } = window.darkroom;
  const { put, valueOf, whenFilled } = window.darkroomFields;
  const LIST_FOLDS = { loras: "lora-panel", detail: "detail-panel", controls: "controls-panel", regions: "regions-panel" };
  const FIRST = { detail: "finder", controls: "model", regions: "prompt" }; // what says what a row is
  const FRAMES = 60; // until an opened fold has its fields
  const marks = {}; // by page: {place, held, block, note, input, described}
  const newest = {}; // by page: the refusal that was met last, by its mark

  const idOf = (page, field) => `${page}-${field.replaceAll(".", "-")}`;
  const componentOf = (id) => (window.gradio_config?.components ?? []).find(({ props }) => props?.elem_id === id);

  // The folds around a component, by its id: those that are shut have nothing on the page to look into.
  let around;
  const foldsOf = (page, field) => {
    if (LIST_FOLDS[field]) return [`${page}-${LIST_FOLDS[field]}`];
    if (!around) {
      around = new Map();
      const known = new Map(window.gradio_config.components.map((component) => [component.id, component]));
      const walk = ({ id, children }, folds) => {
        const { type, props } = known.get(id) ?? {};
        if (props?.elem_id) around.set(props.elem_id, folds);
        const own = type === "accordion" ? [...folds, props.elem_id] : folds;
        for (const child of children ?? []) walk(child, own);
      };
      walk(window.gradio_config.layout, []);
    }
    return around.get(idOf(page, field)) ?? [];
  };
  const open = (fold) => {
    const title = document.querySelector(`#${fold} > .label-wrap`);
    if (title && !title.classList.contains("open")) title.click();
  };

  // What is marked and what is typed into.
  const look = (page, { field, entry, name }) => {
    if (field in FIRST) {
      const before = `${page}-${field}-${entry > 1 ? `${entry}-` : ""}`;
      const input = document.getElementById(`${before}${name}`) ?? document.getElementById(`${before}${FIRST[field]}`);
      return { input, block: input?.closest("label, .controls-picture, li") };
    }
    if (field === "loras") {
      const block = document.querySelector(`.loras[data-page="${page}"] .loras-chosen > li:nth-child(${entry ?? 1})`);
      return { input: block?.querySelector("input[type=number], input"), block };
    }
    if (field === "styles") {
      const chips = [...document.querySelectorAll(`.chips[data-page="${page}"] .chip`)];
      const chip = chips.find(({ dataset }) => dataset.style === name) ?? chips[0];
      return { input: chip?.querySelector(".chip-remove"), block: chip?.closest(".chips") };
    }
    const block = document.getElementById(idOf(page, field));
    const typed = block?.querySelector("textarea, input:not([type=range], [type=hidden], [type=file])");
    return { input: typed ?? block?.querySelector("canvas, button"), block };
  };
  const find = async (page, place) => {
    let found = look(page, place);
    for (let frame = 0; !found.input && frame < FRAMES; frame += 1) {
      await new Promise(requestAnimationFrame);
      found = look(page, place);
    }
    return found;
  };

  // What Generate is answered while a job is drawn: the job keeps its line, and the answer stands below it.
  const asideOf = (page) => document.getElementById(`${page}-answer`);
  const setAside = (page, status) => {
    const job = !status.dataset.job && window.darkroomJobs.underWay(page);
    asideOf(page)?.replaceChildren();
    if (!job) return status;
    const answer = status.cloneNode(true);
    const line = window.darkroom.lineOf(page);
    if (!asideOf(page)) status.closest("[id$='-status']").after(make("div", { id: `${page}-answer` }));
    asideOf(page).append(answer);
    window.darkroomProgress.say(answer.textContent);
    status.replaceChildren(...(line?.cloneNode(true).childNodes ?? []));
    Object.assign(status.dataset, { state: line?.dataset.state ?? "running", job });
    return answer;
  };

  const clear = (page) => {
    const { note, input, described } = marks[page] ?? {};
    if (!note) return;
    delete marks[page];
    asideOf(page)?.replaceChildren();
    note.remove();
    input.removeAttribute("aria-invalid");
    described ? input.setAttribute("aria-describedby", described) : input.removeAttribute("aria-describedby");
  };

  const choosePicture = async (page, field) => {
    foldsOf(page, field).forEach(open);
    let input;
    for (let frame = 0; !input && frame < FRAMES; frame += 1) {
      input = document.querySelector(`#${idOf(page, field)} input[type=file]`);
      if (!input) await new Promise(requestAnimationFrame);
    }
    input?.click();
  };
  const PICTURES = { image: ["Choose a picture", "image"], mask: ["Choose a mask picture", "mask_picture"], mask_picture: ["Choose another", "mask_picture"] };
  const buttonOf = (page, { field, label, to }) => {
    const [choose, picture] = PICTURES[field] ?? [];
    if (!label && !choose) return [];
    const button = make("button", { type: "button" }, label ?? choose);
    button.addEventListener("click", () => {
      if (!label) return void choosePicture(page, picture);
      clear(page);
      for (const [name, value] of Object.entries(to)) {
        if (componentOf(idOf(page, name))?.type === "dropdown") window.darkroomFills.ask(page, "set", { values: { [name]: value } });
        else put(page, name, value);
      }
      document.getElementById(`${page}-generate`)?.focus();
    });
    return [button];
  };
  // In the head, lines of fields, the note has a line of its own below its field's; in a fold it is in the field's box.
  const stand = (block, note) => {
    if (!block.closest(".asking-head") || !(block.closest(".block") || block.matches(".chips"))) return block.append(note);
    const behind = (at) => [at, at.parentElement].map((one) => one.nextElementSibling).find((next) => next?.matches(".prompt-below") || next?.querySelector(".seed-tools"));
    let last = block;
    while (last.nextElementSibling?.offsetTop === block.offsetTop) last = last.nextElementSibling;
    (behind(last) ?? last).after(note); // the count of tokens hangs from what is below its box, the seed's buttons lie over its line
  };
  const mark = async (page, status) => {
    const { refused, refusal, how, value, instead, job } = status.dataset;
    const text = status.querySelector(".status-text").textContent;
    const place = window.darkroomMends.describe({ refused, how, value, instead }, (field) => valueOf(page, field));
    if (!place) return;
    const here = document.activeElement;
    const isAsked = !window.darkroomMore.how(page) && (!job || here === document.body); // by a person, just now
    if (isAsked) foldsOf(page, place.field).forEach(open);
    const { input, block } = isAsked ? await find(page, place) : look(page, place);
    if (!input || newest[page] !== refusal) return;
    const note = make("p", { class: "field-refused", id: `${page}-refused` }, make("span", {}, text), ...buttonOf(page, place));
    stand(block, note);
    const described = input.getAttribute("aria-describedby");
    input.setAttribute("aria-describedby", [described, note.id].filter(Boolean).join(" "));
    if (input.matches("textarea, input, select")) input.setAttribute("aria-invalid", "true");
    marks[page] = { place, held: valueOf(page, place.field), block, note, input, described };
    if (!isAsked || window.darkroom.pageInSight() !== page) return;
    input.focus({ preventScroll: true });
    note.scrollIntoView({ block: "nearest" });
    input.scrollIntoView({ block: "nearest" });
    await new Promise(requestAnimationFrame);
    if (input.getAttribute("aria-expanded") !== "true") return; // a list opens with the focus, and would lie over the note
    input.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  };

  // Gradio changes the status in its place, at times by attributes alone.
  const meet = (page) => {
    const status = statusOf(page);
    if (!status) return;
    const refusal = status.dataset.refusal ?? "";
    const isAnswer = !status.dataset.job && window.darkroomJobs.underWay(page);
    const isNew = refusal && refusal !== newest[page];
    if (!isNew && !isAnswer) return;
    clear(page);
    const told = setAside(page, status);
    if (!isNew) return;
    newest[page] = refusal;
    mark(page, told);
  };
  const start = () => {
    const watched = { childList: true, subtree: true, attributeFilter: ["data-refusal", "data-job"] };
    new MutationObserver(() => PAGES.forEach(meet)).observe(document.body, watched);
  };
  document.body ? start() : document.addEventListener("DOMContentLoaded", start);

  for (const name of ["input", "change", "drop", "paste", "pointerdown"]) {
    document.addEventListener(name, ({ target }) => {
      for (const [page, { block, note, input }] of Object.entries(marks)) {
        if (!block.contains(target) || note.contains(target)) continue;
        if (name !== "pointerdown" || input.matches("canvas")) clear(page);
      }
    }, true);
  }
  whenFilled((page) => {
    const { place, held, block } = marks[page] ?? {};
    if (place && (valueOf(page, place.field) !== held || (place.field === "image" && block.querySelector("img")))) clear(page);
  });
  document.addEventListener("darkroom:sent", ({ detail: { page, run } }) => run && (clear(page), asideOf(page)?.replaceChildren()));
})();
