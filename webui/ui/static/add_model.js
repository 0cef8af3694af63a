// "Add a model", for the owner: files that are chosen or dropped, and paths and addresses that the server brings. Each is
// a row with what it is, where it goes and how far it has come; what goes on goes on when the dialog is closed.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { PAGES, pageInSight } = window.darkroom;
  const ENDINGS = ".safetensors,.gguf,.pt,.pth,.onnx";
  const START_BYTES = 200; // what tells how much of a file says what it is
  const LOOK_MS = 1000;
  const SPEED_MS = 10000;
  const LISTS = { VAE: "VAEs", embedding: "embeddings", upscaler: "upscalers", finder: "finders" };

  const size = (bytes) => (bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);
  const time = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
  const ask = async (method, way, body, type = "application/json") => {
    let answer;
    try {
      answer = await fetch(`./api/models/${way}`, { method, body, ...(body !== undefined && { headers: { "content-type": type } }) });
    } catch {
      throw new Error("The server does not answer.");
    }
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(told.detail ?? answer.statusText), { status: answer.status });
    return told;
  };

  // What is there: own uploads and what the server brings, by id, in the order in which they came.
  const all = new Map();
  const waiting = []; // uploads go one after the other
  let sending = null;
  let number = 0;
  let timer = null;
  let dialog = null;
  let parts = {}; // of the dialog
  const isGoing = ({ state }) => state === "running" || state === "waiting";

  // The lists of the pages, with what has come.
  const refresh = () => {
    PAGES.map((page) => document.getElementById(`${page}-model-reload`)).find(Boolean)?.click();
    window.darkroomModels.refresh();
    window.darkroomLoras.refresh();
  };
  const put = (one) => {
    const before = all.get(one.id);
    all.set(one.id, { ...before, ...one });
    if (one.state === "done" && before && before.state !== "done") refresh();
    draw();
  };
  const take = (id) => {
    all.delete(id);
    draw();
  };

  // Uploads

  const look = async (one) => {
    const way = `files/check?${new URLSearchParams({ name: one.name, size_bytes: one.file.size })}`;
    const check = (bytes) => ask("POST", way, one.file.slice(0, bytes), "application/octet-stream");
    const told = await check(START_BYTES);
    return told.needed_bytes ? check(told.needed_bytes) : told;
  };
  const send = (one) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
    const samples = [];
    request.upload.addEventListener("progress", ({ loaded }) => {
      const now = performance.now();
      samples.push([now, loaded]);
      while (samples.length > 2 && now - samples[0][0] > SPEED_MS) samples.shift();
      const [[first, bytes]] = samples;
      const speed = now > first ? ((loaded - bytes) * 1000) / (now - first) : 0;
      put({ id: one.id, received_bytes: loaded, bytes_s: speed, left_s: speed ? (one.file.size - loaded) / speed : null });
    });
    request.addEventListener("load", () => {
      let told = {};
      try {
        told = JSON.parse(request.responseText);
      } catch {} // a proxy's page
      if (request.status === 201) resolve(told);
      else reject(Object.assign(new Error(told.detail ?? `The server answers with ${request.status}.`), { status: request.status }));
    });
    request.addEventListener("error", () => reject(new Error("The connection broke off, or the file can no longer be read.")));
    request.addEventListener("abort", () => reject(null));
    request.open("PUT", `./api/models/files?${new URLSearchParams({ name: one.name })}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.send(one.file);
    sending = { id: one.id, request };
  });
  const goOn = async () => {
    const id = sending ? null : waiting.shift();
    const one = id && all.get(id);
    if (!one) return id ? goOn() : undefined;
    sending = { id };
    try {
      put({ id, ...(await look(one)), state: "running" });
      if (all.has(id)) put({ id, ...(await send(one)), state: "done" });
    } catch (error) {
      if (error && all.has(id)) put({ id, state: "failed", problem: error.message, field: error.status === 409 ? "name" : "" });
    }
    sending = null;
    return goOn();
  };
  const upload = (file, name = file.name) => {
    const id = `own-${(number += 1)}`;
    put({ id, file, name, source: "", state: "waiting", received_bytes: 0, size_bytes: file.size });
    waiting.push(id);
    goOn();
  };
  addEventListener("beforeunload", (event) => sending?.request && event.preventDefault());

  // What the server brings

  const follow = async () => {
    clearTimeout(timer);
    let found;
    try {
      found = await ask("GET", "additions");
    } catch {
      found = null; // asked again
    }
    for (const one of found ?? []) put(one);
    const ids = new Set(found?.map(({ id }) => id));
    for (const [id, one] of found ? all : []) if (!one.file && !ids.has(id)) take(id);
    if ([...all.values()].some((one) => !one.file && isGoing(one))) timer = setTimeout(follow, LOOK_MS);
  };
  const add = async (source, name = "", sha256 = "") => {
    put(await ask("POST", "additions", JSON.stringify({ source, name, sha256 })));
    follow();
  };

  // Rows

  const act = (run) => async () => {
    try {
      await run();
    } catch (error) {
      parts.trouble.textContent = error.message;
    }
  };
  const remove = (one) => {
    if (one.file) {
      if (sending?.id === one.id) sending.request?.abort();
      return take(one.id);
    }
    return ask("DELETE", `additions/${one.id}`).then(() => (isGoing(one) ? follow() : take(one.id)));
  };
  const again = (one, name) => {
    if (one.file) {
      take(one.id);
      return upload(one.file, name);
    }
    const query = name === one.name ? "" : `?${new URLSearchParams({ name })}`;
    return ask("POST", `additions/${one.id}/again${query}`).then((told) => {
      take(one.id);
      put(told);
      follow();
    });
  };
  const use = (one) => {
    const page = pageInSight() === "upscale" ? "txt2img" : pageInSight() ?? "txt2img";
    const { darkroomModels, darkroomLoras } = window;
    if (one.kind === "model") darkroomModels.choose(page, one.as);
    else darkroomLoras.choose(page, [...darkroomLoras.chosen(page).filter(({ name }) => name !== one.as), { name: one.as, weight: 1 }]);
    dialog.close();
  };
  const copied = (text) => {
    const button = make("button", { type: "button", "aria-label": `Copy ${text}` }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text); // only there over https and on this machine
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling); // to be copied by hand
      }
    });
    return button;
  };
  const said = (one) => {
    const { state, received_bytes: received, size_bytes: whole, bytes_s: speed, left_s: left } = one;
    if (state === "failed") return one.problem;
    if (state === "waiting") return `${size(whole)}, waits for the one before it.`;
    if (state === "stopped") return `${size(received)} of ${size(whole)} are here.`;
    if (state === "running" && !whole) return "Looking at it ...";
    if (state === "running" && received >= whole) return "All of it is here. Checking ...";
    if (state === "running") return [`${size(received)} of ${size(whole)}`, ...(speed ? [`${size(speed)}/s`] : []), ...(left ? [`${time(left)} left`] : [])].join(" · ");
    const checked = one.checked_by ? `, as ${one.checked_by} said` : "";
    const hash = one.sha256 ? ` SHA-256 ${one.sha256}${checked}.` : "";
    return `${LISTS[one.kind] ? `It is among the ${LISTS[one.kind]} now.` : "It is here."}${hash}`;
  };
  const makeRow = (id) => {
    const bar = make("progress", { max: 1, value: 0 });
    const name = make("input", { type: "text", "aria-label": "Another name" });
    const [title, about, path, line] = [make("strong"), make("span"), make("div", { class: "add-path" }), make("p", { class: "add-said" })];
    const [useIt, renamed, more, gone] = ["Use it", "Add under this name", "", ""].map((word) => make("button", { type: "button" }, word));
    useIt.classList.add("drop-choice");
    const rename = make("div", { class: "add-rename" }, name, renamed);
    const row = make("li", { "data-id": id }, make("div", { class: "add-head" }, title, " ", about), path, bar, line, rename, make("div", { class: "drop-choices" }, useIt, more, gone));
    useIt.addEventListener("click", () => use(all.get(id)));
    more.addEventListener("click", act(() => again(all.get(id), all.get(id).name)));
    renamed.addEventListener("click", act(() => again(all.get(id), name.value)));
    gone.addEventListener("click", act(() => remove(all.get(id))));
    const show = (one) => {
      const { state } = one;
      row.dataset.state = state;
      title.textContent = one.name || one.source;
      about.textContent = [one.about, one.source].filter((word) => word && word !== title.textContent).join(" · ");
      if (path.dataset.path !== (one.path ?? "")) {
        path.dataset.path = one.path ?? "";
        path.replaceChildren(...(one.path ? [make("code", {}, one.path), copied(one.path)] : []));
      }
      bar.hidden = !(isGoing(one) || state === "stopped");
      bar.setAttribute("aria-label", `How much of ${title.textContent} is here`);
      if (one.size_bytes) bar.value = one.received_bytes / one.size_bytes;
      else bar.removeAttribute("value");
      if (line.textContent !== said(one)) line.textContent = said(one);
      line.setAttribute("role", state === "failed" ? "alert" : isGoing(one) ? "note" : "status"); // how far it is, is no news
      rename.hidden = !(state === "failed" && one.field === "name");
      if (rename.hidden) name.value = one.name ?? "";
      useIt.hidden = !(state === "done" && one.as && ["model", "LoRA"].includes(one.kind));
      more.textContent = state === "stopped" ? "Go on" : "Try again";
      more.hidden = !(state === "stopped" || (state === "failed" && rename.hidden));
      gone.textContent = isGoing(one) ? "Cancel" : state === "stopped" ? "Throw away" : "Remove from the list";
    };
    return { row, show };
  };
  const rows = new Map();
  const draw = () => {
    if (!dialog) return;
    for (const [id, { row }] of rows) {
      if (all.has(id)) continue;
      row.remove();
      rows.delete(id);
    }
    for (const [id, one] of all) {
      if (!rows.has(id)) {
        rows.set(id, makeRow(id));
        parts.list.prepend(rows.get(id).row);
      }
      rows.get(id).show(one);
    }
    const going = [...all.values()].filter(isGoing).length;
    for (const button of document.querySelectorAll(".add-model-open")) button.textContent = going ? `Add a model (${going} on the way)` : "Add a model";
  };

  // The dialog

  const build = () => {
    const choice = make("input", { type: "file", multiple: "", accept: ENDINGS, class: "visually-hidden" });
    const place = make("label", { class: "add-drop" }, choice, make("strong", {}, "Drop files here, or choose them"), make("span", {}, "Models, LoRAs, VAEs, embeddings, upscalers and finders: what a file is, is read from the file."));
    const source = make("input", { type: "text", id: "add-source", autocomplete: "off", spellcheck: "false", placeholder: "https://..." });
    const name = make("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const hash = make("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const button = make("button", { type: "submit" }, "Add");
    const more = make("details", {}, make("summary", {}, "Another name, or its hash"), make("label", {}, "Name of the file", name), make("label", {}, "SHA-256 that it has to have", hash));
    const form = make("form", {}, make("label", { for: "add-source" }, "An https address, or the path of a file on the server's machine"), make("div", { class: "panel-tools" }, source, button), more);
    const close = make("button", { type: "button" }, "Close");
    parts = {
      list: make("ul", { class: "add-list", "aria-label": "Files that are added" }),
      trouble: make("p", { class: "drop-trouble", role: "alert" }),
      folders: make("details", { class: "add-folders" }, make("summary", {}, "Where files go")),
      offline: make("p", { class: "add-offline", hidden: "" }),
      source,
    };
    dialog = make(
      "dialog", { class: "drop panel add-model", "aria-labelledby": "add-title" },
      make("h2", { id: "add-title" }, "Add a model"), place, form, parts.offline, parts.trouble, parts.list, parts.folders,
      make("div", { class: "drop-choices" }, close),
    );
    choice.addEventListener("change", () => {
      [...choice.files].forEach((file) => upload(file));
      choice.value = "";
    });
    dialog.addEventListener("dragover", (event) => event.preventDefault());
    dialog.addEventListener("drop", (event) => {
      event.preventDefault();
      [...event.dataTransfer.files].forEach((file) => upload(file));
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      parts.trouble.textContent = "";
      try {
        await add(source.value, name.value, hash.value);
        source.value = name.value = hash.value = "";
      } catch (error) {
        parts.trouble.textContent = error.message;
        source.focus();
      }
    });
    close.addEventListener("click", () => dialog.close());
    (document.querySelector(".gradio-container") ?? document.body).append(dialog);
    draw();
  };
  const describe = async () => {
    const { folders, free_bytes: free, offline } = await ask("GET", "files");
    const lines = Object.entries(folders).flatMap(([kind, folder]) => [make("dt", {}, kind), make("dd", {}, make("code", {}, folder), copied(folder))]);
    parts.folders.replaceChildren(parts.folders.firstChild, make("p", {}, `There is room for ${size(free)}.`), make("dl", {}, ...lines));
    parts.offline.textContent = offline ? "Addresses are off: this server was started with --offline or HF_HUB_OFFLINE." : "";
    parts.offline.hidden = !offline;
    parts.source.placeholder = offline ? "/folder/file.safetensors" : "https://...";
  };
  const open = (files = []) => {
    if (!dialog) build();
    parts.trouble.textContent = "";
    if (!dialog.open) dialog.showModal();
    files.forEach((file) => upload(file));
    follow();
    act(describe)();
  };

  document.addEventListener("click", ({ target }) => target.closest?.(".add-model-open") && open());
  document.addEventListener("darkroom:health", ({ detail }) => {
    document.body.classList.toggle("is-owner", detail.is_owner === true);
    document.body.classList.toggle("is-guest", detail.is_owner !== true);
  });
  whenever(".models .panel-tools", (tools) => tools.append(make("button", { type: "button", class: "add-model-open" }, "Add a model")));
  window.darkroomAddModel = { open };
})();
