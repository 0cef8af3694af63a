// The model panel and a model's form: search, a card for each model, and what is loaded where. Choosing here and in the field is the same.
(() => {
  "use strict";
  const { make, makeButton, create } = window.darkroomPanel;
  let health = {};

  const chosen = (page) => document.querySelector(`#${page}-chosen :is(textarea, input)`)?.value;
  // The form that a person said a model's file is, where its kind has several and the file does not say.
  const formKey = (model) => `darkroom.form.${model}`;
  // What suits the model comes with it.
  const choose = (page, model, settled = chosen(page) ?? "") => {
    const { ask, byHand } = window.darkroomFills;
    ask(page, "model", { model, chosen: settled, by_hand: byHand(page), form: window.darkroom.read(formKey(model)) || "auto" });
  };
  const makeForms = (page, block) => {
    const select = make("select", { class: "model-form", "aria-label": "Form of the model", title: "What the model's file is" });
    select.addEventListener("change", () => {
      window.darkroom.write(formKey(chosen(page)), select.value);
      choose(page, chosen(page), "");
    });
    block.append(select);
    return select;
  };
  const showForm = async (page) => {
    const block = document.getElementById(`${page}-model`);
    const info = (await list())?.find(({ name }) => name === chosen(page));
    const names = Object.keys(info?.forms ?? {});
    let select = block?.querySelector(".model-form");
    if (select) select.hidden = !names.length;
    if (!block || !names.length) return;
    select ??= makeForms(page, block);
    const auto = info.form || names[0];
    const options = [["auto", `auto (${auto})`], ...names.map((name) => [name, name])];
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    select.value = window.darkroomFields.valueOf(page, "form");
  };
  const press = (id) => document.getElementById(id)?.click();
  const size = (bytes) => (bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

  const makeDetails = (info) => {
    const hash = make("dd");
    const facts = { "Family": info.family, "Made for": `${info.native_px} px`, Steps: info.defaults.steps, Guidance: info.defaults.guidance };
    const rows = Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]);
    const details = make("details", {}, make("summary", {}, "Details"), make("dl", {}, ...rows, make("dt", {}, "Hash"), hash));
    details.addEventListener("toggle", async () => {
      if (!details.open || hash.textContent) return;
      hash.textContent = "reading the file ...";
      try {
        const answer = await fetch(`./api/models/hash?${new URLSearchParams({ name: info.name })}`);
        const { hash: known, detail } = await answer.json();
        hash.textContent = known ?? detail;
      } catch {
        hash.textContent = "";
        details.open = false;
      }
    });
    return details;
  };

  const makeCard = (page, info) => {
    const detail = [info.kind, size(info.size_bytes), ...(info.kind.includes(info.dtype) ? [] : [info.dtype])].join(" · ");
    const button = makeButton(info, detail, `Use ${info.name}`, () => {
      choose(page, info.name);
    });
    button.append(make("em", { hidden: "" }, "loaded"));
    return make("li", {}, button, ...(info.problem ? [] : [makeDetails(info)]));
  };

  const showMore = (page, panel) => {
    const { model, device, memory } = health;
    const where = [device, memory].filter(Boolean).join(", ");
    panel.querySelector(".models-status").textContent = model ? `Loaded: ${model} (${where})` : "No model is loaded yet.";
    for (const button of panel.querySelectorAll(".panel-found button")) {
      button.querySelector("em").hidden = button.dataset.name !== model;
    }
  };

  const { show, showAll, refresh, list } = create({
    kind: "models",
    things: "models",
    url: "./api/models",
    words: (info) => [info.name, info.kind],
    makeCard,
    isChosen: (page, name) => chosen(page) === name,
    hint: (known) =>
      known.some((info) => info.name !== "demo")
        ? ""
        : "Diffusers folders go into models/Stable-diffusion of the data folder; --models-dir FOLDER adds a folder of models.",
    showMore,
    reload: () => press("darkroom-model-reload"),
  });
  window.darkroomFields.whenFilled(show);
  window.darkroomFields.whenFilled(showForm);
  document.addEventListener("darkroom:health", (event) => {
    health = event.detail;
    showAll();
  });

  window.darkroomModels = {
    show,
    refresh,
    list,
    chosen,
    choose,
  };
})();
