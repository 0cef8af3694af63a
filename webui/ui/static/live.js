// Live: every change draws again, and the newest wins. The seed is kept meanwhile, so that what is seen is the change. These
// pictures are not saved: Generate draws the same again for good.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { put, valueOf, whenFilled } = window.darkroomFields;
  const { press, say, show } = window.darkroomMore;
  const PAUSE_MS = 150; // after the last change
  const PATIENCE_MS = 5000; // for an answer to what was sent
  const SLOW_MS = 3000;
  const LIMIT = 2 ** 32; // of seeds that are drawn
  const live = {}; // by page: {drawn, sending, waiting, random, seed, slow}

  // All that a picture comes of: what is painted is remembered apart from the fields, and so is the start picture.
  const fieldsOf = (page) => {
    const image = document.querySelector(`#${page}-image img`)?.src ?? "";
    return [window.darkroom.recall(page), image, window.darkroomPainter.changes(page)].join("\n");
  };
  const pictureOf = (page) => document.getElementById(`${page}-gallery`)?.closest(".picture");
  const button = (label, run) => {
    const made = make("button", { type: "button" }, label);
    made.addEventListener("click", run);
    return made;
  };

  const tell = (page) => {
    const { slow, random, seed } = live[page];
    const pace = slow ? `about ${Math.round(slow / 1000)} s a picture, the newest change wins` : "every change draws again";
    const kept = random ? `, with seed ${seed}` : "";
    say(page, `Live: ${pace}${kept}. Not saved. `, button("Save this one", () => press(page, "")), " ", button("End live", () => end(page)));
    pictureOf(page)?.toggleAttribute("data-live", !slow); // what comes at once needs no previews before it
  };
  const draw = (page) => {
    const mode = live[page];
    if (!mode || fieldsOf(page) === mode.drawn) return;
    if (mode.sending || window.darkroomFills.isWaiting(page)) return void (mode.waiting = setTimeout(() => draw(page), PAUSE_MS));
    mode.drawn = fieldsOf(page);
    mode.sending = setTimeout(() => settle(page), PATIENCE_MS);
    press(page, "live");
  };
  const change = (page) => {
    const mode = live[page];
    if (!mode || fieldsOf(page) === mode.drawn) return;
    if (mode.random && Number(valueOf(page, "seed")) !== mode.seed) Object.assign(mode, { random: false });
    clearTimeout(mode.waiting);
    mode.waiting = setTimeout(() => draw(page), PAUSE_MS);
  };
  // What was sent has been taken, or refused.
  const settle = (page) => {
    const mode = live[page];
    if (!mode) return;
    clearTimeout(mode.sending);
    mode.sending = null;
    change(page);
  };
  document.addEventListener("darkroom:sent", ({ detail: { page, run } }) => {
    if (!run || !run.live) return run || settle(page);
    window.darkroomJobs.replaceLive(page, run);
    settle(page);
  });
  document.addEventListener("darkroom:ended", ({ detail: { page, run } }) => {
    const mode = live[page];
    if (!mode || !run.live || run.state !== "done") return;
    const took = Date.now() - run.at;
    const slow = took > SLOW_MS ? took : 0;
    if (Math.round(slow / 1000) === Math.round((mode.slow ?? 0) / 1000)) return;
    mode.slow = slow;
    tell(page);
  });

  const start = (page) => {
    window.darkroomForever.end(page, "");
    const before = Number(valueOf(page, "seed"));
    const random = !(before >= 0);
    const seed = random ? Number(window.darkroomPicture.chosen(page)?.alt.match(/^Seed (\d+)/)?.[1] ?? Math.floor(Math.random() * LIMIT)) : before;
    live[page] = { drawn: null, sending: null, random, seed, slow: 0 };
    if (random) put(page, "seed", seed); // which draws, as every change does
    tell(page);
    show(page);
    change(page);
  };
  const end = (page) => {
    const mode = live[page];
    if (!mode) return;
    delete live[page];
    clearTimeout(mode.sending);
    clearTimeout(mode.waiting);
    window.darkroomJobs.replaceLive(page, null);
    pictureOf(page)?.removeAttribute("data-live");
    if (mode.random && Number(valueOf(page, "seed")) === mode.seed) put(page, "seed", -1);
    say(page);
    show(page);
  };
  whenFilled(change);

  window.darkroomMore.add({
    name: "live", label: "Live", detail: "Every change draws again, without saving", isOn: (page) => page in live, toggle: (page) => (page in live ? end(page) : start(page)),
  });
  window.darkroomLive = { end, isOn: (page) => page in live };
})();
