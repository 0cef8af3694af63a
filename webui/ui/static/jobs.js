// The jobs of each page: the one it follows, those that wait, the pictures of those before. They are remembered, so that
// a reload finds all of them; a tab that is new takes over what this browser's other tabs know. The panel of all jobs, of
// whatever page, is in queue.js.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { need, statusOf } = window.darkroom;
  const KEPT = 30; // jobs that ended
  const LOOK_MS = 2000; // how often those that wait are looked at
  const ENDED = ["done", "failed", "cancelled"];
  // A run is what one press of Generate started: {ids, prompt, at, server, state, position, seen, picture, own, live,
  // forever}. It is seen once the page has followed it to its end, own where this tab has started it, live where it is not
  // saved and a newer one takes its place.
  const runs = {}; // by page, oldest first
  const followed = {}; // by page: the run that the status tells of
  const back = {}; // by page: the run whose pictures are to be shown again
  const stopped = {}; // by page: whether Stop has just made way for the next
  const newest = {}; // by page: the job that was sent last
  const counted = {}; // by page: how many wait, as was told last

  const key = (page) => `darkroom.${page}.jobs`;
  const serverNow = () => window.gradio_config?.app_id ?? "";
  const isOver = (run) => ENDED.includes(run.state);
  const active = (page) => runs[page].filter((run) => !isOver(run));
  const listed = (page) => active(page).filter((run) => !run.live);
  // In the order in which they are drawn, which moving them changes.
  const turn = (run) => {
    if (isOver(run)) return -1;
    if (run.state !== "queued") return 0;
    return run.position === undefined ? Infinity : (run.position ?? 0); // null: it was taken, and is about to begin
  };
  const unseen = (page) =>
    runs[page].filter((run) => !run.seen && run.state !== "cancelled").sort((one, other) => turn(one) - turn(other) || one.at - other.at);
  const lastSeen = (page) => runs[page].findLast((run) => run.seen);
  const waiting = (page) => listed(page).filter((run) => run !== followed[page]);
  const failed = (page) => runs[page].filter(
    (run) => run.state === "failed" && !run.live && !run.lost && !run.removed && run.ids[0] !== statusOf(page)?.dataset.job,
  );

  // memory

  const parse = (text) => {
    try {
      const found = JSON.parse(text || "[]");
      return found.filter((run) => Array.isArray(run.ids) && run.ids.length);
    } catch {
      return [];
    }
  };
  const prune = (list) => {
    const gone = new Set(list.filter(isOver).slice(0, -KEPT));
    return list.filter((run) => !gone.has(run));
  };
  const toText = (list) => JSON.stringify(list.filter((run) => !run.live).map((run) => (isOver(run) ? { ...run, ids: run.ids.slice(0, 1) } : run)));
  const save = (page) => {
    runs[page] = prune(runs[page]);
    const own = new Set(runs[page].map((run) => run.ids[0]));
    const others = parse(localStorage.getItem(key(page))).filter((run) => !own.has(run.ids[0]));
    const all = [...others, ...runs[page]].sort((one, other) => one.at - other.at);
    try {
      sessionStorage.setItem(key(page), toText(runs[page]));
      localStorage.setItem(key(page), toText(prune(all)));
    } catch (error) {
      console.warn("the browser keeps no more jobs", error);
    }
  };

  // what the server knows

  const together = (states) => {
    if (states.some((state) => state === "running" || state === "loading")) return "running";
    if (states.includes("queued")) return states.every((state) => state === "queued") ? "queued" : "running";
    return states.at(-1);
  };
  const refresh = async (page) => {
    const asked = active(page);
    if (!asked.length) return;
    const query = asked.flatMap((run) => run.ids).map((id) => `id=${id}`).join("&");
    const answer = await fetch(`./api/jobs?${query}`);
    if (!answer.ok) throw new Error(answer.statusText);
    const known = new Map((await answer.json()).map((job) => [job.id, job]));
    for (const run of asked) {
      const jobs = run.ids.map((id) => known.get(id)).filter(Boolean);
      run.position = jobs[0]?.position;
      if (jobs.length) run.state = together(jobs.map((job) => job.state));
      else if (run.server === serverNow()) Object.assign(run, { state: "done", seen: true }); // forgotten, so long ago
      else run.lost = true;
    }
  };
  const look = async (page) => {
    try {
      await refresh(page);
    } catch (error) {
      document.dispatchEvent(new CustomEvent("darkroom:trouble"));
    }
    save(page);
    show(page);
  };

  // following: one after the other, each to its end

  const press = (id) => document.getElementById(id)?.click();
  const goOn = (page) => {
    if (!followed[page] && unseen(page).length) press(`${page}-follow`);
  };
  const next = (page) => {
    const run = followed[page] = need(unseen(page)[0] ?? (statusOf(page)?.dataset.job ? null : lastSeen(page)));
    show(page);
    return [run.ids[0], run.seen ? run.state : "queued"];
  };
  // What the follow event's end calls; gives what opens the first picture large, where it is asked for.
  const ended = async (page, opens) => {
    settle(page);
    await new Promise((go) => setTimeout(go)); // until the gallery has its pictures
    return opens ? { __type__: "update", selected_index: 0 } : undefined;
  };
  const settle = async (page) => {
    const run = followed[page];
    if (!run) return;
    const { job, state } = statusOf(page)?.dataset ?? {};
    if (run.lost) run.state = "failed";
    else if (run.ids.includes(job) && ENDED.includes(state)) run.state = state;
    const isNews = !run.seen && isOver(run);
    run.seen = isOver(run);
    if (run.seen) lookBack(page, null);
    await new Promise((go) => setTimeout(go)); // until the gallery has its pictures
    run.picture ??= run.ids.map((id) => document.querySelector(`#${page}-gallery img[src*="/${id}/"]`)?.src).find(Boolean);
    if (!run.live) await look(page);
    followed[page] = null;
    if (run.live && run.seen) runs[page] = runs[page].filter((other) => other !== run);
    show(page);
    const isLast = !Object.values(runs).flat().some((other) => other.own && !isOver(other));
    if (isNews) document.dispatchEvent(new CustomEvent("darkroom:ended", { detail: { page, run, isLast } }));
    setTimeout(() => goOn(page), run.seen ? 0 : LOOK_MS);
  };

  const add = (page, sent) => {
    const told = JSON.parse(sent || "{}");
    const tell = (run) => document.dispatchEvent(new CustomEvent("darkroom:sent", { detail: { page, run } }));
    if (!told.ids || told.ids[0] === newest[page]) return tell(null); // it was refused
    newest[page] = told.ids[0];
    const how = told.how ?? "";
    const run = { ids: told.ids, prompt: told.prompt, state: "queued", at: Date.now(), server: serverNow(), own: true, ...(how && { [how]: true }) };
    runs[page].push(run);
    tell(run);
    stopped[page] = false;
    lookBack(page, null);
    save(page);
    goOn(page);
    look(page);
  };
  const begin = async (page) => {
    window.darkroom.restored.push(page);
    document.dispatchEvent(new CustomEvent("darkroom:restored", { detail: { page } }));
    const kept = sessionStorage.getItem(key(page));
    runs[page] = parse(kept ?? localStorage.getItem(key(page)));
    if (kept === null) runs[page].forEach((run) => delete run.own); // another tab's
    await look(page);
    attach(page);
  };
  // The page has just been opened, or its tab for the first time.
  const attach = (page) => {
    const known = unseen(page).length || lastSeen(page);
    if (known && !followed[page] && !statusOf(page)?.dataset.job) press(`${page}-follow`);
  };

  // stopping

  const stop = async (page, some) => {
    for (const id of some.flatMap((run) => run.ids).reverse()) {
      await fetch(`./api/jobs/${id}`, { method: "DELETE" }).catch(() => {});
    }
    await look(page);
  };
  // One live picture takes the place of the others.
  const replaceLive = (page, newer) => {
    const old = runs[page].filter((run) => run.live && run !== newer && !run.seen);
    for (const run of old) run.state = "cancelled";
    return old.length && stop(page, old);
  };
  document.addEventListener("click", (event) => {
    const page = event.target.closest?.("[id$='-stop']")?.id.slice(0, -"-stop".length);
    if (!runs[page]) return;
    stopped[page] = waiting(page).length > 0;
    show(page);
  });

  // trying again what failed: another job of the same work, under the title of the first

  const tryAgain = async (page, id) => {
    const answer = await fetch(`./api/jobs/${id}/again`, { method: "POST" }).catch(() => null);
    const body = await answer?.json().catch(() => null);
    if (!answer?.ok) {
      document.dispatchEvent(new CustomEvent("darkroom:trouble"));
      const status = body?.detail && statusOf(page)?.querySelector(".status-text");
      if (status) status.textContent = body.detail;
      return;
    }
    const run = runs[page].find(({ ids }) => ids.includes(id));
    if (run) run.removed = true;
    add(page, JSON.stringify({ ids: [body.id], prompt: run?.prompt ?? "" }));
  };
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("[data-again]");
    const page = button?.closest("[id$='-status']")?.id.slice(0, -"-status".length);
    if (!runs[page]) return;
    button.disabled = true;
    tryAgain(page, button.dataset.again);
  });

  // what is shown

  const lookBack = (page, run) => {
    const picture = document.querySelector(`#${page}-gallery`)?.closest(".picture");
    if (!picture) return;
    back[page] = run;
    picture.toggleAttribute("data-earlier", Boolean(run));
    if (run) press(`${page}-look-back`);
    showFinished(page);
  };
  const title = (run) => run.prompt?.trim() || "No prompt";
  // Nothing is made anew that is there already: the focus stays, and a screen reader says it once.
  const changed = (place, ...what) => {
    const known = JSON.stringify(what);
    return place.dataset.shown !== known && Boolean(place.dataset.shown = known);
  };
  const showQueue = (page) => {
    if ((counted[page] ?? 0) !== waiting(page).length) {
      counted[page] = waiting(page).length;
      document.dispatchEvent(new CustomEvent("darkroom:jobs", { detail: { page } }));
    }
    const place = document.querySelector(`.queue[data-page="${page}"]`);
    if (!place) return;
    const others = waiting(page).length;
    const more = `${others} more ${others === 1 ? "waits" : "wait"}.`;
    const words = [stopped[page] && "Stopped one.", others ? more : stopped[page] && "This is the last one."].filter(Boolean);
    if (!active(page).length) stopped[page] = false;
    if (!others && !stopped[page]) words.length = 0;
    const broken = failed(page);
    if (!changed(place, words, broken.map((run) => run.ids[0]))) return;
    if (!words.length && !broken.length) return void place.replaceChildren();
    const focused = place.contains(document.activeElement) && document.activeElement.dataset.act;
    const note = make("p", { class: "queue-note", role: "status" }, words.join(" "));
    const open = make("button", { type: "button", "data-act": "queue" }, "Show queue");
    const all = make("button", { type: "button", "data-act": "stop-all" }, "Stop all");
    all.addEventListener("click", () => stop(page, listed(page)));
    const again = broken.map((run) => {
      const attempt = make("button", { type: "button", "aria-label": `Try again: ${title(run)}` }, "Try again");
      attempt.addEventListener("click", () => tryAgain(page, run.ids[0]));
      const remove = make("button", { type: "button", "aria-label": `Remove: ${title(run)}` }, "✕");
      remove.addEventListener("click", () => {
        run.removed = true;
        save(page);
        show(page);
      });
      return make("li", { "data-failed": run.ids[0] }, make("span", {}, title(run)), make("small", {}, "Failed"), attempt, remove);
    });
    place.replaceChildren(
      ...(words.length ? [make("div", {}, note, open, all)] : []),
      ...(again.length ? [make("ol", { "aria-label": "Jobs of this page that failed" }, ...again)] : []),
    );
    if (focused) (place.querySelector(`[data-act="${focused}"]`) ?? all).focus();
  };
  const shownRun = (page) => {
    const job = window.darkroom.jobId(page);
    return runs[page].find((run) => job && (run.ids.includes(job) || run.picture?.includes(job)));
  };
  const showFinished = (page) => {
    const place = document.querySelector(`.finished[data-page="${page}"]`);
    if (!place || !runs[page]) return;
    const busy = listed(page).length > 0;
    const covered = busy || document.querySelector(`#${page}-preview .preview-live`) !== null; // by what a stopped job left
    const all = runs[page].filter((run) => run.picture && !run.live).reverse();
    const found = all.length > (covered ? 0 : 1) ? all : [];
    const chosen = back[page] ?? (covered ? null : shownRun(page));
    if (!changed(place, busy, covered, Boolean(back[page]), chosen?.ids[0], found.map((run) => run.picture))) return;
    const cards = found.map((run) => {
      const button = make(
        "button", { type: "button", title: title(run), "aria-label": `Show: ${title(run)}`, "aria-pressed": String(run === chosen) },
        make("img", { src: run.picture, alt: "", loading: "lazy" }),
      );
      button.firstChild.addEventListener("error", () => button.remove());
      button.addEventListener("click", () => lookBack(page, back[page] === run && covered ? null : run));
      return button;
    });
    const now = make("button", { type: "button", class: "finished-now" }, "Now");
    now.addEventListener("click", () => lookBack(page, null));
    place.replaceChildren(...(busy && back[page] ? [now] : []), ...cards);
  };
  const show = (page) => {
    showQueue(page);
    showFinished(page);
  };
  // Their places, of which Gradio need not know.
  const below = (name, what) =>
    whenever(`:is(${window.darkroom.PAGES.map((page) => `#${page}-${name}`)})`, (element) => {
      const page = element.id.slice(0, -name.length - 1);
      element.after(make("div", { id: `${page}-${what}` }, make("div", { class: what, "data-page": page })));
    });
  below("status", "queue");
  below("verdict", "finished");
  whenever(".queue", ({ dataset: { page } }) => setTimeout(() => {
    if (!runs[page]) return; // the fields come first, then the jobs
    show(page);
    attach(page);
  }));
  document.addEventListener("darkroom:queue", () => Object.keys(runs).forEach(look)); // somebody has stopped or moved some
  setInterval(() => {
    for (const page of Object.keys(runs)) if (!document.hidden && waiting(page).length) look(page);
  }, LOOK_MS);

  window.darkroomJobs = {
    add,
    begin,
    next,
    ended,
    waiting: (page) => (runs[page] ? waiting(page).length : 0),
    // The job that the page follows, while it goes on.
    underWay: (page) => (followed[page] && !isOver(followed[page]) && !followed[page].lost ? followed[page].ids[0] : ""),
    isBusy: (page) => active(page).length > 0,
    stopWaiting: (page, kind) => stop(page, waiting(page).filter((run) => run[kind])),
    replaceLive,
    earlier: (page) => need(back[page]?.ids[0]),
    // Those whose pictures the strip has, newest first.
    finished: (page) => (runs[page] ?? []).filter((run) => run.picture && !run.live).reverse().flatMap((run) => run.ids),
    current: (page) => need(followed[page]?.ids[0] ?? statusOf(page)?.dataset.job),
  };
})();
