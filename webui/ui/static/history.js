// The History tab: a grid of what was made, one picture large, two side by side. Every text from a file is text here, never
// markup; pictures are known by their ids alone.
(() => {
  "use strict";
  const { make, whenever } = window.darkroomPanel;
  const PAGE = 60;
  const LOOK_MS = 3000; // how often a tab in sight asks for new pictures
  const address = (picture, part = "") => `./api/history/${picture.id}${part}`;

  let root = null;
  let shown = []; // the pictures of the grid, in order
  let next = null; // where the next page begins
  let total = 0;
  let open = null; // the picture that is shown large
  let first = null; // the one that another is to be compared with
  let deleted = [];
  let asked = 0;
  let waiting = 0; // questions on their way
  let looking;

  const part = (selector) => root.querySelector(selector);
  const say = (text) => (part(".history-note").textContent = text);
  const view = () => part(".history-view");

  const request = async (url, method = "GET") => {
    const answer = await fetch(url, { method });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
    return body;
  };
  // Runs what a person asked for, and says what goes wrong.
  const attempt = (work) => async (...rest) => {
    try {
      return await work(...rest);
    } catch (error) {
      const trouble = error instanceof TypeError ? "The server does not answer." : error.message;
      say(trouble);
      if (view().open) view().querySelector(".history-facts").textContent = trouble;
      return undefined;
    }
  };

  // the grid

  const criteria = () => {
    const fields = [...root.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, field.value.trim()]);
    const favourites = part("[data-act=favourites]").getAttribute("aria-pressed") === "true";
    return [...fields, ["favourites", favourites ? "true" : ""]].filter(([, value]) => value);
  };
  const title = (picture) => picture.prompt || picture.name;
  const mark = (picture) => {
    const button = root.querySelector(`[data-id="${picture.id}"]`);
    button?.classList.toggle("favourite", picture.favourite);
    button?.setAttribute("aria-label", `${picture.favourite ? "Favourite: " : ""}${title(picture)}`);
  };
  const makeCard = (picture) => {
    const source = address(picture, `/thumbnail?${encodeURIComponent(picture.made_at)}`); // a file that changed has another
    const image = make("img", { src: source, alt: "", loading: "lazy", decoding: "async" });
    const button = make("button", { type: "button", "data-id": picture.id, title: title(picture) }, image);
    image.addEventListener("error", () => image.replaceWith(make("span", { class: "panel-blank" }, picture.name)));
    button.addEventListener("click", () => choose(shown.find(({ id }) => id === picture.id)));
    return make("li", {}, button);
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
    const reading = unread ? ` ${unread} more are being read ...` : "";
    if (first) say(`Choose the picture to compare with “${title(first).slice(0, 60)}”; Esc keeps it alone.`);
    else if (total) say(`${total} ${total === 1 ? "picture" : "pictures"}.${reading}`);
    else if (unread) say(reading.trim());
    else if (criteria().length) say("No picture is like that.");
    else say("No pictures yet. What you draw is kept here.");
  };
  const render = (pictures) => {
    const cards = new Map([...root.querySelectorAll(".history-found > li")].map((card) => [card.firstChild.dataset.id, card]));
    const focused = root.querySelector(".history-found button:focus");
    shown = pictures;
    part(".history-found").replaceChildren(...pictures.map((picture) => cards.get(picture.id) ?? makeCard(picture)));
    focused?.focus({ preventScroll: true });
    pictures.forEach(mark);
    part(".history-more").hidden = !next;
  };
  // Pictures that fit; nothing where a later question has made this one void.
  const ask = async (...more) => {
    const number = ++asked;
    waiting += 1;
    try {
      const found = await request(`./api/history?${new URLSearchParams([...criteria(), ...more])}`);
      return number === asked ? found : null;
    } finally {
      waiting -= 1;
    }
  };
  // From the newest on, as many as are shown.
  const load = attempt(async (count = PAGE) => {
    const found = await ask(["limit", Math.min(count, 500)]);
    if (!found) return;
    const same = found.pictures.length === shown.length && found.pictures.every((picture, k) => picture.id === shown[k].id);
    ({ next, total } = found);
    fillChoices("model", "Every model", found.models);
    fillChoices("lora", "Every LoRA", found.loras);
    if (same) found.pictures.forEach((picture, k) => Object.assign(shown[k], picture)), shown.forEach(mark);
    else render(found.pictures);
    tell(found.unread);
  });
  const loadMore = attempt(async () => {
    const found = await ask(["limit", PAGE], ["before", next]);
    if (!found) return;
    const at = shown.length;
    next = found.next;
    render([...shown, ...found.pictures]);
    root.querySelectorAll(".history-found button")[at]?.focus();
  });

  // one picture

  const neighbour = (step) => shown[shown.findIndex(({ id }) => id === open?.id) + step];
  const showButtons = () => {
    mark(open);
    view().querySelector("[data-act=favourite]").setAttribute("aria-pressed", String(open.favourite));
    // Not disabled, which would take the focus away, and the keys with it.
    view().querySelector("[data-act=previous]").setAttribute("aria-disabled", String(!neighbour(-1)));
    view().querySelector("[data-act=next]").setAttribute("aria-disabled", String(!neighbour(1)));
  };
  const show = attempt(async (picture) => {
    open = picture;
    const dialog = view();
    Object.assign(dialog.querySelector("img"), { src: address(picture, "/picture"), alt: title(picture) });
    Object.assign(dialog.querySelector("a"), { href: address(picture, "/picture"), download: picture.name });
    const when = new Date(picture.made_at).toLocaleString();
    dialog.querySelector(".history-facts").textContent = `${picture.name} · ${picture.width} × ${picture.height} · ${when}`;
    dialog.querySelector("pre").textContent = "";
    dialog.querySelector("[data-act=reuse]").disabled = !picture.model; // the first page takes settings alone
    showButtons();
    if (!dialog.open) dialog.showModal();
    const { infotext, problem } = await request(address(picture));
    if (open === picture) dialog.querySelector("pre").textContent = infotext || problem || "No settings are in this picture.";
  });
  const favour = attempt(async (picture) => {
    const { favourite } = await request(address(picture, "/favourite"), picture.favourite ? "DELETE" : "PUT");
    picture.favourite = favourite;
    mark(picture);
    if (open === picture) showButtons();
  });

  // deleting

  const offerUndo = () => {
    const line = part(".history-undo");
    line.hidden = !deleted.length;
    line.querySelector("span").textContent = deleted.length ? `Deleted ${deleted.at(-1).name}.` : "";
    (view().open ? view() : root).insertBefore(line, view().open ? view().querySelector("img") : part(".history-found"));
  };
  const remove = attempt(async (picture) => {
    const at = shown.findIndex(({ id }) => id === picture.id);
    await request(address(picture), "DELETE");
    if (first?.id === picture.id) first = null;
    deleted.push(picture);
    asked += 1; // an answer that is on its way may still have it
    total -= 1;
    render(shown.filter(({ id }) => id !== picture.id));
    const follower = shown[Math.min(at, shown.length - 1)];
    if (view().open && follower) show(follower);
    else if (view().open) view().close();
    else root.querySelector(`[data-id="${follower?.id}"]`)?.focus();
    offerUndo();
    tell(0);
  });
  const undo = attempt(async () => {
    const picture = deleted.at(-1);
    await request(address(picture, "/restore"), "POST");
    deleted.pop();
    offerUndo();
    await load(Math.max(PAGE, shown.length + 1));
    const back = shown.find(({ id }) => id === picture.id);
    if (view().open && back) show(back);
    else root.querySelector(`[data-id="${picture.id}"]`)?.focus();
  });

  // two pictures

  const wipe = (percent) => part(".history-stage").style.setProperty("--wipe", `${percent}%`);
  const compare = (left, right) => {
    first = null;
    const dialog = part(".history-compare");
    [left, right].forEach((picture, k) => {
      Object.assign(dialog.querySelectorAll("img")[k], { src: address(picture, "/picture"), alt: title(picture) });
    });
    dialog.querySelector(".history-facts").textContent = `Left: ${title(left)} · Right: ${title(right)}`;
    dialog.querySelector("input").value = 50;
    wipe(50);
    tell(0);
    dialog.showModal();
    dialog.querySelector("input").focus();
  };

  const choose = (picture) => (first && first.id !== picture.id ? compare(first, picture) : show(picture));

  // keys and buttons

  const acts = {
    favourites: (button) => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      load();
    },
    more: () => loadMore(),
    previous: () => neighbour(-1) && show(neighbour(-1)),
    next: () => neighbour(1) && show(neighbour(1)),
    favourite: () => favour(open),
    delete: () => remove(open),
    compare: () => {
      first = open;
      view().close();
      tell(0);
    },
    reuse: (button) => {
      const withSeed = view().querySelector("[data-act=with-seed]").checked;
      window.darkroomFills.ask(button.dataset.page, "history", { picture: open.id, with_seed: withSeed });
      view().close();
    },
    close: (button) => button.closest("dialog").close(),
    "ask-clear": () => confirmClearing(true),
    clear: attempt(async () => {
      await request("./api/workspace", "DELETE");
      confirmClearing(false);
      load();
      tellWorkspace();
    }),
  };
  const confirmClearing = (asked) => {
    part("[data-act=ask-clear]").hidden = asked;
    part("[data-act=clear]").hidden = !asked;
  };
  // Guests are told how long all of this is kept, and have ways to take it away and to delete it.
  const tellWorkspace = attempt(async () => {
    const { is_owner, files, dropped_after_days: days } = await request("./api/workspace");
    part(".history-workspace").hidden = is_owner;
    part(".history-workspace span").textContent =
      `What you make here (${files} files so far) is yours alone, and is deleted ${days} days after your last visit.`;
  });
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    const card = event.target.closest(".history-found button");
    const picture = view().open ? open : shown.find(({ id }) => id === card?.dataset.id);
    if (event.key === "Escape" && first && !view().open) {
      first = null;
      tell(0);
    }
    if (!picture) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "f" || event.key === "F") favour(picture);
    else if (event.key === "Delete") remove(picture);
    else if (step && view().open) acts[step < 0 ? "previous" : "next"]();
    else if (step) root.querySelectorAll(".history-found button")[shown.indexOf(picture) + step]?.focus();
    else return;
    event.preventDefault();
  };

  const begin = (element) => {
    root = element;
    shown = [];
    let typing;
    root.addEventListener("input", (event) => {
      if (!event.target.matches("[data-field]")) return;
      clearTimeout(typing);
      typing = setTimeout(load, 200);
    });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-act]");
      if (button) acts[button.dataset.act](button);
    });
    root.addEventListener("keydown", onKey);
    part(".history-undo button").addEventListener("click", () => undo());
    part(".history-compare input").addEventListener("input", (event) => wipe(event.target.value));
    view().addEventListener("close", () => {
      root.querySelector(`[data-id="${open?.id}"]`)?.focus();
      open = null;
      offerUndo();
    });
    const look = () => !document.hidden && root.checkVisibility() && !view().open && load(Math.max(PAGE, shown.length));
    new IntersectionObserver((entries) => {
      if (!entries.at(-1).isIntersecting) return;
      look();
      tellWorkspace();
    }).observe(root);
    clearInterval(looking);
    looking = setInterval(() => root.isConnected && shown.length <= 500 && !waiting && look(), LOOK_MS);
  };
  whenever(".history", begin);
})();
