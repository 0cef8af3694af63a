// Memory of fields, what follows the status. Components call in through window.darkroom.
(() => {
  "use strict";
  const PAGES = ["txt2img", "img2img", "inpaint", "grid", "upscale"];
  const BUSY = ["queued", "loading", "running"];

  const statusOf = (page) => document.querySelector(`#${page}-status [data-state]`);
  const pictureOf = (page) => document.querySelector(`#${page}-gallery img`);
  const pageInSight = () => PAGES.find((page) => document.getElementById(`${page}-generate`)?.checkVisibility());
  const isBusy = (page) => BUSY.includes(statusOf(page)?.dataset.state);
  // The job whose pictures the gallery shows: its id is part of their addresses.
  const jobId = (page) => pictureOf(page)?.src.match(/\/([0-9a-f]{32})\/[^/]+$/)?.[1] ?? statusOf(page)?.dataset.job ?? "";
  const chosen = {}; // by page: the picture that was chosen last, also while the gallery shows all of them
  // This tab's own memory first; a tab that is new takes over what the last one left.
  const read = (key) => sessionStorage.getItem(key) ?? localStorage.getItem(key) ?? "";
  const write = (key, value) => {
    for (const storage of [sessionStorage, localStorage]) {
      try {
        storage.setItem(key, value);
      } catch (error) {
        console.warn("the browser keeps no more settings", error);
      }
    }
  };

  // What an event is to begin with. Where there is nothing, the event ends here and the server is not asked.
  const need = (value) => {
    if (!value) throw new Error("nothing to begin with");
    return value;
  };

  const lines = {}; // by page: a copy of the newest status of a job that was under way
  const remembered = {}; // by page: what was told of its fields last

  window.darkroom = {
    PAGES,
    need,
    pageInSight,
    isBusy,
    lineOf: (page) => lines[page],
    read,
    write,
    restored: [], // pages whose fields are as they were remembered
    statusOf,
    jobId,
    // The chosen picture of the gallery, as the server names it: its job, and its place there.
    chosenPicture: (page) => {
      const job = jobId(page);
      if (!job) return "";
      const place = [...document.querySelectorAll(`#${page}-gallery .thumbnail-small`)].findIndex((one) => one.matches(".selected"));
      if (place >= 0) chosen[page] = { job, place };
      return `${job}/${chosen[page]?.job === job ? chosen[page].place : 0}`;
    },
    recall: (page) => read(`darkroom.${page}.fields`),
    // What is remembered next is told, even if it is what was told last: the fields may have held something else between.
    tellAgain: (page) => delete remembered[page],
    remember: (page, fields, values) => {
      const kept = JSON.stringify(Object.fromEntries(fields.map((field, k) => [field, values[k]])));
      write(`darkroom.${page}.fields`, kept);
      if (kept === remembered[page]) return;
      remembered[page] = kept;
      document.dispatchEvent(new CustomEvent("darkroom:fields", { detail: { page } }));
    },
  };

  // Left alone, Gradio turns an empty field or a number beyond a slider's ends into the nearest end without a word
  // when the field is left. It stays as typed, and Generate says what is wrong with it.
  document.addEventListener("blur", (event) => {
    const { type, min, max, value } = event.target;
    if (type !== "number" || !min || !max) return;
    if (value === "" || Number(value) < Number(min) || Number(value) > Number(max)) event.stopImmediatePropagation();
  }, true);

  // Gradio's lists are placed anew when the window scrolls, and know nothing of columns that scroll apart.
  document.addEventListener("scroll", ({ target }) => {
    if (target !== document && target.closest?.(".asking")) window.dispatchEvent(new Event("scroll"));
  }, true);

  const announced = {};
  const told = {};
  const brought = {}; // by page: the job whose picture was brought in sight
  // On a phone the picture comes in sight once there is something of it, which is when it takes its place.
  const bringInSight = (page, status) => {
    const { job, state } = status.dataset;
    const picture = status.closest(".workbench")?.querySelector(".picture");
    const isThere = state === "running" ? picture?.querySelector(".preview-live, .grid-sheet table") : BUSY.includes(announced[page]) && state === "done";
    if (!isThere || innerWidth > 900 || brought[page] === job) return;
    brought[page] = job;
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
    picture.scrollIntoView({ block: "nearest", behavior });
  };
  const follow = (page) => {
    // Gradio's label holds its copy button first, which leaves the text itself without a name.
    document.querySelector(`#${page}-infotext textarea`)?.setAttribute("aria-label", "Settings of this picture");
    const status = statusOf(page);
    if (!status || (!status.dataset.job && window.darkroomJobs.underWay(page))) return; // that is set aside (refusals.js)
    const ledger = document.querySelector(`#${page}-status .ledger:not([data-met])`);
    if (ledger) { // each job brings a new one, which is to be as open as the last
      ledger.dataset.met = "";
      ledger.open = read("darkroom.ledger") === "open";
    }
    const { state } = status.dataset;
    document.getElementById(`${page}-stop`)?.classList.toggle("idle", !isBusy(page));
    bringInSight(page, status);
    if (announced[page] !== state) {
      announced[page] = state;
      document.dispatchEvent(new CustomEvent("darkroom:state", { detail: { page, state } }));
    }
    const text = status.querySelector(".status-text")?.textContent.trim() ?? "";
    const done = state === "done" ? 1 : (status.querySelector("progress")?.value ?? 0);
    if (told[page] === `${state} ${done} ${text}`) return;
    told[page] = `${state} ${done} ${text}`;
    if (isBusy(page)) lines[page] = status.cloneNode(true);
    document.dispatchEvent(new CustomEvent("darkroom:progress", { detail: { page, state, done, text } }));
  };

  document.addEventListener("toggle", (event) => {
    if (event.target.classList?.contains("ledger")) write("darkroom.ledger", event.target.open ? "open" : "");
  }, true);

  const start = () => {
    document.body.classList.toggle("no-previews", localStorage.getItem("darkroom.previews") === "off");
    // The browser's own frame around an installed page has the page's colour.
    const colour = () => {
      const behind = getComputedStyle(document.body).getPropertyValue("--body-background-fill").trim();
      for (const meta of document.querySelectorAll("meta[name=theme-color]")) meta.content = behind || meta.content;
    };
    // What was chosen here counts more than the system, which Gradio goes by once it is there.
    const keep = () => {
      const dark = localStorage.getItem("darkroom.dark");
      if (dark !== null) document.body.classList.toggle("dark", dark === "1");
      colour();
    };
    keep();
    new MutationObserver(keep).observe(document.body, { attributeFilter: ["class"] });
    document.addEventListener("click", (event) => {
      if (event.target.id !== "darkroom-theme") return;
      localStorage.setItem("darkroom.dark", document.body.classList.contains("dark") ? "0" : "1");
      keep();
    });
    const watched = { childList: true, subtree: true, attributeFilter: ["data-state", "data-job"] };
    new MutationObserver(() => PAGES.forEach(follow)).observe(document.body, watched);
  };
  document.body ? start() : document.addEventListener("DOMContentLoaded", start);
})();
