// Fields that are filled from elsewhere. Generate, pressed while a fill is on its way, waits for it: else it would draw
// what the fields said before. What is typed into a prompt meanwhile stays. And which fields were chosen by hand, so that
// another model leaves them alone.
(() => {
  "use strict";
  const { PAGES, chosenPicture, need, pageInSight, read, recall, write } = window.darkroom;
  const asks = {}; // by page: what is to be asked, in order
  const waiting = {}; // by page: how many fills are on their way
  const held = new Set(); // pages whose Generate was pressed meanwhile
  const typed = {}; // by page: boxes that were typed into meanwhile, with their texts
  const SETTLE_ALL = ["reuse", "vary", "pasted", "png info", "history", "sent", "cell"]; // no field stands as a person chose it
  const buttonOf = (page) => document.getElementById(`${page}-generate`);
  const byHandKey = (page) => `darkroom.${page}.byHand`;
  const byHand = (page) => read(byHandKey(page)); // names of fields, a space between them
  const BY_HAND = PAGES.flatMap((page) => ["clip_skip", "vae", "refiner", "upscale"].map((field) => `#${page}-${field}`)).join(", ");
  // A value that a person gives: typed, switched, or chosen from a list, where what is typed only narrows the list.
  const isGiven = ({ type, target, key }) => {
    const inList = target.closest("[role=combobox]");
    if (type === "keydown") return inList && key === "Enter";
    if (type === "pointerdown") return target.closest("[role=option], .reset-button");
    return !inList;
  };
  for (const name of ["input", "change", "pointerdown", "keydown"]) {
    document.addEventListener(name, (event) => {
      const place = event.isTrusted && event.target.closest?.(BY_HAND);
      if (!place || !isGiven(event)) return;
      const [, page, field] = place.id.match(/^(.+?)-(.+)$/);
      write(byHandKey(page), [...new Set(byHand(page).split(" ")).add(field)].join(" ").trim());
    }, true);
  }

  // What is said once they have come, with a way back.
  const SAID = {
    default: "The page is reset.",
    reuse: "The settings of the picture are in the fields.", vary: "Set to draw pictures near this one.", preset: "The preset is in the fields.",
    pasted: "The pasted settings are in the fields.", "png info": "The settings are in the fields.", history: "The settings are in the fields.",
    sent: "The settings came with the picture.", model: "Set to what suits the model.",
    cell: (page) => `The settings of this cell are in the fields; seed ${window.darkroomFields.valueOf(page, "seed")}.`,
  };
  const before = {}; // by page: what it remembered before the fills that are on their way, and what says it of them
  let hasOpened = false;
  const begin = (page) => (waiting[page] = (waiting[page] ?? 0) + 1);
  const end = (page, hasFailed = false) => {
    waiting[page] -= 1;
    if (hasFailed) delete before[page];
    if (waiting[page]) return;
    const filled = before[page];
    delete before[page];
    if (filled) setTimeout(() => window.darkroomUndo.offer(page, filled.said(page), filled.memory)); // once the fields have it
    for (const [box, text] of typed[page] ?? []) {
      if (box.value === text) continue;
      box.value = text;
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    delete typed[page];
    window.darkroom.tellAgain(page);
    if (hasOpened) window.darkroomFields.note(page);
    else requestIdleCallback(() => window.darkroomFields.note(page)); // what came may suit the model
    if (!held.delete(page)) return;
    buttonOf(page)?.removeAttribute("aria-busy");
    setTimeout(() => buttonOf(page)?.click()); // once Gradio's fields have taken their values
  };

  // Asks the server to fill the page in one of its ways (`webui/ui/fills.py`).
  const ask = (page, way, asked) => {
    if (SETTLE_ALL.includes(way)) write(byHandKey(page), "");
    const changes = SAID[way] && page !== "upscale" && !(way === "model" && asked.model === asked.chosen);
    const said = typeof SAID[way] === "function" ? SAID[way] : () => SAID[way];
    if (changes && recall(page)) before[page] ??= { said, memory: recall(page) };
    (asks[page] ??= []).push([way, asked]);
    begin(page);
    document.getElementById(`${page}-fill`).click();
  };

  // A link's preset may be for other pages: there is a way back on the page in sight, once its fields are others.
  const linked = {}; // by page: what it remembered before
  document.addEventListener("darkroom:fields", ({ detail: { page } }) => {
    if (!linked[page] || linked[page] === recall(page) || page !== pageInSight()) return;
    window.darkroomUndo.offer(page, SAID.preset, linked[page]);
    delete linked[page];
  });
  document.addEventListener("input", ({ isTrusted }) => {
    if (isTrusted) PAGES.forEach((page) => delete linked[page]);
  }, true);

  // The page has been opened: all that the browser remembers is asked for at once.
  const open = () => {
    PAGES.forEach(begin);
    return [JSON.stringify(Object.fromEntries(PAGES.map((page) => [page, recall(page)])))];
  };
  // The preset that the address asks for, out of which it goes: a reload keeps what the person has set since.
  const takePreset = () => {
    const address = new URL(location.href);
    const preset = address.searchParams.get("preset");
    if (preset === null) return "";
    address.searchParams.delete("preset");
    history.replaceState(history.state, "", address);
    return preset;
  };
  const opened = (places) => {
    const preset = takePreset();
    for (const page of PAGES) {
      end(page);
      window.darkroomJobs.begin(page);
      if (!preset || page === "upscale") continue;
      linked[page] = recall(page);
      ask(page, "address", { name: preset, model: window.darkroomFields.valueOf(page, "model") });
    }
    return window.darkroomPictures.recall(places);
  };

  // What fills a page from a picture of this one or another; `act` is what the button's id says.
  const OF_PICTURE = { "reuse-settings": ["reuse", { with_seed: false }], "reuse-seed": ["reuse", { with_seed: true }], "vary": ["vary"] };
  const fromPicture = (page, act, picture) => {
    const sent = act.match(/^send-(.+)$/)?.[1];
    const [way, asked] = sent ? ["sent"] : OF_PICTURE[act];
    ask(sent ?? page, way, { picture, ...asked });
  };
  document.addEventListener("click", ({ target }) => {
    const [, page, act] = target.closest?.("button")?.id.match(/^([a-z0-9]+)-(reuse-settings|reuse-seed|vary|send-[a-z0-9]+)$/) ?? [];
    const picture = PAGES.includes(page) && chosenPicture(page);
    if (picture) fromPicture(page, act, picture);
  });

  document.addEventListener("click", (event) => {
    const id = event.target.closest?.("[id$='-generate']")?.id;
    const page = id?.slice(0, -"-generate".length);
    if (!page || !waiting[page]) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    held.add(page);
    buttonOf(page).setAttribute("aria-busy", "true");
  }, true);

  document.addEventListener("input", ({ isTrusted, target }) => {
    const [, page] = target.closest?.("[id$='-prompt'], [id$='-negative']")?.id.match(/^(.+)-(?:prompt|negative)$/) ?? [];
    if (isTrusted && page && waiting[page]) (typed[page] ??= new Map()).set(target, target.value);
  }, true);

  window.darkroomFills = {
    ask,
    fromPicture,
    begin,
    end,
    open,
    opened,
    take: (page) => [JSON.stringify(need(asks[page]?.shift()))],
    byHand,
    isWaiting: (page) => waiting[page] > 0,
  };
})();
