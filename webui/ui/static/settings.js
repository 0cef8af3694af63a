// The settings sheet: how pictures become files and what pages begin with, for the owner, and what this browser shows.
// All of it holds at once; what the server does not take is said at its field.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { PAGES, pageInSight, recall } = window.darkroom;
  const FORMATS = { png: "PNG: lossless", webp: "WebP: small", jpeg: "JPEG: small, opens everywhere" };
  const THEMES = { "": "Same as the system", 0: "Light", 1: "Dark" };
  const NEVER = ["prompt", "seed", "image", "mask"]; // what no page begins with

  let dialog = null;
  let told = null; // what the server says
  const fields = {}; // by name: the input, its error and its note
  const ask = async (method, body) => {
    let answer;
    try {
      answer = await fetch("./api/settings", { method, ...(body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }) });
    } catch {
      throw new Error("The server does not answer.");
    }
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(found.detail ?? answer.statusText), { field: found.field });
    return found;
  };
  let said = null;
  const say = (text) => (said.textContent = text);

  // A field with its label, a note, and a place for what is wrong with it.
  const makeField = (name, label, input, note = "") => {
    const id = `settings-${name}`;
    const trouble = make("p", { class: "drop-trouble", id: `${id}-trouble`, role: "alert" });
    const hint = make("p", { class: "settings-note", id: `${id}-note` }, note);
    input.id = id;
    input.setAttribute("aria-describedby", `${id}-trouble ${id}-note`);
    fields[name] = { input, trouble, hint };
    const title = make("label", { for: id }, label);
    const isTick = input.type === "checkbox";
    return make("div", { class: isTick ? "settings-field settings-tick" : "settings-field" }, ...(isTick ? [input, title] : [title, input]), trouble, hint);
  };
  const wrong = (name, text) => {
    const { input, trouble } = fields[name] ?? fields.format;
    trouble.textContent = text;
    input.setAttribute("aria-invalid", String(Boolean(text)));
  };
  const changing = new Set(); // fields whose change is on its way
  const change = async (name, value) => {
    wrong(name, "");
    say("");
    changing.add(name);
    try {
      told = await ask("PATCH", { [name]: value });
      changing.delete(name);
      show();
      say("Saved.");
    } catch (error) {
      const field = fields[error.field] ? error.field : name;
      const text = error.message.replace(new RegExp(`^${field} `), ""); // the label says it
      changing.delete(name);
      wrong(field, `${text[0].toUpperCase()}${text.slice(1)}.`.replace("..", "."));
    }
  };
  const choice = (options) => make("select", {}, ...Object.entries(options).map(([value, text]) => make("option", { value }, text)));

  // What the server said, in the fields; one that somebody types into, or whose change is on its way, keeps its text.
  const show = () => {
    const { settings, fixed, example, filename_fields: names } = told;
    for (const name of ["format", "quality", "filename", "metadata"]) {
      const { input, hint } = fields[name];
      const isTheirs = changing.has(name) || (document.activeElement === input && input.matches("[type=text], [type=number]"));
      if (name === "metadata" && !isTheirs) input.checked = settings.metadata;
      else if (!isTheirs && input.getAttribute("aria-invalid") !== "true") input.value = settings[name] ?? "";
      input.disabled = name in fixed || (name === "quality" && settings.format === "png");
      if (name in fixed) hint.textContent = `Set by the command line: ${fixed[name]}`;
    }
    if (!("filename" in fixed)) fields.filename.hint.textContent = `For example ${example}. It may have ${names.map((name) => `{${name}}`).join(" ")}.`;
    showDefaults();
  };
  const showDefaults = () => {
    const page = pageInSight() ?? "txt2img";
    const has = Object.keys(told?.settings.pages[page] ?? {}).length > 0;
    fields.defaults.title.textContent = `What ${page} begins with`;
    fields.defaults.note.textContent = has ? "In a new browser it starts with your settings." : "In a new browser it starts with Darkroom's own settings.";
    fields.defaults.forget.hidden = !has;
  };
  const keepDefaults = (page) => {
    const kept = Object.entries(JSON.parse(recall(page) || "{}")).filter(([name, value]) => !NEVER.includes(name) && (value === null || typeof value !== "object"));
    return change("pages", { [page]: Object.fromEntries(kept) });
  };

  const setTheme = (value) => {
    if (value === "") localStorage.removeItem("darkroom.dark");
    else localStorage.setItem("darkroom.dark", value);
    document.body.classList.toggle("dark", value === "" ? matchMedia("(prefers-color-scheme: dark)").matches : value === "1");
  };
  const build = () => {
    const format = choice(FORMATS);
    const quality = make("input", { type: "number", min: 50, max: 100 });
    const filename = make("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const metadata = make("input", { type: "checkbox" });
    const theme = choice(THEMES);
    const language = choice({ "": "Same as the browser", en: "English", ...window.darkroomLanguages.names });
    for (const option of language.querySelectorAll("[value]:not([value=''])")) option.setAttribute("translate", "no");
    const previews = make("input", { type: "checkbox" });
    format.addEventListener("change", () => change("format", format.value));
    quality.addEventListener("change", () => change("quality", quality.value === "" ? null : Number(quality.value)));
    filename.addEventListener("change", () => change("filename", filename.value));
    metadata.addEventListener("change", () => change("metadata", metadata.checked));
    theme.addEventListener("change", () => setTheme(theme.value));
    language.addEventListener("change", () => {
      localStorage.setItem("darkroom.language", language.value);
      location.reload();
    });
    previews.addEventListener("change", () => {
      localStorage.setItem("darkroom.previews", previews.checked ? "on" : "off");
      document.body.classList.toggle("no-previews", !previews.checked);
    });
    const inSight = () => pageInSight() ?? "txt2img";
    const [keep, begin, forget] = ["Start with what is set now", "Reset this page", "Forget mine"].map((text) => make("button", { type: "button" }, text));
    keep.addEventListener("click", () => keepDefaults(inSight()));
    begin.addEventListener("click", () => {
      dialog.close();
      window.darkroomFills.ask(inSight(), "default", {});
    });
    forget.addEventListener("click", () => change("pages", { [inSight()]: null }));
    said = make("p", { class: "settings-said", role: "status" });
    const close = make("button", { type: "button" }, "Close");
    const title = make("h3", {});
    const note = make("p", { class: "settings-note" });
    dialog = make(
      "dialog", { id: "darkroom-settings", class: "drop panel settings-sheet", "aria-labelledby": "settings-title" },
      make("h2", { id: "settings-title" }, "Settings"),
      make(
        "div", { class: "settings-of-owner" },
        make("h3", {}, "Pictures as files"),
        makeField("format", "Format", format),
        makeField("quality", "Quality of WebP and JPEG, 50 to 100", quality, "Empty: 90 for WebP, 92 for JPEG."),
        makeField("filename", "Names", filename),
        makeField("metadata", "Keep in my pictures how they were made", metadata, "Without it History, Reuse and Verify know nothing about the files, and the queue forgets them after a restart. Guests' pictures always keep theirs."),
        title, note, make("div", { class: "drop-choices" }, keep, begin, forget), makeField("pages", "", make("input", { type: "hidden" })),
      ),
      make("h3", {}, "This browser"),
      makeField("theme", "Colours", theme),
      makeField("language", "Language", language),
      makeField("previews", "Show pictures while they are drawn", previews),
      said, make("div", { class: "drop-choices" }, close),
    );
    fields.defaults = { title, note, forget };
    close.addEventListener("click", () => dialog.close());
    (document.querySelector(".gradio-container") ?? document.body).append(dialog);
  };
  const open = async () => {
    if (!dialog) build();
    for (const name of ["format", "quality", "filename", "metadata", "pages"]) wrong(name, "");
    say("");
    fields.theme.input.value = localStorage.getItem("darkroom.dark") ?? "";
    fields.language.input.value = localStorage.getItem("darkroom.language") ?? "";
    fields.previews.input.checked = localStorage.getItem("darkroom.previews") !== "off";
    if (!dialog.open) dialog.showModal();
    if (!document.body.classList.contains("is-owner")) return; // a guest has this browser's part alone
    try {
      told = await ask("GET");
      show();
    } catch (error) {
      wrong("format", error.message);
    }
  };
  document.addEventListener("click", ({ target }) => {
    if (target.id === "darkroom-settings-open") open();
    else if (target.id === "darkroom-theme" && dialog) fields.theme.input.value = localStorage.getItem("darkroom.dark") ?? "";
  });
})();
