// Generate forever: another picture with another seed, again and again, until it is switched off, one fails, or the page is
// closed. While one is drawn the next waits already, and no other.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { put, valueOf, valuesOf, whenFilled } = window.darkroomFields;
  const { press, say, show } = window.darkroomMore;
  const SAME = "The seed is kept, so every picture would be the same.";
  const on = new Set(); // pages
  const sending = new Set();
  const aheadOf = {}; // by page: the job while which the next was sent

  const isRandom = (page) => {
    const values = valuesOf(page);
    const varied = values("variation.strength") > 0 && Number(values("variation.seed")) < 0;
    return Number(valueOf(page, "seed")) < 0 || (varied && values("variation") === true);
  };
  const begin = (page) => {
    sending.add(page);
    press(page, "forever");
  };
  const end = (page, why) => {
    if (!on.delete(page)) return;
    sending.delete(page);
    window.darkroomJobs.stopWaiting(page, "forever");
    say(page, why);
    show(page);
  };
  const button = (label, run) => {
    const made = make("button", { type: "button" }, label);
    made.addEventListener("click", run);
    return made;
  };
  const refuse = (page) => {
    say(page, `${SAME} `, button("New seed each time", () => {
      put(page, "seed", -1);
      say(page);
      setTimeout(() => start(page));
    }));
  };
  const start = (page) => {
    if (!isRandom(page)) return refuse(page);
    on.add(page);
    window.darkroomLive?.end(page);
    say(page, "Generating forever. ", button("Stop after this one", () => end(page, "")));
    show(page);
    if (!window.darkroomJobs.isBusy(page)) begin(page);
  };
  const toggle = (page) => (on.has(page) ? end(page, "") : start(page));

  document.addEventListener("darkroom:progress", ({ detail: { page, state } }) => {
    if (!on.has(page)) return;
    const job = window.darkroom.statusOf(page)?.dataset.job;
    if (state !== "running" || sending.has(page) || aheadOf[page] === job || window.darkroomJobs.waiting(page)) return;
    aheadOf[page] = job;
    begin(page);
  });
  document.addEventListener("darkroom:sent", ({ detail: { page, run } }) => {
    sending.delete(page);
    if (run?.forever && !on.has(page)) window.darkroomJobs.stopWaiting(page, "forever"); // it was on its way as that ended
    if (!run) end(page, "Generate forever is off: see above.");
  });
  document.addEventListener("darkroom:ended", ({ detail: { page, run } }) => {
    if (!on.has(page)) return;
    const goesOn = run.state === "done" || run.ids.some(window.darkroomMore.wasSkipped);
    if (!goesOn) return end(page, run.state === "failed" ? "Generate forever is off: a picture failed." : "");
    if (!sending.has(page) && !window.darkroomJobs.isBusy(page)) begin(page);
  });
  document.addEventListener("click", ({ target }) => {
    const page = target.closest?.("[id$='-stop']")?.id.slice(0, -"-stop".length);
    if (page) end(page, "");
  });
  whenFilled((page) => on.has(page) && !isRandom(page) && end(page, SAME));

  window.darkroomMore.add({
    name: "forever", label: "Generate forever", detail: "Each with a new seed, until you stop it", isOn: (page) => on.has(page), toggle,
  });
  window.darkroomForever = { end };
})();
