// The shelf of presets and styles: one dialog for all pages. A press on a preset fills the page, one on a style turns it on
// or off. Beside the cards stands what the one in question would change, its variables, and what can be done with it.
(() => {
  "use strict";
  const { make, makeButton } = window.darkroomPanel;
  const { recall, chosenPicture } = window.darkroom;
  const { valueOf } = window.darkroomFields;
  const { ask } = window.darkroomFills;
  const presets = window.darkroomPresets;
  const MOST_SHOWN = 300;

  let dialog = null;
  let page = ""; // whose shelf it is at the moment
  let known = null; // what the server listed, null until it has
  let told = null; // the preset that the pane tells of
  let kept = false; // whether the pane stays, whatever the pointer is over
  let filter = "fits";

  const button = (text, run, attributes = {}) => {
    const made = make("button", { type: "button", ...attributes }, text);
    made.addEventListener("click", run);
    return made;
  };
  const one = (selector) => dialog.querySelector(selector);
  const itemOf = (name) => [...dialog.querySelectorAll(".presets-found li")].find((item) => item.dataset.name === name);
  const say = (text, isTrouble = false) => {
    const line = one(".presets-said");
    line.textContent = text;
    line.classList.toggle("trouble", isTrouble);
  };
  const trying = (run) => async (...given) => {
    try {
      await run(...given);
    } catch (error) {
      say(error.message, true);
    }
  };
  const model = () => valueOf(page, "model");
  const isOther = (info) => !info.fits && !info.fields.model; // one that brings its model is for that
  const originOf = (info) => (info.shipped ? "Ships with Darkroom" : info.lent ? "From the host" : "Yours");

  // The cards

  const FILTERS = {
    fits: ["For this model", (info) => info.problem || info.fits],
    all: ["For all models", () => true],
    styles: ["Styles", (info) => info.is_style],
    own: ["Yours", (info) => !info.shipped && !info.lent],
  };
  const accepts = (info) => (FILTERS[filter]?.[1] ?? (() => info.family === filter))(info);
  const showFilters = () => {
    const families = [...new Set(known.map((info) => info.family).filter(Boolean))].sort();
    const choices = [...Object.entries(FILTERS).map(([name, [title]]) => [name, title]), ...families.map((name) => [name, `Made for ${name}`])];
    if (!choices.some(([name]) => name === filter)) filter = "fits";
    one("select").replaceChildren(...choices.map(([value, title]) => make("option", { value, selected: value === filter ? "" : null }, title)));
  };
  const words = (info) => [info.name, info.note, info.family, info.fields?.prompt].filter(Boolean).join(" ").toLowerCase();

  const makeCard = (info) => {
    const choose = makeButton(info, info.note ?? "", null, () => press(info));
    if (info.is_style) choose.setAttribute("aria-pressed", String(presets.styles(page).includes(info.name)));
    const badges = [info.is_style && "style", info.family].filter(Boolean);
    choose.append(make("span", { class: "presets-badges" }, ...badges.map((text) => make("b", { class: text === "style" ? "style" : null }, text))));
    const item = make("li", { "data-name": info.name }, choose, button("⋯", () => showMore(info), { class: "presets-more", "aria-label": `More about ${info.name}` }));
    for (const event of ["pointerenter", "focusin"]) item.addEventListener(event, () => !kept && !info.problem && tell(info));
    return item;
  };
  const showCards = () => {
    const sought = one("input[type=search]").value.trim().toLowerCase();
    const alike = known.filter((info) => words(info).includes(sought));
    const found = alike.filter(accepts);
    const rank = (info) => (info.problem ? 6 : (info.shipped ? 4 : info.lent ? 2 : 0) + (info.is_style ? 0 : 1)); // one's own come first
    found.sort((first, second) => rank(first) - rank(second));
    one(".presets-found").replaceChildren(...found.slice(0, MOST_SHOWN).map(makeCard));
    const hidden = alike.length - found.length;
    const note = [];
    if (!known.length) note.push("There are no presets here. Save the settings of this page, or import a file.");
    else if (!alike.length) note.push("No presets match.");
    else if (found.length > MOST_SHOWN) note.push(`${MOST_SHOWN} of ${found.length}; search for the others. `);
    if (hidden) {
      note.push(`${hidden} more ${hidden === 1 ? "is" : "are"} ${filter === "fits" ? "for other models" : "left out"}. `);
      note.push(button("Show all", () => {
        filter = "all";
        showFilters();
        showCards();
        one(".presets-found button")?.focus();
      }));
    }
    one(".presets-note").replaceChildren(...note);
  };
  const showStyles = () => {
    const on = presets.styles(page);
    for (const item of dialog.querySelectorAll(".presets-found li")) {
      const choose = item.querySelector("[aria-pressed]");
      choose?.setAttribute("aria-pressed", String(on.includes(item.dataset.name)));
    }
    const line = one(".presets-on");
    line.hidden = !on.length;
    const text = `${on.length} ${on.length === 1 ? "style is" : "styles are"} on: ${on.join(", ")}. Your prompt stays. `;
    line.replaceChildren(make("span", {}, text), button("Take off", () => {
      presets.setStyles(page, []);
      showStyles();
      one("input[type=search]").focus();
    }));
  };
  const load = async (select = "") => {
    known = await presets.list(page);
    showFilters();
    showCards();
    showStyles();
    const info = known.find(({ name }) => name === select);
    if (!info) return;
    if (!itemOf(select)) { // left out by what is sought
      one("input[type=search]").value = "";
      filter = accepts(info) ? filter : "all";
      showFilters();
      showCards();
    }
    showMore(info);
    itemOf(select)?.scrollIntoView({ block: "nearest" });
  };

  // Using one

  const press = (info) => {
    say("");
    if (info.is_style) {
      const on = presets.styles(page);
      presets.setStyles(page, on.includes(info.name) ? on.filter((name) => name !== info.name) : [...on, info.name]);
      showStyles();
    } else if (Object.keys(info.variables).length || isOther(info)) question(info);
    else apply(info, [], false);
  };
  const apply = (info, texts, ownSize) => {
    dialog.close();
    ask(page, "preset", { name: info.name, texts, own_size: ownSize });
  };

  // The pane

  const fill = (stays, ...parts) => {
    kept = stays;
    const pane = one(".presets-pane");
    pane.replaceChildren(...parts.flat().filter(Boolean));
    dialog.toggleAttribute("data-kept", stays);
  };
  const back = () => button("Back", () => {
    if (told) tell(told);
    else fill(false, hint());
    (itemOf(told?.name)?.querySelector("button:enabled") ?? one("input[type=search]")).focus();
  });
  const hint = () => make("p", { class: "presets-hint" }, "A preset fills the page's fields. Styles add to your prompt: turn on as many as you like.");
  const head = (info) => [
    info.preview && make("img", { src: `./${info.preview}`, alt: "" }),
    make("h3", {}, info.name),
    make("p", { class: "presets-origin" }, [originOf(info), info.family && `for ${info.family}`].filter(Boolean).join(" · ")),
    info.note && make("p", {}, info.note),
  ];
  const describe = (info) => {
    const loras = (info.fields.loras ?? []).map((ref) => `${ref.name} ${ref.weight}`).join(", ");
    const rows = info.is_style
      ? [["Prompt", info.fields.prompt ?? ""], ["Negative prompt", info.fields.negative ?? ""], ["LoRAs", loras]].filter(([, text]) => text && text !== "{prompt}").map((row) => [...row, null])
      : presets.changes(page, info);
    if (!rows.length) return [make("p", {}, "It changes nothing here.")];
    const list = rows.flatMap(([label, text, now]) => [
      make("dt", {}, label), make("dd", {}, text || "empty", ...(now ? [make("small", {}, ` now ${now}`)] : [])),
    ]);
    return [make("h4", {}, info.is_style ? "It adds" : "It changes"), make("dl", {}, ...list)];
  };
  const tell = (info) => {
    told = info;
    fill(false, head(info), describe(info));
  };
  const warn = (text) => make("p", { class: "presets-warning", role: "alert" }, text);

  const question = (info) => {
    told = info;
    const names = Object.keys(info.variables);
    const inputs = names.map((name) => make("input", { type: "text", value: info.variables[name] || (name === "prompt" ? valueOf(page, "prompt") : "") }));
    const { width, height } = info.fields;
    const hasSize = Boolean(isOther(info) && (width || height));
    const size = make("input", { type: "checkbox", checked: "" });
    const form = make(
      "form", {},
      ...(isOther(info) ? [warn(`It is for ${info.family}, and the model here is ${model()}. The pictures may be worse and take longer.`)] : []),
      ...names.map((name, k) => make("label", {}, make("span", {}, name), inputs[k])),
      ...(hasSize ? [make("label", { class: "presets-tick" }, size, ` Keep this page's size, not ${width ?? "?"} × ${height ?? "?"}`)] : []),
      make("div", { class: "presets-acts" }, make("button", { type: "submit", class: "primary" }, "Apply"), back()),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply(info, inputs.map((input) => input.value), hasSize && size.checked);
    });
    fill(true, head(info), form, describe(info));
    (inputs[0] ?? form.querySelector("button")).focus();
    inputs[0]?.select();
  };

  const showMore = (info) => {
    told = info;
    say("");
    const own = !info.shipped && !info.lent;
    const warnings = make("div");
    const acts = make("div", { class: "presets-acts" });
    if (!info.problem) {
      acts.append(make("a", { href: presets.fileUrl(info.name), download: "" }, "Export as TOML"));
      trying(async () => warnings.replaceChildren(...(await presets.warnings(info.name)).map(warn)))();
    }
    if (info.is_style) acts.append(button("Write into the prompt", () => writeOut(info)));
    const parts = info.problem ? [make("h3", {}, info.name), warn(info.problem)] : [...head(info), warnings, ...describe(info)];
    fill(true, parts, own && !info.problem && renaming(info), acts);
    if (own) acts.append(button("Delete", () => confirm(info), { class: "danger" }));
    acts.append(back());
    acts.querySelector("a, button").focus();
  };
  const writeOut = (info) => {
    presets.setStyles(page, presets.styles(page).filter((name) => name !== info.name));
    apply(info, [valueOf(page, "prompt")], false);
  };
  const renaming = (info) => {
    const name = make("input", { type: "text", value: info.name, "aria-label": "New name", maxlength: 80 });
    const form = make("form", { class: "presets-line" }, name, make("button", { type: "submit" }, "Rename"));
    form.addEventListener("submit", trying(async (event) => {
      event.preventDefault();
      const { name: renamed } = await presets.rename(info.name, name.value);
      presets.setStyles(page, presets.styles(page).map((one) => (one === info.name ? renamed : one)));
      await load(renamed);
      say(`It is called ${renamed} now.`);
    }));
    return form;
  };
  const confirm = (info) => {
    const yes = button("Yes, delete it", trying(async () => {
      await presets.remove(info.name);
      presets.dropStyle(info.name);
      told = null;
      fill(false, hint());
      await load();
      say(`Deleted ${info.name}.`);
      one("input[type=search]").focus();
    }), { class: "danger" });
    fill(true, make("h3", {}, `Delete ${info.name}?`), make("p", {}, "Its file and its picture are deleted for good. Export it first to keep a copy."),
      make("div", { class: "presets-acts" }, yes, button("Keep it", () => showMore(info))));
    yes.focus();
  };

  // Saving and importing

  const KINDS = [["page", "The settings of this page"], ["picture", "The selected picture, with its seed"], ["words", "The prompt and LoRAs, as a style"]];
  const values = () => ({ ...JSON.parse(recall(page) || "{}"), prompt: valueOf(page, "prompt"), negative: valueOf(page, "negative") });
  const showSaving = () => {
    told = null;
    say("");
    const name = make("input", { type: "text", required: "", maxlength: 80 });
    const note = make("input", { type: "text", placeholder: "What it is good for" });
    const kinds = KINDS.map(([value, title], k) => make("label", { class: "presets-tick" }, make("input", { type: "radio", name: "settings", value, checked: k ? null : "" }), ` ${title}`));
    const asked = [...new Set(valueOf(page, "prompt").match(/(?<!\{)\{[A-Za-z_]\w{0,39}\}(?!\})/g) ?? [])].map((text) => text.slice(1, -1));
    const variables = make("textarea", { rows: 2, placeholder: "thing = red apple" });
    variables.value = asked.map((text) => `${text} = `).join("\n");
    const replace = make("input", { type: "checkbox" });
    const form = make(
      "form", {}, make("h3", {}, "Save a preset"),
      make("label", {}, make("span", {}, "Name"), name),
      make("label", {}, make("span", {}, "Note"), note),
      make("fieldset", {}, make("legend", {}, "What to save"), ...kinds),
      make("label", {}, make("span", {}, "Variables, one per line: what {thing} in the prompt stands for at first"), variables),
      make("label", { class: "presets-tick" }, replace, " Overwrite my preset with this name"),
      make("div", { class: "presets-acts" }, make("button", { type: "submit", class: "primary" }, "Save"), back()),
    );
    form.addEventListener("submit", trying(async (event) => {
      event.preventDefault();
      const settings = form.querySelector("[name=settings]:checked").value;
      const saved = await presets.save({
        name: name.value, note: note.value, settings, values: settings === "picture" ? {} : values(), styles: settings === "picture" ? [] : presets.styles(page),
        variables: settings === "page" ? variables.value : "", picture: chosenPicture(page), replace: replace.checked,
      });
      await load(saved.name);
      say(`Saved ${saved.name}.`);
    }));
    fill(true, form);
    name.focus();
  };
  const take = trying(async (files) => {
    const said = [];
    let last = "";
    for (const file of files) {
      const { names, notices } = await presets.take(file);
      last = names.at(-1) ?? last;
      said.push(`Imported ${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}.`, ...notices);
    }
    await load(last);
    say(said.join(" "));
  });

  // The dialog

  const ARROWS = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: (across) => across, ArrowUp: (across) => -across };
  const walk = (event) => {
    const cards = [...dialog.querySelectorAll(".presets-found li > button:first-child")];
    const place = cards.indexOf(event.target);
    if (place < 0 || !ARROWS[event.key]) return;
    const across = cards.filter((card) => card.getBoundingClientRect().top === cards[0].getBoundingClientRect().top).length;
    event.preventDefault();
    cards[place + ARROWS[event.key](across)]?.focus();
  };
  const build = () => {
    const search = make("input", { type: "search", placeholder: "Search presets", "aria-label": "Search presets" });
    const select = make("select", { "aria-label": "Which presets" });
    const file = make("input", { type: "file", accept: ".toml,.csv", multiple: "", hidden: "", "aria-label": "Files to import" });
    const close = button("✕", () => dialog.close(), { class: "presets-close", "aria-label": "Close" });
    dialog = make(
      "dialog", { class: "panel presets", id: "darkroom-presets", "aria-labelledby": "presets-title" },
      make("header", {}, make("h2", { id: "presets-title" }, "Presets"), search, select, button("Save …", showSaving), button("Import", () => file.click()), file, close),
      make("p", { class: "presets-said", role: "status" }),
      make("div", { class: "presets-body" },
        make("div", { class: "presets-shelf", role: "group", "aria-label": "Presets to choose from" }, make("ul", { class: "panel-found presets-found" }), make("p", { class: "presets-note" })),
        make("section", { class: "presets-pane", "aria-label": "Which preset", tabindex: 0 })),
      make("p", { class: "presets-on", role: "status", hidden: "" }),
    );
    search.addEventListener("input", showCards);
    select.addEventListener("change", () => {
      filter = select.value;
      showCards();
    });
    file.addEventListener("change", async () => {
      await take([...file.files]);
      file.value = "";
    });
    dialog.addEventListener("keydown", walk);
    dialog.addEventListener("drop", (event) => {
      event.preventDefault();
      take([...event.dataTransfer.files]);
    });
    dialog.addEventListener("click", ({ target, clientX: x, clientY: y }) => {
      const { left, top, right, bottom } = dialog.getBoundingClientRect();
      if (target === dialog && (x < left || x > right || y < top || y > bottom)) dialog.close(); // pressed beside it
    });
    dialog.addEventListener("close", () => document.getElementById(`${page}-presets`)?.focus());
    (document.querySelector(".gradio-container") ?? document.body).append(dialog);
  };
  const open = async (ofPage, select = "") => {
    page = ofPage;
    if (!dialog) build();
    if (!dialog.open) dialog.showModal();
    told = null;
    fill(false, hint());
    say("");
    one("input[type=search]").value = "";
    one("input[type=search]").focus();
    await trying(load)(select);
  };

  window.darkroomShelf = {
    open,
    take: async (ofPage, files) => {
      await open(ofPage);
      await take(files);
    },
  };
})();
