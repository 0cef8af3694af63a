// The History tab's dialogs: one picture large, two under a wipe with the settings that differ.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const address = (picture, part = "") => `./api/history/${picture.id}${part}`;
  const title = (picture) => picture.prompt || picture.name;

  const request = async (url, method = "GET", body = undefined) => {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail ?? answer.statusText);
    return told;
  };

  // One picture. `neighbour(step)` gives the one beside it, `position()` tells where it stands.
  const createView = (dialog, { neighbour, position }) => {
    let open = null;
    const part = (selector) => dialog.querySelector(selector);
    const mark = () => {
      if (!open) return;
      part("[data-act=favourite]").setAttribute("aria-pressed", String(open.favourite));
      // Not disabled, which would take the focus away, and the keys with it.
      part("[data-act=previous]").setAttribute("aria-disabled", String(!position(-1)));
      part("[data-act=next]").setAttribute("aria-disabled", String(!position(1)));
      part(".history-place").textContent = position(0);
    };
    const show = async (picture) => {
      open = picture;
      const image = part("img");
      Object.assign(image, { src: address(picture, "/picture"), alt: title(picture) });
      Object.assign(part("a"), { href: address(picture, "/picture"), download: picture.name });
      const when = new Date(picture.made_at).toLocaleString();
      part(".history-facts").textContent = `${picture.name} · ${picture.width} × ${picture.height} · ${when}`;
      part("pre").textContent = "";
      part("[data-act=copy]").disabled = !picture.prompt;
      part("[data-act=reuse]").disabled = !picture.model; // the first page takes settings alone
      mark();
      if (!dialog.open) dialog.showModal();
      const { infotext, problem } = await request(address(picture));
      if (open === picture) part("pre").textContent = infotext || problem || "No settings are in this picture.";
    };
    const step = async (by) => {
      const from = open;
      const next = position(by) && (await neighbour(by));
      if (next && open === from) await show(next);
    };
    const copy = async () => {
      const text = open.prompt;
      let done = false;
      try {
        await navigator.clipboard.writeText(text);
        done = true;
      } catch { // not over a secure connection
        const box = make("textarea", { "aria-hidden": "true" });
        box.value = text;
        dialog.append(box);
        box.select();
        done = document.execCommand("copy");
        box.remove();
        part("[data-act=copy]").focus();
      }
      part(".history-facts").textContent = done ? "The prompt is copied." : "This browser does not let pages copy.";
    };
    dialog.addEventListener("close", () => (open = null));
    return {
      show,
      step,
      copy,
      mark,
      get open() {
        return open;
      },
      say: (text) => (part(".history-facts").textContent = text),
    };
  };

  // Two pictures under one wipe, and what their settings differ in.
  const createComparison = (dialog) => {
    let pair = [];
    const stage = dialog.querySelector(".history-stage");
    const range = dialog.querySelector("input");
    const wipe = (percent) => {
      range.value = percent;
      stage.style.setProperty("--wipe", `${percent}%`);
    };
    const facts = dialog.querySelector(".history-facts");
    const table = dialog.querySelector("table");
    const tell = async ([left, right]) => {
      table.hidden = true;
      const told = await request(`${address(left)}/differences/${right.id}`);
      if (pair[0] !== left || pair[1] !== right) return;
      const rows = told.differences.map(({ name, one, other }) =>
        make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, one), make("td", {}, other)));
      table.querySelector("tbody").replaceChildren(...rows);
      table.hidden = !rows.length;
      if (told.problem || !rows.length) facts.append(` ${told.problem || "All settings are the same."}`);
    };
    const show = async (left, right) => {
      pair = [left, right];
      pair.forEach((picture, k) => {
        Object.assign(stage.querySelectorAll("img")[k], { src: address(picture, "/picture"), alt: title(picture) });
      });
      facts.textContent = `Left: ${title(left)} · Right: ${title(right)}`;
      wipe(50);
      if (!dialog.open) dialog.showModal();
      range.focus();
      await tell(pair);
    };
    const drag = (event) => {
      if (!event.buttons) return;
      event.preventDefault();
      const { left, width } = stage.getBoundingClientRect();
      wipe(Math.round(Math.min(Math.max((event.clientX - left) / width, 0), 1) * 100));
    };
    range.addEventListener("input", () => wipe(range.value));
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      drag(event);
    });
    stage.addEventListener("pointermove", drag);
    return { show, swap: () => show(pair[1], pair[0]) };
  };

  window.darkroomView = { request, address, title, createView, createComparison };
})();
