// How far the work is, for whoever does not look at the page: in the tab's title and icon, for screen readers, and by a sound
// or a notification when all is done, if they are wanted.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { PAGES } = window.darkroom;
  const TITLE = "Darkroom";
  const BUSY = ["queued", "loading", "running"];
  const PACE_MS = 1000; // title and icon change no more often
  const SAY_MS = 15000;
  const KEY = "darkroom.whenDone";
  const now = {}; // by page: {state, done, text}
  const said = {}; // by page: when, and at which quarter
  let result = ""; // of what ended while nobody looked: "done" or "failed"

  const say = (text) => {
    const announcer = document.getElementById("darkroom-announcer");
    if (announcer) announcer.textContent = text;
  };

  // title and icon

  let shownAt = 0;
  let showing;
  let icon = null;
  const drawIcon = (done) => {
    const canvas = make("canvas", { width: 32, height: 32 });
    const context = canvas.getContext("2d");
    const ring = (from, to, colour) => {
      context.beginPath();
      context.arc(16, 16, 12, from, to);
      context.strokeStyle = colour;
      context.stroke();
    };
    context.lineWidth = 7;
    if (typeof done === "number") {
      ring(0, 2 * Math.PI, "#8b8178");
      ring(-Math.PI / 2, (2 * done - 0.5) * Math.PI, "#ea580c");
      return canvas.toDataURL();
    }
    context.beginPath();
    context.arc(16, 16, 15, 0, 2 * Math.PI);
    context.fillStyle = done === "done" ? "#15803d" : "#b91c1c";
    context.fill();
    context.lineWidth = 4;
    context.strokeStyle = "#fff";
    context.beginPath();
    for (const [x, y, begins] of done === "done" ? [[9, 17, true], [14, 22], [23, 11]] : [[11, 11, true], [21, 21], [21, 11, true], [11, 21]]) {
      if (begins) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
    context.stroke();
    return canvas.toDataURL();
  };
  const setIcon = (shown) => {
    const known = document.querySelector("link[rel~=icon]") ?? document.head.appendChild(make("link", { rel: "icon", href: "./favicon.ico" }));
    icon ??= { link: known, own: known.href, type: known.type, shown: null };
    if (icon.shown === shown) return;
    icon.shown = shown;
    icon.link.type = shown === null ? icon.type : "image/png";
    icon.link.href = shown === null ? icon.own : drawIcon(shown);
  };
  const show = () => {
    clearTimeout(showing);
    const wait = shownAt + PACE_MS - Date.now();
    if (wait > 0) return void (showing = setTimeout(show, wait));
    shownAt = Date.now();
    const busy = PAGES.map((page) => now[page]).filter((one) => BUSY.includes(one?.state));
    const drawn = busy.find((one) => one.state === "running") ?? busy[0];
    const sign = { done: "✓ ", failed: "✗ " }[result] ?? "";
    const title = drawn ? `${Math.floor(drawn.done * 100)} % · ${TITLE}` : `${sign}${TITLE}`;
    if (document.title !== title) document.title = title;
    setIcon(drawn ? Math.round(drawn.done * 20) / 20 : result || null);
  };

  // for screen readers: each change of state, then every quarter or 15 s

  document.addEventListener("darkroom:progress", ({ detail: { page, state, done, text } }) => {
    const before = now[page];
    now[page] = { state, done, text };
    const quarter = Math.floor(done * 4);
    const isNews = before?.state !== state;
    const last = said[page];
    const quiet = ["done", "idle"].includes(state) || (window.darkroomLive.isOn(page) && state !== "failed");
    if (!quiet && (isNews || (state === "running" && (quarter > last?.quarter || Date.now() - last?.at >= SAY_MS)))) {
      said[page] = { at: Date.now(), quarter };
      if (isNews || state === "running") say(text);
    }
    if (BUSY.includes(state)) result = "";
    else if (isNews && BUSY.includes(before?.state) && document.hidden) result = state === "done" ? "done" : state === "failed" ? "failed" : result;
    if (before || state !== "idle") show();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !result) return;
    result = "";
    shownAt = 0;
    show();
  });

  const sentence = (page, { prompt, state }) => {
    if (state !== "done") return "";
    const pictures = Math.max(document.querySelectorAll(`#${page}-gallery .thumbnail-small`).length, 1);
    const seed = window.darkroomPicture.chosen(page)?.alt.match(/^Seed (\d+)/)?.[1];
    const what = prompt?.trim() ? `: ${prompt.trim()}` : "";
    const which = seed ? `, ${pictures > 1 ? "first seed" : "seed"} ${seed}` : "";
    return `${pictures > 1 ? `${pictures} pictures` : "Picture"} finished${what}${which}.`;
  };

  // when done: what is wanted is kept by the browser

  const kept = () => {
    try {
      return JSON.parse(localStorage.getItem(KEY) || "{}");
    } catch {
      return {};
    }
  };
  const wants = (what) => kept()[what] === true;
  let audio = null;
  const wake = () => {
    audio ??= new AudioContext();
    audio.resume();
  };
  const TONES = { done: [660, 880], failed: [330, 220] }; // Hz, one after the other
  const play = (state) => {
    if (!wants("sound") || !audio) return;
    TONES[state].forEach((hertz, k) => {
      const at = audio.currentTime + 0.16 * k;
      const tone = new OscillatorNode(audio, { frequency: hertz });
      const volume = new GainNode(audio, { gain: 0 });
      volume.gain.setValueAtTime(0, at);
      volume.gain.linearRampToValueAtTime(0.2, at + 0.02);
      volume.gain.linearRampToValueAtTime(0, at + 0.3);
      tone.connect(volume).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.32);
    });
  };
  const notify = (state, text, picture) => {
    if (!wants("notification") || !document.hidden || window.Notification?.permission !== "granted") return;
    try {
      const told = new Notification(state === "done" ? TITLE : `${TITLE}: failed`, { body: text, icon: picture, tag: "darkroom" });
      told.onclick = () => {
        window.focus();
        told.close();
      };
    } catch (error) {
      console.warn("this browser shows no notifications of pages", error);
    }
  };
  // A job that this tab has sent ended; `isLast` where it was the last one.
  document.addEventListener("darkroom:ended", ({ detail: { page, run, isLast } }) => {
    const text = sentence(page, run);
    const told = [text, now[page]?.text].filter(Boolean).join(" ");
    if (text && !run.live) say(told);
    if (!run.own || run.live || !(run.state === "failed" || (run.state === "done" && isLast))) return;
    play(run.state);
    notify(run.state, text || now[page]?.text || "", run.picture);
  });
  // A browser lets a page sound once somebody has pressed something on it.
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => wants("sound") && wake(), { capture: true });

  const makeSettings = () => {
    const note = make("p", { class: "queue-note", role: "status" });
    const choose = (what, label, turnOn) => {
      const box = make("input", { type: "checkbox" });
      box.checked = wants(what);
      box.addEventListener("change", async () => {
        note.textContent = "";
        const trouble = box.checked ? await turnOn() : "";
        if (trouble) box.checked = false;
        note.textContent = trouble;
        localStorage.setItem(KEY, JSON.stringify({ ...kept(), [what]: box.checked }));
        if (what === "sound" && box.checked) play("done");
      });
      return make("label", {}, box, label);
    };
    const sound = choose("sound", "Sound", () => {
      wake();
      return "";
    });
    const notification = choose("notification", "Notification", async () => {
      if (!window.isSecureContext || !window.Notification) return "This browser shows notifications only over https or from this machine.";
      if ((await Notification.requestPermission()) === "granted") return "";
      return "The browser was told not to show notifications of this page. Its settings for this site can change that.";
    });
    const title = "When all is done";
    return make("div", { class: "queue-when", role: "group", "aria-label": title }, make("strong", { "aria-hidden": "true" }, title), sound, notification, note);
  };

  window.darkroomProgress = { say, makeSettings };
})();
