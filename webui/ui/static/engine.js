// Whether the server answers, and what its engine does: the chip in the header. While it does not answer every page says
// so, Stop is off and Generate refuses; when it is back, the pages go on by themselves.
(() => {
  "use strict";
  const { PAGES, statusOf, isBusy, read, write } = window.darkroom;
  const { whenever } = window.darkroomPanel;
  const SILENT = "The server does not answer. Your settings are kept.";
  const GAVE_UP = "Connection to the server was lost"; // by Gradio
  const PATIENCE_MS = 10000; // the longest that an answer may take
  const LOOK_MS = { lost: 1000, loading: 1000, busy: 2000, idle: 5000 };
  const FOCUS = "darkroom.focus";
  const before = {}; // by page: what the status said before the silence
  let lost = false;
  let gradioGaveUp = false; // it loads the page again once the server answers, and does nothing else until then
  let nextLook;

  const buttonOf = (page, name) => document.getElementById(`${page}-${name}`);

  const say = (page) => {
    const status = statusOf(page);
    if (!status) return;
    before[page] ??= { state: status.dataset.state, html: status.innerHTML };
    const text = Object.assign(document.createElement("span"), { className: "status-text", textContent: SILENT });
    status.replaceChildren(text);
    Object.assign(status.dataset, { state: "failed", silent: "" });
    buttonOf(page, "stop").disabled = true;
  };
  const lose = () => {
    lost = true;
    PAGES.forEach(say);
  };
  // Whether the page goes on as it is; it does not where it has to be loaded again.
  const comeBack = async () => {
    const answer = await fetch(`.${window.gradio_config.api_prefix}/app_id`);
    const { app_id } = await answer.json();
    if (gradioGaveUp || app_id !== window.gradio_config.app_id) {
      location.reload();
      return false;
    }
    lost = false;
    for (const page of PAGES) {
      const status = statusOf(page); // only pages that were opened have one
      if (status) buttonOf(page, "stop").disabled = false;
      if (status && "silent" in status.dataset) { // nothing newer has come
        delete status.dataset.silent;
        status.innerHTML = before[page].html;
        status.dataset.state = before[page].state;
      }
      delete before[page];
    }
    return true;
  };

  const askAlone = () => fetch("./api/health", { signal: AbortSignal.timeout(PATIENCE_MS) });
  let asked = askAlone(); // while Gradio makes the page
  asked.catch(() => {}); // heard by who waits for it
  const ask = async () => {
    const answering = asked ?? askAlone();
    asked = null;
    const answer = await answering;
    if (answer.status === 404 || answer.status >= 500) throw new Error(answer.statusText); // not up yet, or a proxy's word
    const health = await answer.json();
    return !lost || (await comeBack()) ? health : null;
  };
  const look = async () => {
    clearTimeout(nextLook);
    const chip = document.getElementById("darkroom-engine");
    if (!chip) return;
    let pace = PAGES.some(isBusy) ? "busy" : "idle";
    try {
      const health = await ask();
      if (!health) return;
      document.dispatchEvent(new CustomEvent("darkroom:health", { detail: health }));
      const engine = `${health.model ?? "Ready"}${health.device ? ` · ${health.device}` : ""}`; // guests are told less
      const ready = health.notice ? `${engine} · ${health.notice}` : engine;
      chip.dataset.status = health.status;
      chip.textContent = { ok: ready, loading: "Engine is loading ..." }[health.status] ?? health.trouble;
      if (health.status === "ok" && health.warning) chip.textContent += `. ${health.warning}`;
      const workers = (health.workers ?? []).map(({ name, model, running, trouble }) =>
        `${name}: ${trouble ?? `${model ?? "no model yet"}, ${running ? "drawing" : "idle"}`}`);
      chip.title = [chip.textContent, ...workers].join("\n");
      const message = document.getElementById("darkroom-message");
      if (message.textContent !== (health.message ?? "")) message.textContent = health.message ?? "";
      message.hidden = !health.message;
      document.getElementById("darkroom-host").hidden = !health.has_guests;
      if (health.status === "loading") pace = "loading";
    } catch {
      pace = "lost";
      chip.dataset.status = "degraded";
      chip.textContent = "The server does not answer";
      if (!lost) lose();
    }
    clearTimeout(nextLook);
    nextLook = setTimeout(look, LOOK_MS[pace]);
  };
  whenever("#darkroom-engine", look);
  // Another model may be loaded once a job has begun or ended.
  document.addEventListener("darkroom:state", ({ detail: { state } }) => state !== "queued" && !lost && look());
  // Whoever asks the server in vain says so, in an event or in Gradio's message.
  document.addEventListener("darkroom:trouble", look);
  addEventListener("offline", look);
  addEventListener("online", look);
  whenever(".toast-body", (toast) => {
    const said = [GAVE_UP, window.darkroomWords?.translate(GAVE_UP) ?? GAVE_UP];
    if (said.some((text) => toast.textContent.includes(text))) gradioGaveUp = true;
    look();
  });

  addEventListener("click", (event) => {
    const page = lost && PAGES.find((name) => buttonOf(name, "generate")?.contains(event.target));
    if (!page) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    say(page);
    look();
  }, true);

  // What is typed is remembered as it is typed, without Gradio, which gives up when a connection is lost.
  const isPlain = (input) => input.matches("textarea, input:not([role=combobox], [type=file], [type=search])");
  const valueOf = ({ type, value, checked }) => {
    if (type === "checkbox") return checked;
    return type === "number" || type === "range" ? Number(value) : value;
  };
  addEventListener("input", ({ target }) => {
    const [, page, field] = target.closest?.(PAGES.map((name) => `[id^="${name}-"]`).join())?.id.match(/^(\w+)-(.+)$/) ?? [];
    const kept = page && JSON.parse(read(`darkroom.${page}.fields`) || "{}");
    if (!kept || !(field in kept) || !isPlain(target) || (target.type === "number" && target.value === "")) return;
    kept[field] = valueOf(target);
    write(`darkroom.${page}.fields`, JSON.stringify(kept));
  }, true);

  // The page that loads itself again leaves the person where they were typing.
  addEventListener("pagehide", () => {
    const { id } = document.activeElement?.closest("[id]:not(textarea, input)") ?? {};
    const { value, selectionStart, selectionEnd } = document.activeElement ?? {};
    if (lost && id) sessionStorage.setItem(FOCUS, JSON.stringify({ id, value, selectionStart, selectionEnd }));
  });
  document.addEventListener("darkroom:restored", () => {
    const { id, value, selectionStart, selectionEnd } = JSON.parse(sessionStorage.getItem(FOCUS) ?? "{}");
    const input = id && document.getElementById(id)?.querySelector("textarea, input");
    if (!input) return;
    sessionStorage.removeItem(FOCUS);
    const settle = (looks) => { // the text comes into the field a moment later, and takes the caret to its end
      if (input.value !== value && looks) return setTimeout(settle, 20, looks - 1);
      input.focus();
      if (input.matches("textarea, [type=text]")) input.setSelectionRange(selectionStart, selectionEnd);
    };
    setTimeout(settle, 0, 100);
  });
})();
