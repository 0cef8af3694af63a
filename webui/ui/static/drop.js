// What is dropped or pasted anywhere on the page: a picture's settings are read, or it becomes a start picture; of other
// files it is said where they go.
(() => {
  "use strict";
  const { pageInSight } = window.darkroom;
  const { make } = window.darkroomPanel;
  const MAX_BYTES = 20 * 2 ** 20; // as much as the page takes
  const PATIENCE_MS = 30000;
  const LIKE_SETTINGS = /^[ \t]*Negative prompt:|(?:^|\s)Steps:[ \t]*\d+[ \t]*,/im;
  const MODELS = /\.(safetensors|ckpt|pt|pth|bin|onnx|gguf)$/i;
  const PRESETS = /\.(toml|csv)$/i;
  const SHOWN = { steps: "steps", sampler: "", guidance: "guidance", seed: "seed", model: "" };

  const query = (selector) => document.querySelector(selector);
  const inputOf = (page, field = "image") => query(`#${page}-${field} input[type=file]`);
  // What a selector finds as soon as it finds something; it rejects when that takes too long.
  const soon = (selector) => new Promise((resolve, reject) => {
    const watcher = new MutationObserver(() => look());
    const timer = setTimeout(() => end(reject, new Error("The page took too long.")), PATIENCE_MS);
    const end = (settle, value) => {
      watcher.disconnect();
      clearTimeout(timer);
      settle(value);
    };
    const look = () => query(selector) && end(resolve, query(selector));
    watcher.observe(document.body, { childList: true, subtree: true, attributes: true });
    look();
  });
  const open = (page) => query(`#darkroom-tabs [role=tab][data-tab-id="${page}"]`)?.click();
  const give = (input, file) => {
    const held = new DataTransfer();
    held.items.add(file);
    input.files = held.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // What can be done with a picture, and where

  const takesPicture = (page) => Boolean(page) && ["img2img", "inpaint", "upscale"].includes(page);
  const startPage = () => (takesPicture(pageInSight()) ? pageInSight() : "img2img");
  const settingsPage = () => {
    const page = pageInSight();
    return page && page !== "upscale" ? page : "txt2img";
  };
  const startFrom = async (file, page) => {
    open(page);
    give(await soon(`#${page}-image input[type=file]`), file);
  };
  // As the PNG info tab sends them. A text where the page would take the picture itself too.
  const readSettings = async ({ file, text = "" }, page, withSeed) => {
    const path = text ? null : await upload(file);
    window.darkroomFills.ask(page, "png info", { path, text, with_seed: withSeed });
  };
  const upload = async (file) => {
    const body = new FormData();
    body.append("files", file, file.name || "picture.png");
    const answer = await fetch(`.${window.gradio_config?.api_prefix ?? "/gradio_api"}/upload`, { method: "POST", body });
    if (!answer.ok) throw new Error("The picture could not be uploaded.");
    return (await answer.json())[0];
  };

  // The question

  let dialog = null;
  const ask = (title, words, choices, { picture = null, more = [] } = {}) => {
    dialog?.remove();
    const shownUrl = picture && URL.createObjectURL(picture);
    const trouble = make("p", { class: "drop-trouble", role: "alert" });
    const close = make("button", { type: "button" }, choices.length ? "Cancel" : "Close");
    const buttons = choices.map(([label, run]) => {
      const button = make("button", { type: "button", class: "drop-choice" }, label);
      button.addEventListener("click", async () => {
        button.setAttribute("aria-busy", "true");
        try {
          await run();
          button.closest("dialog").close();
        } catch (error) {
          trouble.textContent = error.message;
        }
        button.removeAttribute("aria-busy");
      });
      return button;
    });
    dialog = make(
      "dialog", { class: "drop panel", "aria-labelledby": "drop-title" },
      make("h2", { id: "drop-title" }, title),
      ...(picture ? [make("img", { src: shownUrl, alt: "" })] : []),
      ...words.filter(Boolean).map((line) => make("p", {}, line)), ...more, trouble,
      make("div", { class: "drop-choices" }, ...buttons, close),
    );
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", ({ target }) => {
      target.remove();
      if (shownUrl) URL.revokeObjectURL(shownUrl);
    });
    (query(".gradio-container") ?? document.body).append(dialog);
    dialog.showModal();
    (buttons[0] ?? close).focus();
  };

  const read = async (body, type) => {
    const answer = await fetch("./api/info", { method: "POST", body, headers: { "content-type": type } });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail ?? answer.statusText);
    return told;
  };
  const outline = (values) => {
    const size = values.width && values.height ? [`${values.width} × ${values.height}`] : [];
    const said = Object.entries(SHOWN).filter(([name]) => values[name] || values[name] === 0);
    return [...size, ...said.map(([name, word]) => `${word} ${values[name]}`.trim())].join(" · ");
  };
  const withSeedBox = () => make("label", { class: "drop-seed" }, make("input", { type: "checkbox" }), " With its seed");
  const settingsChoice = (what, box, page = settingsPage()) =>
    [`Read its settings into ${page}`, () => readSettings(what, page, box.querySelector("input").checked)];

  const offerPicture = async (file) => {
    const start = startPage();
    const startChoice = [`Start from it in ${start}`, () => startFrom(file, start)];
    if (file.size > MAX_BYTES) return ask("A picture", [`${file.name} is larger than 20 MB; that is the most.`], [], {});
    let told;
    try {
      told = await read(file, "application/octet-stream");
    } catch (error) {
      const why = error instanceof TypeError ? "The server does not answer." : `This cannot be used: ${error.message}.`;
      return ask("A picture", [why], [], {});
    }
    const hasSettings = Object.keys(told.values).length > 0;
    const page = settingsPage();
    const asText = takesPicture(page) && LIKE_SETTINGS.test(told.raw); // else it would become the start picture too
    const box = withSeedBox();
    const words = hasSettings
      ? [`Made with ${told.program || "an unknown program"}.`, told.values.prompt, outline(told.values)]
      : ["No settings are in this picture."];
    const choices = hasSettings ? [settingsChoice(asText ? { text: told.raw } : { file }, box, page), startChoice] : [startChoice];
    const kept = hasSettings ? [box] : [];
    return ask(file.name || "A pasted picture", words, choices, { picture: file, more: kept });
  };
  const offerText = async (text) => {
    const told = await read(text, "text/plain");
    if (!Object.keys(told.values).length) return;
    const box = withSeedBox();
    ask("Pasted settings", [told.values.prompt, outline(told.values)], [settingsChoice({ text }, box)], { more: [box] });
  };
  const offerFile = async (file, models) => {
    const { is_owner: isOwner } = await (await fetch("./api/workspace")).json();
    if (MODELS.test(file.name)) {
      if (isOwner) return window.darkroomAddModel.open(models);
      return ask(file.name, ["Only the owner of this server can add models."], [], {});
    }
    const page = settingsPage();
    const importIt = async () => {
      dialog.close();
      open(page);
      await window.darkroomShelf.take(page, [file]);
    };
    const tags = isOwner && /csv$/i.test(file.name) ? "A list of tags goes into the folder tags instead." : "";
    return ask(file.name, ["This can be imported as presets.", tags], [["Import as presets", importIt]], {});
  };
  const offer = (files) => {
    const picture = files.find(({ type }) => type.startsWith("image/"));
    if (picture) return query("#tab-png-info")?.checkVisibility() && inputOf("png-info") ? give(inputOf("png-info"), picture) : offerPicture(picture);
    const other = files.find(({ name }) => MODELS.test(name) || PRESETS.test(name));
    if (other) return offerFile(other, files.filter(({ name }) => MODELS.test(name)));
    const name = files[0]?.name ?? "This";
    return ask(name, ["Nothing here can use such a file. Pictures, presets (.toml, .csv) and models are taken."], [], {});
  };

  // Dropping

  const veil = make("div", { class: "drop-veil", "aria-hidden": "true" }, make("strong", {}, "Drop a picture: read its settings, or start from it"));
  let inside = 0;
  const brings = (event) => event.dataTransfer?.types.includes("Files");
  const hide = () => {
    inside = 0;
    veil.remove();
  };
  window.addEventListener("dragenter", (event) => {
    if (!brings(event) || document.querySelector("dialog[open]")) return;
    inside += 1;
    if (inside === 1) document.body.append(veil);
  }, true);
  window.addEventListener("dragleave", (event) => {
    if (brings(event) && inside && --inside === 0) hide();
  }, true);
  // What takes files itself has said so by now; the browser would leave the page for all else.
  window.addEventListener("dragover", (event) => brings(event) && event.preventDefault());
  window.addEventListener("drop", () => hide(), true);
  window.addEventListener("drop", (event) => {
    if (!brings(event) || event.defaultPrevented) return;
    event.preventDefault();
    if (!document.querySelector("dialog[open]")) offer([...event.dataTransfer.files]);
  });

  // Pasting: a page that takes a picture takes it at once, as Gradio itself only has a button for it.
  document.addEventListener("paste", (event) => {
    const { files, types } = event.clipboardData;
    const picture = [...files].find((file) => file.type.startsWith("image/"));
    const typing = event.target.closest?.("textarea, input, [contenteditable]");
    const text = typing ? "" : event.clipboardData.getData("text/plain");
    if (document.querySelector("dialog[open]")) return;
    if (picture && !(typing && types.includes("text/plain"))) {
      event.preventDefault();
      const input = inputOf(pageInSight());
      if (input) give(input, picture);
      else offer([picture]);
    } else if (LIKE_SETTINGS.test(text)) {
      event.preventDefault();
      offerText(text);
    }
  });
})();
