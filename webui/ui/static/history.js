// The History tab: what was made, by day; search, boards, many at once. Every text from a file is text here, never
// markup; pictures are known by their ids alone.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const { request, address, title, trouble, favour } = window.darkroomArchive;
  const light = window.darkroomLight;
  const LOOK_MS = 3000; // how often a tab in sight asks for new pictures
  const UNDONE = 20; // deletions that can be undone
  const SIDE = "darkroom.history.side";

  let root = null;
  let list = null;
  let source = null;
  let boards = null;
  let at = 0; // the index of the card that the keyboard is on
  let anchor = -1; // where a range of chosen ones begins
  let choosing = false;
  let chosen = new Map(); // by id: the picture, or null where it was not loaded
  let deleted = []; // ids, a list for each time
  let looking;

  const part = (selector) => root.querySelector(selector);
  const say = (text) => {
    const note = part(".history-note");
    if (note.textContent !== text) note.textContent = text; // a screen reader says it once
  };
  const plural = (count) => (count === 1 ? "1 picture" : `${count.toLocaleString()} pictures`);
  const get = (index) => source.get(index);

  // Runs what a person asked for, and says what goes wrong.
  const attempt = (work) => async (...rest) => {
    try {
      return await work(...rest);
    } catch (error) {
      say(trouble(error));
      return undefined;
    }
  };

  // what is looked for

  const criteria = () => {
    const fields = [...root.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, field.value.trim()]);
    return [...fields, ...boards.criteria()].filter(([name, value]) => value && (name !== "order" || value !== "newest"));
  };
  const fillChoices = (field, any, names) => {
    const select = part(`[data-field=${field}]`);
    const { value } = select;
    const known = value && !names.includes(value) ? [value, ...names] : names;
    if (select.dataset.known === JSON.stringify(known)) return; // a list that is open stays open
    select.dataset.known = JSON.stringify(known);
    select.replaceChildren(make("option", { value: "" }, any), ...known.map((name) => make("option", { value: name }, name)));
    select.value = value;
  };
  const tell = (unread) => {
    const reading = unread ? ` ${unread.toLocaleString()} more are being read ...` : "";
    if (source.total) say(`${plural(source.total)}.${reading}`);
    else if (unread) say(reading.trim());
    else if (criteria().some(([name]) => name !== "board")) say("No pictures match.");
    else if (boards.isBoard) say("Nothing is on this board yet. Select pictures, then “Add to board”.");
    else say("No pictures yet. What you draw is kept here.");
  };
  const labelOf = (day) => {
    const [year, month, date] = day.split("-").map(Number);
    const then = new Date(year, month - 1, date);
    const now = new Date();
    const ago = Math.round((new Date(now.getFullYear(), now.getMonth(), now.getDate()) - then) / 86400000);
    if (ago === 0) return "Today";
    if (ago === 1) return "Yesterday";
    const sameYear = year === now.getFullYear();
    return then.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: sameYear ? undefined : "numeric" });
  };
  const sectionsOf = ({ days, total: count }) => {
    if (days.length) return days.map(([day, pictures]) => ({ key: day, label: labelOf(day), count: pictures }));
    return count ? [{ key: "all", label: "", count }] : [];
  };

  // the list

  // From the beginning; `fromTop` where something else is looked for.
  const load = attempt(async (fromTop = false) => {
    const found = await source.begin(fromTop ? 0 : list.firstInView());
    if (!found) return;
    fillChoices("model", "All models", found.models);
    fillChoices("lora", "All LoRAs", found.loras);
    if (found.isNew) {
      at = Math.max(0, Math.min(at, found.total - 1));
      list.lay(sectionsOf(found));
      dressAll();
      if (fromTop) toTop();
      boards.tell();
    }
    tell(found.unread);
  });
  const toTop = () => {
    const top = part(".history-body").getBoundingClientRect().top;
    if (top < 0) scrollBy(0, top - 100);
  };
  const fill = attempt((from, to) => {
    // One card of those in sight can be reached by Tab; the arrows go on from there.
    if ((at < from || at > to) && !part(".history-found").contains(document.activeElement)) {
      at = Math.max(from, list.firstInView());
      dressAll();
    }
    return source.fill(from, to, () => {
      list.render();
      dressAll();
    });
  });

  const makeCard = (index) => {
    const picture = get(index);
    if (!picture) return make("li", { class: "history-blank" }, make("button", { type: "button", tabindex: "-1", "aria-label": "Loading" }));
    const small = address(picture, `/thumbnail?${encodeURIComponent(picture.made_at)}`); // a file that changed has another
    const image = make("img", { src: small, alt: "", decoding: "async", draggable: "false" });
    const tick = make("span", { class: "history-tick", "aria-hidden": "true" });
    const button = make("button", { type: "button", "data-id": picture.id, title: title(picture) }, image, tick);
    image.addEventListener("error", () => image.replaceWith(make("span", { class: "panel-blank" }, picture.name)));
    const li = make("li", { "data-index": index }, button);
    dress(li, picture);
    return li;
  };
  const keyOf = (index) => get(index)?.id ?? `#${index}`;
  const dress = (li, picture = source.find(li.firstChild.dataset.id)) => {
    const button = li.firstChild;
    button.tabIndex = Number(li.dataset.index) === at ? 0 : -1;
    if (!picture) return;
    button.classList.toggle("favourite", picture.favourite);
    button.setAttribute("aria-label", `${picture.favourite ? "Favourite: " : ""}${title(picture)}`);
    if (choosing) button.setAttribute("aria-pressed", String(chosen.has(picture.id)));
    else button.removeAttribute("aria-pressed");
  };
  const dressAll = () => list.cards().forEach((li) => dress(li));
  const makeHeading = ({ key, label, count }) => {
    const all = make("button", { type: "button", "aria-label": `Select all of ${label}` }, "Select all");
    all.addEventListener("click", attempt(async () => {
      const { start, count: all } = list.section(key);
      await chooseRange(start, start + all - 1, true);
    }));
    return make("div", { class: "history-day" }, make("h2", {}, label), make("small", {}, plural(count)), all);
  };

  // one picture

  const moveTo = (index) => {
    if (index < 0 || index >= source.total) return;
    at = index;
    list.reveal(index);
    dressAll();
    list.card(index)?.firstChild.focus({ preventScroll: true });
  };
  const noteMarked = () => {
    source.change();
    dressAll();
    boards.tell();
  };
  const mark = attempt(async (picture) => {
    await favour(picture);
    noteMarked();
  });

  // many

  const showChosen = () => {
    choosing = choosing || chosen.size > 0;
    root.classList.toggle("choosing", choosing);
    part("[data-act=select]").setAttribute("aria-pressed", String(choosing));
    part(".history-selected").hidden = !choosing;
    part(".history-selected strong").textContent = `${chosen.size.toLocaleString()} selected`;
    for (const act of ["favourite-all", "boards", "off-board", "zip", "delete-all"]) part(`[data-act=${act}]`).disabled = !chosen.size;
    part("[data-act=off-board]").hidden = !boards.isBoard;
    part("[data-act=compare-two]").disabled = chosen.size !== 2;
    boards.showMenu(false);
    dressAll();
  };
  const toggle = (index) => {
    const picture = get(index);
    if (!picture) return;
    if (!chosen.delete(picture.id)) chosen.set(picture.id, picture);
    anchor = at = index;
    choosing = true;
    showChosen();
  };
  const chooseRange = async (from, to, add = false) => {
    const ids = await source.ids(from, to - from + 1);
    if (!add) chosen = new Map();
    for (const id of ids) chosen.set(id, source.find(id) ?? null);
    showChosen();
  };
  const extend = attempt(async (index) => {
    if (anchor < 0) anchor = at;
    at = index;
    await chooseRange(Math.min(anchor, index), Math.max(anchor, index));
  });
  const done = () => {
    chosen = new Map();
    choosing = false;
    anchor = -1;
    showChosen();
  };
  const chosenIds = () => [...chosen.keys()];
  const send = (route, ids, more = {}) => request(`./api/history/${route}`, "POST", { pictures: ids, ...more });
  const favourAll = attempt(async () => {
    const ids = chosenIds();
    const favourite = !ids.every((id) => source.find(id)?.favourite);
    await send("marks", ids, { favourite });
    await again(`${plural(ids.length)} ${favourite ? "marked as favourite." : "no longer marked as favourite."}`);
  });
  const again = async (words) => {
    source.change();
    await load();
    if (words) say(words);
  };
  const zip = () => {
    const form = part(".history-zip");
    form.elements.pictures.value = chosenIds().join(",");
    form.submit();
  };
  const compareTwo = attempt(async () => {
    const two = await Promise.all(chosenIds().map(async (id) => source.find(id) ?? chosen.get(id) ?? request(`./api/history/${id}`)));
    const both = { ...large, total: 2, get: (index) => two[index], at: async (index) => two[index], before: (index) => 1 - index, closed: () => {} };
    both.remove = async (picture) => {
      const back = await large.remove(picture);
      picture.deleted = true;
      return async () => {
        await back();
        picture.deleted = false;
        return two.indexOf(picture);
      };
    };
    await light.compare(both, 1);
  });

  const putOn = attempt(async (name) => {
    const ids = chosenIds();
    await send("marks", ids, { add_to: name });
    done();
    await again(`${plural(ids.length)} put on “${name}”.`);
  });

  // deleting

  const offerUndo = (words) => {
    const line = part(".history-undo");
    line.hidden = !deleted.length;
    line.querySelector("span").textContent = deleted.length ? words ?? `Deleted ${plural(deleted.at(-1).length)}.` : "";
  };
  const takeAway = async (ids, words) => {
    const gone = await send("delete", ids);
    deleted = [...deleted, gone.deleted].slice(-UNDONE);
    for (const id of ids) chosen.delete(id);
    if (!chosen.size) done();
    await again();
    offerUndo(words);
  };
  const removeAll = attempt(async (ids) => {
    const index = ids.length === 1 ? Math.max(0, source.indexOf(ids[0])) : at;
    await takeAway(ids, ids.length === 1 ? `Deleted ${source.find(ids[0])?.name ?? plural(1)}.` : undefined);
    if (source.total) moveTo(Math.min(index, source.total - 1));
  });
  const bringBack = async () => {
    const ids = deleted.at(-1);
    await send("restore", ids);
    deleted.pop();
    offerUndo();
    await again();
    return source.indexOf(ids[0]);
  };
  const undo = attempt(async () => {
    const back = await bringBack();
    if (back >= 0) moveTo(back);
  });

  // What the large view has of the list (`light.js`).
  const reuse = (page, picture, withSeed) => window.darkroomFills.ask(page, "history", { picture: picture.id, with_seed: withSeed });
  const large = {
    asksSeed: true,
    opensInfo: innerWidth > 900,
    get total() {
      return source.total;
    },
    get,
    at: (index) => source.at(index),
    before: (index) => (index + 1 < source.total ? index + 1 : index - 1),
    get uses() {
      const icons = { inpaint: "brush", img2img: "picture", upscale: "upscale" };
      return JSON.parse(root.dataset.targets).map(([page, words]) => [
        words, words.startsWith("Send") ? icons[page] ?? "picture" : "reuse", (picture, withSeed) => reuse(page, picture, withSeed),
      ]);
    },
    reuse: (picture, withSeed) => reuse(JSON.parse(root.dataset.targets)[0][0], picture, withSeed),
    changed: noteMarked,
    remove: async (picture) => {
      await takeAway([picture.id], `Deleted ${picture.name}.`);
      return bringBack;
    },
    closed: (index) => index >= 0 && moveTo(Math.min(index, source.total - 1)),
  };
  const open = attempt((index) => {
    at = index;
    return light.open(large, index);
  });

  // keys and buttons

  const acts = {
    how: (button) => {
      const help = part(".history-help");
      help.hidden = !help.hidden;
      button.setAttribute("aria-expanded", String(!help.hidden));
    },
    select: () => (choosing ? done() : ((choosing = true), showChosen())),
    done,
    "select-all": attempt(() => chooseRange(0, source.total - 1)),
    "favourite-all": () => favourAll(),
    zip,
    "off-board": attempt(async () => {
      const ids = chosenIds();
      await send("marks", ids, { take_from: boards.name });
      done();
      await again(`${plural(ids.length)} taken off “${boards.name}”.`);
    }),
    "compare-two": () => compareTwo(),
    "delete-all": () => removeAll(chosenIds()),
    undo: () => undo(),
    close: (button) => button.closest("dialog").close(),
    "ask-clear": () => confirmClearing(true),
    clear: attempt(async () => {
      await request("./api/workspace", "DELETE");
      confirmClearing(false);
      boards.choose("all");
      tellWorkspace();
    }),
  };
  const confirmClearing = (really) => {
    part("[data-act=ask-clear]").hidden = really;
    part("[data-act=clear]").hidden = !really;
  };
  // Guests are told how long all of this is kept, and have ways to take it away and to delete it.
  const tellWorkspace = attempt(async () => {
    const { is_owner, files, dropped_after_days: days } = await request("./api/workspace");
    part(".history-workspace").hidden = is_owner;
    part(".history-workspace span").textContent = files === 1
      ? `What you make here (1 file so far) is yours alone, and is deleted ${days} days after your last visit.`
      : `What you make here (${files} files so far) is yours alone, and is deleted ${days} days after your last visit.`;
  });
  const onEscape = () => {
    if (boards.isMenuOpen) boards.showMenu(false), part("[data-act=boards]").focus();
    else if (choosing) done();
    else return false;
    return true;
  };
  const indexOf = ({ target }) => Number(target.closest("li").dataset.index);
  const go = (to) => (event) => {
    const next = Math.max(0, Math.min(to(indexOf(event)), source.total - 1));
    if (event.shiftKey) extend(next);
    moveTo(next);
  };
  const arrows = { ArrowLeft: (index) => index - 1, ArrowRight: (index) => index + 1, ArrowUp: (index) => index - list.columns, ArrowDown: (index) => index + list.columns };
  const ends = { Home: () => 0, End: () => source.total - 1 };
  const pressCard = window.darkroomKeys.area("History, on a picture", [
    ["Enter, F", "Large view", ["f"], (event) => open(indexOf(event))],
    ["Arrows, Home, End", "Another picture; with Shift they are selected"],
    ...Object.entries({ ...arrows, ...ends }).map(([key, to]) => ["", "", [key, `Shift+${key}`], go(to)]),
    ["X", "Select", ["x"], (event) => toggle(indexOf(event))],
    ["Ctrl+A", "Select all", ["Ctrl+a"], () => acts["select-all"]()],
    ["S", "Favourite", ["s"], (event) => (chosen.size ? favourAll() : mark(get(indexOf(event))))],
    ["Delete", "Delete, the selected ones or this one", ["Delete"], (event) => removeAll(chosen.size ? chosenIds() : [get(indexOf(event)).id])],
    ["Esc", "Select none"],
  ]);
  const onKey = (event) => {
    if (event.target.matches("input, select, textarea")) return;
    const isOver = event.target.closest(".history-found li") && pressCard(event);
    if (isOver || (event.key === "Escape" && !root.querySelector("dialog[open]") && onEscape())) event.preventDefault();
  };
  const onCard = (event, li) => {
    const index = Number(li.dataset.index);
    if (event.shiftKey) extend(index);
    else if (choosing || event.ctrlKey || event.metaKey || event.target.closest(".history-tick")) toggle(index);
    else open(index);
  };

  const begin = (element) => {
    root = element;
    at = 0;
    part("[data-act=size]").value = localStorage.getItem(SIDE) ?? (innerWidth > 640 ? 150 : 100);
    list = window.darkroomWindowed.create({
      place: part(".history-found"), makeCard, keyOf, makeHeading,
      onWindow: fill,
    });
    list.resize(Number(part("[data-act=size]").value));
    const look = () => {
      done();
      load(true);
    };
    boards = window.darkroomBoards.create(root, { look, putOn, attempt, say });
    source = window.darkroomSource.create(criteria);
    let typing;
    root.addEventListener("input", (event) => {
      if (event.target.matches("[data-act=size]")) {
        localStorage.setItem(SIDE, event.target.value);
        list.resize(Number(event.target.value));
      }
      if (!event.target.matches("[data-field]")) return;
      if (event.target.dataset.field !== "order" && chosen.size) done();
      clearTimeout(typing);
      typing = setTimeout(() => load(true), 200);
    });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const { act, add } = button.dataset;
      const li = button.closest(".history-found li");
      if (act) (acts[act] ?? boards.acts[act])?.(button);
      else if (add) addToQuery(add);
      else if (li) onCard(event, li);
    });
    const addToQuery = (text) => {
      const field = part("[data-field=query]");
      field.value = `${field.value} ${text}`.trim();
      field.focus();
      field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    root.addEventListener("keydown", onKey);
    new ResizeObserver(([{ target }]) => {
      const sticks = getComputedStyle(target).position === "sticky";
      root.style.setProperty("--history-top", sticks ? `${target.offsetHeight}px` : "0px");
    }).observe(part(".history-top"));
    const lookAgain = () => !document.hidden && root.checkVisibility() && !light.source && load();
    new IntersectionObserver((entries) => {
      if (!entries.at(-1).isIntersecting) return;
      lookAgain();
      tellWorkspace();
    }).observe(root);
    clearInterval(looking);
    looking = setInterval(() => root.isConnected && !source.isAsking && lookAgain(), LOOK_MS);
  };
  whenever(".history", begin);
})();
