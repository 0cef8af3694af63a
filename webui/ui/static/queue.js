// The queue: a panel of all jobs of this visitor that are drawn or wait, whichever page, tab or program sent them. Each can
// be stopped, and those that wait be moved among one's own. The button in the header and Generate say how many wait.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const LOOK_MS = 1000; // while the panel is open
  const rows = new Map(); // by job: its element and the parts of it that change
  let jobs = []; // as the server told them last, in the order of their turns
  let dragged = null;
  let nextLook;

  const buttonOf = () => document.getElementById("darkroom-queue");
  const isOpen = () => Boolean(panel?.open);
  const waiting = () => jobs.filter((job) => job.position !== null);

  // what is asked

  const ask = async (address, method, body) => {
    const headers = body ? { "Content-Type": "application/json" } : {};
    const answer = await fetch(`./api/${address}`, { method, headers, body: body && JSON.stringify(body) });
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.statusText);
    return answer.json();
  };
  const look = async () => {
    clearTimeout(nextLook);
    try {
      jobs = await ask("queue", "GET");
    } catch {
      document.dispatchEvent(new CustomEvent("darkroom:trouble"));
    }
    show();
    if (isOpen() && !document.hidden) nextLook = setTimeout(look, LOOK_MS);
  };
  const act = async (address, method, body) => {
    say("");
    try {
      await ask(address, method, body);
    } catch (error) {
      say(error.message);
    }
    document.dispatchEvent(new CustomEvent("darkroom:queue"));
    await look();
  };
  const stop = (id) => act(`jobs/${id}`, "DELETE");
  const stopAll = async () => {
    for (const { id } of [...jobs].reverse()) await ask(`jobs/${id}`, "DELETE").catch(() => {});
    document.dispatchEvent(new CustomEvent("darkroom:queue"));
    await look();
  };
  const move = async (id, before) => {
    await act(`jobs/${id}/move`, "POST", { before });
    const place = waiting().findIndex((job) => job.id === id);
    if (place >= 0) say(`Moved to place ${place + 1} of ${waiting().length}.`);
  };
  // One place up or down among those that wait.
  const step = (id, by) => {
    const ids = waiting().map((job) => job.id);
    const at = ids.indexOf(id);
    if (at + by < 0 || at + by >= ids.length) return;
    move(id, by < 0 ? ids[at - 1] : (ids[at + 2] ?? null));
  };

  // what is shown

  let panel = null;
  let list, note, empty, all;
  const say = (text) => {
    if (note && note.textContent !== text) note.textContent = text;
  };
  const times = ({ size: [width, height], pictures, finished }) => {
    const several = pictures > 1 ? [finished ? `${finished} of ${pictures} pictures` : `${pictures} pictures`] : [];
    return [...(width && height ? [`${width} × ${height}`] : []), ...several];
  };
  const others = ({ ahead }) => (ahead ? [`${ahead} of others ahead`] : []);
  const stateOf = (job, place) => {
    if (job.state === "loading") return "Getting ready";
    if (job.position === null) return `Drawing ${Math.floor(job.progress * 100)} %`;
    return [place || job.ahead ? `Place ${place + 1}` : "Next", ...others(job)].join(" · ");
  };
  const titleOf = ({ prompt, task }) => prompt.trim() || (task === "upscale" ? "Enlarging" : "No prompt");

  const makeRow = (id) => {
    const picture = make("span", { class: "queue-thumb", "aria-hidden": "true" });
    const title = make("strong", {});
    const detail = make("small", {});
    const state = make("small", { class: "queue-state" });
    const bar = make("span", { class: "queue-bar", "aria-hidden": "true" });
    const button = (text, run) => {
      const made = make("button", { type: "button" }, text);
      made.addEventListener("click", () => made.getAttribute("aria-disabled") !== "true" && run());
      return made;
    };
    const buttons = {
      up: button("↑", () => step(id, -1)),
      down: button("↓", () => step(id, 1)),
      skip: button("Skip", () => act(`jobs/${id}/skip`, "POST")),
      stop: button("✕", () => stop(id)),
    };
    const element = make(
      "li", { "data-job": id }, picture,
      make("span", { class: "queue-words" }, title, detail, state, bar), make("span", { class: "queue-acts" }, ...Object.values(buttons)),
    );
    element.addEventListener("dragstart", (event) => {
      dragged = id;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", title.textContent);
    });
    element.addEventListener("dragend", () => {
      dragged = null;
      for (const { element: other } of rows.values()) delete other.dataset.drop;
    });
    const isBelow = (event) => event.clientY > element.getBoundingClientRect().top + element.offsetHeight / 2;
    element.addEventListener("dragover", (event) => {
      if (!dragged || dragged === id || !element.draggable) return;
      event.preventDefault();
      element.dataset.drop = isBelow(event) ? "below" : "above";
    });
    element.addEventListener("dragleave", () => delete element.dataset.drop);
    element.addEventListener("drop", (event) => {
      if (!dragged) return;
      event.preventDefault();
      const ids = waiting().map((job) => job.id).filter((other) => other !== dragged);
      move(dragged, ids[ids.indexOf(id) + (isBelow(event) ? 1 : 0)] ?? null);
    });
    return { element, picture, title, detail, state, bar, buttons, seen: null };
  };
  const showPicture = (row, { id, preview, task }) => {
    if (row.seen === preview && row.picture.firstChild) return;
    row.seen = preview;
    const blank = () => row.picture.replaceChildren({ upscale: "⤢", grid: "▦" }[task] ?? "…");
    if (!preview) return blank();
    const image = make("img", { src: `./api/jobs/${id}/preview?v=${preview}`, alt: "", draggable: "false" });
    image.decode().then(() => row.seen === preview && row.picture.replaceChildren(image), () => row.picture.firstChild || blank());
  };
  const put = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const showRow = (job, place, last) => {
    if (!rows.has(job.id)) rows.set(job.id, makeRow(job.id));
    const row = rows.get(job.id);
    const { up, down, skip, stop: end } = row.buttons;
    const name = titleOf(job);
    const waits = job.position !== null;
    put(row.title, name);
    put(row.detail, [job.task, ...times(job), ...(job.workers?.length ? [job.workers.join(", ")] : [])].join(" · "));
    put(row.state, stateOf(job, place));
    row.bar.style.setProperty("--done", job.progress);
    row.element.draggable = waits && last > 0;
    row.element.toggleAttribute("data-drawn", !waits);
    for (const [button, label, shown, off] of [
      [up, `Move up: ${name}`, waits && last > 0, place === 0], [down, `Move down: ${name}`, waits && last > 0, place === last],
      [skip, `Skip this picture: ${name}`, !waits && job.pictures > 1, false], [end, `Stop: ${name}`, true, false],
    ]) {
      button.setAttribute("aria-label", label);
      button.title = label;
      button.hidden = !shown;
      button.setAttribute("aria-disabled", String(off));
    }
    showPicture(row, job);
    return row.element;
  };
  const showPanel = () => {
    const focused = list.contains(document.activeElement) && document.activeElement;
    const known = new Set(jobs.map((job) => job.id));
    for (const id of rows.keys()) if (!known.has(id)) rows.delete(id);
    const ids = waiting().map((job) => job.id);
    const elements = jobs.map((job) => showRow(job, ids.indexOf(job.id), ids.length - 1));
    if (elements.some((element, k) => list.children[k] !== element) || list.children.length !== elements.length) list.replaceChildren(...elements);
    empty.hidden = jobs.length > 0;
    all.hidden = !jobs.length;
    if (focused && document.activeElement !== focused) (focused.isConnected ? focused : list.querySelector("button:not([hidden])") ?? panel).focus();
  };
  const show = () => {
    if (isOpen()) showPanel();
    const button = buttonOf();
    const count = waiting().length;
    if (!button) return;
    put(button.querySelector("b"), count ? String(count) : "");
    button.title = jobs.length ? `Queue: ${count} waiting` : "Queue: nothing waits";
    button.setAttribute("aria-label", count ? `Queue, ${count} waiting` : "Queue");
    button.toggleAttribute("data-busy", jobs.length > 0);
  };

  const makePanel = () => {
    note = make("p", { class: "queue-note", role: "status" });
    list = make("ol", { "aria-label": "Jobs" });
    empty = make("p", { class: "queue-empty" }, "Nothing waits. What you send while a picture is drawn is listed here.");
    all = make("button", { type: "button" }, "Stop all");
    all.addEventListener("click", stopAll);
    const close = make("button", { type: "button", "aria-label": "Close the queue", class: "queue-close" }, "✕");
    close.addEventListener("click", () => toggle(false));
    panel = make(
      "dialog", { id: "darkroom-queue-panel", "aria-label": "Queue", tabindex: "-1" },
      make("div", { class: "queue-head" }, make("h2", {}, "Queue"), all, close), note, list, empty, window.darkroomProgress.makeSettings(),
    );
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      toggle(false);
    });
    (document.querySelector(".gradio-container") ?? document.body).append(panel);
  };
  const toggle = (on = !isOpen()) => {
    if (!panel) makePanel();
    buttonOf()?.setAttribute("aria-expanded", String(on));
    if (on) {
      panel.show();
      panel.focus();
      say("");
      look();
    } else {
      panel.close();
      buttonOf()?.focus();
    }
  };

  // Generate says how many of its page wait.
  const count = (page) => {
    const button = document.getElementById(`${page}-generate`);
    if (!button) return;
    const number = window.darkroomJobs.waiting(page);
    let place = button.querySelector(".generate-count");
    if (!place) button.append(place = make("span", { class: "generate-count" }));
    put(place, number ? ` (${number} waiting)` : "");
  };

  whenever("#darkroom-queue", (button) => {
    button.addEventListener("click", () => toggle());
    show();
  });
  document.addEventListener("darkroom:jobs", ({ detail: { page } }) => {
    count(page);
    look();
  });
  document.addEventListener("darkroom:health", ({ detail: { waiting: some, running } }) => {
    if (jobs.length || some || running) look();
  });
  document.addEventListener("visibilitychange", () => !document.hidden && isOpen() && look());
  document.addEventListener("click", ({ target }) => target.closest?.("[data-act=queue]") && toggle(true));

  window.darkroomQueue = { toggle };
})();
