// What a control's row has besides its plain fields: its picture, which is dropped, pasted or chosen, the numbers of its
// preprocessor, and the map that is made of the picture, beside it.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { valueOf, whenFilled } = window.darkroomFields;
  const { read, write, offered } = window.darkroomRows;
  const PREPROCESSORS = "./api/controls/preprocessors";
  const NO_MAP = "none";
  const MIN_PX = 64;
  const MAX_PX = 2048;
  const STARTS = ["img2img", "inpaint"];
  const sent = new Map(); // what was handed in already, by its address on the page

  const urlOf = ({ sha256 }) => `./api/controls/pictures/${sha256}`;
  const idOf = ({ page, group }, index, name) => `${page}-${group}-${index ? `${index + 1}-` : ""}${name}`;
  const failed = async (answer) => new Error((await answer.json().catch(() => null))?.detail ?? answer.statusText);
  const ask = async (address, body, type) => {
    const answer = await fetch(address, { method: "POST", body, headers: { "content-type": type } }).catch(() => {
      throw new Error("The server does not answer.");
    });
    if (!answer.ok) throw await failed(answer);
    return answer;
  };
  const handIn = async (blob) => (await ask("./api/controls/pictures", blob, "application/octet-stream")).json();
  const set = (frame, index, name, value) => {
    const entries = read(frame);
    if (!entries[index]) return;
    if (value === undefined) delete entries[index][name];
    else entries[index][name] = value;
    write(frame, entries);
  };

  // As if a person chose it in the row.
  const choose = (frame, index, name, value) => {
    const select = frame.querySelector(`ol > li:nth-child(${index + 1}) [data-field="${name}"] select`);
    if (!select || select.value === value) return;
    select.value = value;
    select.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // The start picture, where the page has one

  const startOf = (page) => document.querySelector(`#${page}-image img`) ?? document.querySelector(`.painter[data-page="${page}"]:not(.empty, .sketch) img`);
  // A preprocessor that is told what is masked gets that as what is see-through.
  const withMask = async (blob, mask) => {
    const [picture, painted] = await Promise.all([createImageBitmap(blob), createImageBitmap(await (await fetch(mask)).blob())]);
    const sheet = make("canvas", { width: picture.width, height: picture.height });
    const context = sheet.getContext("2d");
    context.drawImage(picture, 0, 0);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(painted, 0, 0, sheet.width, sheet.height);
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  };
  const startPicture = async (page, needsMask) => {
    const shown = startOf(page);
    if (!shown?.src) throw new Error(STARTS.includes(page) ? "There is no start picture yet, and no picture of its own." : "Add a picture first.");
    const mask = needsMask && page === "inpaint" ? window.darkroomPainter.mask(page) : "";
    const key = `${shown.src} ${mask.length} ${mask.slice(-200)}`;
    if (!sent.has(key)) {
      const blob = await (await fetch(shown.src)).blob();
      sent.set(key, await handIn(mask ? await withMask(blob, mask) : blob));
    }
    return sent.get(key);
  };
  const inSteps = (px) => Math.min(MAX_PX, Math.max(MIN_PX, Math.round(px / 8) * 8));
  const sizeOf = (page) => {
    const start = startOf(page);
    const keeps = STARTS.includes(page) && document.querySelector(`#${page}-keep_size input`)?.checked !== false;
    if (start && keeps) return [start.naturalWidth, start.naturalHeight].map(inSteps);
    return ["width", "height"].map((side) => inSteps(Number(valueOf(page, side)) || 512));
  };

  // The map, beside the picture

  const show = async (frame, index, place, button) => {
    const { page } = frame.dataset;
    const entry = read(frame)[index];
    const { needs_mask: needsMask } = (offered[PREPROCESSORS] ?? []).find(({ name }) => name === entry.preprocessor) ?? {};
    button.setAttribute("aria-busy", "true");
    try {
      const picture = entry.image ?? (await startPicture(page, needsMask));
      const [width, height] = sizeOf(page);
      const resize = entry.image ? entry.resize : valueOf(page, "resize").replace("latent resize", "just resize");
      const asked = { image: { sha256: picture.sha256 }, width, height, preprocessor: entry.preprocessor ?? NO_MAP, options: entry.options ?? {}, ...(resize && { resize }) };
      const answer = await ask("./api/controls/map", JSON.stringify(asked), "application/json");
      const map = make("img", { alt: "Map", src: URL.createObjectURL(await answer.blob()) });
      await map.decode();
      const beside = (image, words) => make("figure", {}, image, make("figcaption", {}, words));
      place.replaceChildren(beside(make("img", { alt: "Picture", src: urlOf(picture) }), "Picture"), beside(map, "Map"));
    } catch (error) {
      place.replaceChildren(make("p", { role: "alert", class: "controls-trouble" }, error.message));
    }
    button.removeAttribute("aria-busy");
  };

  // The picture of its own

  const pictureSlot = (frame, index, stale) => {
    const { page, group } = frame.dataset;
    const slot = make("div", { class: "controls-picture", role: "group", "aria-label": `Picture of Control ${index + 1}` });
    const trouble = make("p", { class: "controls-trouble", role: "alert" });
    const chosen = make("input", { type: "file", accept: "image/*", hidden: "" });
    const take = async (blob) => {
      slot.setAttribute("aria-busy", "true");
      trouble.textContent = "";
      try {
        const { sha256 } = await handIn(blob);
        set(frame, index, "image", { sha256 });
        stale();
        fill(true);
      } catch (error) {
        trouble.textContent = error.message;
      }
      slot.removeAttribute("aria-busy");
    };
    const button = (text, run, attributes = {}) => {
      const made = make("button", { type: "button", ...attributes }, text);
      made.addEventListener("click", run);
      return made;
    };
    const fill = (focus = false) => {
      const { image } = read(frame)[index] ?? {};
      const shown = image && make("img", { alt: "", src: urlOf(image) });
      shown?.addEventListener("error", () => {
        shown.remove();
        trouble.textContent = "This picture is no longer here. Choose it again.";
      });
      const empty = STARTS.includes(page) ? "The start picture is used. Drop, paste or choose another." : "Drop, paste or choose a picture.";
      const pick = button(image ? "Choose another" : "Choose a picture", () => chosen.click(), { id: idOf({ page, group }, index, "image") });
      const draw = button("Draw", sketch, { "data-act": "draw" });
      const remove = image && button("Remove the picture", () => {
        set(frame, index, "image", undefined);
        stale();
        fill(true);
      });
      const acts = make("div", { class: "controls-acts" }, ...[pick, draw, remove].filter(Boolean));
      slot.replaceChildren(...[shown, !image && make("p", {}, empty), acts, trouble, chosen].filter(Boolean));
      if (focus) pick.focus();
    };
    // What is drawn is a map already: no preprocessor makes another of it.
    const sketch = () => {
      const { image, preprocessor = NO_MAP } = read(frame)[index] ?? {};
      window.darkroomSketch.begin(page, {
        name: `Control ${index + 1}`,
        size: sizeOf(page),
        shown: image && { ...image, url: urlOf(image), isMap: preprocessor === NO_MAP },
        changed: (sha256) => {
          if (!slot.isConnected) return window.darkroomSketch.close(page); // the row is gone, or filled from elsewhere
          set(frame, index, "image", sha256 ? { sha256 } : undefined);
          choose(frame, index, "preprocessor", NO_MAP);
          stale();
          fill();
        },
        closed: () => slot.isConnected && slot.querySelector("[data-act=draw]").focus(),
      });
    };
    chosen.addEventListener("change", () => chosen.files[0] && take(chosen.files[0]));
    slot.addEventListener("dragover", (event) => event.preventDefault());
    slot.addEventListener("drop", (event) => {
      const file = [...event.dataTransfer.files].find(({ type }) => type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      take(file);
    });
    slot.addEventListener("paste", (event) => {
      const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      event.stopPropagation();
      take(file);
    });
    fill();
    return slot;
  };

  // The numbers of the preprocessor

  const options = (frame, index, stale) => {
    const entry = read(frame)[index] ?? {};
    const row = (offered[PREPROCESSORS] ?? []).find(({ name }) => name === entry.preprocessor);
    return (row?.options ?? []).map((option) => {
      const input = make("input", { type: "number", id: idOf(frame.dataset, index, `options-${option.name}`), min: option.min, max: option.max, step: option.step });
      input.value = entry.options?.[option.name] ?? option.default;
      input.addEventListener("input", () => {
        const { [option.name]: _, ...others } = read(frame)[index]?.options ?? {};
        const value = Number(input.value);
        const is = input.value === "" || value === option.default ? others : { ...others, [option.name]: value };
        set(frame, index, "options", Object.keys(is).length ? is : undefined);
        stale();
      });
      return make("label", { class: "rows-number controls-option" }, make("span", {}, option.title), input);
    });
  };
  const fillOptions = (frame, index) => {
    const item = frame.querySelectorAll("ol > li")[index];
    if (!item) return;
    item.querySelectorAll(".controls-option").forEach((label) => label.remove());
    item.querySelector("[data-field=preprocessor]").after(...options(frame, index, () => forget(item)));
  };
  const forget = (item) => item.querySelector(".controls-map").replaceChildren();

  // An IP-Adapter sees the picture as it is: it has no preprocessor, no map and no mode. A union alone is told kinds of maps.
  const WITHOUT = { preprocessor: "none", options: undefined, mode: "auto" };
  const listOf = (frame) => offered[`./api/controls?model=${encodeURIComponent(valueOf(frame.dataset.page, "model"))}`];
  const suit = (frame, index, item) => {
    const entry = read(frame)[index] ?? {};
    const form = listOf(frame)?.find(({ name }) => name === entry.model)?.form;
    const [sees, knows] = [form === "IP-Adapter", form === "ControlNet Union"];
    item.classList.toggle("controls-seen", sees);
    item.classList.toggle("controls-union", knows);
    const without = { ...(sees ? WITHOUT : {}), ...(form && !knows ? { kind: "auto" } : {}) };
    for (const [name, value] of Object.entries(without)) {
      if (name in entry) set(frame, index, name, undefined);
      const field = item.querySelector(`[data-field=${name}] select`);
      if (field) field.value = value;
    }
  };

  const build = (frame, index, item) => {
    const map = make("div", { class: "controls-map", "aria-live": "polite" });
    const button = make("button", { type: "button", id: idOf(frame.dataset, index, "show"), class: "controls-show" }, "Show the map");
    button.addEventListener("click", () => show(frame, index, map, button));
    item.querySelector("[data-field=model]").before(pictureSlot(frame, index, () => forget(item)));
    item.append(button, map);
    item.querySelector("[data-field=preprocessor]").after(...options(frame, index, () => forget(item)));
    suit(frame, index, item);
  };
  const changed = (frame, index, name) => {
    if (name === "model") suit(frame, index, frame.querySelectorAll("ol > li")[index]);
    if (name === "preprocessor") {
      set(frame, index, "options", undefined);
      fillOptions(frame, index);
    }
    if (["preprocessor", "resize"].includes(name)) forget(frame.querySelectorAll("ol > li")[index]);
  };
  const listed = (frame, url) => {
    if (frame.dataset.group !== "controls") return;
    if (url === PREPROCESSORS) frame.querySelectorAll("ol > li").forEach((_, index) => fillOptions(frame, index));
    frame.querySelectorAll("ol > li").forEach((item, index) => suit(frame, index, item));
    sayNone(frame);
  };
  // What the chosen model can have nothing of is said.
  const sayNone = (frame) => {
    const known = listOf(frame);
    const note = frame.querySelector(".controls-none") ?? frame.appendChild(make("p", { class: "panel-note controls-none", role: "status" }));
    const none = known && !known.some(({ problem, misfit }) => !problem && !misfit);
    note.textContent = none ? "No control file here fits this model. Such files go into models/ControlNet." : "";
  };
  whenFilled((page) => document.querySelectorAll(`.rows[data-page="${page}"][data-group=controls]`).forEach(sayNone));

  window.darkroomRows.add("controls", { build, changed, listed });
})();
