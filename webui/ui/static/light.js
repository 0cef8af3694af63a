// The large view: one picture of several, as near as one likes, or two of them and what sets them apart. The pages and
// the history open it over pictures of theirs.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { request, describe, address, title, trouble, favour } = window.darkroomArchive;
  const BESIDE = 15; // pictures on each side of the shown one that the strip has
  const PAN_PX = 80;
  const INFO = "darkroom.light.info";

  // A source of pictures: {total, get(index), at(index), before(index), uses, reuse(picture, withSeed), remove(picture),
  // changed(), closed(index)}. Its pictures are the history's entries, with `src`, `thumbnail` and `infotext` where they
  // are others; `at` loads what `get` may not have yet, `before` is the index of the one to compare with, or -1, `uses`
  // are [words, icon, run(picture, withSeed)], `remove` gives what brings the picture back and then gives its index.
  let source = null;
  let index = -1;
  let shown = null; // the picture
  let other = null; // the one that it is compared with
  let otherIndex = -1;
  let swapped = false;
  let undo = null;
  let dialog = null;
  let stage = null;

  const part = (selector) => dialog.querySelector(selector);
  const srcOf = (picture) => picture.src ?? address(picture, "/picture");
  const thumbnailOf = (picture) => picture.thumbnail ?? address(picture, `/thumbnail?${encodeURIComponent(picture.made_at)}`);
  const pair = () => (swapped ? [shown, other] : [other, shown]);
  const say = (words, takeBack = null) => {
    undo = takeBack;
    const button = make("button", { type: "button", "data-act": "undo" }, "Undo");
    part(".light-note").replaceChildren(words, ...(takeBack ? [" ", button] : []));
  };
  // Runs what a person asked for, and says what goes wrong.
  const attempt = (work) => async (...rest) => {
    try {
      return await work(...rest);
    } catch (error) {
      if (dialog.open) say(trouble(error));
      return undefined;
    }
  };

  // what is told

  const tell = () => {
    part(".light-percent").textContent = stage.percent;
    part("[data-act=fit]").setAttribute("aria-pressed", String(stage.fits));
    part(".light-line").value = stage.line;
    part(".light-turn").textContent = stage.way === "blink" ? (stage.turned ? "A" : "B") : "";
  };
  const tellFacts = () => {
    const { name, width, height, made_at: made } = shown;
    const facts = [name, width && `${width} × ${height}`, made && new Date(made).toLocaleString()].filter(Boolean);
    part(".light-facts").textContent = facts.join(" · ");
    part(".light-infotext").textContent = shown.infotext || shown.problem || (shown.infotext === "" ? "No settings are in this picture." : "");
    part("[data-act=favourite]").setAttribute("aria-pressed", String(Boolean(shown.favourite)));
    for (const act of ["favourite", "delete"]) part(`[data-act=${act}]`).disabled = !shown.id || Boolean(shown.deleted);
    part("[data-act=copy]").disabled = !shown.prompt;
    part(".light-stage").toggleAttribute("data-deleted", Boolean(shown.deleted));
  };
  // What only the history knows of it.
  const tellMore = attempt(async (picture) => {
    await describe(picture);
    if (picture === shown) tellFacts();
  });
  const tellPlace = () => {
    part(".light-title strong").textContent = title(shown);
    part(".light-title span").textContent = source.total > 1 ? `${(index + 1).toLocaleString()} of ${source.total.toLocaleString()}` : "";
    // Not disabled, which would take the focus away, and the keys with it.
    part("[data-act=previous]").setAttribute("aria-disabled", String(index <= 0));
    part("[data-act=next]").setAttribute("aria-disabled", String(index >= source.total - 1));
    Object.assign(part("a[data-act=download]"), { href: srcOf(shown), download: shown.name || "picture.png" });
    for (const button of dialog.querySelectorAll("button[data-way]")) button.setAttribute("aria-pressed", String(Boolean(other) && button.dataset.way === stage.way));
    part("[data-act=compare]").setAttribute("aria-pressed", String(Boolean(other)));
    part("[data-act=compare]").disabled = source.total < 2;
    dialog.toggleAttribute("data-comparing", Boolean(other));
  };
  const cardOf = (place, picture) => {
    const card = make("button", { type: "button", "data-index": place, title: title(picture), "aria-label": `Show: ${title(picture)}` });
    const image = make("img", { src: thumbnailOf(picture), alt: "", decoding: "async", draggable: "false" });
    image.addEventListener("error", () => image.remove());
    card.append(image);
    return card;
  };
  const tellStrip = attempt(async () => {
    const strip = part(".light-strip");
    const [from, to] = [Math.max(0, index - BESIDE), Math.min(source.total - 1, index + BESIDE)];
    const places = Array.from({ length: to - from + 1 }, (_, k) => from + k);
    const asked = [source, index];
    const pictures = await Promise.all(places.map((place) => source.get(place) ?? source.at(place)));
    if (asked[0] !== source || asked[1] !== index) return;
    const kept = new Map([...strip.children].map((card) => [card.firstChild?.getAttribute("src"), card]));
    const cards = places.flatMap((place, k) => {
      const picture = pictures[k];
      if (!picture) return [];
      const card = kept.get(thumbnailOf(picture)) ?? cardOf(place, picture);
      kept.delete(thumbnailOf(picture)); // one card for each, also where two have the same address
      card.dataset.index = place;
      card.setAttribute("aria-pressed", String(place === index));
      if (other && place === index) card.dataset.side = swapped ? "A" : "B";
      else if (other && place === otherIndex) card.dataset.side = swapped ? "B" : "A";
      else delete card.dataset.side;
      return [card];
    });
    const held = strip.contains(document.activeElement) && document.activeElement;
    if (cards.some((card, k) => strip.children[k] !== card) || strip.children.length !== cards.length) strip.replaceChildren(...cards);
    strip.hidden = cards.length < 2;
    if (held?.isConnected) held.focus({ preventScroll: true });
    strip.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  // what is shown

  const showPictures = async () => {
    const sides = other ? pair() : [null, shown];
    const asked = [shown, other, swapped];
    const layers = sides.map((picture) => picture && { src: srcOf(picture), alt: title(picture) });
    const whole = await stage.show(layers, other && swapped ? 0 : 1);
    if (whole === undefined || asked.some((one, k) => one !== [shown, other, swapped][k])) return false;
    part(".light-same").textContent = other && whole && stage.areSame() ? "These are the same, pixel by pixel." : "";
    return whole;
  };
  const showAt = attempt(async (wanted) => {
    const asked = source;
    const picture = await source.at(wanted);
    if (!picture || asked !== source) return;
    [index, shown] = [wanted, picture];
    if (other && otherIndex === index) leaveComparing();
    tellPlace();
    tellFacts();
    tellStrip();
    await Promise.all([showPictures(), tellMore(picture), other && tellDifferences()]);
  });
  const step = (by) => {
    const next = index + by;
    if (next < 0 || next >= source.total) return undefined;
    say("");
    return showAt(next);
  };

  // comparing

  const tellDifferences = attempt(async () => {
    const [one, two] = pair();
    const table = part("table");
    const words = part(".light-alike");
    table.hidden = true;
    words.textContent = "";
    if (!one.id || !two.id) {
      words.textContent = "One of these is not in the history, so their settings cannot be compared.";
      return;
    }
    const told = await request(`${address(one)}/differences/${two.id}`);
    if (!other || one !== pair()[0] || two !== pair()[1]) return;
    const rows = told.differences.map((found) =>
      make("tr", {}, make("th", { scope: "row" }, found.name), make("td", {}, found.one), make("td", {}, found.other)));
    table.querySelector("tbody").replaceChildren(...rows);
    table.hidden = !rows.length;
    if (told.problem || !rows.length) words.textContent = told.problem || "All settings are the same.";
  });
  const compareWith = attempt(async (place, way = stage.way === "one" ? "wipe" : stage.way) => {
    const picture = place < 0 || place === index ? undefined : await source.at(place);
    if (!picture) return;
    [other, otherIndex] = [picture, place];
    stage.setWay(way);
    tellPlace();
    tellStrip();
    tell();
    await Promise.all([showPictures(), tellDifferences()]);
  });
  const leaveComparing = () => {
    [other, otherIndex, swapped] = [null, -1, false];
    stage.setWay("one");
    tellPlace();
    tellStrip();
    tell();
    return showPictures();
  };
  const otherStep = (by) => {
    let place = otherIndex + by;
    if (place === index) place += by;
    if (place >= 0 && place < source.total) compareWith(place);
  };
  const setWay = (way) => {
    if (!other) return compareWith(source.before(index), way);
    stage.setWay(way);
    tellPlace();
    return tell();
  };

  // what can be done

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // not over a secure connection
      const box = make("textarea", { "aria-hidden": "true" });
      box.value = text;
      part(".light-frame").append(box);
      box.select();
      const isDone = document.execCommand("copy");
      box.remove();
      part("[data-act=copy]").focus();
      return isDone;
    }
  };
  const showInfo = (open) => {
    dialog.toggleAttribute("data-info", open);
    part("[data-act=info]").setAttribute("aria-pressed", String(open));
  };
  const acts = {
    previous: () => step(-1),
    next: () => step(1),
    first: () => showAt(0),
    last: () => showAt(source.total - 1),
    nearer: () => stage.nearer(1),
    farther: () => stage.nearer(-1),
    fit: () => stage.fit(),
    one: () => stage.oneToOne(),
    full: attempt(() => (document.fullscreenElement ? document.exitFullscreen() : part(".light-frame").requestFullscreen())),
    close: () => dialog.close(),
    info: () => {
      showInfo(!dialog.hasAttribute("data-info"));
      localStorage.setItem(INFO, dialog.hasAttribute("data-info") ? "open" : "closed");
    },
    favourite: attempt(async () => {
      const picture = shown;
      if (!picture.id || picture.deleted) return;
      await favour(picture);
      source.changed(picture);
      if (picture === shown) tellFacts();
    }),
    delete: attempt(async () => {
      const [picture, place] = [shown, index];
      if (!picture.id || picture.deleted) return;
      const bringBack = await source.remove(picture);
      if (other) await leaveComparing();
      if (!source.total) return dialog.close();
      await showAt(Math.min(place, source.total - 1));
      say(`Deleted ${picture.name}.`, bringBack);
    }),
    undo: attempt(async () => {
      const [bringBack, from] = [undo, source];
      if (!bringBack) return;
      say("");
      const at = await bringBack();
      if (source !== from) return void from.closed(at); // it was closed meanwhile: the focus goes to what came back
      await showAt(at);
      part(".light-stage").focus();
    }),
    copy: attempt(async () => say((await copy(shown.prompt)) ? "The prompt is copied." : "This browser does not let pages copy.")),
    compare: () => (other ? leaveComparing() : compareWith(source.before(index))),
    swap: () => {
      swapped = !swapped;
      tellPlace();
      tellStrip();
      return Promise.all([showPictures(), tellDifferences()]);
    },
    use: attempt(async (button) => {
      const [, , run] = source.uses[Number(button.dataset.use)];
      run(shown, part(".light-seed input").checked);
      dialog.close();
    }),
  };
  const reuse = (withSeed) => {
    source.reuse(shown, withSeed);
    dialog.close();
  };

  const alone = () => !other;
  const inWay = (...ways) => () => Boolean(other) && ways.includes(stage.way);
  const KEYS = [
    ["←", "The picture before", ["ArrowLeft"], acts.previous, alone],
    ["→", "The next picture", ["ArrowRight"], acts.next, alone],
    ["Home, End", "The first, the last picture", ["Home"], acts.first],
    ["", "", ["End"], acts.last],
    ["+, −", "Zoom in, zoom out", ["+", "="], acts.nearer],
    ["", "", ["-", "−"], acts.farther],
    ["0", "The whole picture", ["0"], acts.fit],
    ["1", "Actual size: a pixel of the picture is a pixel of the screen", ["1"], acts.one],
    ["Shift + arrows", "Move the enlarged picture", ["Shift+ArrowLeft"], () => stage.move(PAN_PX, 0)],
    ["", "", ["Shift+ArrowRight"], () => stage.move(-PAN_PX, 0)],
    ["", "", ["Shift+ArrowUp"], () => stage.move(0, PAN_PX)],
    ["", "", ["Shift+ArrowDown"], () => stage.move(0, -PAN_PX)],
    ["F", "Full screen", ["f"], acts.full],
    ["S", "Favourite", ["s"], acts.favourite],
    ["I", "Information", ["i"], acts.info],
    ["R", "Reuse the settings, with Shift the seed too", ["r"], () => reuse(false)],
    ["", "", ["Shift+r"], () => reuse(true)],
    ["Delete", "Delete; Ctrl+Z brings it back", ["Delete"], acts.delete],
    ["", "", ["Ctrl+z"], acts.undo],
    ["C", "Compare with the one before", ["c"], acts.compare],
    ["W, D, B", "Compare under a line, side by side, in turns", ["w"], () => setWay("wipe")],
    ["", "", ["d"], () => setWay("side")],
    ["", "", ["b"], () => setWay("blink")],
    ["↑, ↓", "Compare with another one", ["ArrowUp"], () => otherStep(-1), () => Boolean(other)],
    ["", "", ["ArrowDown"], () => otherStep(1), () => Boolean(other)],
    ["←, →", "Move the line between the two", ["ArrowLeft"], () => stage.moveLine(-2), inWay("wipe")],
    ["", "", ["ArrowRight"], () => stage.moveLine(2), inWay("wipe")],
    ["Space", "In turns: show the other of the two", [" ", "ArrowLeft", "ArrowRight"], () => stage.turn(), inWay("blink")],
    ["", "", ["ArrowLeft"], () => otherStep(-1), inWay("side")],
    ["", "", ["ArrowRight"], () => otherStep(1), inWay("side")],
    ["X", "Swap the two", ["x"], acts.swap, () => Boolean(other)],
    ["Esc", "Close"],
  ];
  const press = window.darkroomKeys.area("Large view", KEYS);

  // the dialog

  const build = () => {
    dialog = window.darkroomLightFrame.make();
    document.body.append(dialog);
    stage = window.darkroomStage.create(part(".light-stage"), { tell: () => dialog.open && tell(), step: (by) => step(by) });
    dialog.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (!button) return;
      const { act: name, way, index: at, use } = button.dataset;
      if (name && button.ariaDisabled !== "true") acts[name](button);
      else if (way) setWay(way);
      else if (use) acts.use(button);
      else if (at) other && Number(at) !== index ? compareWith(Number(at)) : showAt(Number(at));
    });
    part(".light-line").addEventListener("input", ({ target }) => stage.setLine(Number(target.value)));
    dialog.addEventListener("keydown", (event) => {
      const isOwn = event.target.matches("input[type=range]") && /^(Arrow|Home|End|Page)/.test(event.key);
      const presses = event.key === " " && event.target.matches("button, input, a");
      const scrolls = event.target.closest(".light-side") && /^(Arrow|Home|End)/.test(event.key);
      if (!isOwn && !presses && !scrolls && press(event)) event.preventDefault();
    });
    dialog.addEventListener("close", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      const [closed, at] = [source, index];
      stage.setWay("one");
      [source, shown, other, otherIndex, swapped, undo] = [null, null, null, -1, false, null];
      closed?.closed(at);
    });
  };
  const start = (pictures) => {
    if (!dialog) build();
    [source, other, otherIndex, swapped] = [pictures, null, -1, false];
    stage.setWay("one");
    const uses = source.uses.map(([words, icon], k) => make("button", { type: "button", "data-use": k, style: `--icon: var(--icon-${icon})` }, make("span", {}, words)));
    part(".light-uses").replaceChildren(...uses);
    part(".light-seed").hidden = !source.asksSeed;
    const kept = localStorage.getItem(INFO);
    showInfo(kept ? kept === "open" : Boolean(source.opensInfo));
    say("");
    if (!dialog.open) dialog.showModal();
    stage.fit();
    part(".light-stage").focus();
  };

  window.darkroomLight = {
    open: async (pictures, at) => {
      start(pictures);
      await showAt(at);
    },
    // The pictures at two places, one as A and the other as B; without a second, the one before.
    compare: async (pictures, at, before = pictures.before(at)) => {
      start(pictures);
      await showAt(at);
      await compareWith(before);
    },
    // The pictures of the source that is shown are others now, and the shown one is at this place.
    refresh: (pictures, at) => {
      if (source !== pictures || at < 0) return;
      const moved = at - index;
      index = at;
      if (other) otherIndex += moved;
      tellPlace();
      tellStrip();
    },
    get source() {
      return source;
    },
    get shown() {
      return shown;
    },
  };
})();
