// Hold a LoRA's chip: the picture as it is without that LoRA, with the same seed and settings; let go: with it again. It is
// drawn once for each picture and LoRA, and not saved.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const HOLD_MS = 250; // shorter is a press
  const KEPT = 24;
  const known = new Map(); // by picture and LoRA: the address of the other picture, once it is there
  let held = null; // {chip, page, name, overlay, began}

  const post = async (address, body) => {
    const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told.detail ?? answer.statusText);
    return told;
  };
  const end = (id) =>
    new Promise((resolve, reject) => {
      const source = new EventSource(`./api/jobs/${id}/events`);
      const close = (settle, value) => {
        source.close();
        settle(value);
      };
      source.onmessage = ({ data }) => {
        const { event, message } = JSON.parse(data);
        if (event === "done") close(resolve);
        if (event === "failed" || event === "cancelled") close(reject, new Error(message ?? "Stopped."));
      };
      source.onerror = () => source.readyState === EventSource.CLOSED && close(reject, new Error("The server does not answer."));
    });
  const draw = async (picture, name) => {
    const [job, place] = picture.split("/");
    const { id } = await post(`./api/jobs/${job}/without`, { lora: name, picture: Number(place) });
    await end(id);
    const answer = await fetch(`./api/jobs/${id}/images/0`);
    if (!answer.ok) throw new Error(answer.statusText);
    return URL.createObjectURL(await answer.blob());
  };
  const find = (picture, name) => {
    const key = `${picture}\n${name}`;
    if (!known.has(key)) {
      const found = draw(picture, name);
      known.set(key, found);
      found.catch(() => known.delete(key)); // it is tried again
      for (const old of [...known.keys()].slice(0, -KEPT)) {
        known.get(old).then(URL.revokeObjectURL, () => {});
        known.delete(old);
      }
    }
    return known.get(key);
  };

  const show = async (mine) => {
    const { page, name, chip } = mine;
    const picture = window.darkroom.chosenPicture(page);
    const place = document.querySelector(`#${page}-gallery`)?.closest(".picture");
    mine.began = true;
    if (!picture || !place || !window.darkroomPicture.chosen(page)) return;
    chip.dataset.held = "";
    const note = make("p", { role: "status" }, `Drawing it without ${name} ...`);
    mine.overlay = make("div", { class: "flip" }, note);
    place.append(mine.overlay);
    try {
      const image = make("img", { src: await find(picture, name), alt: `The picture without ${name}` });
      await image.decode();
      mine.overlay.prepend(image);
      note.textContent = `Without ${name}`;
    } catch (error) {
      note.textContent = error.message;
    }
  };
  const release = () => {
    if (!held) return;
    clearTimeout(held.timer);
    held.overlay?.remove();
    delete held.chip.dataset.held;
    held = null;
  };
  const hold = (button) => {
    release();
    const chip = button.closest(".chip");
    held = { chip, page: button.closest(".chips").dataset.page, name: chip.dataset.name, began: false };
    held.timer = setTimeout(show, HOLD_MS, held);
  };
  const chipOf = (target) => target.closest?.("[data-name] > .chip-open"); // a LoRA's

  let swallow = false; // the click that follows a hold
  addEventListener("pointerdown", ({ target, button }) => {
    swallow = false;
    if (button === 0 && chipOf(target)) hold(chipOf(target));
  });
  for (const kind of ["pointerup", "pointercancel", "blur"]) {
    addEventListener(kind, () => {
      swallow = Boolean(held?.began);
      release();
    });
  }
  addEventListener("click", (event) => {
    if (!swallow || !chipOf(event.target)) return;
    swallow = false;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  addEventListener("contextmenu", (event) => held && event.preventDefault()); // of a long touch
  // Space and Enter are pressed when they are let go, so that they can be held.
  const isPress = ({ key, target, ctrlKey, altKey, metaKey }) => (key === " " || key === "Enter") && !ctrlKey && !altKey && !metaKey && chipOf(target);
  addEventListener("keydown", (event) => {
    if (!isPress(event)) return;
    event.preventDefault();
    if (!event.repeat) hold(chipOf(event.target));
  });
  addEventListener("keyup", (event) => {
    if (!isPress(event) || !held) return;
    event.preventDefault();
    const pressed = !held.began;
    release();
    if (pressed) chipOf(event.target).click();
  });
})();
